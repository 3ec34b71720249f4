"""Compressed bodies of requests and responses, by gzip and deflate."""

import gzip
import zlib
from typing import Final

import msgspec

from mlship.runtime import http
from mlship.runtime.faults import RefusedRequest
from mlship.runtime.http import BODY_BYTES, Request, Response

_WINDOWS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's name for each format: a gzip file, or a zlib stream, which HTTP calls deflate."""
_MEMBERS: Final = 1_000
MIN_BYTES: Final = 1_000
"""A shorter response fits into one packet, compressed or not."""


def plain(request: Request) -> Request:
    """Return the request with its body decompressed.

    Raises:
        RefusedRequest: with status 413 if the body is larger than `BODY_BYTES`, before or after;
            with 415 if its encoding is unknown; with 400 if it cannot be decompressed.
    """
    if len(request.body) > BODY_BYTES:
        raise http.too_large()
    header = request.headers.get("content-encoding")
    if header is None:
        return request
    encoding = header.strip().lower()
    if encoding in ("", "identity"):
        return request
    window = _WINDOWS.get(encoding)
    if window is None:
        message = f"the content encoding is {encoding[:40]}, expected gzip or deflate"
        raise RefusedRequest(message, hint="send the body uncompressed, or by gzip", status=415)
    return msgspec.structs.replace(request, body=_decompressed(request.body, window, encoding))


def compressed(response: Response, request: Request) -> Response:
    """Return the response compressed if the client accepts it and the body is not short."""
    accepted = request.headers.get("accept-encoding")
    if accepted is None or len(response.body) < MIN_BYTES:
        return response
    weights = http.qualities(accepted)
    encoding = max(("gzip", "deflate"), key=lambda name: weights.get(name, 0.0))
    if weights.get(encoding, 0.0) <= 0:
        return response
    compress = gzip.compress if encoding == "gzip" else zlib.compress
    headers = {**response.headers, "content-encoding": encoding, "vary": "accept-encoding"}
    return Response(status=response.status, headers=headers, body=compress(response.body, 1))


def _decompressed(body: bytes, window: int, encoding: str) -> bytes:
    parts: list[bytes] = []
    room = BODY_BYTES
    while body:
        stream = zlib.decompressobj(window)
        try:
            parts.append(stream.decompress(body, room + 1))
        except zlib.error as error:
            raise _damaged(encoding, str(error)) from None
        room -= len(parts[-1])
        if room < 0 or len(parts) > _MEMBERS:
            raise http.too_large()
        if not stream.eof:
            raise _damaged(encoding, "it is not complete")
        # A gzip file may have several members.
        body = stream.unused_data if window == _WINDOWS["gzip"] else b""
    return b"".join(parts)


def _damaged(encoding: str, why: str) -> RefusedRequest:
    message = f"the body cannot be decompressed by {encoding}: {why}"
    return RefusedRequest(message, hint="send the header content-encoding only with such a body")
