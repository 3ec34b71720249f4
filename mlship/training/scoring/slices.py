"""Parts of the held-out rows where a release is worse than the champion.

A slice is the rows with one value of a column, or with numbers between two quartiles. Which
slices there are is decided by the data alone, before a model is looked at. Many slices are many
chances to be fooled: the intervals hold for all slices at once, with the error divided among them
(Bonferroni), which is right however much slices overlap.

Sources:
    Dunn, "Multiple comparisons among means", JASA 56, 1961: the division of the error.
    McNemar, Psychometrika 12, 1947, in its exact form, and Clopper and Pearson, Biometrika 26,
    1934: right or wrong, on the rows where only one of the two is right.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd
from scipy.special import betaincinv, stdtrit

from mlship.domain.bundle import Task, Value
from mlship.domain.profiles import shown
from mlship.domain.scores import Interval, Slice, Slices
from mlship.errors import ConfigError
from mlship.training.columns import text_of
from mlship.training.data import Data, nearest

Predicted: TypeAlias = Mapping[str, Sequence[Value]]
"""Predictions by target, one for each row."""

CONFIDENCE: Final = 0.95
ROWS_FROM: Final = 30
"""A slice of fewer rows is not judged."""

COLUMNS: Final = 50
VALUES: Final = 20
"""Columns, and values of a column, that are looked at, the most frequent values first."""

LISTED: Final = 50
_DISTINCT_NUMBERS = 10
_SHARE_OF_SIGN = 0.9
_MISSING = "(missing)"


@dataclass(frozen=True)
class _Groups:
    """A column's slices: each row's place among the names, -1 for a row that is in none."""

    column: str
    names: list[str]
    places: Any
    left_out: int = 0


def check_names(data: Data, wanted: Sequence[str]) -> None:
    """Refuse columns that the data do not have.

    Raises:
        ConfigError: `data.slices` names one.
    """
    known = [*(field.name for field in data.fields), *data.names]
    for name in wanted:
        if name not in known:
            message = f"mlship.yaml: data.slices names {name}, which is not a column of the data"
            raise ConfigError(message, hint=nearest(name, known))


def compare(
    task: Task,
    data: Data,
    pair: tuple[Predicted, Predicted],
    wanted: Sequence[str] = (),
) -> Slices:
    """Compare two models on each slice of the held-out rows.

    Args:
        task: what the models are for: accuracy is compared, or the mean absolute error.
        data: the held-out rows as they are before `preprocess`.
        pair: the predictions of the release and of the champion for these rows, by target.
        wanted: the columns to look at; all, the targets among them, where none is named.
    """
    scores = [_scores(task, data, predicted) for predicted in pair]
    columns = list(wanted) or [*data.names, *(field.name for field in data.fields)]
    groups = [_groups_of(task, data, name) for name in columns[:COLUMNS]]
    left_out = len(columns[COLUMNS:]) + sum(one.left_out for one in groups)
    parts = [part for one in groups for part in _parts(one, scores)]
    # Whether one target is right is yes or no; of several, it is a share.
    method = "paired t" if task == "regression" or len(data.targets) > 1 else _EXACT
    large = [part for part in parts if part.samples >= ROWS_FROM]
    judged = [
        made
        for part, interval in zip(large, _intervals(method, large), strict=True)
        if np.isfinite([interval.low, interval.high]).all()
        for made in [_judged(task, part, interval)]
    ]
    sign = 1 if task == "classification" else -1
    judged.sort(key=lambda one: (not one.is_worse, sign * one.difference.estimate))
    return Slices(
        metric="accuracy" if task == "classification" else "mae",
        judged=len(judged),
        small=len(parts) - len(judged),
        left_out=left_out,
        worse=sum(one.is_worse for one in judged),
        confidence=CONFIDENCE,
        method=method + ", corrected for all slices at once (Bonferroni)",
        listed=tuple(judged[:LISTED]),
    )


_EXACT = "exact, of the rows where one of the two is right"


@dataclass(frozen=True)
class _Part:
    """A slice in numbers: means of both, and the moments of the paired difference.

    Attributes:
        up: rows where the release's score is higher; `down` where it is lower.
        spread: the standard deviation of the differences.
    """

    column: str
    value: str
    samples: int
    release: float
    champion: float
    up: int
    down: int
    spread: float


def _scores(task: Task, data: Data, predicted: Predicted) -> Any:
    """Return each row's score, the mean over its targets."""
    scores = [
        _scores_of_one(task, target.test.tolist(), predicted[target.name])
        for target in data.targets
    ]
    return np.mean(scores, axis=0)


def _scores_of_one(task: Task, truth: Sequence[Value], predicted: Sequence[Value]) -> Any:
    if task == "classification":
        right = [one == other for one, other in zip(truth, predicted, strict=True)]
        return np.array(right, dtype="float64")
    return np.abs(np.array(predicted, dtype="float64") - np.array(truth, dtype="float64"))


def _groups_of(task: Task, data: Data, name: str) -> _Groups:
    target = next((target for target in data.targets if target.name == name), None)
    if target is not None:
        column, is_number = target.test, task == "regression"
    else:
        kind = next(field.kind for field in data.fields if field.name == name)
        column = data.test[name]
        is_number = kind in ("number", "integer")
    if is_number and _has_many(column):
        return _quarters(name, column.to_numpy(dtype="float64", na_value=math.nan))
    return _values(name, column)


