"""Probes on both sides of the places where a model's answer jumps.

Some are found by bisection between training rows, whatever the model is; those of trees are read
from the fitted trees, each with a training row that comes by.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from mlship.domain.bundle import Field
from mlship.training import parts
from mlship.training.proof.probes import ProbeKind, Probes, spread, stacked

Labels = Callable[[pd.DataFrame], Any]

_PAIRS: Final = 64
_COLUMNS: Final = 50
_AT_ONCE: Final = 3
"""Halvings that one prediction answers: to ask a model again takes longer than a few rows more."""
_ROUNDS: Final = 27
"""Predictions; two numbers of a size are neighbours after 53 halvings."""
_THRESHOLDS: Final = 2_000
"""At most so many thresholds of trees are tried, evenly spread, each in five ways."""
_ROWS: Final = 400
_JUMP: Final = 1e-9
_LARGEST: Final = float(np.finfo("float32").max)


def make(
    labels_of: Labels,
    estimator: Any,
    train: pd.DataFrame,
    fields: tuple[Field, ...],
    *,
    is_exact: bool,
) -> Probes | None:
    """Return the boundary probes of a model, or `None` if it has none.

    Args:
        labels_of: the original's labels or values for rows of the data, shape (n,) or (n, heads).
        estimator: the fitted model, if rows of the data are its own rows; otherwise `None`.
        train: the training rows.
        fields: their columns.
        is_exact: whether the model only compares numbers where it jumps, as trees do.
    """
    numbers = [field for field in fields if field.kind in ("number", "integer")]
    plain = [field for field in numbers if train[field.name].dtype.kind in "iuf"]
    if not plain or len(train) < 2:
        return None
    # The thresholds of trees are all places where they jump.
    found = list(_thresholds(estimator, train, plain)) or list(_jumps(labels_of, train, plain))
    if not found:
        return None
    kind: ProbeKind = "boundary"
    return Probes(
        frame=stacked([part.rows for part in found], train),
        kinds=(kind,) * sum(len(part.rows) for part in found),
        columns=tuple(part.name for part in found for _ in range(len(part.rows))),
        jumps=(0,) * sum(len(part.rows) for part in found) if is_exact else _numbered(found),
    )


class _Part(NamedTuple):
    """Rows that try a column: row k, k + jumps, k + 2 jumps and so on lie around jump k."""

    name: str
    rows: pd.DataFrame
    jumps: int


def _numbered(found: list[_Part]) -> tuple[int, ...]:
    numbers: list[int] = []
    for part in found:
        first = max(numbers, default=0) + 1
        numbers += [first + row % part.jumps for row in range(len(part.rows))]
    return tuple(numbers)


def _jumps(labels_of: Labels, train: pd.DataFrame, fields: list[Field]) -> Iterator[_Part]:
    """Walk from one training row to another, column by column, and halve each step that jumps."""
    random = np.random.default_rng(1)
    whole = train.dropna(subset=[field.name for field in fields])
    if len(whole) < 2:
        return
    now = whole.iloc[random.integers(0, len(whole), _PAIRS)].reset_index(drop=True)
    ends = whole.iloc[random.integers(0, len(whole), _PAIRS)].reset_index(drop=True)
    steps: list[_Step] = []
    try:
        labels = labels_of(now)
        for place in random.permutation(len(fields))[:_COLUMNS]:
            name = fields[place].name
            there = now.assign(**{name: ends[name]})
            reached = labels_of(there)
            jumping = np.flatnonzero(_differ(labels, reached))
            if len(jumping):
                bases = there.iloc[jumping].reset_index(drop=True)
                steps.append(_Step(name, bases, now[name].to_numpy()[jumping], labels[jumping]))
            now, labels = there, reached
        yield from _halved(labels_of, steps)
    except Exception:  # noqa: BLE001 (a model that refuses training rows is told of elsewhere)
        return


def _halved(labels_of: Labels, steps: list["_Step"]) -> Iterator[_Part]:
    """Return rows with the last value before each jump, the first one after it, and singles.

    All steps are halved together: each prediction is of all values that the next halvings of any
    step may need.
    """
    for _ in range(_ROUNDS):
        middles = [step.middles() for step in steps]
        if all(step.is_done(halves[0]) for step, halves in zip(steps, middles, strict=True)):
            break
        rows = [
            _around(step.bases, step.name, halves).rows
            for step, halves in zip(steps, middles, strict=True)
        ]
        labels = labels_of(pd.concat(rows, ignore_index=True))
        for step, halves, own in zip(steps, middles, rows, strict=True):
            step.narrow(halves, labels[: len(own)])
            labels = labels[len(own) :]
    for step in steps:
        ways = [step.low, step.high] if step.is_whole else _neighbours(step.low, step.high)
        yield _around(step.bases, step.name, ways)


class _Step:
    """Rows that jump between two values of a column, which are brought together."""

    def __init__(self, name: str, bases: pd.DataFrame, low: Any, before: Any) -> None:
        """Take rows with the higher value, the lower value and the labels there."""
        self.name, self.bases, self.low, self._before = name, bases, low, before
        self.high = bases[name].to_numpy().copy()
        self.is_whole = self.high.dtype.kind in "iu"

    def middles(self) -> list[Any]:
        """Return the values halfway, then those halfway to each of them, and so on.

        Whatever the halving at place k finds, the next one is at place 2 k + 1 or 2 k + 2.
        """
        ranges = [(self.low, self.high)]
        middles = []
        for place in range(2**_AT_ONCE - 1):
            low, high = ranges[place]
            middle = low + (high - low) // 2 if self.is_whole else low / 2 + high / 2
            middles.append(middle)
            ranges += [(low, middle), (middle, high)]
        return middles

    def is_done(self, middle: Any) -> bool:
        """Tell whether nothing lies between any two values."""
        return bool(((middle == self.low) | (middle == self.high)).all())

    def narrow(self, middles: list[Any], labels: Any) -> None:
        """Take the half that jumps, as often as the labels of the middles tell."""
        values, number = np.stack(middles), len(self.bases)
        labels = labels.reshape(len(values), number, *labels.shape[1:])
        places, rows = np.zeros(number, int), np.arange(number)
        for _ in range(_AT_ONCE):
            middle = values[places, rows]
            stays = ~_differ(self._before, labels[places, rows])
            self.low = np.where(stays, middle, self.low)
            self.high = np.where(stays, self.high, middle)
            places = 2 * places + 1 + stays


def _neighbours(low: Any, high: Any) -> list[Any]:
    singles = np.float32(low), np.float32(high)
    ways = [low, high]
    for single in singles:
        ways += [single.astype("float64")]
        ways += [np.nextafter(single, np.float32(to)).astype("float64") for to in (np.inf, -np.inf)]
    return ways


def _around(bases: pd.DataFrame, name: str, ways: list[Any]) -> _Part:
    rows = bases.iloc[np.tile(np.arange(len(bases)), len(ways))].reset_index(drop=True)
    return _Part(name, rows.assign(**{name: np.concatenate(ways)}), len(bases))


def _differ(one: Any, other: Any) -> Any:
    """Return which answers differ: labels at all, values by more than rounding."""
    if one.dtype.kind == "f" and other.dtype.kind == "f":
        different = ~np.isclose(one, other, rtol=_JUMP, atol=0)
    else:
        different = one != other
    return different.any(axis=1) if different.ndim == 2 else different


def _thresholds(estimator: Any, train: pd.DataFrame, fields: list[Field]) -> Iterator[_Part]:
    """Return for each threshold a training row that meets it, and numbers on both its sides."""
    known = {field.name: field for field in fields}
    names = parts.names_of(estimator) or [str(name) for name in train.columns]
    sample = train.iloc[spread(len(train), _ROWS)]
    nodes = _nodes(estimator, sample, names)
    by_column: dict[str, list[tuple[int, float]]] = {}
    for place in spread(len(nodes.rows), _THRESHOLDS):
        column, threshold = nodes.columns[place], float(nodes.thresholds[place])
        name = names[column] if column < len(names) else ""
        if name in known and np.isfinite(threshold):
            by_column.setdefault(name, []).append((int(nodes.rows[place]), threshold))
    for name, pairs in by_column.items():
        bases = sample.iloc[[row for row, _ in pairs]].reset_index(drop=True)
        limits = np.array([threshold for _, threshold in pairs])
        if known[name].kind == "integer":
            yield _around(bases, name, [np.floor(limits), np.floor(limits) + 1])
        else:
            yield _around(bases, name, _sides(limits))


def _sides(limits: Any) -> list[Any]:
    single = np.float32(limits)
    return [
        limits,
        np.nextafter(limits, np.inf),
        np.nextafter(limits, -np.inf),
        np.nextafter(single, np.float32(np.inf)).astype("float64"),
        np.nextafter(single, np.float32(-np.inf)).astype("float64"),
    ]


class _Nodes(NamedTuple):
    """Inner nodes of trees, arrays of shape (nodes,).

    Attributes:
        rows: a row of the sample that comes by, by its number.
        columns: what the node compares, by its place.
        thresholds: with what.
    """

    rows: Any
    columns: Any
    thresholds: Any


def _nodes(estimator: Any, sample: pd.DataFrame, names: list[str]) -> _Nodes:
    """Return the inner nodes that a row of the sample meets."""
    trees = getattr(estimator, "estimators_", [estimator])
    trees = trees.ravel().tolist() if isinstance(trees, np.ndarray) else trees
    own = [tree.tree_ for tree in trees if hasattr(tree, "tree_")]
    none = _Nodes(*(np.array([], dtype=dtype) for dtype in (int, int, float)))
    if own:
        try:
            matrix = sample[names].to_numpy(dtype="float32")
        except (ValueError, TypeError, KeyError):
            return none
        parts_of_trees = [_met(tree, matrix) for tree in own]
        return _Nodes(*(np.concatenate(arrays) for arrays in zip(*parts_of_trees, strict=True)))
    try:
        listed = [*_borders(estimator), *_listed(estimator, names)]
    except Exception:  # noqa: BLE001 (a booster may have no trees, or none that can be listed)
        return none
    if not listed:
        return none
    columns, thresholds = (np.array(values) for values in zip(*listed, strict=True))
    return _Nodes(np.arange(len(listed)) % len(sample), columns, thresholds)


def _met(tree: Any, matrix: Any) -> _Nodes:
    """Return the inner nodes of a tree that rows meet, each with the first of these rows."""
    paths = tree.decision_path(matrix).tocsc()
    inner = np.flatnonzero((tree.children_left >= 0) & (np.diff(paths.indptr) > 0))
    return _Nodes(paths.indices[paths.indptr[inner]], tree.feature[inner], tree.threshold[inner])


def _borders(estimator: Any) -> Iterator[tuple[int, float]]:
    """Return the column and the threshold of each border that a CatBoost model compares with.

    The largest number, of either sign, is no threshold: it parts missing values from all others.
    """
    if hasattr(estimator, "get_borders"):
        for column, borders in estimator.get_borders().items():
            yield from ((column, border) for border in borders if abs(border) < _LARGEST)


def _listed(estimator: Any, names: list[str]) -> Iterator[tuple[int, float]]:
    """Return the column and the threshold of each node of a boosted model."""
    for predictors in getattr(estimator, "_predictors", ()):
        for predictor in np.ravel(predictors).tolist():
            inner = predictor.nodes[predictor.nodes["is_leaf"] == 0]
            yield from zip(
                inner["feature_idx"].tolist(), inner["num_threshold"].tolist(), strict=True
            )
    table = None
    if hasattr(estimator, "get_booster"):
        table = estimator.get_booster().trees_to_dataframe()
        columns, limits = table["Feature"], table["Split"]
    elif hasattr(estimator, "booster_"):
        table = estimator.booster_.trees_to_dataframe()
        columns, limits = table["split_feature"], pd.to_numeric(table["threshold"], errors="coerce")
    if table is None:
        return
    places = {name.replace(" ", "_"): place for place, name in enumerate(names)}
    places |= {f"f{place}": place for place in range(len(names))}
    places |= {f"Column_{place}": place for place in range(len(names))}
    places |= {name: place for place, name in enumerate(names)}
    for column, limit in zip(columns.tolist(), limits.tolist(), strict=True):
        if column in places and limit is not None and np.isfinite(limit):
            yield places[column], float(limit)
