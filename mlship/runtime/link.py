"""Messages between the server and a worker: a length in 4 bytes, then msgpack.

The server sends a list of jobs, each the list of its columns in the schema's order, and gets
`Answers` before it sends the next. A column is a list of values, or the bytes of an array of
floats.
"""

import socket
import struct
from array import array
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from mlship.domain.columns import FEW, Column, Columns
from mlship.runtime.jobs import Answer, unpacked


class Loaded(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The model is loaded and gives the outputs of its golden examples.

    Attributes:
        seconds: the time to compute one row.
        large: the time of each row in a large request.
    """

    seconds: float
    large: float


class Unfit(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The model does not give the outputs of its golden examples."""

    failure: str


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The model cannot be loaded; the fields are those of an error of `mlship.errors`."""

    error: str
    message: str
    hint: str


class Answers(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The answers to the jobs of one message, in their order."""

    answers: list[Answer]


Report: TypeAlias = Loaded | Unfit | Failed | Answers

_LENGTH = struct.Struct("!I")
_encode = msgspec.msgpack.Encoder().encode
_reports = msgspec.msgpack.Decoder(Report)
_jobs = msgspec.msgpack.Decoder(list[list[Any]])


def of_jobs(jobs: Sequence[Columns]) -> bytes:
    """Return the message with the rows of jobs."""
    return framed(_encode([job.values if job.size < FEW else _packed(job) for job in jobs]))


def jobs_of(data: bytes | bytearray) -> list[Sequence[Column]]:
    """Return the columns of each job in a message."""
    return [unpacked(columns) for columns in _jobs.decode(data)]


def _packed(job: Columns) -> list[Any]:
    return [column.tobytes() if type(column) is array else column for column in job.values]


def of_report(report: Report) -> bytes:
    """Return the message with a report.

    Raises:
        OverflowError: an output is an integer of more than 64 bits.
        UnicodeEncodeError: an output is a text that UTF-8 does not have.
    """
    return framed(_encode(report))


def framed(data: bytes) -> bytes:
    """Return data with its length before it."""
    return _LENGTH.pack(len(data)) + data


class Frames:
    """Cuts what arrives into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def reports(self, data: bytes) -> list[Report]:
        """Return the reports that are complete with these bytes."""
        buffer = self._buffer
        size = len(data) - _LENGTH.size
        if not buffer and size > 0 and size == _LENGTH.unpack_from(data)[0]:
            return [_reports.decode(memoryview(data)[_LENGTH.size :])]
        buffer += data
        reports: list[Report] = []
        while len(buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(buffer)[0]
            if len(buffer) < end:
                break
            reports.append(_reports.decode(buffer[_LENGTH.size : end]))
            del buffer[:end]
        return reports


def receive(connection: socket.socket) -> list[Sequence[Column]] | None:
    """Wait for the next jobs; return `None` when the server has closed the link."""
    head = _exactly(connection, _LENGTH.size)
    if head is None:
        return None
    data = _exactly(connection, _LENGTH.unpack(head)[0])
    return None if data is None else jobs_of(data)


def _exactly(connection: socket.socket, size: int) -> bytes | bytearray | None:
    data = connection.recv(size)
    if len(data) == size:
        return data
    parts = bytearray(data)
    while data and len(parts) < size:
        data = connection.recv(size - len(parts))
        parts += data
    return parts if len(parts) == size else None
