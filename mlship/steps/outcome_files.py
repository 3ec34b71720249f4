"""Outcomes as people give them: typed, or in a CSV or JSON lines file."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from mlship.domain.bundle import Value
from mlship.domain.prediction import Truth
from mlship.errors import NotFoundError, ProjectError

_IDS = ("prediction_id", "prediction", "id")
_LINE = 'write one object on each line: {"prediction_id": "...", "outcome": "..."}'
_TIME = "outcome_time"
_OTHERS = (".gz", ".bz2", ".xz", ".zst", ".zip", ".parquet", ".pq", ".xlsx", ".xls", ".avro")
"""Endings of files that people may take for a file of outcomes."""
_VALUES = ("outcome", "label", "value", "actual")


class Received(msgspec.Struct, frozen=True, gc=False):
    """An outcome as somebody gave it. A file may have millions.

    Attributes:
        name: the id of the prediction, or what a column of a batch has for its row.
        source: the file or the topic; empty for one that was typed.
        line: of the file; 0 for one that has none.
        time: when it was known, with a time zone; `None` if nobody said.
    """

    name: str
    value: Truth
    source: str = ""
    line: int = 0
    time: datetime | None = None

    @property
    def place(self) -> str:
        """The file and the line, or the place in a topic."""
        return _place(self.source, self.line)

    @property
    def subject(self) -> str:
        """The words for it in an error."""
        return f"{self.place}: " * bool(self.place) + f"the outcome of {self.name[:60]}"


def _place(source: str, line: int) -> str:
    return f"{source}:{line}" if line else source


def example(targets: Sequence[str]) -> str:
    """Return how an outcome of several targets is written."""
    values = ", ".join(f'"{target}": ...' for target in targets[:3])
    return f"give an object such as {{{values}}}, or a column for each target in a CSV file"


def parsed(text: str, targets: Sequence[str]) -> Truth:
    """Return an outcome that a person typed: a value, or a JSON object for several targets.

    Raises:
        ProjectError: there are several targets, and it is not an object.
    """
    if len(targets) <= 1:
        return text
    try:
        return msgspec.json.decode(text, type=dict[str, Value])
    except msgspec.DecodeError as error:
        message = f"the outcome {text[:60]} is not a JSON object: {error}"
        raise ProjectError(message, hint=example(targets)) from error


def read(path: Path, targets: Sequence[str], key: str = "") -> list[Received]:
    """Return the outcomes of a CSV or JSON lines file.

    It needs a column `prediction_id` (or `prediction`, `id`) and a column `outcome` (or `label`,
    `value`, `actual`). With several targets it may have a column for each of them instead, empty
    where the true value is not known. A value in a CSV file is text and is compared as the
    prediction's own type. A column `outcome_time` is optional: when the true value was known.

    Args:
        path: of the file.
        targets: of the project.
        key: the column that names rows of a batch, instead of the ids of predictions.

    Raises:
        NotFoundError: there is no such file.
        ProjectError: a line lacks one of them, or has no value, or has more fields than the
            header; the message has file and line.
    """
    is_json = path.suffix in (".jsonl", ".ndjson")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _json_lines(file, path) if is_json else _csv(file, path)
            source = str(path)
            outcomes = [outcome_of(row, source, targets, key, line) for line, row in rows]
    except FileNotFoundError as error:
        raise NotFoundError(
            f"file {path} does not exist", hint="give a CSV or JSON lines file"
        ) from error
    except UnicodeDecodeError as error:
        message, hint = f"cannot read {path}: {error}", "use a readable file with UTF-8 text"
        if others := [ending for ending in _OTHERS if path.name.lower().endswith(ending)]:
            message = f"{path} is a {others[0]} file, and outcomes are CSV or JSON lines"
            hint = "decompress it, or write it as CSV: to_csv(..., index=False) of pandas"
        raise ProjectError(message, hint=hint) from error
    except (OSError, csv.Error) as error:
        raise ProjectError(
            f"cannot read {path}: {error}", hint="use a readable file with UTF-8 text"
        ) from error
    if not outcomes:
        raise ProjectError(
            f"{path} has no outcomes", hint="write a header, then one line for each outcome"
        )
    return outcomes


def _csv(lines: Iterable[str], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    # A quote within a field would take the lines up to the next one into it.
    reader = csv.DictReader(lines, strict=True)
    names = reader.fieldnames or []
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        message = f"{path}:1: the header has {', '.join(twice)[:60]} twice"
        raise ProjectError(message, hint="leave one column of each name")
    for row in reader:
        if None in row:
            count = len(names) + len(row[None])
            message = f"{path}:{reader.line_num}: the line has {count} fields, and the header "
            message += str(len(names))
            raise ProjectError(message, hint="put a value that contains a comma in quotes")
        yield reader.line_num, row


def _json_lines(lines: Iterable[str], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ProjectError(f"{path}:{number}: not JSON: {error}", hint=_LINE) from error
        yield number, row if isinstance(row, dict) else {}


def outcome_of(
    row: Mapping[str, Any], source: str, targets: Sequence[str], key: str = "", line: int = 0
) -> Received:
    """Return the outcome of a row; its columns are those that `read` names.

    Args:
        row: of a file or a topic.
        source: its name.
        targets: of the project.
        key: the column that names rows of a batch.
        line: of the file.

    Raises:
        ProjectError: it lacks one of them, or has no value.
    """
    name = _name(row, key)
    columns = (each for each in _VALUES if each != key and row.get(each) not in (None, ""))
    value = next((row[each] for each in columns), None)
    if value is None and len(targets) > 1:
        value = {each: row[each] for each in targets if row.get(each) not in (None, "")} or None
    if not name or value is None:
        wanted = "outcome" if len(targets) <= 1 else ", ".join(targets)
        raise ProjectError(
            f"{_place(source, line)}: {key or 'prediction_id'} or outcome is missing",
            hint=f"name the columns {key or 'prediction_id'} and {wanted}",
        )
    try:
        checked: Truth = msgspec.convert(value, Truth)
    except msgspec.ValidationError as error:
        place = _place(source, line)
        message = f"{place}: the outcome of {name[:60]} is not a value: {error}"
        raise ProjectError(message, hint=_LINE) from error
    if isinstance(checked, str):
        checked = sys.intern(checked)  # a million outcomes have few labels
    return Received(name, checked, source, line, _time(row.get(_TIME), source, line))


def _name(row: Mapping[str, Any], key: str) -> str:
    """Return the id of the prediction, or the key as text; empty if the row has none."""
    if not key:
        name = next((row[each] for each in _IDS if row.get(each)), None)
        return name if isinstance(name, str) else ""
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else ""


def _time(text: object, source: str, line: int) -> datetime | None:
    if text in (None, ""):
        return None
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        message = (
            f"{_place(source, line)}: {_TIME} is not a time with a time zone: {str(text)[:40]}"
        )
        raise ProjectError(message, hint="write it such as 2026-11-21T12:00:00+00:00")
    return time
