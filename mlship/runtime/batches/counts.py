"""Counts the outputs of a part, for the profile of a batch."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow.compute as pc

from mlship.domain.batch import Counts
from mlship.domain.batch_profile import BITS, ZERO
from mlship.domain.bundle import Field
from mlship.runtime.batches.values import array_of

_OFFSET = 2_000 << BITS
_MOST_NAMED = 1_000
_FRACTION = 52
"""Bits of the fraction of a float."""
_BIAS = 1022
"""What the exponent of a float is stored with, where its fraction is from 0.5 to 1."""
_NOT_FINITE = 0x7FF << BITS


class OutputCounts:
    """Adds up the counts of outputs, one record batch after another."""

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self._fields = fields
        self._missing: Counter[str] = Counter()
        self._others: Counter[str] = Counter()
        self._named: dict[str, Counter[str]] = {field.name: Counter() for field in fields}
        self._buckets: dict[str, Counter[int]] = {field.name: Counter() for field in fields}

    def add(self, batch: Any) -> None:
        """Count the outputs of a record batch."""
        for field in self._fields:
            column = batch.column(field.name)
            self._missing[field.name] += column.null_count
            if field.kind in ("number", "integer"):
                numbers = array_of(column.drop_null()).astype("float64", copy=False)
                self._buckets[field.name].update(_buckets(numbers))
                continue
            for pair in pc.value_counts(column.drop_null()).to_pylist():
                self._name(field.name, str(pair["values"]), pair["counts"])

    def _name(self, output: str, value: str, count: int) -> None:
        named = self._named[output]
        if value in named or len(named) < _MOST_NAMED:
            named[value] += count
        else:
            self._others[output] += count

    def counts(self) -> dict[str, Counts]:
        """Return the counts of each output."""
        return {
            field.name: Counts(
                missing=self._missing[field.name],
                named=dict(self._named[field.name]),
                others=self._others[field.name],
                buckets=dict(self._buckets[field.name]),
            )
            for field in self._fields
        }


def _buckets(numbers: Any) -> dict[int, int]:
    """Return how many numbers are in each bucket, see `batch_profile.bucket`."""
    if not len(numbers):
        return {}
    # The exponent and the first bits of the fraction, as the number itself has them.
    places = np.ascontiguousarray(numbers).view("int64") >> (_FRACTION - BITS)
    lowest = int(places.min())
    if lowest < 1 << BITS or int(places.max()) >= _NOT_FINITE:
        return _buckets_of_any(numbers)
    return _counted(places - lowest, lowest + _OFFSET - (_BIAS << BITS))


def _buckets_of_any(numbers: Any) -> dict[int, int]:
    """Do the same where numbers are negative, zero, or so small that the exponent is not theirs."""
    fractions, exponents = np.frexp(np.abs(numbers))
    places = _OFFSET + (exponents.astype("int64") << BITS)
    places += ((fractions - 0.5) * (2 << BITS)).astype("int64")
    places = np.where(numbers == 0, ZERO, np.where(numbers < 0, -places, places))
    lowest = int(places.min())
    return _counted(places - lowest, lowest)


def _counted(places: Any, lowest: int) -> dict[int, int]:
    # A column with numbers of any size has 128,000 buckets: fewer than a sort would compare.
    counts = np.bincount(places)
    known = np.flatnonzero(counts)
    return dict(zip((known + lowest).tolist(), counts[known].tolist(), strict=True))
