"""The files of the project that `report.include` names, taken when a training has ended."""

import csv
import io
import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from mlship import files
from mlship.domain import digests
from mlship.domain.attachments import (
    FILES_MOST,
    KINDS,
    PICTURE_MOST,
    Attachment,
    Attachments,
    fault_of_picture,
    is_inside,
    kind_of,
)

FOLDER: Final = "attachments"
"""Of mlship's own folder, and in the store's run of a release."""

_READ_MOST: Final = 1_000_000
_LISTED_MOST: Final = 1_000
_TEXT_MOST: Final = 4_000
_LINES_MOST: Final = 60
_ROWS_MOST: Final = 20
_COLUMNS_MOST: Final = 12
_CELL_MOST: Final = 60


def take(root: Path, patterns: Sequence[str], into: Path) -> Attachments:
    """Copy the files that globs name into a folder, each to its place.

    A file that cannot be shown is no error after a training: it is said under `missing`.

    Args:
        root: the project's folder; nothing outside of it is read, by links either.
        patterns: globs below it.
        into: the folder, which need not exist.

    Raises:
        OSError: the folder cannot be written.
    """
    taken: list[Attachment] = []
    missing: list[str] = []
    known: set[str] = set()
    for pattern in patterns:
        paths = list(_matches(root, pattern))
        if not paths:
            missing.append(f"{pattern}: no file matches")
        for path in paths:
            name = path.relative_to(root).as_posix()
            if name in known:
                continue
            known.add(name)
            if len(taken) == FILES_MOST:
                missing.append(f"{name}: a report shows {FILES_MOST} files")
                continue
            fault, content = _content(root, path, name)
            if fault:
                missing.append(f"{name}: {fault}")
                continue
            attachment = _attachment(name, content)
            goal = into / attachment.place
            goal.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomically(goal, content)
            taken.append(attachment)
    return Attachments(files=tuple(taken), missing=tuple(missing[:_ROWS_MOST]))


def _matches(root: Path, pattern: str) -> Iterator[Path]:
    """Yield the files below `root` that a glob names, sorted; none of git's and mlship's own."""
    if not is_inside(pattern):
        return
    try:
        paths = sorted(itertools.islice(root.glob(pattern), _LISTED_MOST))
    except (OSError, ValueError, NotImplementedError):
        return
    for path in paths:
        if path.relative_to(root).parts[0] not in (".git", ".mlship") and not path.is_dir():
            yield path


def _content(root: Path, path: Path, name: str) -> tuple[str, bytes]:
    """Return why a file cannot be shown, or its content."""
    kind = kind_of(name)
    if kind is None:
        return f"reports show {', '.join(sorted(KINDS))}", b""
    most = PICTURE_MOST if kind == "picture" else _READ_MOST
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(root.resolve()):
            return "it is a link to a file outside of the project", b""
        content = files.read_regular(real, most + 1)
    except (OSError, RuntimeError) as error:  # the latter for links in a circle, before Python 3.13
        reason = error.strerror if isinstance(error, OSError) else "it is a link to itself"
        return f"it cannot be read: {reason}", b""
    if kind != "picture" and len(content) > most:
        return f"it is larger than {most / 1e6:g} MB", b""
    return fault_of_picture(content) if kind == "picture" else "", content


def _attachment(name: str, content: bytes) -> Attachment:
    digest, size = digests.of_bytes(content), len(content)
    kind = kind_of(name)
    if kind == "picture":
        return Attachment(path=name, digest=digest, size=size)
    text = content.decode("utf-8-sig", errors="replace")
    if kind == "table":
        cells, rows, columns = _table(text, "\t" if name.lower().endswith(".tsv") else ",")
        return Attachment(
            path=name,
            digest=digest,
            size=size,
            cells=cells,
            rows=rows,
            columns=columns,
            is_cut=rows >= len(cells) > 0 or columns > _COLUMNS_MOST,
        )
    lines = [_visible(line) for line in text[: 2 * _TEXT_MOST].splitlines()]
    excerpt = "\n".join(lines[:_LINES_MOST])[:_TEXT_MOST].rstrip()
    is_cut = len(lines) > _LINES_MOST or len(text.rstrip()) > _TEXT_MOST
    return Attachment(path=name, digest=digest, size=size, text=excerpt, is_cut=is_cut)


def _table(text: str, separator: str) -> tuple[tuple[tuple[str, ...], ...], int, int]:
    """Return the header with the first rows, the number of rows, and that of columns."""
    first: list[tuple[str, ...]] = []
    rows = columns = length = 0
    try:
        for row in filter(None, csv.reader(io.StringIO(text), delimiter=separator)):
            rows += 1
            columns = max(columns, len(row))
            cells = tuple(_visible(cell)[:_CELL_MOST] for cell in row[:_COLUMNS_MOST])
            length += sum(map(len, cells))
            if len(first) <= _ROWS_MOST and (length <= _TEXT_MOST or not first):
                first.append(cells)
    except csv.Error:  # such as a field of more than 128 kB: what came before it is shown
        rows += 1
    return tuple(first), max(rows - 1, 0), columns


def _visible(line: str) -> str:
    """Return a line without control characters, which could hide what a reader should see."""
    return "".join(
        letter if letter == "\t" or unicodedata.category(letter)[0] != "C" else " "
        for letter in line
    )
