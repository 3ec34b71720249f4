"""What a model answers to rows, refusals among them, and how two models differ."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from mlship.domain.bundle import Head, Model, Row, Task
from mlship.domain.notation import literal
from mlship.runtime.formats import Raw
from mlship.runtime.heads import slices_of

RTOL, ATOL = 1e-4, 1e-5
"""How far a number may be from the original's: relative, and absolute for probabilities."""

MARGIN = 1e-6
"""Labels may differ where the original's two best probabilities, or the scores that decide in
units of the usual score, differ by less."""

_PARTS = 8
"""Into how many parts rows are divided that a model refuses together. With more, many refusals
take fewer predictions, and a single one takes more."""

NOT_FINITE = "its answer is NaN or infinite"


@dataclass(frozen=True)
class Outputs:
    """Predictions for n rows: labels or values of shape (n,), probabilities of (n, classes).

    Of a model with heads, labels and margins have shape (n, heads), and the probabilities of all
    heads stand beside each other.

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

    def of_heads(self, heads: Sequence[Head]) -> list["Outputs"]:
        """Return the outputs of each head as those of a model that has no other."""
        if self.labels.ndim == 1:
            return [self]
        places = range(len(heads))
        return [
            Outputs(
                labels=self.labels[:, place],
                probabilities=None if self.probabilities is None else self.probabilities[:, part],
                margins=None if self.margins is None else self.margins[:, place],
            )
            for place, part in zip(places, slices_of(heads), strict=True)
        ]


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


class UnansweredError(Exception):
    """Carries the row that a model refuses although it has to answer it, and why."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(reason)
        self.row, self.reason = row, reason


def ask(
    predict: Callable[[Any], Outputs],
    rows: pd.DataFrame | Sequence[Row],
    numbers: Any = None,
    *,
    must_answer: bool = False,
) -> Answers:
    """Predict rows; where that raises, find the rows to blame by dividing them.

    Rows that lack the same values come beside each other then, since a model that refuses one of
    them refuses most of them: spread over all rows, each refusal would take many predictions.

    Args:
        predict: answers some of the rows.
        rows: n rows.
        numbers: those to ask, default all. Outputs of the others mean nothing.
        must_answer: stop at the first row that is refused.

    Raises:
        UnansweredError: a row is refused, and `must_answer` is set.
        Exception: what `predict` raises if it answers no row at all.
    """
    parts: list[tuple[Any, Outputs]] = []
    refusals: dict[int, str] = {}
    errors: list[Exception] = []

    def visit(some: Any) -> None:
        try:
            parts.append((some, predict(_taken(rows, some))))
        except Exception as error:
            if len(some) > 1:
                is_whole = len(some) == len(asked) and not must_answer
                ordered = _by_missing(rows, some) if is_whole else some
                for part in np.array_split(ordered, min(len(some), _PARTS)):
                    visit(part)
                return
            reason = f"{type(error).__name__}: {str(error).strip()[:300]}"
            if must_answer:
                raise UnansweredError(int(some[0]), reason) from error
            refusals[int(some[0])] = reason
            errors.append(error)

    asked = np.arange(len(rows)) if numbers is None else numbers
    with warnings.catch_warnings():
        # Probes overflow on purpose, and held-out rows were predicted by the user's code before.
        warnings.simplefilter("ignore")
        visit(asked)
    if not parts:
        raise errors[0]
    outputs = _joined(parts, len(rows))
    refusals = dict(sorted(refusals.items()))
    for row in asked[~_finite(outputs)[asked]].tolist():
        refusals.setdefault(row, NOT_FINITE)
    return Answers(outputs=outputs, refusals=refusals)


def _by_missing(rows: pd.DataFrame | Sequence[Row], numbers: Any) -> Any:
    """Return the numbers of rows, those that lack the same values beside each other."""
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    return numbers[np.lexsort(frame.isna().to_numpy()[numbers].T)]


def _taken(rows: pd.DataFrame | Sequence[Row], numbers: Any) -> Any:
    if isinstance(rows, pd.DataFrame):
        return rows.iloc[numbers].reset_index(drop=True)
    return [rows[number] for number in numbers.tolist()]


def _joined(parts: list[tuple[Any, Outputs]], count: int) -> Outputs:
    def join(name: str) -> Any:
        arrays = [(numbers, getattr(outputs, name)) for numbers, outputs in parts]
        first = arrays[0][1]
        if first is None:
            return None
        dtype = np.result_type(*{array.dtype for _, array in arrays})
        whole = np.zeros((count, *first.shape[1:]), dtype=dtype)
        for numbers, array in arrays:
            whole[numbers] = array
        return whole

    return Outputs(*(join(name) for name in ("labels", "probabilities", "margins")))


def _finite(outputs: Outputs) -> Any:
    finite = np.ones(len(outputs.labels), dtype=bool)
    for values in (outputs.labels, outputs.probabilities):
        if values is not None and values.dtype.kind == "f":
            finite &= np.isfinite(values).reshape(len(values), -1).all(axis=1)
    return finite


