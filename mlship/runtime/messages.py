"""The text around bodies in HTTP/1.1: names of headers, targets, and the head of a response."""

import functools
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

import httptools

from mlship.runtime.http import Response

_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_NAMES = {
    name.encode(): name.lower()
    for name in ("Host", "host", "Content-Type", "content-type", "Content-Length", "content-length")
}
"""The headers of every request, as most clients write them."""


def name_of(name: bytes) -> str:
    """Return the name of a header in lowercase."""
    return _NAMES.get(name) or name.decode("latin-1").lower()


@functools.lru_cache(maxsize=1_000)
def path_of(url: bytes) -> str:
    """Return the decoded path of a request's target, which may name scheme and host."""
    try:
        path = httptools.parse_url(url).path or b"/"
    except httptools.HttpParserInvalidURLError:
        path = url.partition(b"?")[0]
    return unquote_to_bytes(path).decode("utf-8", "replace")


def of_response(response: Response, date: bytes, *, is_last: bool, is_head: bool) -> bytes:
    """Return a response as it is sent.

    Args:
        response: its body is not sent if `is_head`.
        date: the value of the header `date`.
        is_last: whether the connection ends after it.
        is_head: whether it answers a request of the method HEAD.
    """
    headers, body = response.headers, response.body
    head = _LINES[response.status]
    for name, value in headers.items():
        head += f"{name}: {value}\r\n"
    if "content-length" not in headers:
        head += f"content-length: {len(body)}\r\n"
    if "connection" not in headers:
        # Clients of HTTP/1.0 need to be told; for others the second is what they assume.
        head += "connection: close\r\n" if is_last else "connection: keep-alive\r\n"
    return b"%bdate: %b\r\n\r\n%b" % (head.encode("latin-1"), date, b"" if is_head else body)
