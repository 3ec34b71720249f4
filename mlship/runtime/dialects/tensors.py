"""Tensors of the Open Inference Protocol: their datatypes, their bytes, and the rows in them.

Source of names and layouts: https://github.com/kserve/open-inference-protocol, and the binary
tensor data extension of Triton, https://github.com/triton-inference-server/server, docs/protocol.
"""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from mlship.domain.bundle import Field, Kind, Schema, Value
from mlship.domain.columns import Columns
from mlship.runtime import elements, http
from mlship.runtime.faults import RefusedRequest


class _Datatype(NamedTuple):
    """The numpy dtype of a datatype, and the kinds of columns that take it."""

    dtype: str
    kinds: frozenset[Kind]


_NUMBERS: Final[frozenset[Kind]] = frozenset(("number", "integer"))
BYTES: Final = "BYTES"
DATATYPES: Final[Mapping[str, _Datatype]] = {
    "BOOL": _Datatype("?", frozenset({"boolean"})),
    **{f"INT{bits}": _Datatype(f"<i{bits // 8}", _NUMBERS) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": _Datatype(f"<u{bits // 8}", _NUMBERS) for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": _Datatype(f"<f{bits // 8}", _NUMBERS) for bits in (16, 32, 64)},
    BYTES: _Datatype("", frozenset({"text"})),
}
_OF_KIND: Final[Mapping[Kind, str]] = {
    "number": "FP64",
    "integer": "INT64",
    "text": BYTES,
    "boolean": "BOOL",
}
_LENGTH: Final = struct.Struct("<I")


class Tensor(msgspec.Struct, frozen=True):
    """A tensor of a request.

    Attributes:
        data: its values as JSON has them, flat or nested like the shape.
        raw: its values as bytes, if there is no data: little-endian, row by row; a text is its
            length in 4 bytes, then UTF-8.
        place: where it is in the request, such as `inputs[0]`.
    """

    name: str
    datatype: str
    shape: Sequence[int]
    place: str
    data: Sequence[Any] | None = None
    raw: bytes | memoryview | None = None


def datatype_of(field: Field) -> str:
    """Return the datatype in which a column is described and answered."""
    return _OF_KIND[field.kind]


def to_columns(tensors: Sequence[Tensor], schema: Schema) -> Columns:
    """Return the rows of one tensor for each column, or of one of shape [rows, columns].

    Raises:
        RefusedRequest: a tensor is missing, unknown, a duplicate, or has a wrong shape, size or
            datatype, or there are no rows; the message names it.
    """
    fields = {field.name: field for field in schema.inputs}
    for tensor in tensors:
        _check_shape(tensor, len(fields))
    if len(tensors) == 1 and _is_table(tensors[0], fields):
        columns = _columns_of_table(tensors[0], schema.inputs)
    else:
        columns = _columns(tensors, fields)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1:
        message = f"the tensors have different numbers of rows: {lengths}"
        raise RefusedRequest(message, field="inputs", hint="send tensors of the same shape")
    http.check_rows(next(iter(lengths.values())), "inputs")
    return Columns(tuple(columns), tuple(columns.values()))


def to_bytes(values: Sequence[Value], datatype: str, name: str) -> bytes:
    """Return the values of an output as bytes; a missing number is NaN, a missing text is empty.

    Raises:
        RefusedRequest: a value is missing, and the datatype has nothing that stands for it.
    """
    import numpy as np

    if datatype == BYTES:
        texts = [b"" if value is None else str(value).encode() for value in values]
        return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))
    try:
        return np.asarray(values, dtype=DATATYPES[datatype].dtype).tobytes()
    except (TypeError, ValueError, OverflowError):
        message = f"output {name} has values that {datatype} cannot carry"
        hint = "request this output as JSON"
        raise RefusedRequest(message, field="outputs", hint=hint) from None


def _check_shape(tensor: Tensor, columns: int) -> None:
    """Refuse a shape before anything is computed or allocated by it."""
    if len(tensor.shape) not in (1, 2):
        message = f"{tensor.name[:80]} has a shape of {len(tensor.shape)} dimensions"
    elif not all(0 <= length <= http.BODY_BYTES for length in tensor.shape):
        message = f"{tensor.name[:80]} has a dimension that is negative or too large"
    else:
        if tensor.shape[0] > elements.ROWS:
            http.check_rows(tensor.shape[0])
        return
    raise RefusedRequest(message, field=f"{tensor.place}.shape", hint=_shapes(columns))


def _shapes(columns: int) -> str:
    return f"send [rows] or [rows, 1] for each column, or [rows, {columns}] for all"


def _is_table(tensor: Tensor, fields: Mapping[str, Field]) -> bool:
    """Return whether a tensor has all columns: its name then says nothing."""
    if len(tensor.shape) != 2:
        return False
    return tensor.shape[1] == len(fields) and (len(fields) > 1 or tensor.name not in fields)


def _columns_of_table(tensor: Tensor, fields: Sequence[Field]) -> dict[str, Sequence[Any]]:
    for field in fields:
        _check_datatype(tensor, field)
    values = _values(tensor)
    return {field.name: values[place :: len(fields)] for place, field in enumerate(fields)}