def _has_many(numbers: pd.Series) -> bool:
    # The first rows mostly tell; only where they do not are all of them looked at.
    return any(part.nunique() > _DISTINCT_NUMBERS for part in (numbers.head(1_000), numbers))


def _values(name: str, column: pd.Series) -> _Groups:
    """Return a slice for each of the most frequent values, and one of the missing."""
    codes, found = pd.factorize(column)
    counts = np.bincount(codes[codes >= 0], minlength=len(found))
    # Equal counts keep the order in which the values appear: the same data, the same slices.
    kept = np.argsort(-counts, kind="stable")[:VALUES]
    table = np.full(len(found) + 1, -1)
    table[kept] = np.arange(len(kept))
    places = table[codes]
    places[codes < 0] = len(kept)
    values = [found[place] for place in kept]
    names = [shown(value) if isinstance(value, float) else text_of(value) for value in values]
    return _Groups(text_of(name), [*names, _MISSING], places, len(found) - len(kept))


def _quarters(name: str, numbers: Any) -> _Groups:
    """Return a slice for each quarter of the numbers, and one of the missing."""
    there = np.isfinite(numbers)
    edges = np.unique(np.quantile(numbers[there], [0.25, 0.5, 0.75], method="lower"))
    places = np.searchsorted(edges, numbers)
    places[~there] = len(edges) + 1
    texts = [shown(edge) for edge in edges]
    between = [f"above {low} to {high}" for low, high in pairwise(texts)]
    names = [f"up to {texts[0]}", *between, f"above {texts[-1]}", _MISSING]
    return _Groups(text_of(name), names, places)


def _parts(groups: _Groups, scores: Sequence[Any]) -> Iterator[_Part]:
    """Measure both models on each slice that has rows."""
    release, champion = scores
    # The rows that are in no slice go to a place of their own, before the others.
    places, size = groups.places + 1, len(groups.names) + 1
    counts = np.bincount(places, minlength=size)

    def sums(values: Any) -> Any:
        return np.bincount(places, weights=values, minlength=size)

    with np.errstate(all="ignore"):  # what is not finite is not judged
        gaps = release - champion
        means = sums(gaps) / counts
        spreads = np.sqrt(sums((gaps - means[places]) ** 2) / (counts - 1))
        ours, theirs = sums(release) / counts, sums(champion) / counts
    ups, downs = sums(gaps > 0), sums(gaps < 0)
    for place, name in enumerate(groups.names, start=1):
        if counts[place]:
            yield _Part(
                column=groups.column,
                value=name,
                samples=int(counts[place]),
                release=float(ours[place]),
                champion=float(theirs[place]),
                up=int(ups[place]),
                down=int(downs[place]),
                spread=float(spreads[place]),
            )


def _judged(task: Task, part: _Part, interval: Interval) -> Slice:
    return Slice(
        column=part.column,
        value=part.value,
        samples=part.samples,
        release=part.release,
        champion=part.champion,
        difference=interval,
        is_worse=interval.high < 0 if task == "classification" else interval.low > 0,
    )


def _intervals(method: str, parts: Sequence[_Part]) -> list[Interval]:
    """Return release minus champion on each slice, with intervals that hold for all at once."""
    if not parts:
        return []
    error = (1 - CONFIDENCE) / len(parts)
    n = np.array([part.samples for part in parts])
    with np.errstate(all="ignore"):  # as above
        estimates = np.array([part.release - part.champion for part in parts])
        if method == _EXACT:
            up, down = (np.array([getattr(p, side) for p in parts]) for side in ("up", "down"))
            lows, highs = _of_shares(up, down, n, error)
        else:
            spreads = np.array([part.spread for part in parts])
            half = stdtrit(n - 1, 1 - error / 2) * spreads / np.sqrt(n)
            lows, highs = estimates - half, estimates + half
    return [
        Interval(estimate=float(estimate), low=float(low), high=float(high))
        for estimate, low, high in zip(estimates, lows, highs, strict=True)
    ]


def _of_shares(up: Any, down: Any, n: Any, error: float) -> tuple[Any, Any]:
    """Bound the difference of two shares of the same rows, exactly.

    It is the share of rows where the two differ, times how far these lean to one side. Both get
    an exact interval, and nine tenths of the error go to the second, which alone decides the sign.
    """
    differ = up + down
    few, many = _binomial(differ, n, error * (1 - _SHARE_OF_SIGN))
    left, right = (2 * bound - 1 for bound in _binomial(up, differ, error * _SHARE_OF_SIGN))
    low = left * np.where(left < 0, many, few)
    high = right * np.where(right > 0, many, few)
    return low, high


def _binomial(hits: Any, n: Any, error: float) -> tuple[Any, Any]:
    """Return the exact interval of a share of Clopper and Pearson."""
    low = betaincinv(np.maximum(hits, 1), n - hits + 1, error / 2)
    high = betaincinv(hits + 1, np.maximum(n - hits, 1), 1 - error / 2)
    return np.where(hits == 0, 0.0, low), np.where(hits == n, 1.0, high)
