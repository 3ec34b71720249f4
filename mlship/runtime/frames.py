"""Convert rows to DataFrames and arrays for models, and back to rows of plain JSON values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mlship.domain.bundle import Field, Kind, Row, Value
from mlship.errors import ProjectError

_DTYPES: Mapping[Kind, str] = {
    "number": "float64",
    "integer": "int64",
    "text": "object",
    "boolean": "bool",
}


def to_frame(rows: Sequence[Row], fields: Sequence[Field]) -> Any:
    """Return a DataFrame of shape (rows, fields).

    A null is NaN in a column of numbers, whose dtype becomes float64, and `None` in a column of
    text or booleans, whose dtype becomes object. pandas reads a CSV file the same way.
    """
    import pandas as pd

    columns = {}
    for field in fields:
        values = [row[field.name] for row in rows]
        dtype = _DTYPES[field.kind]
        if None in values and dtype != "object":
            dtype = "object" if field.kind == "boolean" else "float64"
        columns[field.name] = pd.Series(values, dtype=dtype)
    return pd.DataFrame(columns)


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
