"""The head of a data file, read without pandas: whether it parses, and which columns it has."""

import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from mlship.adapters.checkout import datafiles, tables
from mlship.config.data import DataConfig, ReadConfig
from mlship.config.explain import hint_of_reading
from mlship.errors import ProjectError

_READ: Final = 300_000
_LINES: Final = 200
_SEPARATORS: Final = (",", ";", "\t", "|")
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_SHOWN: Final = 20
_CORRECT: Final = "correct the row, or say in data.read of mlship.yaml how the CSV file is written"


def check(root: Path, config: DataConfig) -> None:
    """Check that the files of a project's data parse, and have the target.

    Only the heads of text files in the project are read; what is at an address is left out.

    Raises:
        ProjectError: a file has another separator or encoding, or no such column.
    """
    for text in filter(None, (config.train, config.test)):
        if "://" in text or tables.is_table(root, text):
            continue
        columns = _columns(root, text, config.read)
        missing = [target for target in config.targets if target not in columns]
        if columns and missing:
            what = "the target" if len(config.targets) == 1 else "a target"
            near = get_close_matches(missing[0], columns, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are: {_some(columns)}"
            raise ProjectError(f"data file {text} has no column {missing[0]}, {what}", hint=hint)


def check_separator(root: Path, text: str, config: ReadConfig) -> None:
    """Refuse a CSV file whose first lines have as many fields each by another separator only.

    Raises:
        ProjectError: it has; or it is in another encoding.
    """
    _checked(text, _lines(root, text, config), config)


def _columns(root: Path, text: str, config: ReadConfig) -> Sequence[str]:
    """Return the columns of a file; none if they are not known."""
    name = datafiles.name_of(text).removesuffix(".gz")
    if name.endswith(".csv"):
        rows = _checked(text, _lines(root, text, config), config)
        return rows[0] if rows else ()
    if name.endswith((".jsonl", ".ndjson", ".json")):
        lines = _lines(root, text, config)
        try:
            row = json.loads(next((line for line in lines if line.strip()), "{}"))
        except (ValueError, RecursionError) as error:
            message = f"data file {text} cannot be read: line 1: {error}"
            raise ProjectError(message, hint="write one JSON object on each line") from error
        return tuple(row) if isinstance(row, dict) else ()
    return ()


def _checked(text: str, lines: Sequence[str], config: ReadConfig) -> list[list[str]]:
    """Return the rows of a CSV file by the separator that is set, which fits them.

    Raises:
        ProjectError: another separator fits them, or a row has more fields than the header.
    """
    rows = _parsed(lines, config.sep)
    width = len(rows[0]) if rows else 0
    longer = next((number for number, row in enumerate(rows) if len(row) > width), None)
    if longer is None and width != 1:
        return rows
    for separator in _SEPARATORS:
        other = _parsed(lines, separator)
        widths = {len(row) for row in other}
        if separator != config.sep and len(other) > 1 and len(widths) == 1 and widths != {1}:
            message = f"data file {text} has another separator than {config.sep!r}: its first line "
            message += f"is {lines[0].strip()[:80]!r}"
            raise ProjectError(message, hint=hint_of_reading(config, sep=separator))
    if longer is not None and config.index_col is None:
        message = f"data file {text} cannot be read: row {longer} has {len(rows[longer])} fields, "
        message += f"and the header {width}"
        raise ProjectError(message, hint=_CORRECT)
    return rows


def _parsed(lines: Sequence[str], separator: str) -> list[list[str]]:
    try:
        return [row for row in csv.reader(lines, delimiter=separator) if row]
    except csv.Error:
        return []


def _lines(root: Path, text: str, config: ReadConfig) -> list[str]:
    """Return the first lines of a file, whole ones.

    Raises:
        ProjectError: it is missing, or in another encoding.
    """
    with datafiles.opened(root, text) as file:
        try:
            zipped = datafiles.name_of(text).endswith(".gz")
            data = gzip.GzipFile(fileobj=file).read(_READ) if zipped else file.read(_READ)
        except (OSError, EOFError, zlib.error) as error:
            message = f"data file {text} cannot be read: {error}"
            raise ProjectError(message, hint="write the file again") from error
    encoding = config.encoding or ("utf-16" if data[:2] in _UTF16 else "utf-8-sig")
    is_cut = len(data) == _READ
    try:
        # A character may be cut off as well.
        decoded = codecs.getincrementaldecoder(encoding)().decode(data, final=not is_cut)
    except UnicodeDecodeError as error:
        message = f"data file {text} is not in {error.encoding}: byte {error.start} is "
        message += f"0x{data[error.start]:02x}"
        hint = hint_of_reading(config, encoding="latin-1")
        raise ProjectError(message, hint=f"{hint}, or its own encoding") from error
    except LookupError:  # training names an unknown encoding
        return []
    lines = decoded.splitlines(keepends=True)
    return (lines[:-1] if is_cut else lines)[:_LINES]


def _some(columns: Sequence[str]) -> str:
    return ", ".join(columns[:_SHOWN])
