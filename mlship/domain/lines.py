"""Lines of the prediction log with a checksum: a line that was changed is told from a whole one.

A line is a JSON object whose last field is the CRC-32 of the object without that field, in eight
hexadecimal digits:

    {"id":"6f1c...e2.0",...,"shadow":false,"crc":"0f3a9c12"}

It is found by its place, before anything is decoded. Former versions wrote lines without it.

A line of a spool has the checksum first, then the row as it will be inserted into the database.
"""

import zlib
from collections.abc import Iterable
from datetime import datetime
from typing import Final, TypeAlias

import msgspec

from mlship.domain.prediction import Prediction

_FIELD: Final = b',"crc":"'
_END: Final = b'"}\n'
_LENGTH: Final = len(_FIELD) + 8 + len(_END)
_LINE: Final = b"%b" + _FIELD + b"%08x" + _END

Inserted: TypeAlias = tuple[str, str, str, datetime, str, str, float, bool]
"""A prediction as it is inserted into a database; inputs and outputs are JSON."""

_encode = msgspec.json.Encoder().encode
_inserted = msgspec.json.Decoder(Inserted)


def lines_of(predictions: Iterable[Prediction]) -> bytes:
    """Return the lines of predictions, each with its checksum and a newline."""
    documents = [_encode(prediction) for prediction in predictions]
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
