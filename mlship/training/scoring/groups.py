"""Metrics of models without a target: how clusters lie, and how many anomalies there are.

Distances are between rows' numeric columns, scaled by the training rows: the same for the release
and the champion, whatever each computes inside.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn.metrics

from mlship.domain.bundle import ANOMALY, CLUSTER, Row, Task
from mlship.training.data import Data
from mlship.training.fit import hook

_ROWS = 2_000
"""The silhouette compares each row with all others: of more rows, a sample is taken."""


def space_of(root: Path, data: Data, preprocess: str | None) -> Any:
    """Return the held-out rows as points, shape (rows, numeric columns); missing values are 0.

    Args:
        root: the project.
        data: both parts, before `preprocess`.
        preprocess: the hook, if there is one.

    Raises:
        ProjectError: the hook fails.
    """
    prepare = hook(root, preprocess)
    train, test = (part if prepare is None else prepare(part) for part in (data.train, data.test))
    names = [name for name in train.columns if pd.api.types.is_numeric_dtype(train[name])]
    known, points = (
        part[names].to_numpy(dtype="float64", na_value=np.nan) for part in (train, test)
    )
    if not names:
        return points
    spread = np.nanstd(known, axis=0)
    scaled = (points - np.nanmean(known, axis=0)) / np.where(spread > 0, spread, 1.0)
    return np.nan_to_num(scaled)


def measure(task: Task, space: Any, outputs: Sequence[Row]) -> dict[str, float]:
    """Return the metrics of outputs.

    Of a clustering these are `clusters`, the number that is used, `largest_share`, the share of
    rows in the largest one, and `silhouette`, `calinski_harabasz` and `davies_bouldin`, if the
    rows have numeric columns; they are NaN if all rows are in one cluster, or each in its own. Of
    an anomaly detector, it is `anomalies`, their share.

    Args:
        task: clustering or anomaly.
        space: the rows as points.
        outputs: of the model, for these rows.
    """
    if task == "anomaly":
        return {"anomalies": sum(row[ANOMALY] == -1 for row in outputs) / len(outputs)}
    codes, names = pd.factorize(np.array([row[CLUSTER] for row in outputs]))
    values = {
        "clusters": float(len(names)),
        "largest_share": float(np.bincount(codes).max() / len(codes)),
    }
    return values | _distances(space, codes) if space.shape[1] else values


def _distances(space: Any, codes: Any) -> dict[str, float]:
    names = ("silhouette", "calinski_harabasz", "davies_bouldin")
    if not 2 <= len(np.unique(codes)) < len(codes):
        return dict.fromkeys(names, float("nan"))
    size = _ROWS if len(codes) > _ROWS else None
    found = (
        sklearn.metrics.silhouette_score(space, codes, sample_size=size, random_state=0),
        sklearn.metrics.calinski_harabasz_score(space, codes),
        sklearn.metrics.davies_bouldin_score(space, codes),
    )
    return dict(zip(names, map(float, found), strict=True))
