"""The project's own tables, texts and pictures in a report. All of their text is hostile."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from mlship.domain.attachments import FILES_MOST, Attachment, Attachments
from mlship.domain.job import inert
from mlship.reports.formatting import escaped, folded, table

FOLDER: Final = "attachments/"
PLOTS: Final = "plots/"
"""Pictures are named by their path in the folder of a report: mlship's own, and the project's."""

_LINES_MOST: Final = 20
_FENCES = re.compile(r"`{3,}")


def picture(name: str, url: str) -> str:
    """Return a picture; its name is shown where the picture cannot be."""
    return f"![{escaped(name, 80)}]({quote(url, safe='/:.~-_?=&%')})"


def shown(attachment: Attachment, pictures: Mapping[str, str]) -> str:
    """Return a file as Markdown: a table, a block of text, or a picture if it has a URL.

    Args:
        attachment: the file.
        pictures: URLs of pictures that readers can open, by their path in the report's folder.
    """
    title = f"**{escaped(attachment.path, 120)}**"
    match attachment.kind:
        case "picture":
            url = pictures.get(FOLDER + attachment.place)
            return f"{title}\n\n{picture(attachment.path, url)}" if url else ""
        case "table":
            return f"{title}{_extent(attachment)}\n\n{_table(attachment)}"
        case "text":
            more = " (its first lines)" if attachment.is_cut else ""
            return folded(f"{escaped(attachment.path, 120)}{more}", _block(attachment.text))


def said(attachments: Attachments, pictures: Mapping[str, str], run: str) -> str:
    """Return what is not shown, and why; empty if all is.

    Args:
        attachments: of the release.
        pictures: as for `shown`.
        run: the page of the CI run, which has the pictures among its artifacts.
    """
    lines = [f"- {escaped(line, 300)}" for line in attachments.missing[:_LINES_MOST]]
    names = [
        file.path
        for file in attachments.files[:FILES_MOST]
        if file.kind == "picture" and FOLDER + file.place not in pictures
    ]
    if names:
        place = f"among [the run's artifacts]({run}#artifacts)" if run else "not shown here"
        lines.append(f"- {', '.join(escaped(name, 120) for name in names)}: {place}")
    return "Of `report.include`:\n\n" + "\n".join(lines) if lines else ""


def _extent(attachment: Attachment) -> str:
    if not attachment.is_cut:
        return ""
    rows = len(attachment.cells) - 1
    columns = max(map(len, attachment.cells), default=0)
    return (
        f" ({min(rows, attachment.rows)} of {attachment.rows} rows, "
        f"{min(columns, attachment.columns)} of {attachment.columns} columns)"
    )


def _table(attachment: Attachment) -> str:
    if not attachment.cells:
        return "It is empty."
    width = max(map(len, attachment.cells))
    header, *rows = [[*row, *[""] * (width - len(row))] for row in attachment.cells]
    return table(
        [escaped(cell, 60) or " " for cell in header],
        [[escaped(cell, 60) for cell in row] for row in rows],
    )


def _block(text: str) -> str:
    """Return text in a fence that is longer than any in it, so that nothing ends it.

    Nothing in it is a command to a runner that prints it.
    """
    fence = "`" * max((len(match) + 1 for match in _FENCES.findall(text)), default=3)
    return f"{fence}text\n{inert(text)}\n{fence}"
