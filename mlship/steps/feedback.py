"""feedback: record the outcomes of predictions."""

import csv
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mlship.domain import truth
from mlship.domain.bundle import Value
from mlship.domain.prediction import Outcome, Prediction, Taken, Truth
from mlship.errors import NotFoundError, ProjectError
from mlship.steps.pipeline import Pipeline

_IDS = ("prediction_id", "prediction", "id")
_LINE = 'write one object on each line: {"prediction_id": "...", "outcome": "..."}'
_TIME = "outcome_time"
_VALUES = ("outcome", "label", "value", "actual")


class Received(NamedTuple):
    """An outcome as somebody gave it.

    Attributes:
        name: the id of the prediction.
        place: the file and the line; empty for one that was typed.
        time: when it was known, with a time zone; `None` if nobody said.
    """

    name: str
    value: Truth
    place: str = ""
    time: datetime | None = None

    @property
    def subject(self) -> str:
        """The words for it in an error."""
        return f"{self.place}: " * bool(self.place) + f"the outcome of {self.name[:60]}"


def feedback(
    pipeline: Pipeline,
    outcomes: Sequence[Received],
    *,
    corrects: bool = False,
    new_labels: bool = False,
) -> Taken:
    """Record outcomes. It is idempotent: an outcome that is known already changes nothing.

    With several targets, an outcome is the true value of each target that is known.

    Args:
        pipeline: the project.
        outcomes: to record.
        corrects: whether one may replace another outcome of its prediction.
        new_labels: whether one may be a label that the release does not know.

    Raises:
        ProjectError: an outcome is not of this project's targets, or cannot be the true value of
            its prediction; nothing was added.
        NotFoundError: none of the predictions is in a log.
        ConflictError: a prediction already has a different outcome, or is another project's;
            nothing was added.
        UnavailableError: the outcomes cannot be written.
    """
    targets = pipeline.config.data.targets
    by_id: dict[str, list[Received]] = {}
    for each in outcomes:
        _check_shape(each, targets)
        by_id.setdefault(each.name, []).append(each)

    def check(prediction: Prediction) -> None:
        for each in by_id.get(prediction.id, ()):
            _check(each, prediction, targets, new_labels=new_labels)

    now = pipeline.clock()
    result = pipeline.observations.take(
        [Outcome(prediction=each.name, value=each.value, time=now) for each in outcomes],
        pipeline.read().ids,
        corrects=corrects,
        check=check,
    )
    if result.unknown and not result.new + result.known:
        shown = ", ".join(name[:60] for name in result.unknown[:5])
        more = f" and {len(result.unknown) - 5} more" if len(result.unknown) > 5 else ""
        raise NotFoundError(
            f"no such predictions in the log of production: {shown}{more}",
            hint="copy the id from a response of production; it ends in .0",
        )
    return result


def _check_shape(outcome: Received, targets: Sequence[str]) -> None:
    """Check that an outcome is of this project's targets.

    Raises:
        ProjectError: it is not.
    """
    if not targets:
        message = "the project predicts no target, so its predictions have no outcomes"
        raise ProjectError(message, hint="`mlship approve` and `mlship promote` need none")
    value, is_one = outcome.value, len(targets) == 1
    if not isinstance(value, dict):
        if is_one:
            return
        message = f"{outcome.subject} is one value, and the project has the targets "
        message += ", ".join(targets)
        raise ProjectError(message, hint=_example(targets))
    foreign = [target for target in value if target not in targets]
    if is_one or foreign or not value:
        what = f"is of {foreign[0]}" if foreign and not is_one else "is an object"
        message = f"{outcome.subject} {what}, and the project predicts "
        message += ", ".join(targets)
        raise ProjectError(message, hint="give its true value" if is_one else _example(targets))


def _check(
    outcome: Received, prediction: Prediction, targets: Sequence[str], *, new_labels: bool
) -> None:
    """Check that an outcome can be the true value for a prediction.

    Raises:
        ProjectError: it cannot.
    """
    is_one = len(targets) == 1
    values = outcome.value if isinstance(outcome.value, dict) else {targets[0]: outcome.value}
    for target, value in values.items():
        reason = truth.problem(
            prediction.outputs, target, value, is_one=is_one, new_labels=new_labels
        )
        if reason:
            hint = "correct it; a label that is new since the training needs --new-labels"
            raise ProjectError(f"{outcome.subject}: {reason}", hint=hint)
    if outcome.time is not None and outcome.time < prediction.time:
        message = f"{outcome.subject} was known at {outcome.time.isoformat()}, before its "
        message += f"prediction at {prediction.time.isoformat()}"
        raise ProjectError(message, hint="check that the id and the time are of the same row")


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


def read(path: Path, targets: Sequence[str]) -> list[Received]:
    """Return the outcomes of a CSV or JSON lines file.

    It needs a column `prediction_id` (or `prediction`, `id`) and a column `outcome` (or `label`,
    `value`, `actual`). With several targets it may have a column for each of them instead, empty
    where the true value is not known. A value in a CSV file is text and is compared as the
    prediction's own type. A column `outcome_time` is optional: when the true value was known.

    Raises:
        NotFoundError: there is no such file.
        ProjectError: a line lacks one of them, or has no value; the message has file and line.
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
    return [outcome_of(row, f"{path}:{line}", targets) for line, row in rows]


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


def outcome_of(row: Mapping[str, Any], place: str, targets: Sequence[str]) -> Received:
    """Return the outcome of a row; its columns are those that `read` names.

    Raises:
        ProjectError: it lacks one of them, or has no value.
    """
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
    try:
        checked: Truth = msgspec.convert(value, Truth)
    except msgspec.ValidationError as error:
        message = f"{place}: the outcome of {name[:60]} is not a value: {error}"
        raise ProjectError(message, hint=_LINE) from error
    return Received(name, checked, place, _time(row.get(_TIME), place))


def _time(text: object, place: str) -> datetime | None:
    if text in (None, ""):
        return None
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        message = f"{place}: {_TIME} is not a time with a time zone: {str(text)[:40]}"
        raise ProjectError(message, hint="write it such as 2026-11-21T12:00:00+00:00")
    return time
