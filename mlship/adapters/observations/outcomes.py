"""The rules for adding outcomes, which all observations share."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from mlship.domain.digests import Digest, short
from mlship.domain.prediction import Outcome, Taken, Truth
from mlship.domain.removal import Selection
from mlship.errors import ConflictError


def own(logged: Iterable[tuple[str, Digest]], releases: Collection[Digest]) -> set[str]:
    """Return the ids of the predictions that releases of a project made.

    Args:
        logged: id and release of each prediction that outcomes were received for. Two projects
            may have an id in common, as it is the id of the request.
        releases: of the project.

    Raises:
        ConflictError: only other releases made one of them.
    """
    pairs = sorted(logged)
    ids = {name for name, release in pairs if release in releases}
    foreign = {name: release for name, release in pairs if name not in ids}
    if foreign:
        names = ", ".join(
            f"{name} by release {short(release)}" for name, release in list(foreign.items())[:5]
        )
        more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        raise ConflictError(
            f"predictions of releases that are not in this project's ledger: {names}{more}",
            hint="give these outcomes in the project that made the predictions, with its ledger",
        )
    return ids


def fresh(
    received: Sequence[Outcome], known: Mapping[str, Truth], logged: Collection[str]
) -> list[Outcome]:
    """Return the outcomes to add: those of logged predictions, each once.

    Raises:
        ConflictError: an outcome contradicts a known one, or another one of the same call.
    """
    new = []
    values = dict(known)
    contradicted = []
    for outcome in received:
        if outcome.prediction not in logged:
            continue
        if outcome.prediction not in values:
            values[outcome.prediction] = outcome.value
            new.append(outcome)
        elif values[outcome.prediction] != outcome.value:
            contradicted.append(outcome.prediction)
    if contradicted:
        names = ", ".join(dict.fromkeys(contradicted[:5]))
        more = f" and {len(contradicted) - 5} more" if len(contradicted) > 5 else ""
        message = f"predictions already have another outcome: {names}{more}"
        hint = "remove them from the file: an outcome cannot be changed"
        raise ConflictError(message, hint=hint)
    return new


def taken(received: Sequence[Outcome], added: Sequence[Outcome], logged: Collection[str]) -> Taken:
    """Count added and known outcomes, and list the ids of unknown predictions."""
    ids = [outcome.prediction for outcome in received]
    unknown = dict.fromkeys(id_ for id_ in ids if id_ not in logged)
    of_logged = sum(id_ in logged for id_ in ids)
    return Taken(new=len(added), known=of_logged - len(added), unknown=tuple(unknown))


def removable(selection: Selection, gone: Collection[str], kept: Collection[str]) -> set[str]:
    """Return the predictions whose outcomes are removed with them.

    Args:
        selection: of predictions to remove; an outcome of its ids goes also without a prediction.
        gone: the ids of predictions to remove.
        kept: the ids of predictions that stay.
    """
    return {*gone, *selection.ids} - set(kept)
