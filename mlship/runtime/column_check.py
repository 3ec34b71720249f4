"""Checks received rows against the schema column by column, where nothing is wrong.

It accepts only what `rows.check` accepts, and returns the same values. What it does not take is
left to `rows.check`, which accepts more (a whole float in an integer column) and says what is
wrong.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mlship.domain.bundle import Field, Kind, Schema
from mlship.domain.columns import Column, Columns, packed
from mlship.runtime import rows
from mlship.runtime.jobs import Table

_TYPES: Final[Mapping[Kind, frozenset[type]]] = {
    "number": frozenset({int, float}),
    "integer": frozenset({int}),
    "text": frozenset({str}),
    "boolean": frozenset({bool}),
}
_INTEGER_LIMIT: Final = 2**63


def check(received: Sequence[Any] | Columns, schema: Schema) -> Table:
    """Return rows as values in the schema's order.

    Args:
        received: a `Table`, which is returned; columns; or rows as JSON has them.
        schema: the schema.

    Raises:
        RefusedRequest: a row does not fit the schema.
    """
    if isinstance(received, Table):
        return received
    names = [field.name for field in schema.inputs]
    columns = received if isinstance(received, Columns) else _columns(received, names)
    if columns is not None and set(columns.names) == set(names):
        accepted = [_accepted(columns.column(field.name), field) for field in schema.inputs]
        if None not in accepted:
            return Table(names, accepted, len(columns))  # type: ignore[arg-type]  # none is None
    as_rows = received.rows() if isinstance(received, Columns) else received
    checked = rows.check(as_rows, schema)
    values = [packed([row[name] for row in checked]) for name in names]
    return Table(names, values, len(checked))


def _columns(received: Sequence[Any], names: Sequence[str]) -> Columns | None:
    """Return the columns of rows that are objects with these names."""
    known = set(names)
    if not all(isinstance(row, dict) and row.keys() == known for row in received):
        return None
    return Columns(names, [[row[name] for row in received] for name in names], len(received))


def _accepted(values: Column, field: Field) -> Column | None:
    """Return the values of a column if all of them fit as they are."""
    types = set(map(type, values))
    present: Sequence[Any] = values
    if type(None) in types:
        if not field.nullable:
            return None
        types.remove(type(None))
        present = [value for value in values if value is not None]
    if not types <= _TYPES[field.kind]:
        return None
    if not _is_known(present, field) or not _is_finite(present, types, field.limit):
        return None
    return packed(values)


def _is_known(present: Sequence[Any], field: Field) -> bool:
    known = field.categories or (field.choices if field.is_closed else ())
    return not known or set(present) <= set(known)


def _is_finite(present: Sequence[Any], types: set[type], limit: float | None) -> bool:
    """Return whether numbers are finite, within 64 bits if whole, and within the limit."""
    if bool in types:
        return limit is None
    if str in types or not present:
        return True
    if int in types:
        whole = [value for value in present if type(value) is int]
        if max(whole) >= _INTEGER_LIMIT or min(whole) <= -_INTEGER_LIMIT:
            return False
    if float in types and not all(map(math.isfinite, present)):
        return False
    return limit is None or (max(present) <= limit and min(present) >= -limit)
