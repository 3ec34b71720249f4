"""The predictions of a batch as counts: each part has its own, and they are added.

A number is counted in one of 32 buckets for each power of two, so that a bucket is at most 3 %
wide, and the counts of parts can be added without knowing the range of all. A profile has bins of
equal width; a bucket lies within one, except where numbers far from zero are close together.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from mlship.domain.batch import Counts
from mlship.domain.bundle import Field, Kind
from mlship.domain.profiles import NAMED, NAMED_FROM, Bins, Column, Profile

BITS: Final = 5
ZERO: Final = 0
_OFFSET: Final = 2_000 << BITS
"""Added to the number of a bucket, so that all of positive numbers are positive."""
_BINS: Final = 64


def bucket(value: float) -> int:
    """Return the bucket of a finite number; those of negative numbers are negative."""
    if value == 0:
        return ZERO
    fraction, exponent = math.frexp(abs(value))
    number = _OFFSET + (exponent << BITS) + int((fraction - 0.5) * (2 << BITS))
    return number if value > 0 else -number


def middle(number: int) -> float:
    """Return the number in the middle of a bucket."""
    if number == ZERO:
        return 0.0
    exponent, step = divmod(abs(number) - _OFFSET, 1 << BITS)
    value = math.ldexp(0.5 + (step + 0.5) / (2 << BITS), exponent)
    return value if number > 0 else -value


def added(counts: Iterable[Mapping[str, Counts]]) -> dict[str, Counts]:
    """Return the sums of the counts of parts, by output."""
    missing: Counter[str] = Counter()
    others: Counter[str] = Counter()
    named: dict[str, Counter[str]] = {}
    buckets: dict[str, Counter[int]] = {}
    for part in counts:
        for name, each in part.items():
            missing[name] += each.missing
            others[name] += each.others
            named.setdefault(name, Counter()).update(each.named)
            buckets.setdefault(name, Counter()).update(each.buckets)
    return {
        name: Counts(
            missing=missing[name],
            others=others[name],
            named=dict(named[name]),
            buckets=dict(buckets[name]),
        )
        for name in named
    }


def profile(counts: Mapping[str, Counts], fields: Sequence[Field], rows: int) -> Profile:
    """Return the profile of predictions.

    Args:
        counts: of all parts, by output.
        fields: the outputs.
        rows: that were predicted.
    """
    columns = [
        _column(field.name, field.kind, counts[field.name])
        for field in fields
        if field.name in counts
    ]
    return Profile(rows=rows, columns=tuple(columns))


def _column(name: str, kind: Kind, counts: Counts) -> Column:
    if counts.buckets:
        return Column(name=name, kind=kind, missing=counts.missing, bins=_bins(counts.buckets))
    frequent = sorted(counts.named.items(), key=lambda item: (-item[1], item[0]))[:NAMED]
    named = {value: count for value, count in frequent if count >= NAMED_FROM}
    others = counts.others + sum(counts.named.values()) - sum(named.values())
    return Column(name=name, kind=kind, missing=counts.missing, named=named, others=others)


def _bins(buckets: Mapping[int, int]) -> Bins:
    """Return bins over the middle 99 % of the numbers; the rest is below and above."""
    middles = sorted((middle(number), count) for number, count in buckets.items())
    total = sum(count for _, count in middles)
    low, high = _quantile(middles, 0.005 * total), _quantile(middles, 0.995 * total)
    step = 2.0 ** math.ceil(math.log2(max(high - low, abs(high) * 2**-BITS, 1e-9) / _BINS))
    first = math.floor(low / step)
    size = math.floor(high / step) - first + 1
    cells = [0] * (size + 2)
    for value, count in middles:
        cells[min(max(math.floor(value / step) - first + 1, 0), size + 1)] += count
    return Bins(low=first * step, step=step, counts=tuple(cells))


def _quantile(middles: Sequence[tuple[float, int]], rank: float) -> float:
    passed = 0
    for value, count in middles:
        passed += count
        if passed >= rank:
            return value
    return middles[-1][0]
