"""feedback: record the outcomes of predictions."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from mlship.domain.bundle import Value
from mlship.domain.prediction import Outcome, Taken
from mlship.errors import NotFoundError, ProjectError
from mlship.steps.pipeline import Pipeline

_IDS = ("prediction_id", "prediction", "id")
_LINE = 'write one object on each line: {"prediction_id": "...", "outcome": "..."}'
_VALUES = ("outcome", "label", "value", "actual")


def feedback(pipeline: Pipeline, outcomes: Sequence[tuple[str, Value]]) -> Taken:
    """Record outcomes. It is idempotent: an outcome that is known already changes nothing.

    Raises:
        NotFoundError: none of the predictions is in a log.
        ConflictError: a prediction already has a different outcome; nothing was added.
        UnavailableError: the outcomes cannot be written.
    """
    now = pipeline.clock()
    result = pipeline.observations.take(
        [Outcome(prediction=name, value=value, time=now) for name, value in outcomes]
    )
    if result.unknown and not result.new + result.known:
        shown = ", ".join(name[:60] for name in result.unknown[:5])
        more = f" and {len(result.unknown) - 5} more" if len(result.unknown) > 5 else ""
        raise NotFoundError(
            f"no such predictions in the log of production: {shown}{more}",
            hint="copy the id from a response of production; it ends in .0",
        )
    return result


def read(path: Path) -> list[tuple[str, Value]]:
    """Return the outcomes of a CSV or JSON lines file.

    It needs a column `prediction_id` (or `prediction`, `id`) and a column `outcome` (or `label`,
    `value`, `actual`). A value in a CSV file is text and is compared as the prediction's own type.

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
    return [_outcome(row, f"{path}:{line}") for line, row in rows]


def _csv(text: str) -> list[tuple[int, dict[str, Value]]]:
    reader = csv.DictReader(text.splitlines())
    return [(reader.line_num, dict(row)) for row in reader]


def _json_lines(text: str, path: Path) -> list[tuple[int, dict[str, Value]]]:
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


def _outcome(row: dict[str, Value], place: str) -> tuple[str, Value]:
    name = next((row[key] for key in _IDS if row.get(key)), None)
    value = next((row[key] for key in _VALUES if row.get(key) not in (None, "")), None)
    if not isinstance(name, str) or value is None:
        raise ProjectError(
            f"{place}: prediction_id or outcome is missing",
            hint="name the columns prediction_id and outcome",
        )
    return name, value