def _columns(tensors: Sequence[Tensor], fields: Mapping[str, Field]) -> dict[str, Sequence[Any]]:
    columns: dict[str, Sequence[Any]] = {}
    hint = f"send one tensor for each column: {', '.join(fields)}"
    hint += f"; or one tensor of shape [rows, {len(fields)}]"
    for tensor in tensors:
        field = fields.get(tensor.name)
        if field is None or tensor.name in columns:
            what = "duplicate" if field else "unknown"
            message = f"{what} tensor {tensor.name[:80]}"
            raise RefusedRequest(message, field=f"{tensor.place}.name", hint=hint)
        _check_datatype(tensor, field)
        if list(tensor.shape[1:]) not in ([], [1]):
            message = f"{tensor.name} has shape {list(tensor.shape)}"
            raise RefusedRequest(message, field=f"{tensor.place}.shape", hint=_shapes(len(fields)))
        columns[tensor.name] = _values(tensor)
    missing = [name for name in fields if name not in columns]
    if missing:
        raise RefusedRequest(f"missing tensor {missing[0]}", field="inputs", hint=hint)
    return columns


def _check_datatype(tensor: Tensor, field: Field) -> None:
    datatype = DATATYPES.get(tensor.datatype)
    if datatype is not None and field.kind in datatype.kinds:
        return
    accepted = ", ".join(name for name, known in DATATYPES.items() if field.kind in known.kinds)
    message = f"{tensor.name[:80]} has datatype {tensor.datatype[:20]}"
    hint = f"send {accepted} for column {field.name}"
    raise RefusedRequest(message, field=f"{tensor.place}.datatype", hint=hint)


def _values(tensor: Tensor) -> Sequence[Any]:
    """Return the values of a tensor with a known datatype, row by row."""
    count = math.prod(tensor.shape)
    if tensor.raw is not None:
        values = _from_bytes(tensor, tensor.raw, count)
    elif tensor.data is not None:
        values = _from_data(tensor, tensor.data)
    else:
        hint = "send the values as JSON in `data`, or as binary data"
        raise RefusedRequest(f"{tensor.name[:80]} has no data", field=tensor.place, hint=hint)
    if len(values) != count:
        raise _wrong_size(tensor, f"{len(values):,} values")
    return values


def _from_data(tensor: Tensor, data: Sequence[Any]) -> Sequence[Any]:
    values = data
    if len(tensor.shape) == 2 and any(isinstance(value, list) for value in data):
        width = tensor.shape[1]
        if not all(isinstance(row, list) and len(row) == width for row in data):
            raise _wrong_size(tensor, "rows of other lengths")
        values = [value for row in data for value in row]
    if tensor.datatype.startswith(("INT", "UINT")):
        for place, value in enumerate(values):
            if value is not None and not _is_integer(value, tensor.datatype):
                message = f"{tensor.name[:80]} has a value that is not {tensor.datatype}"
                field = f"{tensor.place}.data[{place}]"
                raise RefusedRequest(message, field=field, hint="send a number of this datatype")
    return values


def _is_integer(value: Any, datatype: str) -> bool:
    if type(value) is not int:
        return False
    is_unsigned = datatype.startswith("U")
    bits = int(datatype.lstrip("UINT"))
    low = 0 if is_unsigned else -(1 << (bits - 1))
    number: int = value
    return low <= number < low + (1 << bits)


def _from_bytes(tensor: Tensor, raw: bytes | memoryview, count: int) -> Sequence[Any]:
    import numpy as np

    if tensor.datatype == BYTES:
        texts = _texts(tensor, raw)
        found: list[Any] = list(islice(texts, count))
        more = sum(1 for _ in texts)  # not kept: a text of two bytes takes 72
        if more:
            raise _wrong_size(tensor, f"{count + more:,} values")
        return found
    dtype = np.dtype(DATATYPES[tensor.datatype].dtype)
    if len(raw) != count * dtype.itemsize:
        raise _wrong_size(tensor, f"{len(raw):,} bytes")
    array = np.frombuffer(raw, dtype=dtype)
    if tensor.datatype == "BOOL":
        flags: list[Any] = np.frombuffer(raw, dtype="u1").astype(bool).tolist()
        return flags
    if dtype.kind == "f" and np.isnan(array).any():
        # Bytes have no null: what pandas and numpy send for a missing number is NaN.
        return [None if math.isnan(value) else value for value in array.tolist()]
    values: list[Any] = array.tolist()
    return values


def _texts(tensor: Tensor, raw: bytes | memoryview) -> Iterator[str]:
    start = 0
    while start < len(raw):
        end = start + _LENGTH.size
        if end > len(raw):
            raise _wrong_size(tensor, "an incomplete length of a text")
        (length,) = _LENGTH.unpack(raw[start:end])
        start, end = end, end + length
        if end > len(raw):
            raise _wrong_size(tensor, "an incomplete text")
        yield text_of(bytes(raw[start:end]), tensor.name, tensor.place)
        start = end


def text_of(data: bytes, name: str, place: str) -> str:
    """Return one value of a BYTES tensor.

    Raises:
        RefusedRequest: it is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        message = f"{name[:80]} has a value that is not UTF-8"
        raise RefusedRequest(message, field=place, hint="encode texts in UTF-8") from None


def _wrong_size(tensor: Tensor, what: str) -> RefusedRequest:
    message = f"{tensor.name[:80]} has shape {list(tensor.shape)} and {what}"
    hint = "send as many values as the shape says"
    return RefusedRequest(message, field=f"{tensor.place}.shape", hint=hint)
