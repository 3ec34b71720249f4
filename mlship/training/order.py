"""Whether a model that was fitted without names gets its columns in the order of its training."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlship.domain.bundle import Head
from mlship.errors import ProjectError
from mlship.training.proof.answers import Outputs, Predict, ask

_ROWS = 500
_PAIRS = 200
_SURE = 4.0
"""Another order is better only if it is by so many standard errors of the paired difference."""
_TINY = 1e-12
BY_NAMES = (
    "fit it on a DataFrame, such as data[[...]]; an estimator of your own keeps the names if its "
    "fit sets feature_names_in_"
)
BY_PLACE = (
    "give it the columns in the order of the data; a model that has learnt little may not tell "
    "their order: train it longer"
)


def check(
    predict: Predict,
    heads: Sequence[Head],
    train: pd.DataFrame,
    targets: Sequence[pd.Series],
    trained: str,
    hint: str = BY_NAMES,
) -> None:
    """Refuse a model that knows the training rows better with two of its columns exchanged.

    Args:
        predict: the model's answers to rows whose columns come in any order.
        heads: its heads, with their labels in the order of its probabilities.
        train: the training rows, with the model's columns in the order of the data.
        targets: the true values of each target; none for a model without one.
        trained: how the model was fitted, for the message.
        hint: how its library keeps the order.

    Raises:
        ProjectError: it does, or there is nothing by which the order could be told.
    """
    answers = ask(predict, train.head(_ROWS))
    places = np.flatnonzero(answers.accepted)
    base, rows = answers.outputs.take(places), train.iloc[places]
    truth = [target.iloc[places] for target in targets]
    own = _fit(base, heads, truth)
    for one, other in itertools.islice(itertools.combinations(range(len(rows.columns)), 2), _PAIRS):
        swapped = _exchanged(rows, one, other)
        try:
            outputs = predict(swapped)
        except Exception:  # noqa: BLE001, S112 (what it cannot read was not its order)
            continue
        if _same(base, outputs):
            continue
        if own is None:
            raise _unknown(trained, "its answers depend on it and do not tell it", hint)
        better = _fit(outputs, heads, truth)
        if better is not None and _is_better(better - own):
            columns = f"{rows.columns[one]} and {rows.columns[other]}"
            why = f"it knows its training rows better with {columns} exchanged"
            raise _unknown(trained, why, hint)


def _exchanged(rows: pd.DataFrame, one: int, other: int) -> pd.DataFrame:
    order = list(rows.columns)
    order[one], order[other] = order[other], order[one]
    return rows[order]


def _fit(outputs: Outputs, heads: Sequence[Head], targets: Sequence[pd.Series]) -> Any:
    """Return how well each row is known, shape (n,); `None` if answers and truth have no relation.

    With several targets it is the sum, squared errors in units of each target's variance.
    """
    if not targets:
        return None
    total = np.zeros(len(outputs.labels))
    for own, head, truth in zip(outputs.of_heads(heads), heads, targets, strict=True):
        known = _fit_of_one(own, head.classes, truth)
        if known is None:
            return None
        is_scaled = len(heads) > 1 and not head.classes
        total += known / (float(truth.astype("float64").var()) or 1.0) if is_scaled else known
    return total


def _fit_of_one(outputs: Outputs, classes: tuple[Any, ...], truth: pd.Series) -> Any:
    """Return how well each row is known, shape (n,); `None` if answers and truth have no relation.

    It is the logarithm of the true class's probability, or whether the label is right, or minus
    the squared error.
    """
    if not classes:
        if outputs.labels.dtype.kind not in "iufb" or truth.dtype.kind not in "iufb":
            return None
        return -((outputs.labels.astype("float64") - truth.to_numpy(dtype="float64")) ** 2)
    labels = truth.tolist()
    if outputs.probabilities is not None and set(labels) <= set(classes):
        places = {label: place for place, label in enumerate(classes)}
        own = outputs.probabilities[np.arange(len(labels)), [places[label] for label in labels]]
        return np.log(np.maximum(own, _TINY))
    right = np.array([a == b for a, b in zip(labels, outputs.labels.tolist(), strict=True)])
    return right.astype("float64") if right.any() else None


def _same(one: Outputs, other: Outputs) -> bool:
    for a, b in ((one.labels, other.labels), (one.probabilities, other.probabilities)):
        if a is None or b is None:
            continue
        equal = np.isclose(a, b) if a.dtype.kind == "f" else a == b
        if not np.all(equal):
            return False
    return True


def _is_better(gain: Any) -> bool:
    error = gain.std() / np.sqrt(len(gain))
    return bool(gain.mean() > _SURE * error + _TINY)


def _unknown(trained: str, why: str, hint: str) -> ProjectError:
    message = f"{trained}, of which it keeps no names, and the order of its columns is not "
    message += f"that of the data: {why}"
    return ProjectError(message, hint=hint)
