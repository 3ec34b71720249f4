"""The rules for adding outcomes, which all observations share."""

from collections.abc import Collection, Mapping, Sequence

from mlship.domain.prediction import Outcome, Taken, Truth
from mlship.errors import ConflictError


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
