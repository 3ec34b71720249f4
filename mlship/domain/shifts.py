"""Differences between the training data of two releases, computed from their profiles.

The shift of a column is its population stability index (PSI): the symmetric Kullback-Leibler
divergence of the shares of up to ten groups; missing values are a group. By convention 0.1 is some
change and 0.25 a large one. With few rows, PSI is large by chance. So a shift is reported only if
it is also larger than the largest of all columns would be in 19 of 20 comparisons of equal data.
Standard library only.

Sources:
    Siddiqi, Credit Risk Scorecards (2006): the index and its thresholds.
    Yurdakul, Statistical properties of population stability index (2018): for equal data, PSI is
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
    """A column whose type changed."""

    column: str
    before: str
    after: str


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """How the distribution of a column changed.

    Attributes:
        psi: the population stability index.
        chance: the threshold below which equal data of this size stays.
        is_told: whether the shift is reported: `psi` is large, and larger than by chance.
        group: the values whose share changed most, from `before` to `after`.
        missing_before: the share of rows without a value; likewise `missing_after`.
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
    """The differences between the training data of the champion and of a release.

    Attributes:
        unknown: why the data cannot be compared; empty if it can.
        same: whether the data is identical.
        compared: the number of columns that both have, with the same type.
        told: how many of them shifted.
        listed: the columns with the largest shifts first; only the first ones if there are many.
        left_out: columns beyond the limit of the profiles.
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
    """Return the differences between two profiles.

    Args:
        before: the profile of the champion's data.
        after: the profile of the release's data.
        same: whether both digests of the data are equal.
    """
    old = {column.name: column for column in before.columns}
    new = {column.name: column for column in after.columns}
    both = [(old[name], new[name]) for name in new if name in old]
    retyped = [
        Retyped(column=a.name, before=a.kind, after=b.kind) for a, b in both if a.kind != b.kind
    ]
    alike = [pair for pair in both if pair[0].kind == pair[1].kind]
    rows = (before.rows, after.rows)
    shifts = [_shift(*pair, rows, len(alike)) for pair in alike]
    shifts.sort(key=lambda shift: (not shift.is_told, -shift.psi))
    # A column beyond the limit of a profile may still be in the data.
    is_complete = not before.left_out and not after.left_out
    return Shifts(
        same=same,
        rows_before=before.rows,
        rows_after=after.rows,
        added=tuple(name for name in new if name not in old) if is_complete else (),
        removed=tuple(name for name in old if name not in new) if is_complete else (),
        retyped=tuple(retyped),
        compared=len(alike),
        told=sum(shift.is_told for shift in shifts),
        listed=tuple(shifts[:LISTED]),
        left_out=max(before.left_out, after.left_out),
    )


def _shift(before: Column, after: Column, rows: tuple[int, int], columns: int) -> Shift:
    groups = _groups(before, after)
    sizes = [max(sum(counts[side] for _, *counts in groups), 1) for side in (0, 1)]
    # Half a row is added to each group: an empty group would make the index infinite.
    shares = [
        [(counts[side] + 0.5) / (sizes[side] + 0.5 * len(groups)) for _, *counts in groups]
        for side in (0, 1)
    ]
    psi = sum((q - p) * math.log(q / p) for p, q in zip(*shares, strict=True))
    chance = (1 / sizes[0] + 1 / sizes[1]) * chi_squared(len(groups) - 1, _ERROR / columns)
    moved = [(abs(b / sizes[1] - a / sizes[0]), name, a, b) for name, a, b in groups]
    _, name, a, b = max(moved, default=(0.0, "", 0, 0))
    return Shift(
        column=before.name,
        psi=psi,
        chance=chance,
        is_told=psi >= SOME and psi > chance,
        group=name,
        before=a / sizes[0],
        after=b / sizes[1],
        missing_before=before.missing / max(rows[0], 1),
        missing_after=after.missing / max(rows[1], 1),
    )


_Group = tuple[str, int, int]
"""A group of values, and how many rows have them before and after."""


def _groups(before: Column, after: Column) -> list[_Group]:
    if before.bins and after.bins:
        groups = _of_numbers(before.bins, after.bins)
    elif before.bins or after.bins:
        numbers = [sum(column.bins.counts) if column.bins else 0 for column in (before, after)]
        groups = [(_NUMBERS, numbers[0], numbers[1])]
    else:
        groups = _of_values(before, after)
    if before.missing or after.missing:
        groups.append((_MISSING, before.missing, after.missing))
    return groups


def _of_values(before: Column, after: Column) -> list[_Group]:
    """Return the values that both profiles list, and the rest as one group.

    A value that only one profile lists was too rare for the other one. It is assumed to be as
    frequent there as it can be.
    """
    known = [dict(before.named), dict(after.named)]
    rests = [before.others, after.others]
    for side, column in enumerate((before, after)):
        limit = min(column.named.values()) if len(column.named) >= NAMED else NAMED_FROM - 1
        for name in sorted(set(known[1 - side]) - set(known[side])):
            known[side][name] = min(limit, rests[side])
            rests[side] -= known[side][name]
    groups = [(name, known[0][name], known[1][name]) for name in sorted(known[0])]
    return [*groups, (_OTHERS, rests[0], rests[1])] if any(rests) else groups


def _of_numbers(before: Bins, after: Bins) -> list[_Group]:
    """Return groups of adjacent bins that contain at least a tenth of the numbers."""
    step = max(before.step, after.step)
    first, last = _edges(before, after, step)
    left, right = (_rebinned(bins, step, first, last) for bins in (before, after))
    share = [(a / sum(left) + b / sum(right)) / 2 for a, b in zip(left, right, strict=True)]
    # Cell 0 is below the first edge, the last cell above the last edge.
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


def _edges(before: Bins, after: Bins, step: float) -> tuple[int, int]:
    """Return the first and the last edge to compare at, in steps.

    These are the edges that both have. Without common edges, they are those of the wider bins: the
    other numbers then all lie in one of these bins, or outside.
    """
    windows = [
        (math.ceil(bins.low / step), math.floor(_end(bins) / step)) for bins in (before, after)
    ]
    first, last = max(low for low, _ in windows), min(high for _, high in windows)
    if first > last:
        first, last = windows[0] if before.step == step else windows[1]
    return first, last


def _end(bins: Bins) -> float:
    return bins.low + (len(bins.counts) - 2) * bins.step


def _rebinned(bins: Bins, step: float, first: int, last: int) -> list[int]:
    """Return the counts below the first edge, between the edges, and above the last edge.

    Steps are powers of two, so that each bin lies within one wider bin.
    """
    counts = [0] * (last - first + 2)
    for place, count in enumerate(bins.counts):
        cell = math.floor((bins.low + (place - 1) * bins.step) / step)
        counts[min(max(cell - first + 1, 0), len(counts) - 1)] += count
    return counts


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return "all" if high is None else f"below {shown(high)}"
    return f"{shown(low)} and above" if high is None else f"{shown(low)} to {shown(high)}"


def chi_squared(degrees: int, error: float) -> float:
    """Return approximately the value that a chi-squared variable exceeds with probability `error`.

    This is the approximation of Wilson and Hilferty.
    """
    if degrees < 1:
        return 0.0
    spread = 2 / (9 * degrees)
    normal = NormalDist().inv_cdf(1 - error)
    return degrees * max(1 - spread + normal * math.sqrt(spread), 0.0) ** 3
