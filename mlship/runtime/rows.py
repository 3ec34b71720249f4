"""Checks received rows against the schema, field by field, before anything runs."""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from mlship.domain.bundle import Field, Kind, Row, Schema, Value
from mlship.runtime.faults import RefusedRequest

_EXPECTED: Mapping[Kind, str] = {
    "number": "a number",
    "integer": "a whole number",
    "text": "a string",
    "boolean": "true or false",
}
_INTEGER_LIMIT = 2**63
_NAME_LENGTH = 80
"""What of a received name is compared with known ones, and told: a client may send megabytes."""


def check(rows: Sequence[Any], schema: Schema) -> list[Row]:
    """Return the rows with columns in the order of the schema, and values of its types.

    In an integer column, a whole float becomes an `int`; in a number column, an integer beyond 64
    bits a float. Other numbers stay unchanged.

    Raises:
        RefusedRequest: a column is missing or unknown, or a value has the wrong type, is null in a
            column without nulls, is not finite, or is one that the model was found to refuse; it
            names the field: `rows[3].sepal_length`.
    """
    names = {field.name for field in schema.inputs}
    checked = []
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            message = f"a row must be an object, not {_describe(row)}"
            raise RefusedRequest(message, row=number, hint=_example(schema))
        if row.keys() != names:
            raise _wrong_columns(row, schema, number)
        checked.append(
            {field.name: _value(row[field.name], field, number) for field in schema.inputs}
        )
    return checked


def _value(value: Any, field: Field, row: int) -> Value:
    if value is None:
        if field.nullable:
            return None
        message = f"{field.name} must be {_EXPECTED[field.kind]}, not null"
        raise RefusedRequest(message, row=row, column=field.name, hint=_such_as(field))
    checked = _of_kind(value, field.kind)
    if checked is None:
        message = f"{field.name} must be {_EXPECTED[field.kind]}, not {_describe(value)}"
        raise RefusedRequest(message, row=row, column=field.name, hint=_such_as(field))
    unknown = _unknown(checked, field)
    if unknown:
        message, hint = unknown
        raise RefusedRequest(message, row=row, column=field.name, hint=hint)
    return checked


def _unknown(value: Value, field: Field) -> tuple[str, str] | None:
    """Return the message and the hint for a value beyond those that the model accepts."""
    known = field.categories or (field.choices if field.is_closed else ())
    if known and value not in known:
        texts = [str(choice) for choice in known]
        received = str(value)[:_NAME_LENGTH]
        near = difflib.get_close_matches(received, texts, n=1, cutoff=0.5)
        message = f"{field.name} {_describe(value)} is not a value that the model knows"
        some = f"known values: {', '.join(texts[:20])}"
        return message, f"did you mean {near[0]}?" if near else some
    if field.limit is not None and isinstance(value, int | float) and abs(value) > field.limit:
        message = f"{field.name} {_describe(value)} is too large for the model"
        return message, f"send a number between -{field.limit:g} and {field.limit:g}"
    return None


def _of_kind(value: Any, kind: Kind) -> Value:
    """Return the value with the type of the kind, or `None` if it has another type."""
    match kind:
        case "number":
            return _number(value)
        case "integer":
            return int(value) if _is_whole(value) else None
        case "text":
            return value if isinstance(value, str) else None
        case "boolean":
            return value if isinstance(value, bool) else None
        case _:
            assert_never(kind)


def _number(value: Any) -> float | int | None:
    """Return a number; one beyond 64 bits, which JSON may write without a point, as a float."""
    if _is_number(value):
        number: float | int = value
        return number
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _INTEGER_LIMIT


def _is_whole(value: Any) -> bool:
    return _is_number(value) and value == math.trunc(value) and abs(value) < _INTEGER_LIMIT


def _wrong_columns(row: dict[str, Any], schema: Schema, number: int) -> RefusedRequest:
    names = {field.name: None for field in schema.inputs}
    missing = [name for name in names if name not in row]
    unknown = next((str(name)[:_NAME_LENGTH] for name in row if name not in names), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, missing or names, n=1, cutoff=0.5)
        known = f"valid columns: {', '.join(names)}"
        hint = f"did you mean {near[0]}?" if near else known
        message = f"unknown column {unknown}"
        return RefusedRequest(message, row=number, column=unknown, hint=hint)
    message = f"missing column {missing[0]}"
    return RefusedRequest(message, row=number, column=missing[0], hint=_example(schema))


def _such_as(field: Field) -> str:
    if field.example is not None:
        return f"send {_EXPECTED[field.kind]} such as {_describe(field.example)}"
    return f"send {_EXPECTED[field.kind]}"


def _example(schema: Schema) -> str:
    pairs = (f'"{field.name}": {_describe(field.example)}' for field in schema.inputs)
    return f"send a row such as {{{', '.join(pairs)}}}"


def _describe(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value[:40]}"'
    if isinstance(value, float):
        return str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < _INTEGER_LIMIT else "a number beyond 64 bits"
    return "a list" if isinstance(value, list) else "an object"
