"""The text around bodies in HTTP/1.1: heads of requests and of responses, names and targets."""

import functools
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

import httptools

from mlship.runtime.http import Request, Response

_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_NAMES = {
    name.encode(): name.lower()
    for name in ("Host", "host", "Content-Type", "content-type", "Content-Length", "content-length")
}
"""The headers of every request, as most clients write them."""
_COLON, _END_OF_LINE = ": ", "\r\n"
_KEPT_BYTES = 2_048
_PIECE_BYTES = 65_536
_SPECIAL = ("transfer-encoding", "expect", "upgrade")


class Repeated:
    """Knows requests again whose head is that of the one before, byte for byte.

    Clients send the same head again and again on a connection that they keep. The parser has
    accepted it and found where it ends, so what is in it needs no second look. Only requests that
    arrive in one piece, with a body as long as the head says, are taken.
    """

    __slots__ = ("_head", "_request", "_size")

    def __init__(self) -> None:
        self._head = b""
        self._size = 0
        self._request: Request | None = None

    def request(self, data: bytes) -> Request | None:
        """Return the request in a piece of data that begins with the head; `None` if it does not.

        Call it only where a request may begin.
        """
        known = self._request
        if known is None or len(data) != self._size or not data.startswith(self._head):
            return None
        return Request(
            method=known.method,
            path=known.path,
            headers=known.headers,
            body=data[len(self._head) :],
        )

    def keep(self, data: bytes, request: Request) -> None:
        """Keep the head of a request.

        Args:
            data: a piece at whose beginning a request began, and with whose end one ended.
            request: the one that ended, after which the connection is kept.
        """
        size = data.find(b"\r\n\r\n") + 4
        headers = request.headers
        length = int(headers.get("content-length", "0"))
        # With a second request in the piece, it is longer than the first head and the last body.
        is_whole = len(data) == size + length
        is_small = size <= _KEPT_BYTES and len(data) <= _PIECE_BYTES
        if is_whole and is_small and not any(name in headers for name in _SPECIAL):
            self._head = data[:size]
            self._size = len(data)
            self._request = Request(method=request.method, path=request.path, headers=headers)


def has_body(headers: Mapping[str, str]) -> bool:
    """Return whether a request with these headers has a body."""
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def without_upgrade(
    method: bytes, version: str, headers: Mapping[str, str], *, is_last: bool
) -> bytes:
    """Return a head after which a parser reads the body of a request that offers an upgrade.

    Args:
        method: of the request.
        version: of HTTP, such as `1.1`.
        headers: of the request.
        is_last: whether its client wants the connection closed.
    """
    kept = ("content-length", "transfer-encoding")
    lines = [f"{name}: {headers[name]}" for name in kept if name in headers]
    lines.append(f"connection: {'close' if is_last else 'keep-alive'}")
    head = "\r\n".join([f"{method.decode('ascii')} / HTTP/{version}", *lines])
    return f"{head}\r\n\r\n".encode("latin-1")


def name_of(name: bytes) -> str:
    """Return the name of a header in lowercase."""
    return _NAMES.get(name) or name.decode("latin-1").lower()


def path_of(url: bytes) -> str:
    """Return the decoded path of a request's target, which may name scheme and host."""
    # What clients make up may be long: only paths such as those that there are take memory.
    return _short_path_of(url) if len(url) <= _SHORT else _path_of(url)


def _path_of(url: bytes) -> str:
    try:
        path = httptools.parse_url(url).path or b"/"
    except httptools.HttpParserInvalidURLError:
        path = url.partition(b"?")[0]
    return unquote_to_bytes(path).decode("utf-8", "replace")


_SHORT = 256
_short_path_of = functools.lru_cache(maxsize=1_000)(_path_of)


def head_of(response: Response, date: bytes, *, is_last: bool) -> bytes:
    """Return what is sent before the body of a response.

    Args:
        response: a response.
        date: the value of the header `date`.
        is_last: whether the connection ends after it.
    """
    headers = response.headers
    own = _END_OF_LINE.join(map(_COLON.join, headers.items()))
    length = "" if "content-length" in headers else f"\r\ncontent-length: {len(response.body)}"
    connection = ""
    if "connection" not in headers:
        # Clients of HTTP/1.0 need to be told; for others the second is what they assume.
        connection = f"\r\nconnection: {'close' if is_last else 'keep-alive'}"
    head = f"{_LINES[response.status]}{own}{length}{connection}\r\ndate: "
    return b"%b%b\r\n\r\n" % (head.encode("latin-1"), date)
