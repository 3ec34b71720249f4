"""Columns of Arrow as the values that a request would have, checked as a whole.

What this check accepts, `rows.check` accepts, with the same value. A row that it does not accept is
looked at by `rows.check`, which accepts more and says what is wrong.
"""

import math
import re
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlship.domain.batch import Reading
from mlship.domain.bundle import Field, Value
from mlship.domain.columns import Column

_EXACT: Final = 2**53
_LOWEST: Final = -(2**63)
_FLOATS: Final = frozenset({"", "float64", "float32"})
_INTEGERS: Final = frozenset(
    {"", *(f"{sign}int{n}" for sign in ("", "u") for n in (8, 16, 32, 64))}
)
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BOOLEANS: Final = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class Checked:
    """A column whose values are those of a request, where `bad` does not mark a row.

    Args:
        values: an array of float64, int64, bool or objects.
        missing: marks rows without a value; `None` if all have one.
        bad: marks rows that must be looked at; `None` if all are accepted.
        floats: whether the model gets the numbers as floats in any case, so that an array of them
            is as good as a list; a missing one is NaN then.
    """

    def __init__(
        self, values: Any, missing: Any = None, bad: Any = None, *, floats: bool = False
    ) -> None:
        self.values = values
        self.missing = missing if missing is not None and missing.any() else None
        self.bad = bad if bad is not None and bad.any() else None
        self._floats = floats

    def column(self, rows: Any = None, replaced: Mapping[int, Value] | None = None) -> Column:
        """Return the values of all rows, or of those at some places.

        Args:
            rows: an array of places.
            replaced: the values of rows that `bad` marks and `rows.check` accepts, by place.
        """
        values, missing = self.values, self.missing
        if not replaced and self._floats:
            chosen = values if rows is None else values[rows]
            numbers = array("d")
            numbers.frombytes(np.ascontiguousarray(chosen, dtype="float64").tobytes())
            return numbers
        listed: list[Value] = values.tolist()
        if missing is not None:
            for place in np.flatnonzero(missing).tolist():
                listed[place] = None
        for place, value in (replaced or {}).items():
            listed[place] = value
        return listed if rows is None else [listed[place] for place in rows.tolist()]


def checked(column: Any, field: Field, reading: Reading, *, is_text: bool, plain: bool) -> Checked:
    """Return a column of a record batch as the values of a field.

    Args:
        column: an array of Arrow, of a type that fits the field.
        field: of the schema.
        reading: how text is read.
        is_text: whether the values are text that is still to be parsed.
        plain: whether the model gets numbers as they are, without a hook.
    """
    if isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_decode()
    if is_text and reading.missing:
        stands = pc.is_in(column, value_set=pa.array(reading.missing, pa.string()))
        column = pc.if_else(stands, None, column)
    match field.kind:
        case "number" | "integer":
            made = _numbers(column, field, reading, is_text=is_text)
            return _limited(made, field, plain=plain)
        case "boolean":
            return _booleans(column, field, is_text=is_text)
        case "text":
            return _texts(column, field)


def value_of(column: Any, place: int, field: Field, reading: Reading, *, is_text: bool) -> Any:
    """Return one value as a request would have it, for the check that says what is wrong."""
    value = column[place].as_py()
    if is_text and value in reading.missing:
        return None
    if is_text and isinstance(value, str) and field.kind != "text":
        return _BOOLEANS.get(value, value)
    if isinstance(value, float) and math.isnan(value):
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if field.dtype == "decimal" and value is not None:
        return float(value)
    return value


def _numbers(column: Any, field: Field, reading: Reading, *, is_text: bool) -> Checked:
    if is_text or pa.types.is_null(column.type):
        return _parsed(column, field, reading)
    if pa.types.is_decimal(column.type):
        column = pc.cast(column, pa.float64())
    missing = _missing(column)
    if field.kind == "integer":
        return _whole(column, missing, field)
    if pa.types.is_integer(column.type) and missing is None and field.dtype not in _FLOATS:
        return Checked(column.cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False))
    values = array_of(column.cast(pa.float64(), safe=False))
    absent = np.isnan(values)
    bad = np.isinf(values)
    if not field.nullable:
        bad |= absent
    return Checked(values, absent, bad)


