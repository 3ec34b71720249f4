"""What becomes of outcomes that are handed in: a rule that every kind of observations keeps."""

from collections.abc import Collection, Mapping, Sequence

from mlship.domain.bundle import Value
from mlship.domain.prediction import Outcome, Taken
from mlship.errors import ConflictError


def fresh(
    given: Sequence[Outcome], known: Mapping[str, Value], logged: Collection[str]
) -> list[Outcome]:
    """Return the outcomes to add: of logged predictions, each once.

    Raises:
        ConflictError: one contradicts what is known, or another of the same call.
    """
    found = []
    seen = dict(known)
    contradicted = []
    for outcome in given:
        if outcome.prediction not in logged:
            continue
        if outcome.prediction not in seen:
            seen[outcome.prediction] = outcome.value
            found.append(outcome)
        elif seen[outcome.prediction] != outcome.value:
            contradicted.append(outcome.prediction)
    if contradicted:
        names = ", ".join(dict.fromkeys(contradicted[:5]))
        more = f" and {len(contradicted) - 5} more" if len(contradicted) > 5 else ""
        message = f"predictions have another outcome already: {names}{more}"
        raise ConflictError(message, hint="take them out of the file; an outcome is never edited")
    return found


def taken(given: Sequence[Outcome], added: Sequence[Outcome], logged: Collection[str]) -> Taken:
    """Count what was added, what was known, and name what no log knows."""
    unknown = dict.fromkeys(one.prediction for one in given if one.prediction not in logged)
    of_logged = sum(outcome.prediction in logged for outcome in given)
    return Taken(new=len(added), known=of_logged - len(added), unknown=tuple(unknown))
