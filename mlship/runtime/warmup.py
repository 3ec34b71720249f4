"""What a loaded model is measured for before it serves: its speed, and whether batches pay."""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mlship.domain.bundle import Row
from mlship.runtime.model import Model

SECONDS = 0.25
"""How long the measurement may take, beyond the row that is computed anyway."""
SIZES = (2, 4, 8, 16, 32, 64)
GAIN = 0.7
"""A batch pays if it takes less than this part of the time that its rows take one by one."""
_ALONE = 12
_TRIES = 3
"""So many rows are computed one by one, and a batch so often, to find the fastest time."""
_QUICK_SECONDS = 0.02
"""After so many seconds, neither is repeated."""
_MISSES = 2
"""After so many sizes that do not pay, larger ones are not computed."""


class Speed(NamedTuple):
    """What a model takes for rows.

    Attributes:
        alone: the seconds for one row.
        together: the seconds for each of many rows, if that was found out; else those for one.
        batch: the number of rows up to which batches are used.
    """

    alone: float
    together: float
    batch: int


def measured(
    model: Model, rows: Sequence[Row], clock: Callable[[], float] = time.perf_counter
) -> Speed:
    """Return the seconds for one row alone and among others, and up to how many batches are used.

    A batch is used if it gives each row what the row gives alone, bit for bit, at that size and
    each smaller one, and pays.

    Args:
        model: has computed these rows before.
        rows: examples, repeated for larger batches.
        clock: returns seconds.
    """
    if not rows:
        return Speed(0.0, 0.0, 0)
    checked = model.check(rows)
    began = clock()
    alone: list[Row] = []
    times: list[float] = []
    while len(times) < len(checked) or (len(times) < _ALONE and clock() - began < _QUICK_SECONDS):
        started = clock()
        alone += model.together([checked[len(times) % len(checked)]])
        times.append(clock() - started)
        if clock() - began > SECONDS:
            mean = sum(times) / len(times)
            return Speed(mean, mean, 0)
    seconds = min(times)
    together = _of_many(model, checked, seconds, clock)
    proven = missed = 0
    for size in SIZES:
        places = [place % len(checked) for place in range(size)]
        expected = [alone[place] for place in places]
        taken = _fastest(model, [checked[place] for place in places], expected, clock)
        if taken is None:
            return Speed(seconds, together, 0)
        if taken <= GAIN * size * seconds:
            proven = size
        else:
            missed += 1
        if missed == _MISSES or clock() - began > SECONDS:
            break
    return Speed(seconds, together, proven)


def _of_many(model: Model, rows: Sequence[Row], alone: float, clock: Callable[[], float]) -> float:
    """Return the seconds for each row of a large batch, where they take no longer than they may."""
    size = SIZES[-1]
    if alone * size > SECONDS:
        return alone
    many = [rows[place % len(rows)] for place in range(size)]
    started = clock()
    with contextlib.suppress(Exception):  # it is a batch that nobody has asked for
        model.together(many)
        return min(alone, (clock() - started) / size)
    return alone


def _fastest(
    model: Model, rows: Sequence[Row], expected: Sequence[Row], clock: Callable[[], float]
) -> float | None:
    """Return the least seconds that a batch takes; `None` if its outputs are not the expected.

    What else the machine does makes a batch slower, and never faster.
    """
    times: list[float] = []
    while len(times) < _TRIES and sum(times) < _QUICK_SECONDS:
        started = clock()
        outputs = model.together(rows)
        times.append(clock() - started)
        if not _is_same(outputs, expected):
            return None
    return min(times)


def _is_same(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> bool:
    """Tell whether outputs are equal, and of the same types: 1, 1.0 and true are not."""
    return list(one) == list(other) and [
        [type(value) for value in row.values()] for row in one
    ] == [[type(value) for value in row.values()] for row in other]