def array_of(numbers: Any) -> Any:
    """Return numbers of Arrow as an array; missing ones are NaN.

    Without missing ones, they are not copied, nor is pandas imported, which takes as long as some
    hundred thousand rows.
    """
    if not numbers.null_count:
        return np.from_dlpack(numbers)
    return numbers.to_numpy(zero_copy_only=False)


def _whole(column: Any, missing: Any, field: Field) -> Checked:
    """Return whole numbers, also where they are written as floats."""
    if pa.types.is_integer(column.type):
        unsigned = column.type == pa.uint64()
        filled = column if missing is None else pc.fill_null(column, 0)
        values = filled.cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False)
        bad = values < 0 if unsigned else values == _LOWEST
        absent = missing
    else:
        floats: Any = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        absent = np.isnan(floats)
        bad = ~absent & ~((np.floor(floats) == floats) & (np.abs(floats) < 2.0**63))
        values = np.where(bad | absent, 0, floats).astype("int64")
    if absent is not None and not field.nullable:
        bad = bad | absent
    return Checked(values, absent, bad)


def _parsed(column: Any, field: Field, reading: Reading) -> Checked:
    """Return the numbers of texts; one that is no number is looked at as it is."""
    if pa.types.is_null(column.type):
        size = len(column)
        absent = np.ones(size, dtype=bool)
        values = np.full(size, math.nan) if field.kind == "number" else np.zeros(size, "int64")
        return Checked(values, absent, None if field.nullable else absent)
    if reading.thousands:
        column = pc.replace_substring(column, reading.thousands, "")
    if reading.decimal != ".":
        column = pc.replace_substring(column, reading.decimal, ".")
    missing = _missing(column)
    try:
        if field.kind == "integer" and not _has_hexadecimal(column):
            return _whole(pc.cast(column, pa.int64()), missing, field)
        numbers, no_number = pc.cast(column, pa.float64()), None
    except pa.ArrowInvalid:
        numbers, no_number = _each_parsed(column)
    made = (
        _whole(numbers, missing, field)
        if field.kind == "integer"
        else _numbers(numbers, field, reading, is_text=False)
    )
    if no_number is None:
        return made
    # What is no number is absent in `numbers`, and not in the file.
    own: Any = None if made.missing is None else made.missing & ~no_number
    return Checked(made.values, own, no_number if made.bad is None else made.bad | no_number)


def _has_hexadecimal(column: Any) -> bool:
    """Return whether Arrow may take a text such as 0x10 for a number, which HTTP refuses."""
    return bool(pc.any(pc.match_substring(column, "x", ignore_case=True)).as_py())


def _each_parsed(column: Any) -> tuple[Any, Any]:
    values: list[float | None] = []
    no_number = np.zeros(len(column), dtype=bool)
    for place, text in enumerate(column.to_pylist()):
        is_number = text is not None and _NUMBER.fullmatch(text.strip()) is not None
        values.append(float(text) if is_number else None)
        no_number[place] = text is not None and not is_number
    return pa.array(values, pa.float64()), no_number


def number_of(text: str, field: Field, reading: Reading) -> Any:
    """Return the number that a text stands for, or the text."""
    written = text.strip()
    if reading.thousands:
        written = written.replace(reading.thousands, "")
    written = written.replace(reading.decimal, ".")
    if not _NUMBER.fullmatch(written):
        return text
    is_whole = field.kind == "integer" and re.fullmatch(r"[+-]?[0-9]+", written)
    return int(written) if is_whole else float(written)


