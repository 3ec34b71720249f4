"""A histogram of latencies with a relative error below 1 %, from a microsecond to any value.

Its buckets are those of HdrHistogram: 128 of equal width for each power of two. So a few hundred
counters hold the latencies of a run of any length, and those of several processes can be added.
Source: https://hdrhistogram.github.io/HdrHistogram/
"""

from collections.abc import Mapping
from typing import Final

_BITS: Final = 7
_LINEAR: Final = 1 << (_BITS + 1)
"""Below it, in microseconds, each value has a bucket of its own."""


def bucket(seconds: float) -> int:
    """Return the bucket of a latency; one below zero counts as zero."""
    micros = max(0, round(seconds * 1e6))
    shift = max(0, micros.bit_length() - _BITS - 1)
    return (shift << _BITS) + (micros >> shift)


def highest(number: int) -> float:
    """Return the highest latency of a bucket, in seconds."""
    if number < _LINEAR:
        return number / 1e6
    shift = (number >> _BITS) - 1
    return (((number - (shift << _BITS) + 1) << shift) - 1) / 1e6


class Histogram:
    """Counts of latencies by bucket."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts = dict(counts or {})

    def record(self, seconds: float) -> None:
        """Count a latency."""
        number = bucket(seconds)
        self.counts[number] = self.counts.get(number, 0) + 1

    def add(self, counts: Mapping[int, int]) -> None:
        """Add the counts of another histogram."""
        for number, count in counts.items():
            self.counts[number] = self.counts.get(number, 0) + count

    @property
    def total(self) -> int:
        """How many latencies were counted."""
        return sum(self.counts.values())

    def percentile(self, percent: float) -> float:
        """Return a latency in seconds that so many percent do not exceed; 0 for no latencies."""
        rank, passed = max(1.0, self.total * percent / 100), 0
        for number in sorted(self.counts):
            passed += self.counts[number]
            # 99.9 % of 1,000 is 999, and not what floating point makes of it.
            if passed >= rank - 1e-6:
                return highest(number)
        return 0.0

    def mean(self) -> float:
        """Return the mean latency in seconds; 0 for no latencies."""
        total = sum(highest(number) * count for number, count in self.counts.items())
        return total / max(1, self.total)
