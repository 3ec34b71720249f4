"""The dialect of `/predict`: rows and predictions as JSON objects."""

from typing import Any

from mlship.domain.bundle import ID, Schema
from mlship.runtime import http
from mlship.runtime.decoder import RowDecoder
from mlship.runtime.dialects import Call, Dialect, Predictions
from mlship.runtime.http import Request, Response


def dialect(schema: Schema, release: str) -> Dialect:
    """Return the dialect; its responses have the name of the release."""
    rows = RowDecoder(schema)

    def encode(predictions: Predictions) -> Response:
        return http.of_json({"release": release, "predictions": records(predictions)})

    def decode(request: Request) -> Call:
        return Call(rows.decode(request.body), encode)

    return decode


def records(predictions: Predictions) -> list[dict[str, Any]]:
    """Return an object for each prediction: its id, then the outputs."""
    return [{ID: id_, **row} for id_, row in zip(predictions.ids, predictions.outputs, strict=True)]
