"""Lines of the prediction log with a checksum: a line that was changed is told from a whole one.

A line is a JSON object whose last field is the CRC-32 of the object without that field, in eight
hexadecimal digits:

    {"id":"6f1c...e2.0",...,"shadow":false,"crc":"0f3a9c12"}

It is found by its place, before anything is decoded. Former versions wrote lines without it.

A line of a spool has the checksum first, then the row as it will be inserted into the database.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Final, TypeAlias
from zlib import crc32

import msgspec

from mlship.domain.columns import Columns
from mlship.domain.predicted import Batch, Predicted, Together

_FIELD: Final = b',"crc":"'
_END: Final = b'"}\n'
_LENGTH: Final = len(_FIELD) + 8 + len(_END)
_CRC: Final = _FIELD + b"%08x" + _END
_RELEASE: Final = b'","release":'
_LATENCY: Final = b',"latency_ms":'
_INPUTS: Final = b',"inputs":'
_OUTPUTS: Final = b',"outputs":'

Inserted: TypeAlias = tuple[str, str, str, datetime, str, str, float, bool]
"""A prediction as it is inserted into a database; inputs and outputs are JSON."""


_Frame: TypeAlias = tuple[bytes, bytes, bytes]
"""What is before the number of a row, between it and the inputs, and after the outputs."""


class _Shared(msgspec.Struct, gc=False):
    """A `Prediction` without what is of one row."""

    id: str
    release: str
    slot: str
    time: datetime
    latency_ms: float
    shadow: bool


_encode = msgspec.json.Encoder().encode
_join = b"".join
_inserted = msgspec.json.Decoder(Inserted)


def lines_of(predictions: Batch) -> bytes:
    """Return the lines of predictions, each with its checksum and a newline."""
    return _join(pieces_of(predictions))


def pieces_of(predictions: Batch) -> Iterator[bytes]:
    """Return the lines of predictions in pieces, of which each is made when it is asked for."""
    parts = predictions.parts if isinstance(predictions, Together) else (predictions,)
    for part in parts:
        if isinstance(part, Predicted):
            frame, number = _frame_of(part), 0
            for inputs, outputs in zip(part.inputs.pieces(), part.outputs.pieces(), strict=True):
                yield _piece(frame, number, inputs, outputs)
                number += inputs.size
        else:
            yield from map(_line, map(_encode, part))


def _frame_of(predicted: Predicted) -> _Frame:
    """Return what the lines of a request have in common."""
    head = _encode(
        _Shared(
            f"{predicted.request_id}.",
            predicted.release,
            predicted.slot,
            predicted.time,
            predicted.latency_ms,
            predicted.shadow,
        )
    )
    # No text has quotes that are not escaped.
    start, name, rest = head.partition(_RELEASE)
    middle, latency, end = rest.rpartition(_LATENCY)
    return start, _join((name, middle, _INPUTS)), latency + end


def _piece(frame: _Frame, number: int, inputs: Columns, outputs: Columns) -> bytes:
    """Return the lines that the encoder makes of each `Prediction`, put together from parts."""
    start, middle, end = frame
    parts: list[bytes] = []
    for row, own in zip(inputs.encoded(), outputs.encoded(), strict=True):
        document = _join((start, b"%d" % number, middle, row, _OUTPUTS, own, end))
        parts += (document[:-1], _CRC % crc32(document))
        number += 1
    return _join(parts)


def _line(document: bytes) -> bytes:
    return b"%b%b" % (document[:-1], _CRC % crc32(document))


def checksum(data: bytes) -> bytes:
    """Return the CRC-32 of data in eight hexadecimal digits."""
    return b"%08x" % crc32(data)


def has_checksum(line: bytes) -> bool:
    """Return whether a line ends with a checksum, right or wrong."""
    return line[-_LENGTH:].startswith(_FIELD) and line.endswith(_END)


def is_whole(line: bytes) -> bool:
    """Return whether a line is as it was written, as far as its checksum tells."""
    written = line[-_LENGTH + len(_FIELD) : -len(_END)]
    return written == checksum(line[:-_LENGTH] + b"}")


def spooled(row: Inserted) -> bytes:
    """Return the line of a row in a spool."""
    data = _encode(row)
    return b"%b %b\n" % (checksum(data), data)


def inserted(line: bytes) -> Inserted | None:
    """Return the row of a line of a spool without its newline; `None` if it is not whole."""
    written, _, data = line.partition(b" ")
    if written != checksum(data):
        return None
    try:
        row: Inserted = _inserted.decode(data)
    except msgspec.MsgspecError:
        return None
    return row
