"""The dialect of `/predict`: rows and predictions as JSON objects, or as CSV."""

from collections.abc import Sequence
from typing import Any

import msgspec

from mlship.domain.bundle import Schema
from mlship.domain.columns import Columns
from mlship.runtime import elements, http
from mlship.runtime.decoder import RowDecoder
from mlship.runtime.dialects import Call, Dialect, Predictions, tables
from mlship.runtime.http import Request, Response

_encode = msgspec.json.Encoder().encode


def dialect(schema: Schema, release: str) -> Dialect:
    """Return the dialect; its responses in JSON have the name of the release."""
    decoder = RowDecoder(schema)
    before = _encode({"release": release})[:-1] + b',"predictions":'

    def encode(predictions: Predictions) -> Response:
        return response(predictions, before, b"}")

    def decode(request: Request) -> Call:
        if http.check_media(request, http.JSON, tables.CSV) == tables.CSV:
            rows: Sequence[Any] | Columns = tables.of_csv(request.body, schema)
        else:
            elements.check_json(request.body, len(schema.inputs))
            rows = decoder.decode(request.body)
        http.check_rows(len(rows))
        return Call(rows, tables.to_csv if http.wants(request, tables.CSV) else encode)

    return decode


def response(predictions: Predictions, before: bytes, after: bytes) -> Response:
    """Return an array with an object for each prediction, its id and the outputs, within JSON.

    Args:
        predictions: the predictions.
        before: what is written before the array.
        after: what is written after it.
    """
    start, parts = 0, [before]
    for piece in predictions.outputs.pieces():
        parts += (b"," if start else b"[", b",".join(_named(predictions, piece, start)))
        start += piece.size
    body = b"".join((*parts, b"]", after))
    return Response(status=200, headers={"content-type": http.JSON}, body=body)


def _named(predictions: Predictions, piece: Columns, start: int) -> list[bytes]:
    """Return the object of each row of a piece, which begins at a row, with its id."""
    before = b'{"id":%b.' % _encode(predictions.request_id)[:-1]
    encoded = enumerate(piece.encoded(), start)
    return [b'%b%d",%b' % (before, number, row[1:]) for number, row in encoded]
