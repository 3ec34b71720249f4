"""The OpenAPI 3.1 document of the service, generated from the bundle's schema."""

from collections.abc import Callable
from typing import Any, Final

from mlship.domain.bundle import Bundle
from mlship.runtime import openapi_schemas
from mlship.runtime.dialects import v2
from mlship.runtime.dialects.tables import CSV
from mlship.runtime.http import BINARY, JSON
from mlship.runtime.openapi_schemas import ref

_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
_REFUSALS: Final = {
    "400": "The request is refused; the error names the field",
    "413": "The body is too large, or has too many rows",
    "415": "The content type or the content encoding is not one of these",
    "500": "The model or a hook fails on any row",
    "503": "The model is not ready, or the prediction log cannot be written",
}


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
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{bundle.name}: {bundle.task} of {', '.join(bundle.names)}",
            "version": release,
            "summary": "Every response has the release and the id of each prediction.",
        },
        "paths": _predictions(bundle, version) | _pages(bundle.name, version),
        "components": {"schemas": openapi_schemas.of_bundle(bundle)},
    }


def with_keys(document: dict[str, Any], is_open: Callable[[str], bool]) -> dict[str, Any]:
    """Return the document of a service that answers with an API key only, except open paths."""
    paths = {
        path: {
            method: {**operation, "security": []}
            if is_open(path)
            else {**operation, "responses": {**operation["responses"], "401": _unauthorized(path)}}
            for method, operation in operations.items()
        }
        for path, operations in document["paths"].items()
    }
    components = {**document["components"], "securitySchemes": _SCHEMES}
    security: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]
    return {**document, "paths": paths, "components": components, "security": security}


def _unauthorized(path: str) -> dict[str, Any]:
    schema = "ErrorText" if path.startswith(("/v1/", "/v2/")) else "Error"
    header = {"schema": {"type": "string"}}
    return {
        "description": "The API key is missing or wrong",
        "headers": {"www-authenticate": header},
        "content": {JSON: _media(schema)},
    }


def _predictions(bundle: Bundle, version: str) -> dict[str, Any]:
    row = example_row(bundle)
    model = f"/v2/models/{bundle.name}"
    infer = _post(
        "Predict by Open Inference Protocol V2",
        {JSON: _media("InferRequest", v2.example(bundle.schema)), BINARY: {}},
        {JSON: _media("InferAnswer"), BINARY: {}},
        "ErrorText",
    )
    table = {CSV: _media("Table")}
    answers = {JSON: _media("Predictions"), **table}
    rows = {"one row": {"value": row}, "many rows": {"value": [row, row]}}
    return {
        "/predict": _post(
            f"Predict {', '.join(bundle.names)}",
            {JSON: {"schema": ref("Rows"), "examples": rows}, **table},
            answers,
            "Error",
        ),
        "/invocations": _post(
            "Predict as MLflow's server and SageMaker do",
            {JSON: _media("Invocation", {"dataframe_records": [row]}), **table},
            answers,
            "Error",
        ),
        f"/v1/models/{bundle.name}:predict": _post(
            "Predict by protocol V1",
            {JSON: _media("V1Request", {"instances": [row]}), **table},
            answers,
            "ErrorText",
        ),
        f"{model}/infer": infer,
        f"{model}/versions/{version}/infer": infer,
    }


def _pages(name: str, version: str) -> dict[str, Any]:
    paths = {
        "/metrics": _get("Metrics for Prometheus", {"text/plain": {}}),
        "/ping": _ready("Whether the model is ready, for SageMaker"),
        "/health": _ready("Whether the model is ready, for MLflow"),
        "/v1/models": _get("Names of the models"),
        f"/v1/models/{name}": _ready("Whether the model is ready, for V1"),
        "/v2": _get("Name, version and extensions of the server"),
        "/v2/health/live": _get("Whether the process is alive"),
        "/v2/health/ready": _ready("Whether the service is ready for requests"),
        "/v2/models/stats": _get("Counts of requests and rows of this process"),
        "/v2/repository/index": {
            "post": _get("The served model and its state", {JSON: _media("Documents")})["get"]
        },
    }
    for model in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{version}"):
        paths |= {
            model: _get("Columns of the model", {JSON: _media("Metadata")}),
            f"{model}/ready": _ready("Whether the model is ready"),
            f"{model}/config": _get("Columns of the model, in Triton's form"),
            f"{model}/stats": _get("Counts of requests and rows of this process"),
        }
    return paths


def _get(summary: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = {"description": "OK", "content": content or {JSON: _media("Document")}}
    return {"get": {"summary": summary, "responses": {"200": answer}}}


def _ready(summary: str) -> dict[str, Any]:
    page = _get(summary, {JSON: _media("Readiness")})
    content = {JSON: {"schema": {"allOf": [ref("Readiness"), ref("ErrorText")]}}}
    page["get"]["responses"]["503"] = {"description": "It is not ready", "content": content}
    return page


def _post(
    summary: str, bodies: dict[str, Any], answers: dict[str, Any], error: str
) -> dict[str, Any]:
    refusals = {
        status: {"description": text, "content": {JSON: _media(error)}}
        for status, text in _REFUSALS.items()
    }
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": bodies},
            "responses": {
                "200": {"description": "The logged predictions", "content": answers},
                **refusals,
            },
        }
    }


def _media(schema: str, example: Any = None) -> dict[str, Any]:
    media: dict[str, Any] = {"schema": ref(schema)}
    return media if example is None else {**media, "example": example}
