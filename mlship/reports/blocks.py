"""Blocks of Markdown: a table, a folded part. What goes in is Markdown already."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def folded(summary: str, body: str) -> str:
    """Return a part that a click opens."""
    # The empty lines let Markdown be read inside HTML.
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"
