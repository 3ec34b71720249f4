"""feedback: record the outcomes of predictions."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mlship.domain.bundle import Value
from mlship.domain.prediction import Outcome, Taken, Truth
from mlship.errors import NotFoundError, ProjectError
from mlship.steps.pipeline import Pipeline

_IDS = ("prediction_id", "prediction", "id")
_LINE = 'write one object on each line: {"prediction_id": "...", "outcome": "..."}'
_VALUES = ("outcome", "label", "value", "actual")


def feedback(pipeline: Pipeline, outcomes: Sequence[tuple[str, Truth]]) -> Taken:
    """Record outcomes. It is idempotent: an outcome that is known already changes nothing.

    With several targets, an outcome is the true value of each target that is known.

    Raises:
        ProjectError: an outcome is not of this project's targets.
        NotFoundError: none of the predictions is in a log.
        ConflictError: a prediction already has a different outcome, or is another project's;
            nothing was added.
        UnavailableError: the outcomes cannot be written.
    """
    for name, value in outcomes:
        _check(name, value, pipeline.config.data.targets)
    now = pipeline.clock()
    result = pipeline.observations.take(
        [Outcome(prediction=name, value=value, time=now) for name, value in outcomes],
        pipeline.read().ids,
    )
    if result.unknown and not result.new + result.known:
        shown = ", ".join(name[:60] for name in result.unknown[:5])
        more = f" and {len(result.unknown) - 5} more" if len(result.unknown) > 5 else ""
        raise NotFoundError(
            f"no such predictions in the log of production: {shown}{more}",
            hint="copy the id from a response of production; it ends in .0",
        )
    return result


def _check(name: str, outcome: Truth, targets: Sequence[str]) -> None:
    if not targets:
        message = "the project predicts no target, so its predictions have no outcomes"
        raise ProjectError(message, hint="`mlship approve` and `mlship promote` need none")
    is_one = len(targets) == 1
    if not isinstance(outcome, dict):
        if is_one:
            return
        message = f"the outcome of {name[:60]} is one value, and the project has the targets "
        message += ", ".join(targets)
        raise ProjectError(message, hint=_example(targets))
    foreign = [target for target in outcome if target not in targets]
    if is_one or foreign or not outcome:
        what = f"is of {foreign[0]}" if foreign and not is_one else "is an object"
        message = f"the outcome of {name[:60]} {what}, and the project predicts "
        message += ", ".join(targets)
        raise ProjectError(message, hint="give its true value" if is_one else _example(targets))


def _example(targets: Sequence[str]) -> str:
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
        raise ProjectError(message, hint=_example(targets)) from error


def read(path: Path, targets: Sequence[str]) -> list[tuple[str, Truth]]:
    """Return the outcomes of a CSV or JSON lines file.

    It needs a column `prediction_id` (or `prediction`, `id`) and a column `outcome` (or `label`,
    `value`, `actual`). With several targets it may have a column for each of them instead, empty
    where the true value is not known. A value in a CSV file is text and is compared as the
    prediction's own type.

    Raises:
        NotFoundError: there is no such file.
        ProjectError: a line lacks one of them; the message has the file and the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise NotFoundError(
            f"file {path} does not exist", hint="give a CSV or JSON lines file"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(
            f"cannot read {path}: {error}", hint="use a readable file with UTF-8 text"
        ) from error
    rows = _json_lines(text, path) if path.suffix in (".jsonl", ".ndjson") else _csv(text)
    if not rows:
        raise ProjectError(
            f"{path} has no outcomes", hint="write a header, then one line for each outcome"
        )
    return [_outcome(row, f"{path}:{line}", targets) for line, row in rows]


def _csv(text: str) -> list[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(text.splitlines())
    return [(reader.line_num, dict(row)) for row in reader]


def _json_lines(text: str, path: Path) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ProjectError(f"{path}:{number}: not JSON: {error}", hint=_LINE) from error
        rows.append((number, row if isinstance(row, dict) else {}))
    return rows


def _outcome(row: Mapping[str, Any], place: str, targets: Sequence[str]) -> tuple[str, Truth]:
    name = next((row[key] for key in _IDS if row.get(key)), None)
    value = next((row[key] for key in _VALUES if row.get(key) not in (None, "")), None)
    if value is None and len(targets) > 1:
        value = {key: row[key] for key in targets if row.get(key) not in (None, "")} or None
    if not isinstance(name, str) or value is None:
        columns = "outcome" if len(targets) <= 1 else ", ".join(targets)
        raise ProjectError(
            f"{place}: prediction_id or outcome is missing",
            hint=f"name the columns prediction_id and {columns}",
        )
    return name, value
