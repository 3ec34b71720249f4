"""The access log: a line of JSON for each request, without values of features and without headers.

Lines are collected for a tenth of a second and written by a thread. If nobody reads them, they are
dropped and counted, and no request waits.
"""

import os
import re
import select
from collections.abc import Callable, Sequence
from datetime import datetime
from threading import Condition, Thread
from typing import Final

import msgspec

FLUSH_SECONDS: Final = 0.1
MOST_BYTES: Final = 1 << 20
"""Lines that wait for their reader."""
WRITE_BYTES: Final = 4096
"""A pipe takes so many bytes as a whole: no output of a worker gets into a line. Source: pipe(7)"""
_PATH: Final = 500
_METHOD: Final = 20
_TRACE: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-")
_encode: Final = msgspec.json.Encoder().encode


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What is logged of one request; a path may be cut.

    Attributes:
        ms: from the arrival of the whole request to its response.
        queue_ms: of it, the wait for a worker.
        id: of the request; those of its predictions are `ID.0`, `ID.1` and so on.
        key: the name of its API key, never the key.
        trace: the trace id of W3C's `traceparent`.
        reason: why there is no result, a word of `refusals`.
    """

    time: datetime
    method: str = ""
    path: str = ""
    status: int
    ms: float | None = None
    queue_ms: float | None = None
    rows: int = 0
    id: str = ""
    key: str = ""
    release: str
    slot: str
    trace: str = ""
    reason: str = ""


def trace_of(traceparent: str) -> str:
    """Return the trace id of a header `traceparent`; empty if it is not valid."""
    match = _TRACE.match(traceparent)
    return match[1] if match else ""


def encoded(line: Line) -> bytes:
    """Return a line with its end, of less than `WRITE_BYTES`, whatever the client sent."""
    path, method = line.path, line.method
    if len(path) > _PATH or len(method) > _METHOD:
        line = msgspec.structs.replace(line, path=path[:_PATH], method=method[:_METHOD])
    return _encode(line) + b"\n"


class LineWriter:
    """Writes lines in a thread of its own.

    Args:
        write: writes all of its bytes, and may take as long as it likes.

    Attributes:
        dropped: the number of lines that were not written.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.dropped = 0
        self._write = write
        self._pending: list[bytes] = []
        self._size = 0
        self._is_closing = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def put(self, lines: Sequence[bytes]) -> None:
        """Write lines soon, or drop those for which there is no room."""
        with self._changed:
            for line in lines:
                if self._size + len(line) > MOST_BYTES:
                    self.dropped += 1
                    continue
                self._size += len(line)
                self._pending.append(line)
            self._changed.notify()

    def close(self, seconds: float) -> None:
        """Write what is left, at most for so long."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._pending and not self._is_closing:
                    self._changed.wait()
                if not self._pending:
                    return
                lines, self._pending = self._pending, []
            for part in _parts(lines):
                try:
                    self._write(b"".join(part))
                except OSError:  # nobody reads any more
                    with self._changed:
                        self.dropped += len(part)
            with self._changed:
                self._size -= sum(map(len, lines))


class AccessLog:
    """Collects lines in the thread of an event loop.

    Args:
        writer: gets them.
        later: calls a function after some seconds.
    """

    def __init__(
        self, writer: LineWriter, later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self._writer = writer
        self._later = later
        self._lines: list[bytes] = []

    def add(self, line: Line) -> None:
        """Log one request."""
        if not self._lines:
            self._later(FLUSH_SECONDS, self.flush)
        self._lines.append(encoded(line))

    def flush(self) -> None:
        """Hand over what was collected."""
        if self._lines:
            lines, self._lines = self._lines, []
            self._writer.put(lines)

    def close(self, seconds: float) -> None:
        """Write what is left, at most for so long."""
        self.flush()
        self._writer.close(seconds)

    @property
    def dropped(self) -> int:
        """The number of lines that were not written."""
        return self._writer.dropped


def to_descriptor(descriptor: int) -> Callable[[bytes], None]:
    """Return a function that writes all bytes to a file descriptor, also to one that is full."""

    def write(data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:
                select.select([], [descriptor], [])

    return write


def _parts(lines: Sequence[bytes]) -> list[list[bytes]]:
    """Return lines in parts that a pipe takes as a whole."""
    parts: list[list[bytes]] = [[]]
    size = 0
    for line in lines:
        if size + len(line) > WRITE_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(line)
        size += len(line)
    return parts
