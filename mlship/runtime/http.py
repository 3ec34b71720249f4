"""HTTP requests and responses as values, for the server and for tests in process."""

from collections.abc import Mapping
from typing import Any

import msgspec

from mlship.errors import MlshipError
from mlship.runtime.faults import Fault, RefusedRequest

BODY_BYTES = 10_000_000
JSON = "application/json"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request. Header names are in lowercase; the path is decoded and has no query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A response before it is counted.

    Attributes:
        route: the route, for metrics.
        started: the timer in seconds when the request arrived.
    """

    response: Response
    route: str = "other"
    started: float = 0.0


def of_json(value: Any, status: int = 200, **headers: str) -> Response:
    """Return a value as a JSON response; underscores in header names become hyphens."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    body = msgspec.json.encode(value)
    return Response(status=status, headers={"content-type": JSON, **named}, body=body)


def of_fault(fault: Fault, status: int, **headers: str) -> Response:
    """Return `{"error": {"message": ..., "field": ..., "hint": ...}}`."""
    return of_json({"error": fault}, status, **headers)


def of_error(error: MlshipError, status: int) -> Response:
    """Return the response for an error of the tree, like `of_fault`."""
    return of_fault(Fault(message=error.message, hint=error.hint), status)


def check_body(request: Request) -> None:
    """Refuse a body that is too large or not JSON.

    Raises:
        RefusedRequest: with status 413 or 415.
    """
    if len(request.body) > BODY_BYTES:
        message = f"the body is larger than {BODY_BYTES:,} bytes"
        raise RefusedRequest(message, hint="send fewer rows per request", status=413)
    kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    is_binary = "inference-header-content-length" in request.headers
    if is_binary or not (kind == JSON or kind.endswith("+json")):
        message = f"the content type is {kind}, expected {JSON}"
        if is_binary:
            message = "the binary tensor extension is not supported"
        hint = f"send JSON with the header `content-type: {JSON}`"
        raise RefusedRequest(message, hint=hint, status=415)


def decode_rows(body: bytes) -> list[Any]:
    """Return the rows in a body: one row, a list of rows, or `{"rows": [...]}`.

    Raises:
        RefusedRequest: it is not JSON, has another form, or has no rows.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        hint = 'send a row as {"column": value, ...}'
        raise RefusedRequest(f"the body is not JSON: {error}", hint=hint) from None
    if isinstance(value, dict) and value.keys() == {"rows"} and isinstance(value["rows"], list):
        value = value["rows"]
    rows = value if isinstance(value, list) else [value]
    if not rows:
        hint = 'send a row as {"column": value, ...}, or a list of rows'
        raise RefusedRequest("the request has no rows", field="rows", hint=hint)
    return rows


def is_mirrored(headers: Mapping[str, str]) -> bool:
    """Return whether Envoy mirrored the request: it then appends `-shadow` to the host name."""
    host = headers.get("host", "")
    return host.endswith("-shadow") or host.partition(":")[0].endswith("-shadow")
