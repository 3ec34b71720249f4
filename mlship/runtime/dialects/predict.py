"""The dialect of `/predict`: rows and predictions as JSON objects, or as CSV."""

from collections.abc import Sequence
from typing import Any

from mlship.domain.bundle import ID, Schema
from mlship.runtime import http
from mlship.runtime.decoder import RowDecoder
from mlship.runtime.dialects import Call, Dialect, Predictions, tables
from mlship.runtime.http import Request, Response


def dialect(schema: Schema, release: str) -> Dialect:
    """Return the dialect; its responses in JSON have the name of the release."""
    decoder = RowDecoder(schema)

    def encode(predictions: Predictions) -> Response:
        return http.of_json({"release": release, "predictions": records(predictions)})

    def decode(request: Request) -> Call:
        if http.check_media(request, http.JSON, tables.CSV) == tables.CSV:
            rows: Sequence[Any] = tables.of_csv(request.body, schema)
        else:
            rows = decoder.decode(request.body)
        http.check_rows(len(rows))
        return Call(rows, tables.to_csv if http.wants(request, tables.CSV) else encode)

    return decode


def records(predictions: Predictions) -> list[dict[str, Any]]:
    """Return an object for each prediction: its id, then the outputs."""
    return [{ID: id_, **row} for id_, row in zip(predictions.ids, predictions.outputs, strict=True)]
