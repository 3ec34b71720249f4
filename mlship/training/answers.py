"""What a model answers to rows, refusals among them, and how two models differ."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mlship.domain.bundle import Model, Task
from mlship.runtime.formats import Raw

RTOL, ATOL = 1e-4, 1e-5
"""How far a number may be from the original's: relative, and absolute for probabilities."""

MARGIN = 1e-6
"""Labels may differ where the original's two best probabilities differ by less."""

NOT_FINITE = "its answer is NaN or infinite"


@dataclass(frozen=True)
class Outputs:
    """Predictions for n rows: labels or values of shape (n,), probabilities of (n, classes).

    Attributes:
        margins: shape (n,), how sure a label is where probabilities do not say it.
    """

    labels: Any
    probabilities: Any = None
    margins: Any = None

    def take(self, rows: Any) -> "Outputs":
        """Return the outputs of some rows, by their numbers."""
        values = (self.labels, self.probabilities, self.margins)
        return Outputs(*(None if array is None else array[rows] for array in values))


Predict = Callable[[pd.DataFrame], Outputs]


@dataclass(frozen=True)
class Answers:
    """Outputs for n rows. Those of a refused row mean nothing.

    Attributes:
        refusals: by row, why it is refused.
    """

    outputs: Outputs
    refusals: Mapping[int, str] = field(default_factory=dict)

    @property
    def accepted(self) -> Any:
        """A boolean array of shape (n,)."""
        accepted = np.ones(len(self.outputs.labels), dtype=bool)
        accepted[list(self.refusals)] = False
        return accepted


def ask(predict: Predict, frame: pd.DataFrame) -> Answers:
    """Predict all rows; where that raises, find the rows to blame by halving.

    Raises:
        Exception: what `predict` raises if it answers no row at all.
    """
    parts: list[tuple[int, Outputs]] = []
    refusals: dict[int, str] = {}
    errors: list[Exception] = []

    def visit(start: int, stop: int) -> None:
        try:
            parts.append((start, predict(frame.iloc[start:stop].reset_index(drop=True))))
        except Exception as error:  # noqa: BLE001 (whatever a model's library raises)
            if stop - start == 1:
                refusals[start] = f"{type(error).__name__}: {str(error).strip()[:300]}"
                errors.append(error)
                return
            half = (start + stop) // 2
            visit(start, half)
            visit(half, stop)

    with warnings.catch_warnings():
        # Probes overflow on purpose, and held-out rows were predicted by the user's code before.
        warnings.simplefilter("ignore")
        visit(0, len(frame))
    if not parts:
        raise errors[0]
    outputs = _joined(parts, len(frame))
    for row in np.flatnonzero(~_finite(outputs)).tolist():
        refusals.setdefault(row, NOT_FINITE)
    return Answers(outputs=outputs, refusals=refusals)


def _joined(parts: list[tuple[int, Outputs]], count: int) -> Outputs:
    def join(name: str) -> Any:
        arrays = [(start, getattr(outputs, name)) for start, outputs in parts]
        first = arrays[0][1]
        if first is None:
            return None
        dtype = np.result_type(*{array.dtype for _, array in arrays})
        whole = np.zeros((count, *first.shape[1:]), dtype=dtype)
        for start, array in arrays:
            whole[start : start + len(array)] = array
        return whole

    return Outputs(*(join(name) for name in ("labels", "probabilities", "margins")))


def _finite(outputs: Outputs) -> Any:
    finite = np.ones(len(outputs.labels), dtype=bool)
    for values in (outputs.labels, outputs.probabilities):
        if values is not None and values.dtype.kind == "f":
            finite &= np.isfinite(values).reshape(len(values), -1).all(axis=1)
    return finite


