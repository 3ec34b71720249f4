"""Whether an outcome can be the true value for a prediction."""

import math
from typing import Final

from mlship.domain import outcome_metrics
from mlship.domain.bundle import Row, Value, probability_of
from mlship.domain.notation import literal

_SHOWN: Final = 8
_ADD_UP: Final = 1e-3


def problem(outputs: Row, target: str, actual: Value, *, is_one: bool, new_labels: bool) -> str:
    """Return why a value cannot be the true value of a target; empty if it can.

    Args:
        outputs: of the prediction.
        target: what was predicted.
        actual: the outcome.
        is_one: whether the project has no other target.
        new_labels: whether a label may be one that the model does not know.
    """
    if isinstance(actual, float) and not math.isfinite(actual):
        return f"{actual} is not a finite number"
    predicted = outputs.get(target)
    if predicted is None:
        return ""
    if outcome_metrics.typed(predicted, actual) is None:
        kind = "true or false" if isinstance(predicted, bool) else "a finite number"
        return f"{literal(actual)} is not {kind}, and the prediction is {literal(predicted)}"
    labels = [] if new_labels else _labels(outputs, "" if is_one else target)
    knows = [label for label in labels if outcome_metrics.is_class(label, predicted, predicted)]
    if knows and not any(outcome_metrics.is_class(each, predicted, actual) for each in labels):
        shown = ", ".join(labels[:_SHOWN]) + (", ..." if len(labels) > _SHOWN else "")
        return f"{literal(actual)} is not a label of {target}: {shown}"
    return ""


def _labels(outputs: Row, target: str) -> list[str]:
    """Return the labels of the probabilities in outputs, if these are all of a classifier."""
    prefix = probability_of("", target)
    shares = {
        name.removeprefix(prefix): value
        for name, value in outputs.items()
        if name.startswith(prefix) and isinstance(value, int | float)
    }
    return list(shares) if abs(sum(shares.values()) - 1) <= _ADD_UP else []
