"""How the training data of two releases differ, by their profiles alone. Standard library only.

A column's shift is its population stability index (PSI): the symmetric Kullback-Leibler divergence
of the shares of up to ten groups; missing values are a group. By custom 0.1 is some change and
0.25 a great one. Of few rows it is large by chance, so a shift is told only where it is also
larger than chance makes the largest of all columns' in 19 of 20 comparisons of equal data.

Sources:
    Siddiqi, Credit Risk Scorecards (2006): the index and its thresholds.
    Yurdakul, Statistical properties of population stability index (2018): of equal data, PSI is
    (1/n + 1/m) times a chi-squared variable with one degree of freedom less than groups.
    Wilson and Hilferty, PNAS 17, 1931: the quantile of chi-squared.
"""

import math
from statistics import NormalDist
from typing import Final

import msgspec

from mlship.domain.profiles import NAMED, NAMED_FROM, Bins, Column, Profile, shown

SOME: Final = 0.1
GREAT: Final = 0.25
LISTED: Final = 20
_ERROR = 0.05
_GROUP = 0.1
_MISSING, _OTHERS, _NUMBERS = "(missing)", "(other values)", "(numbers)"


class Retyped(msgspec.Struct, frozen=True, kw_only=True):
    """A column that has another type."""

    column: str
    before: str
    after: str


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """How the values of a column moved.

    Attributes:
        psi: the population stability index.
        chance: what equal data of so many rows stay below.
        is_told: `psi` is large, and larger than by chance.
        group: the values whose share moved most, from `before` to `after`.
        missing_before: the share of rows without a value; so is `missing_after`.
    """

    column: str
    psi: float
    chance: float
    is_told: bool
    group: str
    before: float
    after: float
    missing_before: float
    missing_after: float


class Shifts(msgspec.Struct, frozen=True, kw_only=True):
    """What is different in the training data since the champion's.

    Attributes:
        unknown: why nothing can be said; empty where all else holds.
        same: they are the same data, byte for byte.
        compared: the columns that both have with the same type.
        told: how many of them shifted.
        listed: those with the largest shifts first, not all where they are many.
        left_out: columns that the profiles do not hold.
    """

    unknown: str = ""
    same: bool = False
    rows_before: int = 0
    rows_after: int = 0
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    retyped: tuple[Retyped, ...] = ()
    compared: int = 0
    told: int = 0
    listed: tuple[Shift, ...] = ()
    left_out: int = 0


def between(before: Profile, after: Profile, *, same: bool = False) -> Shifts:
    """Return how data differ from those before.

    Args:
        before: the champion's.
        after: the release's.
        same: whether their digests say that they are the same data.
    """
    old = {column.name: column for column in before.columns}
    new = {column.name: column for column in after.columns}
    both = [(old[name], new[name]) for name in new if name in old]
    retyped = [
        Retyped(column=one.name, before=one.kind, after=other.kind)
        for one, other in both
        if one.kind != other.kind
    ]
    alike = [pair for pair in both if pair[0].kind == pair[1].kind]
    rows = (before.rows, after.rows)
    shifts = [_shift(*pair, rows, len(alike)) for pair in alike]
    shifts.sort(key=lambda shift: (not shift.is_told, -shift.psi))
    # A column that is beyond the most that a profile holds is not known to be gone.
    is_whole = not before.left_out and not after.left_out
    return Shifts(
        same=same,
        rows_before=before.rows,
        rows_after=after.rows,
        added=tuple(name for name in new if name not in old) if is_whole else (),
        removed=tuple(name for name in old if name not in new) if is_whole else (),
        retyped=tuple(retyped),
        compared=len(alike),
        told=sum(shift.is_told for shift in shifts),
        listed=tuple(shifts[:LISTED]),
        left_out=max(before.left_out, after.left_out),
    )


def _shift(one: Column, other: Column, rows: tuple[int, int], columns: int) -> Shift:
    groups = _groups(one, other)
    sizes = [max(sum(counts[side] for _, *counts in groups), 1) for side in (0, 1)]
    # Half a row is added to each group: an empty one would make the index infinite.
    shares = [
        [(counts[side] + 0.5) / (sizes[side] + 0.5 * len(groups)) for _, *counts in groups]
        for side in (0, 1)
    ]
    psi = sum((q - p) * math.log(q / p) for p, q in zip(*shares, strict=True))
    chance = (1 / sizes[0] + 1 / sizes[1]) * chi_squared(len(groups) - 1, _ERROR / columns)
    moved = [(abs(b / sizes[1] - a / sizes[0]), name, a, b) for name, a, b in groups]
    _, name, a, b = max(moved, default=(0.0, "", 0, 0))
    return Shift(
        column=one.name,
        psi=psi,
        chance=chance,
        is_told=psi >= SOME and psi > chance,
        group=name,
        before=a / sizes[0],
        after=b / sizes[1],
        missing_before=one.missing / max(rows[0], 1),
        missing_after=other.missing / max(rows[1], 1),
    )


