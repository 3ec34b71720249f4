"""A report that is shortened to a limit: details are omitted first, the verdict never."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from mlship.reports.markdown import NO_PICTURES, Part, parts
from mlship.reports.report import Report

COMMENT_LIMIT: Final = 65_536 - 256
"""Characters of a comment or a pull request's text, with space for a mark."""


def characters(text: str) -> int:
    """Return the length in UTF-16 code units, which is the most that GitHub may count."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def octets(text: str) -> int:
    """Return the length in bytes as UTF-8."""
    return len(text.encode())


def fitted(
    report: Report,
    limit: int,
    *,
    pictures: Mapping[str, str] = NO_PICTURES,
    run: str = "",
    measure: Callable[[str], int] = characters,
) -> str:
    """Return the report as Markdown, shortened to a limit.

    Omitted parts are listed, with where to read them. Details are omitted first, from the last one
    on; then the other parts from the end. The verdict and the summary are always kept.

    Args:
        report: the report to show.
        limit: the maximum of `measure`; if not even the verdict fits, the text is empty.
        pictures: URLs of pictures that a reader of it can open; see `markdown.render`.
        run: the page of the CI run, whose artifacts have the plots and the full report.
        measure: returns the length of a text.
    """
    kept = list(parts(report, pictures=pictures, run=run))
    dropped: list[str] = []
    text = _joined(kept, dropped, run)
    while measure(text) > limit:
        if len(kept) == 1:
            return ""
        details = [index for index, part in enumerate(kept) if part.is_detail]
        dropped.insert(0, kept.pop(details[-1] if details else -1).name)
        text = _joined(kept, dropped, run)
    return text


def _joined(kept: Sequence[Part], dropped: Sequence[str], run: str) -> str:
    texts = [part.text for part in kept]
    if dropped:
        full = f"the [run]({run})" if run else "`mlship report`"
        texts.append(f"Omitted for length: {', '.join(dropped)}. For the full report, see {full}.")
    return "\n\n".join(texts) + "\n"
