"""The OpenAPI 3.1 document of the service, generated from the bundle's schema."""

from collections.abc import Mapping
from typing import Any

from mlship.domain.bundle import Bundle, Field, Kind
from mlship.runtime.dialects import v2

_TYPES: Mapping[Kind, str] = {
    "number": "number",
    "integer": "integer",
    "text": "string",
    "boolean": "boolean",
}
_OPEN = {"type": "object", "additionalProperties": True}


def example_row(bundle: Bundle) -> dict[str, Any]:
    """Return a row with the examples in the schema."""
    return {field.name: field.example for field in bundle.schema.inputs}


def document(bundle: Bundle, release: str, version: str) -> dict[str, Any]:
    """Return the OpenAPI document of a service.

    Args:
        bundle: the served bundle.
        release: the name of the release.
        version: the first digits of the release's id, which are the version in V2 paths.
    """
    model = f"/v2/models/{bundle.name}"
    infer = _post("Predict by Open Inference Protocol V2", "InferRequest", "InferAnswer")
    infer["requestBody"]["content"]["application/json"]["example"] = v2.example(bundle.schema)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{bundle.name}: {bundle.task} of {', '.join(bundle.names)}",
            "version": release,
            "summary": "Every response has the release and the id of each prediction.",
        },
        "paths": {
            "/predict": {"post": _predict(bundle)},
            f"{model}/infer": {"post": infer},
            f"{model}/versions/{version}/infer": {"post": infer},
            model: {"get": _get("Columns of the model")},
            f"{model}/ready": {"get": _get("Whether the model is ready")},
            "/v2": {"get": _get("Name, version and extensions of the server")},
            "/v2/health/live": {"get": _get("Whether the process is alive")},
            "/v2/health/ready": {"get": _get("Whether the service is ready for requests")},
            "/metrics": {"get": _get("Metrics for Prometheus", "text/plain")},
        },
        "components": {"schemas": _schemas(bundle)},
    }


def _schemas(bundle: Bundle) -> dict[str, Any]:
    prediction = _object(bundle.schema.outputs)
    prediction["properties"] = {"id": {"type": "string"}} | prediction["properties"]
    prediction["required"] = ["id", *prediction["required"]]
    rows = {"type": "array", "items": _ref("Row")}
    return {
        "Row": _object(bundle.schema.inputs) | {"additionalProperties": False},
        "Rows": {
            "oneOf": [
                _ref("Row"),
                rows,
                {"type": "object", "properties": {"rows": rows}, "required": ["rows"]},
            ]
        },
        "Prediction": prediction,
        "Predictions": {
            "type": "object",
            "properties": {
                "release": {"type": "string"},
                "predictions": {"type": "array", "items": _ref("Prediction")},
            },
            "required": ["release", "predictions"],
        },
        "InferRequest": _OPEN,
        "InferAnswer": _OPEN,
        "Error": {
            "type": "object",
            "properties": {
                "error": {
                    "type": "object",
                    "properties": {
                        "message": {"type": "string"},
                        "field": {"type": "string", "examples": ["rows[3].sepal_length"]},
                        "hint": {"type": "string"},
                    },
                    "required": ["message"],
                }
            },
            "required": ["error"],
        },
    }


def _object(fields: tuple[Field, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {field.name: _property(field) for field in fields},
        "required": [field.name for field in fields],
    }


def _property(field: Field) -> dict[str, Any]:
    kind = _TYPES[field.kind]
    schema: dict[str, Any] = {"type": [kind, "null"] if field.nullable else kind}
    if field.example is not None:
        schema["examples"] = [field.example]
    if field.choices:
        schema["description"] = f"values in the training data: {', '.join(field.choices[:20])}"
    return schema


def _predict(bundle: Bundle) -> dict[str, Any]:
    operation = _post(f"Predict {', '.join(bundle.names)}", "Rows", "Predictions")
    row = example_row(bundle)
    operation["requestBody"]["content"]["application/json"]["examples"] = {
        "one row": {"value": row},
        "many rows": {"value": [row, row]},
    }
    return operation


def _get(summary: str, media: str = "application/json") -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": {media: {}}}},
    }


def _post(summary: str, body: str, answer: str) -> dict[str, Any]:
    error = {"description": "The error", "content": _content("Error")}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": _content(body)},
        "responses": {
            "200": {"description": "The logged predictions", "content": _content(answer)},
            "400": error,
            "503": error,
        },
    }


def _content(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(schema)}}


def _ref(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}