def differing(
    task: Task, heads: Sequence[Head], wanted: Answers, found: Answers, numbers: Any
) -> Mapping[int, str]:
    """Return the rows on which answers differ from the original's, and how.

    Labels must be equal where the original is sure of them, and classes everywhere; numbers must
    be within `RTOL` of their distance from the middle of the answers; what is refused must be the
    same.

    Args:
        task: what the model is for.
        heads: its heads, with their labels.
        wanted: the original's answers to n rows.
        found: another's.
        numbers: the rows that were asked.
    """
    differences: dict[int, str] = {}
    for row, reason in wanted.refusals.items():
        if row not in found.refusals:
            differences[row] = f"it answers where the original refuses ({reason})"
    for row, reason in found.refusals.items():
        if row not in wanted.refusals:
            differences[row] = f"it refuses ({reason})"
    asked = np.zeros(len(wanted.outputs.labels), dtype=bool)
    asked[numbers] = True
    both = wanted.accepted & found.accepted & asked
    pairs = zip(wanted.outputs.of_heads(heads), found.outputs.of_heads(heads), strict=True)
    for head, pair in zip(heads, pairs, strict=True):
        if task == "regression":
            own = _values(*pair, wanted.accepted, both)
        else:
            own = _labels(*pair, both, frozenset(head.classes)) if both.any() else {}
        name = f" for {head.name}" if len(heads) > 1 else ""
        differences |= {row: f"{what}{name}" for row, what in own.items()}
    return {row: what for row, what in sorted(differences.items()) if asked[row]}


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


def _values(wanted: Outputs, found: Outputs, accepted: Any, both: Any) -> dict[int, str]:
    one, other = _numbers(wanted.labels), _numbers(found.labels)
    if not both.any():
        return {}
    with np.errstate(over="ignore", invalid="ignore"):
        far = np.abs(one - other) > slack_of(one, accepted)
    far &= both & (one != other)
    return {
        row: f"it answers {other[row]:.9g} instead of {one[row]:.9g}"
        for row in np.flatnonzero(far).tolist()
    }


def slack_of(values: Any, accepted: Any) -> Any:
    """Return how far another form's number may be from each of n numbers, shape (n,).

    It is `RTOL` of their distance from the middle of the accepted ones and of the spread of these.
    """
    middle = float(np.median(values[accepted]))
    low, high = np.quantile(values[accepted], [0.05, 0.95])
    with np.errstate(over="ignore", invalid="ignore"):
        scale = np.abs(values - middle) + (high - low)
        return RTOL * np.where(scale > 0, scale, np.abs(values) / 100)


def _labels(
    wanted: Outputs, found: Outputs, both: Any, classes: frozenset[object]
) -> dict[int, str]:
    differences: dict[int, str] = {}
    first = int(np.flatnonzero(both)[0])
    if (wanted.probabilities is None) != (found.probabilities is None):
        return {first: "one gives probabilities and the other does not"}
    if wanted.probabilities is not None:
        one, other = _numbers(wanted.probabilities), _numbers(found.probabilities)
        if one.shape != other.shape:
            return {first: f"it gives {other.shape[1]} probabilities instead of {one.shape[1]}"}
        far = ~np.isclose(other, one, rtol=RTOL, atol=ATOL).all(axis=1)
        for row in np.flatnonzero(far & both).tolist():
            place = int(np.abs(one[row] - other[row]).argmax())
            differences[row] = (
                f"it gives a probability of {other[row, place]:.6g} instead of "
                f"{one[row, place]:.6g}"
            )
    sure = margins_of(wanted) >= MARGIN
    pairs = zip(wanted.labels.tolist(), found.labels.tolist(), strict=True)
    for row, (label, other_label) in enumerate(pairs):
        if both[row] and label != other_label and (sure[row] or other_label not in classes):
            differences[row] = f"it answers {literal(other_label)} instead of {literal(label)}"
    return differences


def margins_of(outputs: Outputs) -> Any:
    """Return how sure each label is: the distance of its probability from the next one."""
    if outputs.margins is not None:
        return outputs.margins
    if outputs.labels.ndim == 2:
        return np.full(outputs.labels.shape, np.inf)
    if outputs.probabilities is None:
        return np.full(len(outputs.labels), np.inf)
    if outputs.probabilities.shape[1] < 2:
        return np.ones(len(outputs.labels))
    best = np.sort(np.nan_to_num(outputs.probabilities), axis=1)
    return best[:, -1] - best[:, -2]


def sure(outputs: Outputs) -> Any:
    """Return in which rows rounding cannot change a label, a boolean array of shape (n,)."""
    margins = margins_of(outputs) >= MARGIN
    return margins.all(axis=1) if margins.ndim == 2 else margins


def _numbers(values: Any) -> Any:
    return np.asarray(values, dtype="float64")


def outputs_of(model: Model, raw: Raw) -> Outputs:
    """Return a computation's outputs, with labels where it has only probabilities."""
    labels = raw.labels
    if model.heads:
        return with_margins(Outputs(labels=labels, probabilities=raw.probabilities), model.heads)
    if labels is None:
        classes = np.array(model.classes, dtype=object)
        labels = classes[np.asarray(raw.probabilities).argmax(axis=1)]
    return Outputs(labels=np.asarray(labels), probabilities=raw.probabilities)


def with_margins(outputs: Outputs, heads: Sequence[Head]) -> Outputs:
    """Return the outputs of a model with heads, with the margins that its probabilities tell."""
    if outputs.probabilities is None:
        return outputs
    margins = np.stack([margins_of(own) for own in outputs.of_heads(heads)], axis=1)
    return replace(outputs, margins=margins)
