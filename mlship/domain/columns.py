"""Rows by their columns: a request of many rows needs no object for each of them.

A column is a list of values, or an array of floats if it has many and all of them are floats: 8
bytes a value, and no object. Which of the two it is cannot be told from what it is written as.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, Final, Self, TypeAlias

import msgspec

from mlship.domain.bundle import Row, Value

FEW: Final = 8
"""Of fewer rows, a list is handled in less time than an array."""
PIECE_ROWS: Final = 1_000
"""What is made for each row is made for so many of them at once."""

Column: TypeAlias = Sequence[Value]
_FLOATS: Final = {float}
_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


class Columns:
    """Rows with the same columns.

    Args:
        names: of the columns.
        values: of each column, in the order of the rows.
        size: the number of rows, if there may be no columns.

    Attributes:
        size: the number of rows, which `len` takes longer to tell.
    """

    __slots__ = ("_encoded", "names", "size", "values")

    def __init__(
        self, names: Sequence[str] = (), values: Sequence[Column] = (), size: int = 0
    ) -> None:
        self.names = names
        self.values = values
        self._encoded: list[bytes] | None = None
        self.size = len(values[0]) if values else size

    @classmethod
    def of(cls, rows: Sequence[Sequence[Value]], names: Sequence[str] = ()) -> Self:
        """Return rows that are values in the order of the names."""
        return cls(names, [list(column) for column in zip(*rows, strict=True)])

    @classmethod
    def of_rows(cls, rows: Sequence[Row]) -> Self:
        """Return rows with the columns of the first one."""
        names = tuple(rows[0]) if rows else ()
        return cls(names, [[row[name] for row in rows] for name in names])

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.size

    def __iter__(self) -> Iterator[tuple[Value, ...]]:
        """Return the values of each row, in the order of the names."""
        return zip(*self.values, strict=True) if self.values else repeat((), self.size)

    def __eq__(self, other: object) -> bool:
        """Return whether names and values are the same."""
        if not isinstance(other, Columns):
            return NotImplemented
        return list(self.names) == list(other.names) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # lists have none either

    def column(self, name: str) -> Column:
        """Return the values of a column.

        Raises:
            KeyError: there is no such column.
        """
        for known, values in zip(self.names, self.values, strict=True):
            if known == name:
                return values
        raise KeyError(name)

    def rows(self) -> list[Row]:
        """Return each row by the names of its columns."""
        names = self.names
        return [dict(zip(names, row, strict=True)) for row in self]

    def pieces(self) -> Iterable[Self]:
        """Return the rows in pieces of at most `PIECE_ROWS`."""
        return (self,) if self.size <= PIECE_ROWS else self._cut()

    def _cut(self) -> Iterator[Self]:
        for start in range(0, self.size, PIECE_ROWS):
            end = min(start + PIECE_ROWS, self.size)
            parts = [column[start:end] for column in self.values]
            yield type(self)(self.names, parts, end - start)

    def encoded(self) -> list[bytes]:
        """Return each row as an object of JSON.

        Those of one piece are kept: the response and the log have the same outputs.
        """
        if self._encoded is not None:
            return self._encoded
        objects = self.objects()
        if self.size < FEW:
            encoded = list(map(_encode, objects))
        else:
            # No text has a newline of its own: JSON writes it as \n.
            encoded = _encode_lines(objects).split(b"\n")
            del encoded[-1]
        if self.size <= PIECE_ROWS:
            self._encoded = encoded
        return encoded

    def objects(self) -> list[Any]:
        """Return what msgspec encodes as the object of each row."""
        if not self.values:
            return [{}] * self.size
        return list(map(maker(tuple(self.names)), *self.values))


def packed(values: Column) -> Column:
    """Return many floats as an array, and everything else as it is."""
    if len(values) >= FEW and type(values) is not array and set(map(type, values)) == _FLOATS:
        floats: Any = values
        return array("d", floats)
    return values


@lru_cache(maxsize=64)
def maker(names: tuple[str, ...]) -> Callable[..., Any]:
    """Return a function from the values of a row to what msgspec encodes as its object."""
    fields = [f"column{place}" for place in range(len(names))]
    try:
        made: Callable[..., Any] = msgspec.defstruct(
            "Row", fields, rename=dict(zip(fields, names, strict=True)), gc=False
        )
    except ValueError:  # a name with a quote, a backslash or a control character
        return lambda *values: dict(zip(names, values, strict=True))
    return made
