"""The types of a query's columns, as a training by query reads them; others are refused by name."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mlship.errors import ProjectError

if TYPE_CHECKING:
    from psycopg import Connection

_NUMERIC: Final = 1700
_TYPES: Final[Mapping[int, str]] = {
    16: "bool_",
    21: "int16",
    23: "int32",
    20: "int64",
    700: "float32",
    701: "float64",
    1082: "date32",
    **dict.fromkeys((19, 25, 1042, 1043), "string"),  # name, text, char(n), varchar
}
_AS_TEXT: Final = frozenset({114, 1083, 1266, 2950, 3802})
"""json, time, time with time zone, uuid, jsonb."""
_TIMESTAMP: Final = 1114
_WITH_ZONE: Final = 1184
_WHOLE_DIGITS: Final = 18
_FLOAT_DIGITS: Final = 15
_KINDS: Final = "SELECT oid, format_type(oid, NULL), typtype, typcategory FROM pg_type"


class Column(msgspec.Struct, frozen=True):
    """A column of a query.

    Attributes:
        type: of Arrow.
        is_text: whether the database turns it into text.
    """

    name: str
    type: Any
    is_text: bool


def columns(connection: "Connection[Any]", inner: str, shown: str) -> list[Column]:
    """Return the columns of a query.

    Args:
        connection: in the transaction that reads the rows.
        inner: the query, as an item of FROM.
        shown: the query, for messages.

    Raises:
        ProjectError: a column has a type that a batch does not read, or two have one name.
    """
    nothing = f"SELECT * FROM {inner} LIMIT 0"  # noqa: S608 (the query is the project's)
    described = connection.execute(nothing.encode()).description or []
    names = [each.name for each in described]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        message = f"{shown} returns the column {twice} twice"
        raise ProjectError(message, hint="rename one of them by AS")
    codes = [each.type_code for each in described]
    known = {
        row[0]: row[1:]
        for row in connection.execute(f"{_KINDS} WHERE oid = ANY(%s)".encode(), [codes])
    }
    return [_column(each, known.get(each.type_code, ("", "", "")), shown) for each in described]


def _column(each: Any, kind: tuple[str, str, str], shown: str) -> Column:
    import pyarrow as pa

    code, (name, type_, category) = each.type_code, kind
    if code == _NUMERIC:
        return Column(each.name, _number(each, shown), is_text=False)
    if code in _TYPES:
        return Column(each.name, getattr(pa, _TYPES[code])(), is_text=False)
    if code in (_TIMESTAMP, _WITH_ZONE):
        zone = "UTC" if code == _WITH_ZONE else None
        return Column(each.name, pa.timestamp("us", zone), is_text=False)
    # Enumerations, and types such as citext.
    if code in _AS_TEXT or type_ == "e" or category == "S":
        return Column(each.name, pa.string(), is_text=True)
    message = f"{shown}: column {each.name} has type {name or code}, which a batch does not read"
    hint = f"leave it out, or cast it in the query, such as {each.name}::text"
    raise ProjectError(message, hint=hint)


def _number(each: Any, shown: str) -> Any:
    """Return the type of a numeric: the numbers that training reads, with all their digits."""
    import pyarrow as pa

    precision, scale = each.precision, each.scale
    if precision and scale == 0 and precision <= _WHOLE_DIGITS:
        return pa.int64()
    if precision and precision <= _FLOAT_DIGITS:
        return pa.float64()
    size = f"numeric({precision},{scale})" if precision else "numeric without a precision"
    message = f"{shown}: column {each.name} is {size}, which may have more digits than a number "
    message += "of floating point"
    hint = f"cast it in the query: {each.name}::float8, or {each.name}::text to keep all digits"
    raise ProjectError(message, hint=hint)


def misfit(reason: str, names: Sequence[str]) -> ProjectError:
    """Return the error for a value that its column's type does not have, such as infinity."""
    place = re.search(r"column #(\d+)", reason)
    column = f"column {names[int(place[1])]}" if place else "a column"
    message = f"{column} of the query has a value that a batch does not read: {reason}"
    return ProjectError(message, hint="leave such rows out, or cast the column to text")
