"""Convert rows to DataFrames and arrays for models, and back to rows of plain JSON values."""

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from mlship.domain.bundle import Field, Kind, Row, Value
from mlship.domain.columns import FEW, Column, Columns, packed
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
_PLAIN_TYPES = {type(None), bool, int, str}
_BOUNDED = {int, str}
_LEAST, _LARGEST = -(2**63), 2**64 - 1
"""Of the whole numbers that msgpack has, which carries outputs from a worker to the server."""
_UNBOUNDED = (bool, float)


Rows: TypeAlias = Columns | Sequence[Row]


def column_of(rows: Rows, name: str) -> Column:
    """Return the values of a column.

    Raises:
        KeyError: a row does not have it.
    """
    return rows.column(name) if isinstance(rows, Columns) else [row[name] for row in rows]


def to_frame(rows: Rows, fields: Sequence[Field]) -> Any:
    """Return a DataFrame of shape (rows, fields), with the types that pandas gave to training.

    A null is what pandas reads from an empty field of the same column: NaN, NaT or NA.

    Raises:
        RefusedRequest: a value has no form in the column's type; it names the row and the column.
    """
    import numpy as np
    import pandas as pd

    columns = {}
    for field in fields:
        column = column_of(rows, field.name)
        if isinstance(column, array) and (field.dtype or _DTYPES[field.kind]) == "float64":
            columns[field.name] = pd.Series(np.frombuffer(column), dtype="float64")
            continue
        values = list(column)
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


def nulls(frame: Any) -> Columns:
    """Return the rows of a DataFrame as they are, with missing values of any kind as `None`."""
    missing = frame.isna()
    lists = {
        name: [
            None if absent else value
            for value, absent in zip(frame[name].tolist(), missing[name].tolist(), strict=True)
        ]
        for name in frame.columns
    }
    return Columns(tuple(lists), tuple(lists.values()), len(frame))


def to_columns(frame: Any) -> Columns:
    """Return the rows of a DataFrame in JSON types.

    Raises:
        ProjectError: the name of a column is not a string or that of another one, or a value has
            no JSON type.
    """
    lists = {name: column.tolist() for name, column in frame.items()}
    if len(lists) < len(frame.columns):
        message = f"two columns are named {frame.columns[frame.columns.duplicated()][0]!r}"
        raise ProjectError(message, hint="give each column of the DataFrame a name of its own")
    for name in lists:
        if not isinstance(name, str):
            message = f"the column name {name!r} is not a string"
            raise ProjectError(message, hint="use strings as column names of the DataFrame")
        if not is_text(name):
            message = f"the column name {name!r} has half of a surrogate pair"
            raise ProjectError(message, hint="use column names that UTF-8 can encode")
    return plain_columns(Columns(tuple(lists), tuple(lists.values()), len(frame)))


def plain_columns(columns: Columns) -> Columns:
    """Return columns with each value in JSON types.

    Raises:
        ProjectError: a value is not finite, or not a number, string or boolean; it is the first
            one of the first such row.
    """
    if all(map(_is_plain, columns.values)):
        return Columns(columns.names, [packed(values) for values in columns.values], len(columns))
    rows = [
        [plain(value, name, number) for name, value in zip(columns.names, row, strict=True)]
        for number, row in enumerate(columns)
    ]
    return Columns.of(rows, columns.names)


def _is_plain(values: Column) -> bool:
    """Return whether all values have JSON types as they are."""
    types = set(map(type, values))
    if types == _FLOATS:
        return all(map(math.isfinite, values))  # type: ignore[arg-type]  # they are floats
    if not types <= _PLAIN_TYPES:
        return False
    return all(is_sendable(kind, values) for kind in types & _BOUNDED)


def is_sendable(kind: type, values: Sequence[Any]) -> bool:
    """Return whether the values of a kind, `int` or `str`, can be sent and logged."""
    some: list[Any] = [value for value in values if type(value) is kind]
    if kind is int:
        return bool(min(some) >= _LEAST and max(some) <= _LARGEST)
    return is_text("".join(some))


def is_text(text: str) -> bool:
    """Return whether UTF-8 has a text: not if it has half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def plain(value: Any, name: str, row: int) -> Value:
    """Return a value in JSON types.

    Raises:
        ProjectError: it is not finite, not a number, string or boolean, or one that cannot be
            sent: beyond 64 bits, or half of a surrogate pair.
    """
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        message = f"outputs[{row}].{name} is {value}, which is not a valid prediction"
        raise ProjectError(message, hint="check the row: the model or a hook cannot compute it")
    if value is None or type(value) in _UNBOUNDED:
        return value  # type: ignore[no-any-return]  # it has one of these types
    if isinstance(value, str | int):
        return _sendable(value, f"outputs[{row}].{name}")
    if isinstance(value, float):
        return float(value)
    message = f"outputs[{row}].{name} has type {type(value).__name__}, which JSON does not have"
    raise ProjectError(message, hint="return only numbers, strings and booleans from the hook")


def _sendable(value: str | int, place: str) -> str | int:
    # Of a class of its own, which no message holds. An enumeration's text is that of its value.
    if isinstance(value, str):
        text = str.__str__(value)
        if is_text(text):
            return text
        message = f"{place} is a text with half of a surrogate pair"
        raise ProjectError(message, hint="return only text that UTF-8 can encode from the hook")
    if _LEAST <= value <= _LARGEST:
        return int(value)
    message = f"{place} is a whole number beyond 64 bits"
    raise ProjectError(message, hint="return it as a float or a text from the hook")


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


def to_matrix(rows: Rows, names: Sequence[str], dtype: str) -> Any:
    """Return an array of shape (rows, names); a null is NaN, true is 1.

    Raises:
        ProjectError: a value is not a number.
    """
    import numpy as np

    if isinstance(rows, Columns) and rows.names == names:
        columns = rows.values
    else:
        columns = [column_of(rows, name) for name in names]
    try:
        if len(rows) >= FEW and np.dtype(dtype).kind == "f":
            matrix = np.empty((len(rows), len(names)), dtype)
            for place, column in enumerate(columns):
                matrix[:, place] = _numbers(column, dtype)
            return matrix
    except (TypeError, ValueError):
        pass  # the same again by rows says which value it is
    try:
        return np.array(
            [
                [math.nan if value is None else value for value in row] if None in row else row
                for row in zip(*columns, strict=True)
            ],
            dtype=dtype,
        ).reshape(len(rows), len(names))
    except (TypeError, ValueError) as error:
        message = f"the model's columns must be numbers after preprocess: {error}"
        raise ProjectError(message, hint="return numbers from the hook `preprocess`") from error


def _numbers(column: Column, dtype: str) -> Any:
    import numpy as np

    if isinstance(column, array):
        return np.frombuffer(column)
    return np.array([math.nan if value is None else value for value in column], dtype=dtype)


def to_column(rows: Rows, name: str, dtype: str) -> Any:
    """Return an array of shape (rows, 1); in an array of objects, a null is the empty string.

    Raises:
        ProjectError: a value in a column of numbers is not a number.
    """
    import numpy as np

    if dtype == "object":
        values = [["" if value is None else str(value)] for value in column_of(rows, name)]
        return np.array(values, dtype=object).reshape(len(rows), 1)
    return to_matrix(rows, (name,), dtype)
