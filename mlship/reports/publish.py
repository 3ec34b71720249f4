"""A report cut to the room that a place has: details go first, the verdict never."""

from collections.abc import Callable, Sequence
from typing import Final

from mlship.reports.markdown import Part, parts
from mlship.reports.report import Report

COMMENT_LIMIT: Final = 65_536 - 256
"""Characters of a comment or a pull request's text, with room for a mark."""


def characters(text: str) -> int:
    """Return how many characters GitHub counts at most: one outside of the first plane is two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def octets(text: str) -> int:
    """Return how many bytes a file of the text has."""
    return len(text.encode())


def fitted(
    report: Report, limit: int, *, run: str = "", measure: Callable[[str], int] = characters
) -> str:
    """Return the report as Markdown that is no longer than a limit.

    What is left out is named, with where to read it. Details go first, the last ones before the
    others; then the rest from its end. Verdict and summary always stay.

    Args:
        report: what to show.
        limit: the most that `measure` may count; where not even the verdict fits, nothing is left.
        run: the page of the CI run, whose artifacts hold the plots and the whole report.
        measure: tells the length of a text.
    """
    kept = list(parts(report, run=run))
    dropped: list[str] = []
    text = _joined(kept, dropped, run)
    while measure(text) > limit:
        if len(kept) == 1:
            return ""
        details = [place for place, part in enumerate(kept) if part.is_detail]
        dropped.insert(0, kept.pop(details[-1] if details else -1).name)
        text = _joined(kept, dropped, run)
    return text


def _joined(kept: Sequence[Part], dropped: Sequence[str], run: str) -> str:
    texts = [part.text for part in kept]
    if dropped:
        where = f"; the [run]({run}) has all of it" if run else "; `mlship report` shows all of it"
        texts.append(f"Left out for its length: {', '.join(dropped)}{where}.")
    return "\n\n".join(texts) + "\n"
