"""What a model must beat: the constant answer that the training targets suggest."""

import pandas as pd

from mlship.domain.bundle import Row, Task
from mlship.training.columns import values_of
from mlship.training.data import Data


def outputs(task: Task, data: Data, count: int) -> list[Row]:
    """Return the same outputs for each of `count` rows.

    It is the most frequent class of the training rows with the frequencies of all classes as
    probabilities, or the mean of their targets.
    """
    target = data.train_target
    if task == "regression":
        return [{data.target: float(target.astype("float64").mean())}] * count
    shares = target.value_counts(normalize=True)
    labels = values_of(shares.index.to_series())
    row: Row = {data.target: labels[0]}
    row |= {
        f"probability_{label}": float(share)
        for label, share in zip(labels, shares.tolist(), strict=True)
    }
    return [row] * count


def repeated(data: Data) -> int:
    """Return how many held-out rows are among the training rows, targets included."""
    known, held_out = (
        pd.util.hash_pandas_object(features.assign(**{data.target: target}), index=False)
        for features, target in (
            (data.train, data.train_target),
            (data.test, data.test_target),
        )
    )
    return int(held_out.isin(known).sum())
