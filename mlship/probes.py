"""What a served model is asked besides its workload: is it ready, does it refuse, does it drain."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from mlship.bundle import Row

if TYPE_CHECKING:
    import httpx

READY = "/v2/health/ready"
_SETTLED = 0.3
"""Seconds in which a server has surely seen the head of a request, or a signal."""


def is_ready(endpoint: str, transport: "httpx.BaseTransport | None" = None) -> bool:
    """Tell whether the readiness probe is answered with success."""
    return _status("GET", f"{endpoint}{READY}", b"", transport) == 200


def refusals(
    endpoint: str, row: Row, transport: "httpx.BaseTransport | None" = None
) -> Mapping[str, int]:
    """Send what is wrong and return the status of each answer, 0 where none came.

    `row` is a good one; a copy of it with a list as its first value is among what is sent.
    """
    wrong: dict[str, object] = {**row, **{name: [] for name in list(row)[:1]}}
    bodies = {
        "no JSON": b'{"',
        "no body": b"",
        "a list as a value": msgspec.json.encode(wrong),
    }
    where = f"{endpoint}/predict"
    return {name: _status("POST", where, body, transport) for name, body in bodies.items()}


def in_flight(
    endpoint: str,
    row: Row,
    meanwhile: Callable[[], object],
    transport: "httpx.BaseTransport | None" = None,
) -> int:
    """Do something while a request is half sent; return the status of its answer, 0 for none.

    The other half follows after `meanwhile` and a moment, so that a server that does not wait for
    what it has begun is found out.
    """
    body = msgspec.json.encode(row)

    def halves() -> Iterator[bytes]:
        yield body[:1]
        time.sleep(_SETTLED)
        meanwhile()
        time.sleep(2 * _SETTLED)
        yield body[1:]

    return _status("POST", f"{endpoint}/predict", (len(body), halves()), transport)


def _status(
    method: str,
    url: str,
    body: bytes | tuple[int, Iterator[bytes]],
    transport: "httpx.BaseTransport | None",
) -> int:
    import httpx  # noqa: PLC0415 (commands that ask nothing start without it)

    headers = {"content-type": "application/json"}
    content = body if isinstance(body, bytes) else body[1]
    if not isinstance(body, bytes):
        headers["content-length"] = str(body[0])
    with httpx.Client(timeout=10.0, transport=transport, trust_env=False) as client:
        try:
            return client.request(method, url, content=content, headers=headers).status_code
        except httpx.HTTPError:
            return 0
