"""Metrics on outcomes: the score of one prediction, whose mean over predictions is the metric.

A score needs only the logged outputs and the outcome. What is no mean of such scores (F1, ROC AUC,
R2) has no place here: there is no interval for it that holds at every look.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal

import msgspec

from mlship.domain.bundle import Row, Value
from mlship.domain.policy import PromotePolicy

Better = Literal["higher", "lower"]

# A probability of 0 for what happened would be an infinite loss. As in scikit-learn's log_loss for
# numbers of double precision, and in the metrics on held-out data.
_TINY: Final = 1e-15
_ADD_UP: Final = 1e-3
_PROBABILITY: Final = "probability_"
_PINBALL: Final = re.compile(r"pinball\[(.+)\]")


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric on outcomes.

    Attributes:
        name: as in mlship.yaml.
        better: whether a higher or a lower mean is better.
        range: the least and the greatest possible score; `None` if scores are not bounded.
    """

    name: str
    better: Better
    range: tuple[float, float] | None = None

    @property
    def is_own(self) -> bool:
        """Whether a function of the project computes the scores."""
        return ":" in self.name

    def admits(self, score: float) -> bool:
        """Return whether a score is finite and within the range."""
        low, high = self.range or (-math.inf, math.inf)
        return math.isfinite(score) and low <= score <= high


_BUILT_IN: Final[Mapping[str, Metric]] = {
    metric.name: metric
    for metric in (
        Metric(name="accuracy", better="higher", range=(0.0, 1.0)),
        Metric(name="brier", better="lower", range=(0.0, 1.0)),
        Metric(name="log_loss", better="lower"),
        Metric(name="mae", better="lower"),
        Metric(name="mse", better="lower"),
    )
}


_OF_LABELS: Final = frozenset({"accuracy", "brier", "log_loss"})


def of(policy: PromotePolicy) -> Metric:
    """Return the metric that a promotion is decided by; the policy was checked by config."""
    if policy.metric in _BUILT_IN:
        return _BUILT_IN[policy.metric]
    if _PINBALL.fullmatch(policy.metric):
        return Metric(name=policy.metric, better="lower")
    return Metric(name=policy.metric, better=policy.better or "higher", range=policy.range)


def fits(metric: Metric, task: str) -> bool:
    """Return whether a metric can score what a task predicts; a function of the project may.

    Args:
        metric: the metric.
        task: of the bundle; one that is not known fits all.
    """
    if metric.is_own or task not in ("classification", "regression"):
        return True
    return (metric.name in _OF_LABELS) == (task == "classification")


def score(metric: Metric, outputs: Row, target: str, actual: Value) -> float:
    """Return the score of one prediction by a built-in metric.

    accuracy: 1 or 0. brier: the squared distance between the probabilities and the outcome, halved,
    so that it is at most 1 for any number of classes. log_loss: minus the logarithm of the
    outcome's probability, at most 34.5. mae, mse: the error or its square. `pinball[q]`: the error
    of a quantile, q times what the prediction is too low, 1 - q times what it is too high.

    The outcome is converted to the type of the prediction, because labels from a CSV are text: 1,
    1.0 and "1" are equal. The score is NaN, which never passes a gate, if there is no outcome, if
    the error cannot be computed, or if the probabilities do not add up to 1.
    """
    if actual is None:
        return math.nan
    predicted = outputs.get(target)
    if metric.name == "accuracy":
        return float(_agree(predicted, actual))
    if metric.name in _OF_PROBABILITIES:
        found = _probabilities(outputs, predicted, actual)
        return math.nan if found is None else _OF_PROBABILITIES[metric.name](*found)
    error = _number(actual) - _number(predicted)
    if metric.name == "mae":
        return abs(error)
    if metric.name == "mse":
        return error * error
    quantile = float(metric.name.removeprefix("pinball[").removesuffix("]"))
    return max(quantile * error, (quantile - 1) * error)


def typed(predicted: Value, actual: Value) -> Value:
    """Return an outcome in the type of its prediction; `None` if it has no such form."""
    if actual is None or predicted is None:
        return actual
    if _agree(predicted, actual):
        return predicted
    if isinstance(predicted, str):
        return str(actual)
    if isinstance(predicted, bool):
        return (not predicted) if _agree(not predicted, actual) else None
    number = _number(actual)
    if not math.isfinite(number):
        return None
    return int(number) if isinstance(predicted, int) and number.is_integer() else number


def _probabilities(
    outputs: Row, predicted: Value, actual: Value
) -> tuple[float, Iterable[float]] | None:
    """Return the probability of what happened, and those of the other classes.

    A class that the model does not know had the probability 0. `None` if the outputs hold no
    probabilities that add up to 1.
    """
    shares = {
        name.removeprefix(_PROBABILITY): _number(value)
        for name, value in outputs.items()
        if name.startswith(_PROBABILITY)
    }
    total = sum(shares.values())
    if not abs(total - 1) <= _ADD_UP or min(shares.values()) < 0:
        return None
    label = next((name for name in shares if is_class(name, predicted, actual)), None)
    others = [share / total for name, share in shares.items() if name != label]
    return (0.0 if label is None else shares[label] / total), others


def is_class(name: str, predicted: Value, actual: Value) -> bool:
    """Return whether an outcome is the class of a probability, a label of the predicted type."""
    if isinstance(predicted, bool):
        return _agree(name == "True", actual)
    if isinstance(predicted, str):
        return _agree(name, actual)
    return _agree(_number(name), actual)


def _brier(happened: float, others: Iterable[float]) -> float:
    # Rounding must not carry it out of its range.
    return min(1.0, (sum(share * share for share in others) + (1 - happened) ** 2) / 2)


def _log_loss(happened: float, _: Iterable[float]) -> float:
    return -math.log(max(happened, _TINY))


_OF_PROBABILITIES: Final[Mapping[str, Callable[[float, Iterable[float]], float]]] = {
    "brier": _brier,
    "log_loss": _log_loss,
}


def _agree(predicted: Value, actual: Value) -> bool:
    if isinstance(predicted, str):
        is_number = not isinstance(actual, str | bool)
        return predicted == str(actual) or (is_number and _number(predicted) == _number(actual))
    if isinstance(predicted, bool):
        return str(actual).lower() in ({"true", "1", "1.0"} if predicted else {"false", "0", "0.0"})
    return predicted is not None and _number(predicted) == _number(actual)


def _number(value: Value) -> float:
    try:
        return math.nan if value is None else float(value)
    except (ValueError, OverflowError):
        return math.nan
