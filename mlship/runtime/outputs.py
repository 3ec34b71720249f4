"""What a model answers, by columns: checked as a whole, or left to the check of each row."""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from mlship.domain.bundle import Label, Value
from mlship.domain.columns import FEW, packed
from mlship.runtime.formats import Raw
from mlship.runtime.frames import is_sendable


def shares_of(probabilities: Any, classes: int) -> Sequence[Any] | None:
    """Return the floats of each class; none without probabilities. Many are bytes of an array.

    Returns:
        `None` if they have another shape or type, or one is not finite.
    """
    import numpy as np

    if probabilities is None:
        return []
    is_table = isinstance(probabilities, np.ndarray) and probabilities.dtype.kind == "f"
    if not is_table or probabilities.itemsize > 8 or probabilities.shape[1:] != (classes,):
        return None
    if len(probabilities) < FEW:
        shares: list[list[float]] = probabilities.T.tolist()
        return shares if all(map(math.isfinite, chain.from_iterable(shares))) else None
    if not np.isfinite(probabilities).all():
        return None
    return [column.astype("float64").tobytes() for column in probabilities.T]


def labels_of(
    raw: Raw, classes: Sequence[Label], known: Mapping[Label, Label]
) -> Sequence[Any] | None:
    """Return the labels or values, with the type that the manifest has; floats as bytes.

    Args:
        raw: has labels, or finite probabilities.
        classes: the labels in the order of the probabilities.
        known: each label by what is equal to it; empty if the model has none.

    Returns:
        `None` if one is unknown or has no type of JSON, or their number is another.
    """
    if raw.labels is None:
        return [classes[place] for place in raw.probabilities.argmax(axis=1).tolist()]
    labels: list[Any] = raw.labels.tolist()
    if raw.probabilities is not None and len(labels) != len(raw.probabilities):
        return None
    if known:
        try:
            return [known[label] for label in labels]
        except (KeyError, TypeError):
            return None
    return _values(labels)


def _values(values: list[Value]) -> Sequence[Any] | None:
    types = set(map(type, values))
    if types == {float}:
        if not all(map(math.isfinite, values)):  # type: ignore[arg-type]  # they are floats
            return None
        column = packed(values)
        return column.tobytes() if column is not values else values  # type: ignore[attr-defined]
    if not types <= {int, str, bool, type(None)}:
        return None
    return values if all(is_sendable(kind, values) for kind in types & {int, str}) else None
