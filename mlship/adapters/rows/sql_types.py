"""Types of PostgreSQL for the columns of outputs, and those that would change a value silently.

COPY rounds a number to the scale of its column, and cuts a time to a date, without an error.
"""

import re
from collections.abc import Mapping
from typing import Final

from mlship.domain.bundle import Kind

OF_KIND: Final[Mapping[Kind, str]] = {
    "number": "double precision",
    "integer": "bigint",
    "boolean": "boolean",
    "text": "text",
}
_FIT: Final[Mapping[Kind, frozenset[str]]] = {
    "number": frozenset({"double precision", "numeric"}),
    "integer": frozenset({"bigint", "integer", "smallint", "numeric"}),
    "boolean": frozenset({"boolean"}),
    "text": frozenset(),
}
_TEXTS: Final = frozenset("SE")
"""The categories of types that take text: texts and enumerations."""
_OF_ARROW: Final = (
    (("int", "uint"), "bigint"),
    (("float", "double", "halffloat"), "double precision"),
    (("bool",), "boolean"),
    (("date64",), "timestamp"),
    (("date",), "date"),
    (("decimal",), "numeric"),
)
_CUTS: Final = "name"
"""The type of PostgreSQL's own names, which keeps 63 bytes of a text."""
_DECIMAL: Final = re.compile(r"decimal\d+\(\d+, (-?\d+)\)")
_NUMERIC: Final = re.compile(r"numeric\(\d+,(-?\d+)\)")
_TIME: Final = re.compile(r"timestamp\(([0-5])\)")


def of_arrow(kind: str) -> str:
    """Return the SQL type for a type of Arrow, for a column that is copied."""
    if kind.startswith("timestamp"):
        return "timestamptz" if "tz=" in kind else "timestamp"
    return next((type_ for begins, type_ in _OF_ARROW if kind.startswith(begins)), "text")


def does_take(own: str, category: str, kind: Kind | None, arrow: str) -> bool:
    """Return whether a column takes the values, and keeps them as they are.

    Args:
        own: its type as PostgreSQL writes it, with precision and scale.
        category: of the type.
        kind: of an output; `None` for a column that is copied from the input.
        arrow: the type in the input of one that is copied. What PostgreSQL refuses by itself
            when the values come is not decided here.
    """
    if kind is None:
        return own != _CUTS and not _changes(own, arrow)
    if kind == "text":
        return category in _TEXTS and own != _CUTS
    name = own.partition("(")[0]
    is_rounded = kind == "number" and name != own
    return name in _FIT[kind] and not is_rounded


def _changes(own: str, arrow: str) -> bool:
    """Return whether a column would round or cut values of a type of Arrow."""
    is_float = arrow.startswith(("float", "double", "halffloat"))
    is_decimal = arrow.startswith("decimal")
    is_number = is_float or is_decimal or arrow.startswith(("int", "uint"))
    if scaled := _NUMERIC.fullmatch(own):
        decimal = _DECIMAL.fullmatch(arrow)
        return is_float or (decimal is not None and int(decimal[1]) > int(scaled[1]))
    if own == "real":
        return is_number and arrow not in ("float", "halffloat", "int8", "uint8", "int16", "uint16")
    if own == "double precision":
        return is_decimal or arrow in ("int64", "uint64")
    if own == "money":
        return is_number
    if arrow.startswith("timestamp"):
        return own == "date" or own.startswith("time ") or _TIME.match(own) is not None
    return False
