"""Columns of DataFrames as requests carry them: their kinds, their values, their types."""

import datetime as dt
import decimal
import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from mlship.domain.bundle import Field, Kind, Row, Value
from mlship.errors import ProjectError

_CHOICES = 50
_OBJECT = np.dtype("object")


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """Return a DataFrame's rows in JSON's own types; every kind of missing value is `None`.

    Dates and times become ISO 8601 text, decimals become numbers.
    """
    columns = {str(name): values_of(frame[name]) for name in frame.columns}
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def values_of(column: pd.Series) -> list[Value]:
    """Return a column's values in JSON's own types, `None` for a missing one."""
    values, missing = column.tolist(), column.isna().tolist()
    if column.dtype.kind in "iufb" and not any(missing):
        return values
    return [None if absent else _json(value) for value, absent in zip(values, missing, strict=True)]


def _json(value: Any) -> Value:
    if isinstance(value, dt.date):  # a datetime or a Timestamp is one too
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    return cast("Value", value.item() if isinstance(value, np.generic) else value)


def fields_of(frame: pd.DataFrame) -> tuple[Field, ...]:
    """Return the columns of a DataFrame as fields, with the values of its fullest row as examples.

    Raises:
        ProjectError: a column's values have no kind in common.
    """
    fullest = int(frame.isna().sum(axis=1).to_numpy().argmin()) if len(frame.columns) else 0
    return tuple(field_of(str(name), frame[name], fullest) for name in frame.columns)


def field_of(name: str, column: pd.Series, fullest: int = 0) -> Field:
    """Return a column's field; its example is in row `fullest`, or else the first value.

    Raises:
        ProjectError: the values have no kind in common, or one is infinite.
    """
    kind, dtype = _kind_and_dtype(name, column)
    present = column.dropna()
    categories: tuple[Any, ...] = ()
    is_ordered = False
    if isinstance(column.dtype, pd.CategoricalDtype):
        categories = tuple(_json(value) for value in column.dtype.categories.tolist())
        is_ordered = bool(column.dtype.ordered)
    is_plain_text = kind == "text" and not dtype.startswith("date")
    choices = sorted({str(value) for value in present.unique()}) if is_plain_text else []
    example = column.iloc[fullest]
    if pd.isna(example):
        example = present.iloc[0] if len(present) else None
    return Field(
        name=name,
        kind=kind,
        nullable=bool(column.isna().any()),
        choices=tuple(choices) if len(choices) <= _CHOICES else (),
        example=None if example is None else _of_kind(_json(example), kind),
        dtype=dtype,
        categories=categories,
        is_ordered=is_ordered,
    )


def unified(name: str, train: pd.Series, test: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return both parts of a column with the type that pandas gives to all of its values.

    Raises:
        ProjectError: one part has numbers, say, and the other text.
    """
    if train.dtype == test.dtype:
        return train, test
    if all(isinstance(part.dtype, pd.CategoricalDtype) for part in (train, test)):
        both = pd.api.types.union_categoricals([train, test])
        return train.astype(both.dtype), test.astype(both.dtype)
    # A part without values says nothing of the type.
    parts = [part for part in (train, test) if part.notna().any()]
    kinds = [_kind_and_dtype(name, part)[0] for part in parts]
    if len(set(kinds)) > 1 and set(kinds) != {"integer", "number"}:
        message = f"column {name} is {kinds[0]} in training and {kinds[1]} in the held-out rows"
        hint = "look for text among the numbers of that column"
        raise ProjectError(f"{message}{_odd(train, test)}", hint=hint)
    dtype = pd.concat(parts, ignore_index=True).dtype if parts else np.dtype("float64")
    if any(part.isna().any() for part in (train, test)) and dtype.kind in "iub":
        dtype = np.dtype("object" if dtype.kind == "b" else "float64")
    return train.astype(dtype), test.astype(dtype)


def text_of(value: Any, limit: int = 60) -> str:
    """Return a name or a value of users as text that any record can hold, cut at the limit."""
    text = str(value)[: limit + 1].encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _of_kind(value: Value, kind: Kind) -> Value:
    return float(value) if kind == "number" and value is not None else value


def _kind_and_dtype(name: str, column: pd.Series) -> tuple[Kind, str]:
    dtype, types = column.dtype, pd.api.types
    if isinstance(dtype, pd.CategoricalDtype):
        return _kind_and_dtype(name, pd.Series(dtype.categories))[0], "category"
    if dtype == _OBJECT:
        return _of_objects(name, column)
    if types.is_float_dtype(dtype) and np.isinf(_numbers(column)).any():
        message = f"column {name} holds an infinite number"
        raise ProjectError(message, hint="leave the value out, or cap it")
    tests: tuple[tuple[Kind, bool], ...] = (
        ("text", types.is_datetime64_any_dtype(dtype) or isinstance(dtype, pd.StringDtype)),
        ("boolean", types.is_bool_dtype(dtype)),
        ("integer", types.is_integer_dtype(dtype)),
        ("number", types.is_float_dtype(dtype)),
    )
    for kind, holds in tests:
        if holds:
            return kind, str(dtype)
    return _of_objects(name, column)


def _numbers(column: pd.Series) -> Any:
    return column.to_numpy(dtype="float64", na_value=math.nan)


def _of_objects(name: str, column: pd.Series) -> tuple[Kind, str]:
    types = {type(value) for value in column.dropna()}
    for (kind, dtype), allowed in _PYTHON_TYPES.items():
        if types <= allowed:
            return kind, dtype
    shown = ", ".join(sorted(kind.__name__ for kind in types))
    message = f"column {name} holds values of type {shown}{_odd(column)}"
    raise ProjectError(message, hint="use numbers only, text only, or booleans only")


def _odd(*parts: pd.Series) -> str:
    """Name the first text that is no number, where there are texts and numbers."""
    for part in parts:
        present = part.dropna()
        odd = present[pd.to_numeric(present, errors="coerce").isna()]
        if len(odd):
            return f", where {str(odd.iloc[0])[:60]!r} stands"
    return ""


_PYTHON_TYPES: Mapping[tuple[Kind, str], set[type]] = {
    ("text", "object"): {str},
    ("boolean", "object"): {bool, np.bool_},
    ("integer", "object"): {int},
    ("number", "object"): {int, float},
    ("text", "date"): {dt.date},
    ("number", "decimal"): {decimal.Decimal},
}
