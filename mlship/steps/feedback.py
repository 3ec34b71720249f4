"""feedback: take in what turned out to be true for predictions."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from mlship.domain.bundle import Value
from mlship.domain.prediction import Outcome, Taken
from mlship.errors import NotFoundError, ProjectError
from mlship.steps.pipeline import Pipeline

_IDS = ("prediction_id", "prediction", "id")
_LINE = 'write one object a line: {"prediction_id": "...", "outcome": "..."}'
_VALUES = ("outcome", "label", "value", "actual")


def feedback(pipeline: Pipeline, outcomes: Sequence[tuple[str, Value]]) -> Taken:
    """Add outcomes to what is known; giving one again changes nothing.

    Raises:
        NotFoundError: no log knows any of the predictions.
        ConflictError: a prediction has another outcome already; nothing was added.
        UnavailableError: they cannot be written.
    """
    now = pipeline.clock()
    taken = pipeline.observations.take(
        [Outcome(prediction=name, value=value, time=now) for name, value in outcomes]
    )
    if taken.unknown and not taken.new + taken.known:
        shown = ", ".join(name[:60] for name in taken.unknown[:5])
        more = f" and {len(taken.unknown) - 5} more" if len(taken.unknown) > 5 else ""
        raise NotFoundError(
            f"the log of production has none of these predictions: {shown}{more}",
            hint="copy the id from a response of production; it ends in .0",
        )
    return taken


def read(path: Path) -> list[tuple[str, Value]]:
    """Return the outcomes of a CSV or JSON lines file.

    A column `prediction_id` (or `prediction`, `id`) and one `outcome` (or `label`, `value`,
    `actual`); a value of a CSV file is text and is compared as the prediction's own type.

    Raises:
        NotFoundError: there is no such file.
        ProjectError: a line has not both; the message names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise NotFoundError(f"no file {path}", hint="give a CSV or JSON lines file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"{path} cannot be read: {error}", hint="give UTF-8 text") from error
    rows = _json_lines(text, path) if path.suffix in (".jsonl", ".ndjson") else _csv(text)
    if not rows:
        raise ProjectError(f"{path} has no outcomes", hint="give a header and a line for each")
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
            f"{place}: needs a prediction_id and an outcome",
            hint="name the columns prediction_id and outcome",
        )
    return name, value
