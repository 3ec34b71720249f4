"""Profiles of data without their rows: small enough for evidence, and comparable.

A profile contains only counts. A value is listed only if at least 10 rows have it. Numbers are
counted in bins whose edges are multiples of a power of two. So no edge reveals a value of the
data, and the bins of any two profiles can be converted to the same edges exactly.
"""

from typing import Final

import msgspec

from mlship.domain.bundle import Kind

NAMED_FROM: Final = 10
"""A value is listed by name if at least this many rows have it."""

NAMED: Final = 20
"""A profile lists at most this many values of a column, the most frequent ones."""


def shown(number: float) -> str:
    """Return an edge for people: large numbers in full, others with 5 significant digits."""
    return f"{number:.0f}" if 1e5 <= abs(number) < 1e15 else f"{number:.5g}"


class Bins(msgspec.Struct, frozen=True, kw_only=True):
    """A histogram with bins of equal width.

    Attributes:
        low: the lower edge of the first bin, a multiple of `step`.
        step: the width of a bin, a power of two.
        counts: how many numbers are below `low`, in each bin (including its lower edge), and at or
            above the last edge.
    """

    low: float
    step: float
    counts: tuple[int, ...]


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of one column.

    Attributes:
        name: untrusted text, truncated.
        missing: rows without a value.
        named: rows by value, for text, booleans and classes.
        others: rows with a value that is not listed.
        bins: for numbers.
    """

    name: str
    kind: Kind
    missing: int = 0
    named: dict[str, int] = {}
    others: int = 0
    bins: Bins | None = None


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of a table; `left_out` is the number of columns beyond a profile's limit."""

    rows: int
    columns: tuple[Column, ...]
    left_out: int = 0
