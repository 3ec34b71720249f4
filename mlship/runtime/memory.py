"""What requests take of the memory, from when they are accepted until they are answered."""

from array import array
from collections.abc import Sequence
from typing import Final

from mlship.domain.bundle import Field
from mlship.domain.columns import FEW, Columns

MEMORY_BYTES: Final = 96 << 20
"""What all requests may take together. A single one may take more if there is no other."""
SMALL_BODY: Final = 65_536
"""For a larger one there must be room before it is decoded, and it is not kept then."""
_FLOAT_BYTES, _VALUE_BYTES = 8, 64
_ID_BYTES: Final = 64
"""The id of a prediction in its response."""
_WRITTEN_BYTES: Final = 32
"""A value in a response, beside its name."""


class Memory:
    """Counts the bytes of requests.

    Args:
        limit: the most of all together.

    Attributes:
        used: by requests that are not answered.
    """

    def __init__(self, limit: int = MEMORY_BYTES) -> None:
        self.used = 0
        self._limit = limit

    def has_room(self, size: int) -> bool:
        """Return whether a request of this size can be accepted now."""
        return not self.used or self.used + size <= self._limit

    def take(self, size: int) -> bool:
        """Count a request until it is given back; return whether there is room for it."""
        if self.used and self.used + size > self._limit:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        """Count a request no more."""
        self.used -= size


def size_of(rows: Columns, body: int) -> int:
    """Return about how many bytes rows take.

    Args:
        rows: the rows.
        body: the size of the body that they came in: no text is longer in all.
    """
    columns, number = len(rows.values), rows.size
    if number < FEW:  # no column is an array
        return number * columns * _VALUE_BYTES + body
    arrays = sum(isinstance(values, array) for values in rows.values)
    others = columns - arrays
    size = number * (arrays * _FLOAT_BYTES + others * _VALUE_BYTES)
    return size + body if others else size


def answer_bytes(outputs: Sequence[Field]) -> int:
    """Return about how many bytes the outputs of a row take with their part of the response."""
    kept = sum(_FLOAT_BYTES if field.kind == "number" else _VALUE_BYTES for field in outputs)
    return _ID_BYTES + kept + sum(len(field.name) + _WRITTEN_BYTES for field in outputs)
