"""Columns of DataFrames as the runtime knows them: their kinds, their values, their types."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mlship.domain.bundle import Field, Kind, Row, Value
from mlship.errors import ProjectError

_CHOICES = 50
_DTYPES: Mapping[Kind, str] = {
    "number": "float64",
    "integer": "int64",
    "text": "object",
    "boolean": "bool",
}


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """Return a DataFrame's rows in JSON's own types; every kind of missing value is `None`."""
    missing = frame.isna()
    columns = {
        str(name): [
            None if absent else value
            for value, absent in zip(frame[name].tolist(), missing[name].tolist(), strict=True)
        ]
        for name in frame.columns
    }
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def fields_of(frame: pd.DataFrame) -> tuple[Field, ...]:
    """Return the columns of a DataFrame as fields.

    Raises:
        ProjectError: a column's values have no kind in common.
    """
    return tuple(field_of(str(name), frame[name], frame[name]) for name in frame.columns)


def field_of(name: str, train: pd.Series, test: pd.Series) -> Field:
    """Return a column's field; its choices and its example are those of training."""
    train, test = _without_dates(train), _without_dates(test)
    kinds = {_kind(name, part) for part in (train, test) if part.notna().any()} or {"number"}
    kind: Kind
    if kinds == {"integer", "number"}:
        kind = "number"
    elif len(kinds) == 1:
        (kind,) = kinds
    else:
        message = f"column {name} is {_kind(name, train)} in training and "
        message += f"{_kind(name, test)} in the held-out rows{_odd(train, test)}"
        raise ProjectError(message, hint="look for text among the numbers of that column")
    nullable = bool(train.isna().any() or test.isna().any())
    if nullable and kind == "integer":
        kind = "number"
    seen = train.dropna()
    choices = sorted(set(seen)) if kind == "text" else []
    return Field(
        name=name,
        kind=kind,
        nullable=nullable,
        choices=tuple(choices) if len(choices) <= _CHOICES else (),
        example=_plain(seen.iloc[0], kind) if len(seen) else None,
    )


def _odd(train: pd.Series, test: pd.Series) -> str:
    """Name the first text that is no number, where one part has texts and the other numbers."""
    for part in (train, test):
        given = part.dropna()
        odd = given[pd.to_numeric(given, errors="coerce").isna()]
        if len(odd):
            return f", where {str(odd.iloc[0])[:60]!r} stands"
    return ""


def _plain(value: Any, kind: Kind) -> Value:
    match kind:
        case "number":
            return float(value)
        case "integer":
            return int(value)
        case "boolean":
            return bool(value)
        case "text":
            return str(value)


def _without_dates(column: pd.Series) -> pd.Series:
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.dtype.categories.dtype)
    if pd.api.types.is_datetime64_any_dtype(column):
        return column.map(lambda moment: moment.isoformat(), na_action="ignore").astype(object)
    return column


def _kind(name: str, column: pd.Series) -> Kind:
    if pd.api.types.is_bool_dtype(column):
        return "boolean"
    if pd.api.types.is_integer_dtype(column):
        return "integer"
    if pd.api.types.is_float_dtype(column):
        if np.isinf(column.to_numpy(dtype="float64", na_value=math.nan)).any():
            message = f"column {name} holds an infinite number"
            raise ProjectError(message, hint="leave the value out, or cap it")
        return "number"
    types = {type(value) for value in column.dropna()}
    for kind, allowed in _PYTHON_TYPES.items():
        if types <= allowed:
            return kind
    shown = ", ".join(sorted(kind.__name__ for kind in types))
    message = f"column {name} holds values of type {shown}"
    raise ProjectError(message, hint="use numbers only, text only, or booleans only")


_PYTHON_TYPES: Mapping[Kind, set[type]] = {
    "text": {str},
    "boolean": {bool, np.bool_},
    "integer": {int},
    "number": {int, float},
}


def shaped(frame: pd.DataFrame, fields: tuple[Field, ...]) -> pd.DataFrame:
    """Return the columns in the types that the runtime gives to hooks and models."""
    columns = {}
    for field in fields:
        column = _without_dates(frame[field.name])
        dtype = _DTYPES[field.kind]
        if field.kind in ("text", "boolean") and (field.kind == "text" or column.isna().any()):
            values = [None if pd.isna(value) else value for value in column.tolist()]
            columns[field.name] = pd.Series(values, dtype=object, index=frame.index)
        else:
            columns[field.name] = pd.Series(
                column.to_numpy(dtype=dtype, na_value=math.nan)
                if dtype == "float64"
                else column.to_numpy(dtype=dtype),
                index=frame.index,
            )
    return pd.DataFrame(columns)


def text_of(value: Any, limit: int = 60) -> str:
    """Return a name or a value of users as text that any record can hold, cut at the limit."""
    text = str(value)[: limit + 1].encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else text[: limit - 1] + "…"
