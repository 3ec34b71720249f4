"""How good predictions are, and how sure a difference between two models is."""

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import sklearn.metrics

from mlship.domain.bundle import Row, Task, Value
from mlship.domain.scores import Interval

RESAMPLES = 2_000
SEED = 0
_FEW = 1_000
"""Draws of so many rows take 16 MB; they are kept for the next target or metric."""
_TINY = 1e-15


def measure(
    task: Task, truth: Sequence[Value], outputs: Sequence[Row], target: str
) -> dict[str, float]:
    """Return the metrics of outputs against the true values, row by row.

    Classification: accuracy, f1_macro, precision_macro, recall_macro, and log_loss where the
    outputs hold the probability of each true class. Regression: mae, mse, rmse, r2; an r2 that is
    not defined is NaN.
    """
    if task == "regression":
        return _of_values(_numbers(truth), _numbers([row[target] for row in outputs]))
    predicted = [row[target] for row in outputs]
    labels = labels_of(truth, predicted)
    wanted, found = _codes(truth, labels), _codes(predicted, labels)
    averages = {"average": "macro", "zero_division": 0.0}
    metrics = {
        "accuracy": float(sklearn.metrics.accuracy_score(wanted, found)),
        "f1_macro": float(sklearn.metrics.f1_score(wanted, found, **averages)),
        "precision_macro": float(sklearn.metrics.precision_score(wanted, found, **averages)),
        "recall_macro": float(sklearn.metrics.recall_score(wanted, found, **averages)),
    }
    losses = _losses(truth, outputs)
    return metrics if losses is None else metrics | {"log_loss": float(losses.mean())}


def labels_of(truth: Sequence[Value], predicted: Sequence[Value]) -> list[Value]:
    """Return the classes of both, sorted; numbers before texts."""
    return sorted(
        dict.fromkeys([*truth, *predicted]),
        key=lambda value: (isinstance(value, str), value),
    )


def confusion(
    truth: Sequence[Value], predicted: Sequence[Value], labels: Sequence[Value]
) -> tuple[tuple[int, ...], ...]:
    """Return counts: a row for each true class, a column for each predicted one."""
    counts = sklearn.metrics.confusion_matrix(
        _codes(truth, labels), _codes(predicted, labels), labels=range(len(labels))
    )
    return tuple(tuple(row) for row in counts.tolist())


def differences(
    task: Task,
    truth: Sequence[Value],
    pair: tuple[Sequence[Row], Sequence[Row]],
    target: str,
) -> dict[str, Interval]:
    """Return release minus champion for each metric, with a 95 % interval.

    The interval is that of the percentiles of a paired bootstrap: rows are drawn with
    replacement, 2,000 times with a fixed seed, and both models are measured on the same draw.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Args:
        task: what the models are for.
        truth: the true values.
        pair: the outputs of the release and of the champion for the same rows.
        target: the output to look at.
    """
    points = [measure(task, truth, outputs, target) for outputs in pair]
    return intervals(points, draws(task, truth, pair, target))


def draws(
    task: Task,
    truth: Sequence[Value],
    pair: tuple[Sequence[Row], Sequence[Row]],
    target: str,
    *,
    by_row: bool = False,
) -> Mapping[str, Any]:
    """Return the differences of each metric in all resamples, arrays of shape (resamples,).

    With `by_row`, resample k has the same rows whatever the target is.
    """
    if task == "regression":
        return _draws_of_values(truth, pair, target)
    return _draws_of_labels(truth, pair, target, by_row=by_row)


def intervals(
    points: Sequence[Mapping[str, float]], samples: Mapping[str, Any]
) -> dict[str, Interval]:
    """Return the difference of each metric that both have, with its 95 % interval.

    Args:
        points: the metrics of the release and of the champion.
        samples: the differences in all resamples.
    """
    return {
        name: Interval(estimate=points[0][name] - points[1][name], low=low, high=high)
        for name in points[0]
        if name in points[1] and math.isfinite(points[0][name] - points[1][name])
        for low, high in [_percentiles(samples[name])]
    }


def _percentiles(sample: Any) -> tuple[float, float]:
    finite = sample[np.isfinite(sample)]
    low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (math.nan, math.nan)
    return float(low), float(high)


def _of_values(truth: Any, found: Any) -> dict[str, float]:
    mse = float(sklearn.metrics.mean_squared_error(truth, found))
    is_defined = len(truth) > 1 and bool(np.ptp(truth) > 0)
    return {
        "mae": float(sklearn.metrics.mean_absolute_error(truth, found)),
        "mse": mse,
        "rmse": math.sqrt(mse),
        "r2": float(sklearn.metrics.r2_score(truth, found)) if is_defined else math.nan,
    }


