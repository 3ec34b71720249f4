"""Probes on both sides of the places where a model's answer jumps.

Some are found by bisection between training rows, whatever the model is; those of trees are read
from the fitted trees, each with a training row that comes by.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pandas as pd

from mlship.domain.bundle import Field
from mlship.training.answers import Outputs, Predict
from mlship.training.probes import ProbeKind, Probes, stacked

_PAIRS: Final = 64
_STEPS: Final = 80
"""Halvings; two numbers of a size are neighbours after 53."""
_THRESHOLDS: Final = 2_000
"""At most so many thresholds of trees are tried, evenly spread, each in five ways."""
_ROWS: Final = 400
_JUMP: Final = 1e-9


def make(
    predict: Predict, estimator: Any, train: pd.DataFrame, fields: tuple[Field, ...]
) -> Probes | None:
    """Return the boundary probes of a model, or `None` if it has none.

    Args:
        predict: answers rows of the data, by the original model.
        estimator: the fitted model, or `None`.
        train: the training rows.
        fields: their columns.
    """
    numbers = [field for field in fields if field.kind in ("number", "integer")]
    plain = [field for field in numbers if train[field.name].dtype.kind in "iuf"]
    if not plain or len(train) < 2:
        return None
    parts = list(_jumps(predict, train, plain))
    parts += list(_thresholds(estimator, train, plain))
    if not parts:
        return None
    kind: ProbeKind = "boundary"
    return Probes(
        frame=stacked([rows for _, rows in parts], train),
        kinds=(kind,) * sum(len(rows) for _, rows in parts),
        columns=tuple(name for name, rows in parts for _ in range(len(rows))),
    )


def _jumps(
    predict: Predict, train: pd.DataFrame, fields: list[Field]
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Walk from one training row to another, column by column, and halve the step that jumps."""
    random = np.random.default_rng(1)
    whole = train.dropna(subset=[field.name for field in fields])
    if len(whole) < 2:
        return
    starts = whole.iloc[random.integers(0, len(whole), _PAIRS)].reset_index(drop=True)
    ends = whole.iloc[random.integers(0, len(whole), _PAIRS)].reset_index(drop=True)
    try:
        outputs = predict(starts)
        for field in random.permutation(np.array(fields, dtype=object)):
            there = starts.assign(**{field.name: ends[field.name]})
            reached = predict(there)
            jumping = np.flatnonzero(_differ(outputs, reached))
            if len(jumping):
                bases = there.iloc[jumping].reset_index(drop=True)
                low = starts[field.name].to_numpy()[jumping]
                yield field.name, _halved(predict, bases, field.name, low)
            starts, outputs = there, reached
    except Exception:  # noqa: BLE001 (a model that refuses training rows is told of elsewhere)
        return


def _halved(predict: Predict, bases: pd.DataFrame, name: str, low: Any) -> pd.DataFrame:
    """Return rows with the last value before each jump, the first one after it, and singles."""
    high = bases[name].to_numpy().copy()
    before = predict(bases.assign(**{name: low}))
    is_whole = high.dtype.kind in "iu"
    for _ in range(_STEPS):
        middle = low + (high - low) // 2 if is_whole else low / 2 + high / 2
        if ((middle == low) | (middle == high)).all():
            break
        stays = ~_differ(before, predict(bases.assign(**{name: middle})))
        low, high = np.where(stays, middle, low), np.where(stays, high, middle)
    return _around(bases, name, [low, high] if is_whole else _neighbours(low, high))


def _neighbours(low: Any, high: Any) -> list[Any]:
    singles = np.float32(low), np.float32(high)
    ways = [low, high]
    for single in singles:
        ways += [single.astype("float64")]
        ways += [np.nextafter(single, np.float32(to)).astype("float64") for to in (np.inf, -np.inf)]
    return ways


def _around(bases: pd.DataFrame, name: str, ways: list[Any]) -> pd.DataFrame:
    rows = bases.iloc[np.tile(np.arange(len(bases)), len(ways))].reset_index(drop=True)
    return rows.assign(**{name: np.concatenate(ways)})


def _differ(one: Outputs, other: Outputs) -> Any:
    """Return which answers differ: labels at all, values by more than rounding."""
    if one.labels.dtype.kind == "f" and other.labels.dtype.kind == "f":
        return ~np.isclose(one.labels, other.labels, rtol=_JUMP, atol=0)
    return one.labels != other.labels


def _thresholds(
    estimator: Any, train: pd.DataFrame, fields: list[Field]
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Return for each threshold a training row that meets it, and numbers on both its sides."""
    known = {field.name: field for field in fields}
    names = [str(name) for name in getattr(estimator, "feature_names_in_", train.columns)]
    sample = train.iloc[np.unique(np.linspace(0, len(train) - 1, _ROWS).astype(int))]
    found = list(_nodes(estimator, sample, names))
    kept = np.unique(np.linspace(0, len(found) - 1, min(_THRESHOLDS, len(found))).astype(int))
    by_column: dict[str, list[tuple[int, float]]] = {}
    for row, column, threshold in (found[place] for place in kept):
        name = names[column] if column < len(names) else ""
        if name in known and np.isfinite(threshold):
            by_column.setdefault(name, []).append((row, threshold))
    for name, pairs in by_column.items():
        bases = sample.iloc[[row for row, _ in pairs]].reset_index(drop=True)
        limits = np.array([threshold for _, threshold in pairs])
        if known[name].kind == "integer":
            yield name, _around(bases, name, [np.floor(limits), np.floor(limits) + 1])
        else:
            yield name, _around(bases, name, _sides(limits))


def _sides(limits: Any) -> list[Any]:
    single = np.float32(limits)
    return [
        limits,
        np.nextafter(limits, np.inf),
        np.nextafter(limits, -np.inf),
        np.nextafter(single, np.float32(np.inf)).astype("float64"),
        np.nextafter(single, np.float32(-np.inf)).astype("float64"),
    ]


def _nodes(
    estimator: Any, sample: pd.DataFrame, names: list[str]
) -> Iterator[tuple[int, int, float]]:
    """Return the row of the sample that meets each inner node, its column and its threshold."""
    trees = getattr(estimator, "estimators_", [estimator])
    trees = trees.ravel().tolist() if isinstance(trees, np.ndarray) else trees
    own = [tree.tree_ for tree in trees if hasattr(tree, "tree_")]
    if own:
        try:
            matrix = sample[names].to_numpy(dtype="float32")
        except (ValueError, TypeError, KeyError):
            return
        for tree in own:
            paths = tree.decision_path(matrix).tocsc()
            for node in np.flatnonzero(tree.children_left >= 0).tolist():
                rows = paths.indices[paths.indptr[node] : paths.indptr[node + 1]]
                if len(rows):
                    yield int(rows[0]), int(tree.feature[node]), float(tree.threshold[node])
        return
    for number, (column, threshold) in enumerate(_listed(estimator, names)):
        yield number % len(sample), column, threshold


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
