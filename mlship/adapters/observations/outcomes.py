"""The rules for adding outcomes, which all observations share."""

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from mlship.domain.digests import Digest, short
from mlship.domain.prediction import Outcome, Prediction, Taken, Truth
from mlship.domain.removal import Selection
from mlship.errors import ConflictError, some


def own(
    logged: Iterable[Prediction],
    releases: Collection[Digest],
    check: Callable[[Prediction], None],
) -> set[str]:
    """Return the ids of the predictions that releases of a project made.

    Args:
        logged: the predictions that outcomes were received for. Two projects may have an id in
            common, as it is the id of the request.
        releases: of the project.
        check: is called with each prediction of releases.

    Raises:
        ConflictError: only other releases made one of them.
    """
    pairs = []
    for prediction in logged:
        pairs.append((prediction.id, prediction.release))
        if prediction.release in releases:
            check(prediction)
    pairs.sort()
    ids = {name for name, release in pairs if release in releases}
    foreign = {name: release for name, release in pairs if name not in ids}
    if foreign:
        names = some([f"{name} by release {short(release)}" for name, release in foreign.items()])
        raise ConflictError(
            f"predictions of releases that are not in this project's ledger: {names}",
            hint="give these outcomes in the project that made the predictions, with its ledger",
        )
    return ids


def fresh(
    received: Sequence[Outcome],
    known: Mapping[str, Truth],
    logged: Collection[str],
    *,
    corrects: bool = False,
) -> list[Outcome]:
    """Return the outcomes to add: those of logged predictions, each once.

    Args:
        received: the outcomes of a call.
        known: those that were added before, by prediction; of several the last one.
        logged: the ids of predictions.
        corrects: whether an outcome may replace a known one.

    Raises:
        ConflictError: an outcome contradicts a known one, or another one of the same call.
    """
    first: dict[str, Outcome] = {}
    twice: dict[str, None] = {}
    for outcome in received:
        name = outcome.prediction
        if name in logged and first.setdefault(name, outcome).value != outcome.value:
            twice[name] = None
    if twice:
        message = f"predictions have two different outcomes at once: {some(twice)}"
        raise ConflictError(message, hint="leave one outcome for each of them")
    new, contradicted = [], dict[str, None]()
    for name, outcome in first.items():
        if name not in known:
            new.append(outcome)
        elif known[name] != outcome.value:
            contradicted[name] = None
            new.append(msgspec.structs.replace(outcome, is_corrected=True))
    if contradicted and not corrects:
        message = f"predictions already have another outcome: {some(contradicted)}"
        hint = "remove them from the file, or correct them with `mlship feedback --correct`"
        raise ConflictError(message, hint=hint)
    return new


class Shared:
    """Makes outcomes share what is equal: a million of them have few labels and few times.

    Else, each has a text and a time of its own, which take as much memory as its prediction's id.
    """

    def __init__(self) -> None:
        self._time: datetime | None = None

    def of(self, outcome: Outcome) -> Outcome:
        """Return the same outcome."""
        value, time = outcome.value, outcome.time
        if self._time != time:
            self._time = time
        return Outcome(
            prediction=outcome.prediction,
            value=sys.intern(value) if isinstance(value, str) else value,
            time=self._time or time,
            is_corrected=outcome.is_corrected,
        )


def part_of(prediction: str) -> str:
    """Return the prefix that the ids of a part of a batch have in common."""
    return prediction.partition(".")[0]


def latest(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return the last outcome of each prediction, in the place of its first one.

    Scores are compared in the order of arrival. So a correction moves no score.
    """
    return list({outcome.prediction: outcome for outcome in outcomes}.values())


def taken(received: Sequence[Outcome], added: Sequence[Outcome], logged: Collection[str]) -> Taken:
    """Count added and known outcomes, and list the ids of unknown predictions."""
    ids = [outcome.prediction for outcome in received]
    unknown = dict.fromkeys(id_ for id_ in ids if id_ not in logged)
    of_logged = sum(id_ in logged for id_ in ids)
    return Taken(
        new=len(added),
        known=of_logged - len(added),
        corrected=sum(outcome.is_corrected for outcome in added),
        unknown=tuple(unknown),
    )


def removable(selection: Selection, gone: Collection[str], kept: Collection[str]) -> set[str]:
    """Return the predictions whose outcomes are removed with them.

    Args:
        selection: of predictions to remove; an outcome of its ids goes also without a prediction.
        gone: the ids of predictions to remove.
        kept: the ids of predictions that stay.
    """
    return {*gone, *selection.ids} - set(kept)