def _draws_of_values(
    truth: Sequence[Value], pair: tuple[Sequence[Row], Sequence[Row]], target: str
) -> Mapping[str, Any]:
    wanted = _numbers(truth)
    errors = [_numbers([row[target] for row in outputs]) - wanted for outputs in pair]
    centred = wanted - wanted.mean()
    columns = [centred, centred**2]
    for error in errors:
        columns += [np.abs(error), error**2]
    means = resampled(np.stack(columns, axis=1))
    spread = means[:, 1] - means[:, 0] ** 2
    mae, mse = means[:, [2, 4]], means[:, [3, 5]]
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = 1 - mse / spread[:, None]
    metrics = {"mae": mae, "mse": mse, "rmse": np.sqrt(mse), "r2": r2}
    return {name: values[:, 0] - values[:, 1] for name, values in metrics.items()}


def _draws_of_labels(
    truth: Sequence[Value],
    pair: tuple[Sequence[Row], Sequence[Row]],
    target: str,
    *,
    by_row: bool,
) -> Mapping[str, Any]:
    """Resample counts of (true, predicted, predicted by the other), not rows: it is the same."""
    predicted = [[row[target] for row in outputs] for outputs in pair]
    labels = labels_of(truth, [*predicted[0], *predicted[1]])
    codes = np.stack([_codes(values, labels) for values in (truth, *predicted)], axis=1)
    cells, places, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    if by_row:
        rows = _drawn(len(truth))
        drawn = np.stack([np.bincount(places.ravel(), counts, len(cells)) for counts in rows])
    else:
        generator = np.random.default_rng(SEED)
        drawn = generator.multinomial(len(truth), counts / len(truth), RESAMPLES)
    eye = np.eye(len(labels))
    actual = drawn @ eye[cells[:, 0]]
    metrics = []
    for column in (1, 2):
        hit = cells[:, 0] == cells[:, column]
        metrics.append(
            _macro(
                hits=drawn @ (eye[cells[:, 0]] * hit[:, None]),
                predicted=drawn @ eye[cells[:, column]],
                actual=actual,
            )
        )
    samples = {name: metrics[0][name] - metrics[1][name] for name in metrics[0]}
    losses = [_losses(truth, outputs) for outputs in pair]
    if losses[0] is not None and losses[1] is not None:
        samples["log_loss"] = resampled((losses[0] - losses[1])[:, None])[:, 0]
    return samples


def _macro(hits: Any, predicted: Any, actual: Any) -> dict[str, Any]:
    """Return metrics of each draw from counts of shape (draws, classes)."""
    present = np.maximum((predicted + actual > 0).sum(axis=1), 1)

    def mean(numerator: Any, denominator: Any) -> Any:
        parts = np.divide(
            numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0
        )
        return parts.sum(axis=1) / present

    return {
        "accuracy": hits.sum(axis=1) / actual.sum(axis=1),
        "f1_macro": mean(2 * hits, predicted + actual),
        "precision_macro": mean(hits, predicted),
        "recall_macro": mean(hits, actual),
    }


def resampled(columns: Any) -> Any:
    """Return the means of columns over rows drawn with replacement: (resamples, columns)."""
    return np.stack([drawn @ columns / len(columns) for drawn in _drawn(len(columns))])


def _drawn(count: int) -> Iterable[Any]:
    """Return for each resample how often each row was drawn: the same for the same count."""
    return _kept(count) if count <= _FEW else _draw(count)


@functools.lru_cache(maxsize=1)
def _kept(count: int) -> tuple[Any, ...]:
    return tuple(_draw(count))


def _draw(count: int) -> Iterator[Any]:
    generator = np.random.default_rng(SEED)
    for _ in range(RESAMPLES):
        yield np.bincount(generator.integers(0, count, count), minlength=count)


def _losses(truth: Sequence[Value], outputs: Sequence[Row]) -> Any:
    """Return each row's log loss, or `None` where a true class has no probability."""
    names = [name for name in outputs[0] if name.startswith("probability_")]
    table = [[row[name] for name in names] for row in outputs]
    wanted = [f"probability_{value}" for value in truth]
    if not set(wanted) <= set(names) or any(
        not isinstance(value, int | float) for row in table for value in row
    ):
        return None
    places = {name: place for place, name in enumerate(names)}
    numbers = np.array(table, dtype="float64")
    own = numbers[np.arange(len(truth)), [places[name] for name in wanted]]
    sums = numbers.sum(axis=1)
    if not (sums > 0).all():
        return None
    return -np.log(np.clip(own / sums, _TINY, 1))


def _codes(values: Sequence[Value], labels: Sequence[Value]) -> Any:
    places = {label: place for place, label in enumerate(labels)}
    return np.array([places[value] for value in values])


def _numbers(values: Sequence[Any]) -> Any:
    return np.array(values, dtype="float64")
