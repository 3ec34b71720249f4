"""HTTP requests and responses as values, for the server and for tests in process."""

import gc
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mlship.errors import MlshipError
from mlship.runtime.faults import Fault, RefusedRequest

BODY_BYTES = 10_000_000
MAX_ROWS = 100_000
"""A body of few bytes a row, such as one of binary tensors, would otherwise need gigabytes."""
JSON = "application/json"
BINARY = "application/octet-stream"
_UTF_8 = {"utf-8", "utf8", "us-ascii", "ascii"}
_encode = msgspec.json.Encoder().encode


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request. Header names are in lowercase; the path is decoded and has no query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A response.

    Attributes:
        reason: why it has no result, a word of `refusals`; empty for that of the status.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    reason: str = ""


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A response before it is counted.

    Attributes:
        route: the route, for metrics.
        started: the monotonic time when the request arrived.
    """

    response: Response
    route: str = "other"
    started: float = 0.0


def of_json(value: Any, status: int = 200, *, reason: str = "", **headers: str) -> Response:
    """Return a value as a JSON response; underscores in header names become hyphens."""
    body = _encode(value)
    response = Response(status=status, headers={"content-type": JSON}, body=body, reason=reason)
    for name, text in headers.items():
        response.headers[name.replace("_", "-")] = text
    return response


def of_fault(
    fault: Fault, status: int, path: str = "", *, reason: str = "", **headers: str
) -> Response:
    """Return `{"error": {"message": ..., "field": ..., "hint": ...}}`.

    Below `/v1` and `/v2`, and for gRPC, `error` is a string, as clients of these protocols expect
    it, and `field` and `hint` are beside it.
    """
    return of_json(error_body(fault, path), status, reason=reason, **headers)


def error_body(fault: Fault, path: str) -> dict[str, Any]:
    """Return the body for an error on a path."""
    if not path.startswith(("/v1/", "/v2/", "/inference.")):
        return {"error": fault}
    text = f"{fault.field}: {fault.message}" if fault.field else fault.message
    text = f"{text}; {fault.hint}" if fault.hint else text
    return {"error": text, **{n: v for n in ("field", "hint") if (v := getattr(fault, n))}}


def of_error(error: MlshipError, status: int, path: str = "", *, reason: str = "") -> Response:
    """Return the response for an error of the tree, like `of_fault`."""
    return of_fault(Fault(message=error.message, hint=error.hint), status, path, reason=reason)


def too_large() -> RefusedRequest:
    """Return the refusal of a body of more than `BODY_BYTES`, as received or decompressed."""
    message = f"the body is larger than {BODY_BYTES:,} bytes"
    return RefusedRequest(message, hint="send fewer rows per request", status=413)


def check_rows(number: int, field: str = "rows") -> None:
    """Refuse a request without rows, or with more than `MAX_ROWS`.

    Raises:
        RefusedRequest: with status 400 or 413.
    """
    if not number:
        hint = 'send a row as {"column": value, ...}, or a list of rows'
        raise RefusedRequest("the request has no rows", field=field, hint=hint)
    if number > MAX_ROWS:
        message = f"the request has {number:,} rows, more than {MAX_ROWS:,}"
        raise RefusedRequest(message, hint="send fewer rows per request", status=413)


def check_media(request: Request, *accepted: str) -> str:
    """Return the media type of the body; JSON, the first one, if the request names none.

    Raises:
        RefusedRequest: with status 415 if it is not one of the accepted ones, or not in UTF-8.
    """
    header = request.headers.get("content-type") or accepted[0]
    if header in accepted:
        return header
    kind, _, parameters = header.lower().partition(";")
    kind = kind.strip()
    if kind.endswith("+json"):
        kind = JSON
    if kind not in accepted:
        message = f"the content type is {kind[:80]}, expected {' or '.join(accepted)}"
        hint = f"send JSON with the header `content-type: {JSON}`"
        raise RefusedRequest(message, hint=hint, status=415)
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip(' "') not in _UTF_8:
            message = f"the charset of the body is {value.strip()[:40]}, expected utf-8"
            raise RefusedRequest(message, hint="send the body in UTF-8", status=415)
    return kind


def wants(request: Request, media: str) -> bool:
    """Return whether a request names a media type in `Accept`, and prefers it to JSON."""
    header = request.headers.get("accept")
    if header is None or media not in header.lower():
        return False
    weights = qualities(header)
    return weights.get(media, 0.0) > weights.get(JSON, 0.0)


def qualities(header: str) -> dict[str, float]:
    """Return the weight of each name in a header such as `Accept` or `Accept-Encoding`."""
    weights = {}
    for part in header.split(","):
        name, *parameters = (text.strip().lower() for text in part.split(";"))
        weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        try:
            weights[name] = float(weight)
        except ValueError:
            weights[name] = 0.0
    return weights


def decoded(decode: Callable[[bytes], Any], body: bytes) -> Any:
    """Return what a function makes of a body, without a search for garbage meanwhile.

    Millions of lists would otherwise be searched again and again while they are made, for seconds.
    """
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        return decode(body)
    finally:
        if is_enabled:
            gc.enable()


def decode_rows(body: bytes) -> list[Any]:
    """Return the rows in a body: one row, a list of rows, or `{"rows": [...]}`.

    Raises:
        RefusedRequest: it is not JSON.
    """
    try:
        value = decoded(msgspec.json.decode, body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        hint = 'send a row as {"column": value, ...}'
        raise RefusedRequest(f"the body is not JSON: {error}", hint=hint) from None
    if isinstance(value, dict) and value.keys() == {"rows"} and isinstance(value["rows"], list):
        value = value["rows"]
    return value if isinstance(value, list) else [value]


def is_mirrored(headers: Mapping[str, str]) -> bool:
    """Return whether Envoy mirrored the request: it then appends `-shadow` to the host name."""
    host = headers.get("host", "")
    if "-shadow" not in host:
        return False
    return host.endswith("-shadow") or host.partition(":")[0].endswith("-shadow")