def differing(task: Task, wanted: Answers, found: Answers) -> Mapping[int, str]:
    """Return the rows on which answers differ from the original's, and how.

    Labels must be equal where the original is sure of them, numbers within `RTOL` of their
    distance from the middle of the answers, and what is refused must be the same.
    """
    differences: dict[int, str] = {}
    for row, reason in wanted.refusals.items():
        if row not in found.refusals:
            differences[row] = f"it answers where the original refuses ({reason})"
    for row, reason in found.refusals.items():
        if row not in wanted.refusals:
            differences[row] = f"it refuses ({reason})"
    both = wanted.accepted & found.accepted
    compared = _values if task == "regression" else _labels
    differences |= compared(wanted.outputs, found.outputs, both)
    return dict(sorted(differences.items()))


def alike(wanted: Outputs, row: int, found: Outputs, other: int) -> bool:
    """Tell whether two single answers are the same, but for rounding."""
    for one, two in ((wanted.labels, found.labels), (wanted.probabilities, found.probabilities)):
        if one is None or two is None:
            continue
        is_number = one.dtype.kind == "f"
        same = (
            np.isclose(one[row], two[other], rtol=RTOL, atol=ATOL)
            if is_number
            else one[row] == two[other]
        )
        if not np.all(same):
            return False
    return True


def _values(wanted: Outputs, found: Outputs, both: Any) -> dict[int, str]:
    one, other = _numbers(wanted.labels), _numbers(found.labels)
    if not both.any():
        return {}
    middle = float(np.median(one[both]))
    low, high = np.quantile(one[both], [0.05, 0.95])
    with np.errstate(over="ignore", invalid="ignore"):
        scale = np.abs(one - middle) + (high - low)
        scale = np.where(scale > 0, scale, np.abs(one) / 100)
        far = np.abs(one - other) > RTOL * scale
    far &= both & (one != other)
    return {
        row: f"it answers {other[row]:.9g} instead of {one[row]:.9g}"
        for row in np.flatnonzero(far).tolist()
    }


def _labels(wanted: Outputs, found: Outputs, both: Any) -> dict[int, str]:
    differences: dict[int, str] = {}
    if (wanted.probabilities is None) != (found.probabilities is None):
        return {0: "one gives probabilities and the other does not"}
    if wanted.probabilities is not None:
        one, other = _numbers(wanted.probabilities), _numbers(found.probabilities)
        if one.shape != other.shape:
            return {0: f"it gives {other.shape[1]} probabilities instead of {one.shape[1]}"}
        far = ~np.isclose(other, one, rtol=RTOL, atol=ATOL).all(axis=1)
        for row in np.flatnonzero(far & both).tolist():
            place = int(np.abs(one[row] - other[row]).argmax())
            differences[row] = (
                f"it gives a probability of {other[row, place]:.6g} instead of "
                f"{one[row, place]:.6g}"
            )
    sure = both & (margins_of(wanted) >= MARGIN)
    pairs = zip(wanted.labels.tolist(), found.labels.tolist(), strict=True)
    for row, (label, other_label) in enumerate(pairs):
        if label != other_label and sure[row]:
            differences[row] = f"it answers {other_label!r} instead of {label!r}"
    return differences


def margins_of(outputs: Outputs) -> Any:
    """Return how sure each label is: the distance of its probability from the next one."""
    if outputs.margins is not None:
        return outputs.margins
    if outputs.probabilities is None:
        return np.full(len(outputs.labels), np.inf)
    if outputs.probabilities.shape[1] < 2:
        return np.ones(len(outputs.labels))
    best = np.sort(np.nan_to_num(outputs.probabilities), axis=1)
    return best[:, -1] - best[:, -2]


def _numbers(values: Any) -> Any:
    return np.asarray(values, dtype="float64")


def outputs_of(model: Model, raw: Raw) -> Outputs:
    """Return a computation's outputs, with labels where it has only probabilities."""
    labels = raw.labels
    if labels is None:
        classes = np.array(model.classes, dtype=object)
        labels = classes[np.asarray(raw.probabilities).argmax(axis=1)]
    return Outputs(labels=np.asarray(labels), probabilities=raw.probabilities)
