"""feedback: record the outcomes of predictions."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from mlship.domain import truth
from mlship.domain.prediction import Outcome, Prediction, Taken
from mlship.domain.records import Records
from mlship.errors import NotFoundError, ProjectError, some
from mlship.steps import batch_feedback
from mlship.steps.batch import Batching
from mlship.steps.batch_feedback import Key
from mlship.steps.outcome_files import Received, example
from mlship.steps.pipeline import Pipeline

_AHEAD: Final = timedelta(days=1)
"""Clocks differ, and a local time may have been taken for UTC."""


def feedback(
    pipeline: Pipeline,
    outcomes: Sequence[Received],
    *,
    corrects: bool = False,
    new_labels: bool = False,
    batching: Batching | None = None,
    key: Key | None = None,
) -> Taken:
    """Record outcomes. It is idempotent: an outcome that is known already changes nothing.

    With several targets, an outcome is the true value of each target that is known.

    Args:
        pipeline: the project.
        outcomes: to record.
        corrects: whether one may replace another outcome of its prediction.
        new_labels: whether one may be a label that the release does not know.
        batching: the ports of batches, whose predictions are in no log.
        key: the column of a batch that outcomes name, if they do not name predictions.

    Raises:
        ProjectError: an outcome is not of this project's targets, or cannot be the true value of
            its prediction; nothing was added.
        NotFoundError: none of the predictions is in a log or a published batch.
        ConflictError: a prediction already has a different outcome, or is another project's;
            nothing was added.
        IntegrityError: the output of a batch is not as it was written; nothing was added.
        UnavailableError: the outcomes cannot be written.
    """
    targets, now = pipeline.config.data.targets, pipeline.clock()
    for each in outcomes:
        _check_shape(each, targets)
        _check_time(each, now)

    def check(outcome: Received, prediction: Prediction) -> None:
        _check(outcome, prediction, targets, new_labels=new_labels)

    records = pipeline.read()
    if key is not None and batching is not None:
        joined = batch_feedback.by_key(batching, records, outcomes, key, check, now)
        if not any(joined.ids):
            raise batch_feedback.nothing_found(key, joined)
        pairs = zip(joined.ids, outcomes, strict=True)
        found = [Outcome(prediction=id_, value=each.value, time=now) for id_, each in pairs if id_]
        unknown = joined.unknown
        # What was given is not needed any more: it is a third of the memory for a large file.
        del outcomes, joined, pairs
        taken = pipeline.observations.take(
            found,
            records.ids,
            corrects=corrects,
            scored=frozenset(each.prediction for each in found),
        )
        return msgspec.structs.replace(taken, unknown=unknown)
    scored: frozenset[str] = frozenset()
    if batching is not None:
        scored = batch_feedback.by_id(batching, records, outcomes, check)
    result = _taken(pipeline, outcomes, records, scored, check, corrects=corrects)
    if result.unknown and not result.new + result.known:
        names = some([name[:60] for name in result.unknown])
        raise NotFoundError(
            f"no such predictions in the log of production or in a published batch: {names}",
            hint="copy the id from a response of production, where it ends in .0, or from the "
            "output of a batch",
        )
    return result


def _taken(
    pipeline: Pipeline,
    outcomes: Sequence[Received],
    records: Records,
    scored: frozenset[str],
    check: batch_feedback.Check,
    *,
    corrects: bool,
) -> Taken:
    """Record outcomes; those of batches were checked when their rows were found."""
    by_id: dict[str, list[Received]] = {}
    for each in outcomes:
        if each.name not in scored:
            by_id.setdefault(each.name, []).append(each)

    def check_logged(prediction: Prediction) -> None:
        for each in by_id.get(prediction.id, ()):
            check(each, prediction)

    now = pipeline.clock()
    return pipeline.observations.take(
        [Outcome(prediction=each.name, value=each.value, time=now) for each in outcomes],
        records.ids,
        corrects=corrects,
        check=check_logged,
        scored=scored,
    )


def _check_time(outcome: Received, now: datetime) -> None:
    """Check that an outcome was known before now: by its time, the run of a key is chosen.

    Raises:
        ProjectError: it is of the future.
    """
    if outcome.time is not None and outcome.time > now + _AHEAD:
        message = f"{outcome.subject} has a time in the future: {outcome.time.isoformat()}"
        raise ProjectError(message, hint="correct outcome_time: when the true value was known")


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
        raise ProjectError(message, hint=example(targets))
    foreign = [target for target in value if target not in targets]
    if is_one or foreign or not value:
        what = f"is of {foreign[0]}" if foreign and not is_one else "is an object"
        message = f"{outcome.subject} {what}, and the project predicts "
        message += ", ".join(targets)
        raise ProjectError(message, hint="give its true value" if is_one else example(targets))


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
