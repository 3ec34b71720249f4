"""Compressed bodies of requests and responses, by gzip and deflate."""

import codecs
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
_PIECE_BYTES: Final = 65_536
MIN_BYTES: Final = 1_000
"""A shorter response fits into one packet, compressed or not."""


def plain(request: Request) -> Request:
    """Return the request with its body decompressed, and without the mark of UTF-8.

    Editors and .NET write the mark (U+FEFF) before a text.

    Raises:
        RefusedRequest: with status 413 if the body is larger than `BODY_BYTES`, before or after;
            with 415 if its encoding is unknown; with 400 if it cannot be decompressed.
    """
    if len(request.body) > BODY_BYTES:
        raise http.too_large()
    header = request.headers.get("content-encoding")
    if header is not None and (encoding := header.strip().lower()) not in ("", "identity"):
        window = _WINDOWS.get(encoding)
        if window is None:
            message = f"the content encoding is {encoding[:40]}, expected gzip or deflate"
            raise RefusedRequest(message, hint="send the body uncompressed, or by gzip", status=415)
        body = _decompressed(request.body, window, encoding)
        request = msgspec.structs.replace(request, body=body)
    if request.body.startswith(codecs.BOM_UTF8):
        request = msgspec.structs.replace(request, body=request.body[len(codecs.BOM_UTF8) :])
    return request


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
    members = 0
    place = 0
    # A gzip file may have several members.
    while place < len(body) and (not members or window == _WINDOWS["gzip"]):
        members += 1
        if members > _MEMBERS:
            message = f"the body has more than {_MEMBERS:,} gzip members"
            raise RefusedRequest(message, hint="compress it as a whole", status=413)
        stream = zlib.decompressobj(window)
        while not stream.eof:
            # In pieces: zlib copies what is left of a piece for each member that ends in it.
            piece = body[place : place + _PIECE_BYTES]
            if not piece:
                raise _damaged(encoding, "it is not complete")
            try:
                parts.append(stream.decompress(piece, room + 1))
            except zlib.error as error:
                raise _damaged(encoding, str(error)) from None
            room -= len(parts[-1])
            if room < 0:
                raise http.too_large()
            place += len(piece) - len(stream.unused_data)
    return b"".join(parts)


def _damaged(encoding: str, why: str) -> RefusedRequest:
    message = f"the body cannot be decompressed by {encoding}: {why}"
    return RefusedRequest(message, hint="send the header content-encoding only with such a body")
