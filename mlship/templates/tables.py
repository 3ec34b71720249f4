"""The head of a data file: its columns, and the values of its first rows."""

import csv
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from mlship import files

_READ: Final = 300_000
_DELIMITERS: Final = ",;\t|"


class Head(NamedTuple):
    """The head of a table.

    Attributes:
        columns: in their order; none if they are not known.
        rows: the first rows as texts, by column.
    """

    columns: tuple[str, ...] = ()
    rows: tuple[Mapping[str, str], ...] = ()


def head_of(path: Path) -> Head:
    """Return the head of a CSV file or of JSON lines; an empty one of any other file."""
    try:
        text = _text_of(path)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return Head()
    # The last line may be cut off.
    lines = text.splitlines(keepends=True)[:-1] if len(text) >= _READ else text.splitlines()
    name = path.name.removesuffix(".gz")
    return _of_json(lines) if name.endswith(".jsonl") else _of_csv(lines)


def _text_of(path: Path) -> str:
    """Return the beginning of a file, whole characters of it.

    Raises:
        OSError: it is no regular file, or cannot be read; so are EOFError and zlib.error.
        UnicodeDecodeError: it is no text in UTF-8.
    """
    data = files.read_regular(path, _READ)
    if path.name.endswith(".gz"):
        data = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, _READ)
    elif not path.name.endswith((".csv", ".tsv", ".jsonl")):
        return ""
    if len(data) >= _READ:
        data = data[: data.rfind(b"\n") + 1] + b"\n" * _READ
    return data.decode("utf-8-sig")


def _of_json(lines: list[str]) -> Head:
    rows = []
    for line in lines:
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            return Head()
        if isinstance(row, dict):
            rows.append({name: "" if value is None else str(value) for name, value in row.items()})
    return Head(columns=tuple(rows[0]) if rows else (), rows=tuple(rows))


def _of_csv(lines: list[str]) -> Head:
    first = lines[0] if lines else ""
    delimiter = max(_DELIMITERS, key=first.count)
    try:
        listed = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return Head()
    columns = tuple(listed[0]) if listed else ()
    rows = tuple(dict(zip(columns, row, strict=False)) for row in listed[1:] if row)
    return Head(columns=columns, rows=rows)
