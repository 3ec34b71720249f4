"""Limits of a response: a deadline, and how large its body may be once decoded."""

import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Final, TypeVar

import httpx
import msgspec

LARGEST: Final = 64 << 20
"""The largest body that is read into memory, in bytes after decompression."""
ENCODINGS: Final = "gzip, deflate"
GRACE: Final = 5.0
"""Seconds for the body of a response that began shortly before the deadline."""
_UNTIMED: Final = 60.0
"""Seconds for a response for which no door set a deadline."""
_PIECE: Final = 1 << 16
_STREAM: Final = "mlship.stream"
_STREAMED: Final = {httpx.codes.OK, httpx.codes.PARTIAL_CONTENT}


_T = TypeVar("_T")
_SETTLED: Final[set[Any]] = set()
_SETTLING: Final = threading.Lock()


class TooLargeError(httpx.DecodingError):
    """A body was larger than `LARGEST`; another attempt would fail in the same way."""


class Deadline(msgspec.Struct, frozen=True):
    """The end of a request on the clock that measures it."""

    end: float
    monotonic: Callable[[], float]


DEADLINE: ContextVar[Deadline | None] = ContextVar("DEADLINE", default=None)
"""The end of the request that this thread sends; set by a door."""


class Client(httpx.Client):
    """Limits the time and size of responses, except of a body that its caller streams."""

    def send(
        self, request: httpx.Request, *, stream: bool = False, **options: Any
    ) -> httpx.Response:
        """Send a request; see httpx.

        Raises:
            httpx.ReadTimeout: the response did not end before the deadline.
            TooLargeError: it is larger than `LARGEST`.
        """
        request.extensions[_STREAM] = stream
        deadline = DEADLINE.get() or Deadline(time.monotonic() + _UNTIMED, time.monotonic)
        token = DEADLINE.set(deadline)
        try:
            return super().send(request, stream=stream, **options)
        finally:
            DEADLINE.reset(token)


def limit(response: httpx.Response) -> None:
    """Limit the body of a response, unless it is a success that the caller streams."""
    is_streamed = bool(response.request.extensions.get(_STREAM))
    if response.is_closed or (is_streamed and response.status_code in _STREAMED):
        return
    if not isinstance(response.stream, httpx.SyncByteStream):
        raise TypeError(type(response.stream))
    names = response.headers.pop("Content-Encoding", "identity")
    response.stream = _Limited(response.stream, names.strip().lower(), _ending())


def decoded(content: bytes, shape: type[_T]) -> _T:
    """Return the value of a JSON document.

    Raises:
        msgspec.DecodeError: it is not JSON in UTF-8, is nested too deeply or has another shape.
    """
    settle(shape)
    try:
        return msgspec.json.decode(content, type=shape)
    except (RecursionError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(str(error)) from error


def settle(shape: Any) -> None:
    """Let msgspec build what it knows of a type, in one thread.

    It does so on first use, and two threads that use a type for the first time at once crash the
    process, with msgspec 0.22 too.
    """
    if shape not in _SETTLED:
        with _SETTLING:
            msgspec.json.Decoder(shape)
            _SETTLED.add(shape)


def _ending() -> Deadline:
    deadline = DEADLINE.get()
    if deadline is None:
        raise TypeError(deadline)
    end = max(deadline.end, deadline.monotonic() + GRACE)
    return Deadline(end, deadline.monotonic)


class _Limited(httpx.SyncByteStream):
    """The decoded bytes of a body.

    httpx decodes each piece as a whole, however large it becomes; here decoding is limited too.
    """

    def __init__(self, stream: httpx.SyncByteStream, encoding: str, deadline: Deadline) -> None:
        self._stream = stream
        self._encoding = encoding
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._counted()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._stream.close()

    def _counted(self) -> Iterator[bytes]:
        size = 0
        for piece in self._decoded():
            size += len(piece)
            if size > LARGEST:
                raise TooLargeError(f"it sent more than {LARGEST >> 20} MiB")
            yield piece

    def _timed(self) -> Iterator[bytes]:
        for piece in self._stream:
            if self._deadline.monotonic() > self._deadline.end:
                raise httpx.ReadTimeout("the response did not end in time")
            yield piece

    def _decoded(self) -> Iterator[bytes]:
        if self._encoding == "identity":
            yield from self._timed()
            return
        if self._encoding not in ("gzip", "x-gzip", "deflate"):
            raise httpx.DecodingError(f"unknown Content-Encoding {self._encoding[:80]}")
        try:
            yield from self._inflated()
        except zlib.error as error:
            raise httpx.DecodingError(str(error)) from error

    def _inflated(self) -> Iterator[bytes]:
        decoder: Any = None
        for piece in self._timed():
            decoder = decoder or zlib.decompressobj(self._window(piece))
            rest = piece
            while rest and not decoder.eof:
                yield decoder.decompress(rest, _PIECE)
                rest = decoder.unconsumed_tail
        if decoder is not None:
            yield decoder.flush()
            if not decoder.eof:
                raise httpx.DecodingError("the compressed response is incomplete")

    def _window(self, first: bytes) -> int:
        """Return zlib's `wbits`: many servers send `deflate` without zlib's header."""
        if self._encoding != "deflate":
            return zlib.MAX_WBITS | 16
        has_header = first[0] & 0x0F == 8 and (
            len(first) < 2 or (first[0] * 256 + first[1]) % 31 == 0
        )
        return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS
