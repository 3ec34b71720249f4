"""What a loaded model is measured for before it serves: its speed, and whether batches pay."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from mlship.domain.bundle import Row
from mlship.runtime.model import Model

SECONDS = 0.25
"""How long the measurement may take, beyond the row that is computed anyway."""
SIZES = (2, 4, 8, 16, 32, 64)
GAIN = 0.7
"""A batch pays if it takes less than this part of the time that its rows take one by one."""


def measured(
    model: Model, rows: Sequence[Row], clock: Callable[[], float] = time.perf_counter
) -> tuple[float, int]:
    """Return the seconds for one row, and the number of rows up to which batches are used.

    A batch is used if it gives each row what the row gives alone, bit for bit, at that size and
    each smaller one, and pays.

    Args:
        model: has computed these rows before.
        rows: examples, repeated for larger batches.
        clock: returns seconds.
    """
    if not rows:
        return 0.0, 0
    checked = model.check(rows)
    began = clock()
    alone = []
    for row in checked:
        alone += model.together([row])
        if clock() - began > SECONDS:
            return (clock() - began) / len(alone), 0
    seconds = (clock() - began) / len(alone)
    proven = 0
    for size in SIZES:
        places = [place % len(checked) for place in range(size)]
        started = clock()
        together = model.together([checked[place] for place in places])
        ended = clock()
        if not _is_same(together, [alone[place] for place in places]):
            return seconds, 0
        if ended - started > GAIN * size * seconds:
            break
        proven = size
        if ended - began > SECONDS:
            break
    return seconds, proven


def _is_same(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> bool:
    """Tell whether outputs are equal, and of the same types: 1, 1.0 and true are not."""
    return list(one) == list(other) and [
        [type(value) for value in row.values()] for row in one
    ] == [[type(value) for value in row.values()] for row in other]
