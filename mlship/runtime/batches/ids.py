"""The ids of rows that follow one another, made by blocks of a thousand.

The ids of a block differ in three digits, which are those of every other block. To write each
number as a text and to join it with the prefix takes seven times as long.
"""

from typing import Any, Final

import numpy as np
import pyarrow as pa

_DIGITS: Final = 3
_BLOCK: Final = 10**_DIGITS
_NUMBERS: Final = (
    np.array([f"{number:0{_DIGITS}d}" for number in range(_BLOCK)], f"S{_DIGITS}")
    .view("uint8")
    .reshape(_BLOCK, _DIGITS)
)


def ids_of(prefix: str, first: int, count: int) -> Any:
    """Return the ids `<prefix>.<row>` of some rows as an array of Arrow.

    Args:
        prefix: how the ids begin.
        first: the number of the first row.
        count: of the rows.
    """
    pieces, end = [], first + count
    while first < end:
        # Ids of one array of bytes have the same length.
        digits = len(str(first))
        stop = min(end, 10**digits)
        pieces.append(_of_length(f"{prefix}.".encode(), first, stop, digits))
        first = stop
    return pa.concat_arrays(pieces) if pieces else pa.array([], pa.string())


def _of_length(prefix: bytes, first: int, end: int, digits: int) -> Any:
    """Return the ids of rows whose numbers have so many digits."""
    width, low = len(prefix) + digits, min(digits, _DIGITS)
    block = np.empty((_BLOCK, width), "uint8")
    block[:, : len(prefix)] = np.frombuffer(prefix, "uint8")
    block[:, width - low :] = _NUMBERS[:, _DIGITS - low :]
    blocks = range(first // _BLOCK, (end - 1) // _BLOCK + 1)
    texts = np.empty((len(blocks), _BLOCK, width), "uint8")
    texts[:] = block
    if digits > low:
        high = np.array([str(number) for number in blocks], f"S{digits - low}").view("uint8")
        texts[:, :, len(prefix) : width - low] = high.reshape(len(blocks), 1, digits - low)
    start = first - blocks.start * _BLOCK
    own = texts.reshape(-1, width)[start : start + end - first]
    ends = np.arange(0, (end - first + 1) * width, width, dtype="int32")
    return pa.StringArray.from_buffers(end - first, pa.py_buffer(ends), pa.py_buffer(own))
