"""Convert rows to DataFrames and arrays for models, and back to rows of plain JSON values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mlship.domain.bundle import Field, Kind, Row, Value
from mlship.errors import ProjectError
from mlship.runtime.faults import RefusedRequest

_DTYPES: Mapping[Kind, str] = {
    "number": "float64",
    "integer": "int64",
    "text": "object",
    "boolean": "bool",
}
_PLAIN = frozenset(
    ["bool", "float16", "float32", "float64"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)
"""numpy's types, in which only floats have a missing value."""
_FLOATS = {float}


def to_frame(rows: Sequence[Row], fields: Sequence[Field]) -> Any:
    """Return a DataFrame of shape (rows, fields), with the types that pandas gave to training.

    A null is what pandas reads from an empty field of the same column: NaN, NaT or NA.

    Raises:
        RefusedRequest: a value has no form in the column's type; it names the row and the column.
    """
    import pandas as pd

    columns = {}
    for field in fields:
        values = [row[field.name] for row in rows]
        try:
            columns[field.name] = _series(values, field)
        except (ValueError, TypeError, OverflowError, ArithmeticError) as error:
            raise _refused(values, field, error) from None
    return pd.DataFrame(columns, index=range(len(rows)))


def _series(values: list[Value], field: Field) -> Any:
    import pandas as pd

    dtype: Any = field.dtype or _DTYPES[field.kind]
    match dtype:
        case "category":
            categories = pd.CategoricalDtype(list(field.categories), ordered=field.is_ordered)
            return pd.Series(values, dtype=categories)
        case "date":
            return pd.Series([_date(value) for value in values], dtype="object")
        case "decimal":
            return pd.Series([_decimal(value) for value in values], dtype="object")
        case "object":
            # Manifests without dtypes were proven with None in columns of text.
            missing = math.nan if field.dtype else None
            return pd.Series([missing if v is None else v for v in values], dtype="object")
    if dtype.startswith("datetime64"):
        return _moments(values, dtype)
    if None in values and dtype in _PLAIN:
        dtype = "object" if field.kind == "boolean" else "float64"
    return pd.Series(values, dtype=dtype)


def _moments(values: list[Value], dtype: str) -> Any:
    from datetime import datetime

    import pandas as pd

    has_zone = "," in dtype

    def parsed(some: list[Value]) -> Any:
        return pd.to_datetime(pd.Series(some, dtype="object"), format="ISO8601", utc=has_zone)

    try:
        return parsed(values).astype(dtype)
    except pd.errors.OutOfBoundsDatetime:
        # Beyond these years, pandas 2 makes another moment of one with a zone, or ends the process.
        if "[ns" in dtype or has_zone:
            raise
    # Nanoseconds hold the years 1677 to 2262, which pandas parses into; coarser units hold more.
    moments = []
    for value in values:
        try:
            [moment] = parsed([value])
        except pd.errors.OutOfBoundsDatetime:
            moment = pd.Timestamp(datetime.fromisoformat(str(value)))
        moments.append(moment)
    return pd.Series(moments, dtype=dtype)


def _date(value: Value) -> Any:
    from datetime import date

    return None if value is None else date.fromisoformat(str(value)[:10])


def _decimal(value: Value) -> Any:
    from decimal import Decimal

    return None if value is None else Decimal(str(value))


def _refused(values: list[Value], field: Field, error: Exception) -> RefusedRequest:
    """Return the refusal of the first value that cannot be converted."""
    for number, value in enumerate(values):
        try:
            _series([value], field)
        except (ValueError, TypeError, OverflowError, ArithmeticError) as own:
            reason = str(own).splitlines()[0][:200]
            hint = f"send a value such as {field.example}" if field.example is not None else ""
            message = f"{field.name} does not fit the type {field.dtype}: {reason}"
            return RefusedRequest(message, row=number, column=field.name, hint=hint)
    return RefusedRequest(f"{field.name} does not fit the type {field.dtype}: {error}")


def nulls(frame: Any) -> list[Row]:
    """Return the rows of a DataFrame as they are, with missing values of any kind as `None`."""
    missing = frame.isna()
    lists = {
        name: [
            None if absent else value
            for value, absent in zip(frame[name].tolist(), missing[name].tolist(), strict=True)
        ]
        for name in frame.columns
    }
    return [{name: lists[name][number] for name in lists} for number in range(len(frame))]


def to_rows(frame: Any) -> list[Row]:
    """Return the rows of a DataFrame in JSON types.

    Raises:
        ProjectError: the name of a column is not a string, or a value has no JSON type.
    """
    lists = {name: column.tolist() for name, column in frame.items()}
    for name in lists:
        if not isinstance(name, str):
            message = f"the column name {name!r} is not a string"
            raise ProjectError(message, hint="use strings as column names of the DataFrame")
    return [
        {name: plain(values[number], str(name), number) for name, values in lists.items()}
        for number in range(len(frame))
    ]


def plain(value: Any, name: str, row: int) -> Value:
    """Return a value in JSON types.

    Raises:
        ProjectError: it is not finite, or not a number, string or boolean.
    """
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        message = f"outputs[{row}].{name} is {value}, which is not a valid prediction"
        raise ProjectError(message, hint="check the row: the model or a hook cannot compute it")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    message = f"outputs[{row}].{name} has type {type(value).__name__}, which JSON does not have"
    raise ProjectError(message, hint="return only numbers, strings and booleans from the hook")


def plain_values(values: list[Any], names: Sequence[str], row: int) -> list[Any]:
    """Return the values of a row as `plain` returns each.

    Raises:
        ProjectError: one is not finite, or not a number, string or boolean.
    """
    # One look at all of them: a sum of floats is finite only if each of them is.
    is_of_floats = len(values) == len(names) and set(map(type, values)) == _FLOATS
    if is_of_floats and math.isfinite(sum(values)):
        return values
    return [plain(value, name, row) for name, value in zip(names, values, strict=True)]


def to_matrix(rows: Sequence[Row], names: Sequence[str], dtype: str) -> Any:
    """Return an array of shape (rows, names); a null is NaN, true is 1.

    Raises:
        ProjectError: a value is not a number.
    """
    import numpy as np

    try:
        return np.array(
            [[math.nan if row[name] is None else row[name] for name in names] for row in rows],
            dtype=dtype,
        ).reshape(len(rows), len(names))
    except (TypeError, ValueError) as error:
        message = f"the model's columns must be numbers after preprocess: {error}"
        raise ProjectError(message, hint="return numbers from the hook `preprocess`") from error


def to_column(rows: Sequence[Row], name: str, dtype: str) -> Any:
    """Return an array of shape (rows, 1); in an array of objects, a null is the empty string.

    Raises:
        ProjectError: a value in a column of numbers is not a number.
    """
    import numpy as np

    if dtype == "object":
        values = [["" if row[name] is None else str(row[name])] for row in rows]
        return np.array(values, dtype=object).reshape(len(rows), 1)
    return to_matrix(rows, (name,), dtype)