_Group = tuple[str, int, int]
"""Some values by name, and how many rows of each side have them."""


def _groups(one: Column, other: Column) -> list[_Group]:
    if one.bins and other.bins:
        groups = _of_numbers(one.bins, other.bins)
    elif one.bins or other.bins:
        numbers = [sum(column.bins.counts) if column.bins else 0 for column in (one, other)]
        groups = [(_NUMBERS, numbers[0], numbers[1])]
    else:
        groups = _of_values(one, other)
    if one.missing or other.missing:
        groups.append((_MISSING, one.missing, other.missing))
    return groups


def _of_values(one: Column, other: Column) -> list[_Group]:
    """Return the values that both name, and the rest as one group.

    A value that one side alone names is taken to be as frequent on the other as it may be: it was
    not named there for being rare.
    """
    known = [dict(one.named), dict(other.named)]
    rests = [one.others, other.others]
    for side, column in enumerate((one, other)):
        most = min(column.named.values()) if len(column.named) >= NAMED else NAMED_FROM - 1
        for name in sorted(set(known[1 - side]) - set(known[side])):
            known[side][name] = min(most, rests[side])
            rests[side] -= known[side][name]
    groups = [(name, known[0][name], known[1][name]) for name in sorted(known[0])]
    return [*groups, (_OTHERS, rests[0], rests[1])] if any(rests) else groups


def _of_numbers(one: Bins, other: Bins) -> list[_Group]:
    """Return groups of neighbouring bins that hold a tenth of the numbers or more."""
    step = max(one.step, other.step)
    first, last = _edges(one, other, step)
    left, right = (_rebinned(bins, step, first, last) for bins in (one, other))
    share = [(a / sum(left) + b / sum(right)) / 2 for a, b in zip(left, right, strict=True)]
    # Cell number 0 lies below the first edge, the last one above the last edge.
    starts = [0]
    for cell in range(1, len(share)):
        if sum(share[starts[-1] : cell]) >= _GROUP and sum(share[cell:]) >= _GROUP:
            starts.append(cell)
    groups = []
    for start, end in zip(starts, [*starts[1:], len(share)], strict=True):
        low = (first + start - 1) * step if start else None
        high = (first + end - 1) * step if end < len(share) else None
        groups.append((_range(low, high), sum(left[start:end]), sum(right[start:end])))
    return groups


def _edges(one: Bins, other: Bins, step: float) -> tuple[int, int]:
    """Return the first and the last edge to compare at, in steps.

    They are the edges that both have; where there are none, those of the wider bins: then the
    numbers of the other lie in one of them, or beyond.
    """
    windows = [(math.ceil(bins.low / step), math.floor(_end(bins) / step)) for bins in (one, other)]
    first, last = max(low for low, _ in windows), min(high for _, high in windows)
    if first > last:
        first, last = windows[0] if one.step == step else windows[1]
    return first, last


def _end(bins: Bins) -> float:
    return bins.low + (len(bins.counts) - 2) * bins.step


def _rebinned(bins: Bins, step: float, first: int, last: int) -> list[int]:
    """Return counts below the first edge, between the edges, and from the last one on.

    Steps are powers of two, so that a bin lies in one wider bin as a whole.
    """
    counts = [0] * (last - first + 2)
    for place, count in enumerate(bins.counts):
        cell = math.floor((bins.low + (place - 1) * bins.step) / step)
        counts[min(max(cell - first + 1, 0), len(counts) - 1)] += count
    return counts


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return "all" if high is None else f"below {shown(high)}"
    return f"from {shown(low)} on" if high is None else f"{shown(low)} to {shown(high)}"


def chi_squared(degrees: int, error: float) -> float:
    """Return what a chi-squared variable exceeds with a probability of `error`, about."""
    if degrees < 1:
        return 0.0
    spread = 2 / (9 * degrees)
    normal = NormalDist().inv_cdf(1 - error)
    return degrees * max(1 - spread + normal * math.sqrt(spread), 0.0) ** 3