def _limited(made: Checked, field: Field, *, plain: bool) -> Checked:
    """Mark numbers that the model was found to refuse, and say whether floats will do."""
    values, bad = made.values, made.bad
    known = field.categories or (field.choices if field.is_closed else ())
    if known:
        accepted = set(known)
        foreign = np.array([value not in accepted for value in values.tolist()], dtype=bool)
        if made.missing is not None:
            foreign &= ~made.missing
        bad = foreign if bad is None else bad | foreign
    if field.limit is not None:
        with np.errstate(invalid="ignore"):
            large = np.abs(values) > field.limit
        if made.missing is not None:
            large &= ~made.missing
        bad = large if bad is None else bad | large
    if values.dtype.kind == "f":
        floats = field.dtype in _FLOATS and not known
    else:
        is_exact = plain and made.missing is None and field.dtype in _INTEGERS and not known
        floats = is_exact and bool((np.abs(values) <= _EXACT).all())
    return Checked(values, made.missing, bad, floats=floats)


def _booleans(column: Any, field: Field, *, is_text: bool) -> Checked:
    missing = _missing(column)
    bad = None if missing is None or field.nullable else missing
    if is_text:
        values = np.array([_BOOLEANS.get(text) for text in column.to_pylist()], dtype=object)
        unknown = np.array([value is None for value in values.tolist()], dtype=bool)
        if missing is not None:
            unknown &= ~missing
        return Checked(values, missing, unknown if bad is None else unknown | bad)
    filled = column if missing is None else pc.fill_null(column.cast(pa.bool_()), False)  # noqa: FBT003
    return Checked(filled.to_numpy(zero_copy_only=False), missing, bad)


def _texts(column: Any, field: Field) -> Checked:
    missing = _missing(column)
    bad = None if missing is None or field.nullable else missing
    if pa.types.is_temporal(column.type):
        moments = [None if value is None else value.isoformat() for value in column.to_pylist()]
        return Checked(np.array(moments, dtype=object), missing, bad)
    known = field.categories or (field.choices if field.is_closed else ())
    if known:
        texts = [value for value in known if isinstance(value, str)]
        foreign = ~pc.is_in(column, value_set=pa.array(texts, column.type)).to_numpy(
            zero_copy_only=False
        )
        if missing is not None:
            foreign &= ~missing
        bad = foreign if bad is None else foreign | bad
    return Checked(column.to_numpy(zero_copy_only=False), missing, bad)


def _missing(column: Any) -> Any:
    """Return which rows have no value; `None` if all have one."""
    if not column.null_count:
        return None
    return column.is_null().to_numpy(zero_copy_only=False)


def arrow_of(kind: str) -> Any:
    """Return the type of Arrow for the values of a kind."""
    types = {"number": pa.float64(), "integer": pa.int64(), "boolean": pa.bool_()}
    return types.get(kind, pa.string())


def to_arrow(values: Any, field: Field) -> Any:
    """Return an output as a model returned it, its bytes or a list, as an array of Arrow.

    Labels are places in the field's choices, which takes half of the time to write and to count.

    Raises:
        pa.ArrowInvalid, pa.ArrowTypeError: a value has another kind.
    """
    kind = field.kind
    if isinstance(values, bytes):
        floats = pa.Array.from_buffers(pa.float64(), len(values) // 8, [None, pa.py_buffer(values)])
        return floats if kind == "number" else floats.cast(arrow_of(kind))
    if kind != "text" or not field.choices:
        return pa.array(values, arrow_of(kind))
    places = {label: place for place, label in enumerate(field.choices)}
    try:
        codes = np.fromiter(map(places.__getitem__, values), "int32", len(values))
    except (KeyError, TypeError):  # a hook returns more than the labels
        return pa.array(values, pa.string()).dictionary_encode()
    indices = pa.Array.from_buffers(pa.int32(), len(codes), [None, pa.py_buffer(codes)])
    return pa.DictionaryArray.from_arrays(indices, _texts_of(field.choices))


def _texts_of(values: Sequence[str]) -> Any:
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype="int32")
    data = b"".join(encoded)
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(ends), pa.py_buffer(data))
