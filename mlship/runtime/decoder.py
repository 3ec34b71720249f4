"""Decodes a body of rows and checks it against the schema in one pass, where nothing is wrong.

A decoder is made of the schema once. It accepts only what `rows.check` accepts, and returns the
same values. What it does not take is left to `column_check`.
"""

import types
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec.structs import astuple

from mlship.domain.bundle import Field, Schema
from mlship.domain.columns import FEW, PIECE_ROWS, Column, packed
from mlship.runtime import http
from mlship.runtime.jobs import Table

_LARGEST = 2**63 - 1
_Type: TypeAlias = Any
"""A type that msgspec decodes into."""


class RowDecoder:
    """Decodes bodies of `/predict`: a row, a list of rows, or `{"rows": [...]}`."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._row: msgspec.json.Decoder[Any] | None = None
        self._names = tuple(field.name for field in schema.inputs)
        row = _row_type(schema)
        if row is not None:
            self._getters = [attrgetter(name) for name in row.__struct_fields__]
            several: _Type = types.GenericAlias(list, (row,))
            named: _Type = msgspec.defstruct(
                "Rows", [("rows", several)], forbid_unknown_fields=True
            )
            self._row = msgspec.json.Decoder(row)
            self._rows = msgspec.json.Decoder(several)
            self._named = msgspec.json.Decoder(named)

    def decode(self, body: bytes) -> Sequence[Any] | Table:
        """Return the rows of a body: a `Table` if they are checked, otherwise to be checked.

        Raises:
            RefusedRequest: it is not JSON, has another form, or has no rows.
        """
        if self._row is not None:
            try:
                received = self._received(body, self._row)
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
                received = ()
            if received:
                return self._table(received)
        return http.decode_rows(body)

    def _table(self, received: Sequence[Any]) -> Table:
        columns: Iterable[Column]
        if len(received) > PIECE_ROWS:  # a tuple for each row would take as much memory as the rows
            columns = (list(map(get, received)) for get in self._getters)
        else:
            columns = zip(*map(astuple, received), strict=True)
            if len(received) < FEW:
                return Table(self._names, list(columns))
        return Table(self._names, list(map(packed, columns)))

    def _received(self, body: bytes, row: msgspec.json.Decoder[Any]) -> Sequence[Any]:
        if body.startswith(b"["):
            rows: Sequence[Any] = self._rows.decode(body)
            return rows
        if body.startswith(b'{"rows"'):
            received: Sequence[Any] = self._named.decode(body).rows
            return received
        return (row.decode(body),)


def _row_type(schema: Schema) -> _Type | None:
    """Return a type of rows, or `None` if msgspec has none for a column of the schema."""
    kinds = [_type_of(field) for field in schema.inputs]
    if None in kinds:
        return None
    names = [f"column{place}" for place in range(len(kinds))]
    renamed = {name: field.name for name, field in zip(names, schema.inputs, strict=True)}
    try:
        return msgspec.defstruct(
            "Row",
            list(zip(names, kinds, strict=True)),
            rename=renamed,
            forbid_unknown_fields=True,
            gc=False,
        )
    except ValueError:  # a name with a quote, a backslash or a control character
        return None


def _type_of(field: Field) -> _Type | None:
    known = field.categories or (field.choices if field.is_closed else ())
    if known:
        if field.kind != "text" or not all(isinstance(value, str) for value in known):
            return None
        kind: _Type = Literal[tuple(known)]
    else:
        kind = _unlimited(field)
    return kind | None if field.nullable else kind


def _unlimited(field: Field) -> _Type:
    if field.kind == "text":
        return str
    if field.kind == "boolean":
        return bool
    limit = field.limit
    largest = _LARGEST if limit is None or limit >= _LARGEST else int(limit)
    whole = Annotated[int, msgspec.Meta(ge=-largest, le=largest)]
    if field.kind == "integer":
        return whole
    if limit is None:
        return whole | float
    return whole | Annotated[float, msgspec.Meta(ge=-limit, le=limit)]
