"""A profile of the training data: what they look like, in counts."""

import math
from typing import Any

import numpy as np
import pandas as pd

from mlship.domain.bundle import Field, Kind, Task
from mlship.domain.profiles import NAMED, NAMED_FROM, Bins, Column, Profile
from mlship.training.columns import text_of
from mlship.training.data import Data, Target

COLUMNS = 50
_BINS = 16
_SMALLEST, _LARGEST = 2.0**-1000, 2.0**1000
"""Sizes within which no step in the arithmetic of bins overflows."""


def profile_of(data: Data, task: Task) -> Profile:
    """Return the profile of the rows that a model is trained on, the targets first."""
    found = [_of_target(task, target) for target in data.targets[:COLUMNS]]
    space = COLUMNS - len(found)
    found += [_column(field, data.train[field.name]) for field in data.fields[:space]]
    return Profile(
        rows=len(data.train),
        columns=tuple(found),
        left_out=len(data.targets) + len(data.fields) - len(found),
    )


def _of_target(task: Task, target: Target) -> Column:
    if task == "regression":
        return _column(Field(name=target.name, kind=target.kind), target.train)
    return _named(text_of(target.name), target.kind, target.train)


def _column(field: Field, values: pd.Series) -> Column:
    name = text_of(field.name)
    if field.kind in ("text", "boolean"):
        return _named(name, field.kind, values)
    numbers = values.to_numpy(dtype="float64", na_value=math.nan)
    there = numbers[np.isfinite(numbers)]
    missing = len(numbers) - len(there)
    return Column(name=name, kind=field.kind, missing=missing, bins=_bins(field.kind, there))


def _named(name: str, kind: Kind, values: pd.Series) -> Column:
    given = values.dropna()
    counts: dict[str, int] = {}
    for value, count in given.value_counts().head(1_000).items():
        text = text_of(value)
        counts[text] = counts.get(text, 0) + int(count)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = {text: count for text, count in ranked[:NAMED] if count >= NAMED_FROM}
    others = len(given) - sum(named.values())
    return Column(
        name=name, kind=kind, missing=len(values) - len(given), named=named, others=others
    )


def _bins(kind: Kind, numbers: Any) -> Bins | None:
    """Count numbers in at most 17 bins that hold the middle 90 % of them; `None` for none."""
    if not len(numbers):
        return None
    numbers = np.clip(numbers, -_LARGEST, _LARGEST)
    low, high = (float(edge) for edge in np.quantile(numbers, [0.05, 0.95], method="lower"))
    if low == high:
        low, high = float(numbers.min()), float(numbers.max())
    step = max(_step(low, high), 1.0 if kind == "integer" else 0.0)
    first = math.floor(low / step)
    last = min(math.floor(high / step) - first, _BINS)
    # Dividing by a power of two is exact, and so is the floor.
    with np.errstate(over="ignore"):
        places = np.clip(np.floor(numbers / step) - first, -1, last + 1).astype(int)
    counts = np.bincount(places + 1, minlength=last + 3)
    return Bins(low=first * step, step=step, counts=tuple(counts.tolist()))


def _step(low: float, high: float) -> float:
    """Return the power of two that cuts a range into 8 to 16, or tells one value from others."""
    largest = max(abs(low), abs(high))
    if not largest:
        return 1.0
    wanted = (high - low) / _BINS or largest / 1024
    # A bin is no narrower than what tells two numbers of this size apart.
    finest = max(math.ulp(largest), _SMALLEST)
    return finest if wanted <= finest else float(2.0 ** math.ceil(math.log2(wanted)))
