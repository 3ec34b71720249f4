"""Requests to a served model: a recorded workload replayed, and probes of how it behaves."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from mlship.domain.bundle import Row
from mlship.domain.workload import Reply, Request
from mlship.errors import UnavailableError

if TYPE_CHECKING:
    import httpx

READY = "/v2/health/ready"
_CONNECTIONS = 64
_SETTLED = 0.3
"""Seconds in which a server has surely seen the head of a request, or a signal."""
_Send: TypeAlias = Callable[[Request, float], Reply]


class _Answer(msgspec.Struct, frozen=True):
    release: str
    predictions: tuple[Row, ...]


def replay(
    requests: Sequence[Request],
    endpoint: str,
    *,
    rate: float | None = None,
    timeout: float = 10.0,
    clock: Callable[[], float] = time.perf_counter,
    transport: "httpx.BaseTransport | None" = None,
) -> list[Reply]:
    """Post the requests and return a reply for each, in order.

    With a `rate` (requests a second) each is sent when it is due, answered or not; else one after
    another. `timeout` and `clock` count in seconds; `transport` is how httpx reaches the endpoint.

    Raises:
        UnavailableError: nothing at all answered; fewer failures are counted, not raised.
    """
    import httpx

    limits = httpx.Limits(max_connections=_CONNECTIONS)
    with httpx.Client(
        base_url=endpoint, timeout=timeout, transport=transport, limits=limits, trust_env=False
    ) as client:

        def send(request: Request, due: float) -> Reply:
            try:
                response = client.post("/predict", json=request.body)
            except httpx.HTTPError as error:
                why = f"{type(error).__name__}: {error}".rstrip(": ")
                return Reply(status=0, latency_ms=1000 * (clock() - due), error=why)
            return _reply(response, len(request.rows), 1000 * (clock() - due))

        if rate is None:
            replies = [send(request, clock()) for request in requests]
        else:
            replies = _at_rate(send, requests, rate, clock)
    if replies and all(reply.status == 0 for reply in replies):
        message = f"nothing answers at {endpoint}: {replies[0].error}"
        raise UnavailableError(message, hint="`mlship status` shows what runs; deploy it again")
    return replies


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
    import httpx

    headers = {"content-type": "application/json"}
    content = body if isinstance(body, bytes) else body[1]
    if not isinstance(body, bytes):
        headers["content-length"] = str(body[0])
    with httpx.Client(timeout=10.0, transport=transport, trust_env=False) as client:
        try:
            return client.request(method, url, content=content, headers=headers).status_code
        except httpx.HTTPError:
            return 0


def _at_rate(
    send: _Send, requests: Sequence[Request], rate: float, clock: Callable[[], float]
) -> list[Reply]:
    """Send at a constant rate: a slow answer delays no other and hides no latency."""
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        start, waiting = clock(), []
        for number, request in enumerate(requests):
            due = start + number / rate
            time.sleep(max(0.0, due - clock()))
            waiting.append(pool.submit(send, request, due))
        return [reply.result() for reply in waiting]


def _reply(response: "httpx.Response", many: int, latency_ms: float) -> Reply:
    answer, error = _Answer(release="", predictions=()), ""
    try:
        answer = msgspec.json.decode(response.content, type=_Answer)
        if len(answer.predictions) != many:
            error = f"{len(answer.predictions)} predictions came for {many} rows"
    except (msgspec.DecodeError, msgspec.ValidationError) as problem:
        error = f"the answer holds no predictions: {problem}"
    if not response.is_success:
        error = f"HTTP {response.status_code}: {response.text[:200]}"
    return Reply(
        status=response.status_code,
        latency_ms=latency_ms,
        outputs=() if error else answer.predictions,
        release=answer.release,
        error=error,
    )
