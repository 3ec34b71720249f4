"""What a model must beat: the constant answer that the training targets suggest."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mlship.domain.bundle import Row, Task, probability_of
from mlship.training.columns import values_of
from mlship.training.data import Data, Target
from mlship.training.scoring import quantiles
from mlship.training.scoring.several import Problem


def outputs(problem: Problem, data: Data, count: int) -> list[Row]:
    """Return the same outputs for each of `count` rows.

    It is the most frequent class of the training rows with the frequencies of all classes as
    probabilities, or the mean of their targets, or the quantiles of these.
    """
    if problem.quantiles:
        target = data.targets[0]
        known = target.train.to_numpy(dtype="float64")
        return [quantiles.constant(problem.quantiles, target.name, known)] * count
    row: Row = {}
    for target in data.targets:
        row |= _constant(problem.task, target, target.name if len(data.targets) > 1 else "")
    return [row] * count


def _constant(task: Task, target: Target, name: str) -> Row:
    if task == "regression":
        return {target.name: float(target.train.astype("float64").mean())}
    shares = target.train.value_counts(normalize=True)
    labels: Sequence[Any] = values_of(shares.index.to_series())
    row: Row = {target.name: labels[0]}
    return row | {
        probability_of(label, name): float(share)
        for label, share in zip(labels, shares.tolist(), strict=True)
    }


def repeated(data: Data) -> int:
    """Return how many held-out rows are among the training rows, targets included."""
    known, held_out = (
        pd.util.hash_pandas_object(features.assign(**targets), index=False)
        for features, targets in (
            (data.train, {target.name: target.train for target in data.targets}),
            (data.test, {target.name: target.test for target in data.targets}),
        )
    )
    return int(held_out.isin(known).sum())
