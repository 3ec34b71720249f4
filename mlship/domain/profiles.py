"""What data look like, without their rows: small enough for evidence, and fit to be compared.

A profile has counts only. A value is named where at least 10 rows have it; numbers are counted in
bins whose edges are multiples of a power of two, so that no edge is a value of somebody's, and
that the bins of any two profiles can be brought to the same edges exactly.
"""

from typing import Final

import msgspec

from mlship.domain.bundle import Kind

NAMED_FROM: Final = 10
"""Rows that must have a value before a profile names it."""

NAMED: Final = 20
"""Values of a column that are named at most, the most frequent ones."""


def shown(number: float) -> str:
    """Return an edge for people: large numbers in full, others with 5 digits that count."""
    return f"{number:.0f}" if 1e5 <= abs(number) < 1e15 else f"{number:.5g}"


class Bins(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers counted in bins of one width.

    Attributes:
        low: the lower edge of the first bin, a multiple of `step`.
        step: the width of a bin, a power of two.
        counts: the numbers below `low`, in each bin (its lower edge counted in), and from the
            last edge on.
    """

    low: float
    step: float
    counts: tuple[int, ...]


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One column's values in counts.

    Attributes:
        name: made by users, cut.
        missing: rows without a value.
        named: rows by value, for texts, booleans and classes.
        others: rows with a value that is not named.
        bins: for numbers.
    """

    name: str
    kind: Kind
    missing: int = 0
    named: dict[str, int] = {}
    others: int = 0
    bins: Bins | None = None


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A table in counts; `left_out` columns are beyond the most that a profile takes in."""

    rows: int
    columns: tuple[Column, ...]
    left_out: int = 0
