"""Lines of the prediction log with a checksum: a line that was changed is told from a whole one.

A line is a JSON object whose last field is the CRC-32 of the object without that field, in eight
hexadecimal digits:

    {"id":"6f1c...e2.0",...,"shadow":false,"crc":"0f3a9c12"}

It is found by its place, before anything is decoded. Former versions wrote lines without it.

A line of a spool has the checksum first, then the row as it will be inserted into the database.
"""

import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import repeat
from typing import Any, Final, TypeAlias

import msgspec

from mlship.domain.columns import FEW, PIECE_ROWS
from mlship.domain.predicted import Batch, Ids, Predicted, Together

_FIELD: Final = b',"crc":"'
_END: Final = b'"}\n'
_LENGTH: Final = len(_FIELD) + 8 + len(_END)
_LINE: Final = b"%b" + _FIELD + b"%08x" + _END

Inserted: TypeAlias = tuple[str, str, str, datetime, str, str, float, bool]
"""A prediction as it is inserted into a database; inputs and outputs are JSON."""


class _Line(msgspec.Struct, gc=False):
    """A `Prediction` whose parts that all rows of a request have are encoded."""

    id: str
    release: msgspec.Raw
    slot: msgspec.Raw
    time: msgspec.Raw
    inputs: Any
    outputs: Any
    latency_ms: msgspec.Raw
    shadow: bool


_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines
_inserted = msgspec.json.Decoder(Inserted)


def lines_of(predictions: Batch) -> bytes:
    """Return the lines of predictions, each with its checksum and a newline."""
    return b"".join(pieces_of(predictions))


def pieces_of(predictions: Batch) -> Iterator[bytes]:
    """Return the lines of predictions in pieces, of which each is made when it is asked for."""
    if isinstance(predictions, Together):
        for part in predictions.parts:
            yield from pieces_of(part)
    elif isinstance(predictions, Predicted) and len(predictions) >= FEW:
        yield from _by_columns(predictions)
    else:
        yield _joined([_encode(prediction) for prediction in predictions])


def _by_columns(predicted: Predicted) -> Iterator[bytes]:
    encoded = (predicted.release, predicted.slot, predicted.time)
    release, slot, time = (repeat(msgspec.Raw(_encode(value))) for value in encoded)
    latency = repeat(msgspec.Raw(_encode(predicted.latency_ms)))
    shadow = repeat(predicted.shadow)
    ids = Ids(predicted.request_id, range(len(predicted)))
    pieces = zip(predicted.inputs.pieces(), predicted.outputs.pieces(), strict=True)
    for start, (inputs, outputs) in zip(range(0, len(ids), PIECE_ROWS), pieces, strict=True):
        own = (inputs.objects(), outputs.objects())
        part = ids[start : start + PIECE_ROWS]
        # No text has a newline of its own: JSON writes it as \n.
        lines = _encode_lines(list(map(_Line, part, release, slot, time, *own, latency, shadow)))
        yield _joined(lines.split(b"\n")[:-1])


def _joined(documents: Sequence[bytes]) -> bytes:
    return b"".join([_LINE % (document[:-1], zlib.crc32(document)) for document in documents])


def checksum(data: bytes) -> bytes:
    """Return the CRC-32 of data in eight hexadecimal digits."""
    return b"%08x" % zlib.crc32(data)


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
