"""Requests to a served model: replay of a recorded workload, and probes of its behaviour."""

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from mlship.domain import api_keys, tls
from mlship.domain.bundle import Row
from mlship.domain.untrusted import decoded
from mlship.domain.workload import Reply, Request
from mlship.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    import ssl

    import httpx

READY = "/v2/health/ready"
LIVE = "/v2/health/live"
RELEASE = "mlship-release"
"""A header of each response of a release, with its name."""
_CONNECTIONS = 64
_SETTLED = 0.3
"""Seconds after which a server has received the head of a request, or a signal."""
_Send: TypeAlias = Callable[[Request, float], Reply]


class _Body(msgspec.Struct, frozen=True):
    release: str
    predictions: tuple[Row, ...]


_BODY: Final = msgspec.json.Decoder(_Body)


def replay(
    requests: Sequence[Request],
    endpoint: str,
    *,
    rate: float | None = None,
    api_key: str = "",
    certificate: Path | None = None,
    timeout: float = 10.0,
    clock: Callable[[], float] = time.perf_counter,
    transport: "httpx.BaseTransport | None" = None,
) -> list[Reply]:
    """Post the requests and return a reply for each, in order.

    With a `rate` (requests per second) each request is sent when it is due, without waiting for
    earlier responses; otherwise one after another. `api_key` is sent unless it is empty. By
    https, only a `certificate` is trusted if there is one. `timeout` and `clock` are in seconds;
    `transport` is how httpx reaches the endpoint.

    Raises:
        UnavailableError: no request was answered. Single failures are counted, not raised.
        ConfigError: the endpoint needs an API key, or another one.
    """
    import httpx

    with httpx.Client(
        base_url=endpoint,
        headers=api_keys.header(api_key),
        timeout=timeout,
        transport=transport,
        verify=_trust(certificate),
        limits=kept(),
        trust_env=False,
    ) as client:

        def send(request: Request, due: float) -> Reply:
            try:
                response = client.post("/predict", json=request.body)
            except httpx.HTTPError as error:
                reason = f"{type(error).__name__}: {error}".rstrip(": ")
                return Reply(status=0, latency_ms=1000 * (clock() - due), error=reason)
            return _reply(response, len(request.rows), 1000 * (clock() - due))

        if rate is None:
            replies = [send(request, clock()) for request in requests]
        else:
            replies = _at_rate(send, requests, rate, clock)
    if replies and all(reply.status == 0 for reply in replies):
        message = f"no response from {endpoint}: {replies[0].error}"
        raise UnavailableError(
            message, hint="run `mlship status` to see what runs, then deploy the release again"
        )
    if any(reply.status == HTTPStatus.UNAUTHORIZED for reply in replies):
        why = f"that in {api_keys.KEY} is not valid" if api_key else f"{api_keys.KEY} is not set"
        raise ConfigError(
            f"{endpoint} needs an API key, and {why}",
            hint=f"set {api_keys.KEY} to one of its keys; `mlship api-keys add NAME` makes one",
        )
    return replies


def _trust(certificate: Path | None) -> "ssl.SSLContext":
    return _system_trust() if certificate is None else tls.client_context(certificate)


@functools.cache
def _system_trust() -> "ssl.SSLContext":
    """Return what httpx trusts by default: to read it takes longer than most requests."""
    import httpx

    return httpx.create_ssl_context(trust_env=False)


def kept() -> "httpx.Limits":
    """Return the limits of a client that threads share: no connection is closed before the end.

    By default, httpx closes one that is surplus or has expired, also below a request that just got
    it, which then fails or waits until its time limit (httpcore, issue 1110).
    """
    import httpx

    return httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=None)


def answering(
    endpoint: str,
    count: int,
    transport: "httpx.BaseTransport | None" = None,
    certificate: Path | None = None,
) -> dict[str, int]:
    """Return how many of so many requests each release answers; none of them is a prediction.

    By https, only a `certificate` is trusted if there is one. Requests without an answer of a
    release count for the empty name.
    """
    import httpx

    names: Counter[str] = Counter()
    trust = _trust(certificate)
    with httpx.Client(timeout=5.0, transport=transport, verify=trust, trust_env=False) as client:
        for _ in range(count):
            try:
                response = client.get(f"{endpoint}{LIVE}")
            except httpx.HTTPError:
                names[""] += 1
            else:
                names[response.headers.get(RELEASE, "") if response.is_success else ""] += 1
    return dict(sorted(names.items()))


def is_ready(endpoint: str, transport: "httpx.BaseTransport | None" = None) -> bool:
    """Return whether the readiness probe succeeds."""
    return _status("GET", f"{endpoint}{READY}", b"", transport) == 200


def refusals(
    endpoint: str, row: Row, transport: "httpx.BaseTransport | None" = None
) -> Mapping[str, int]:
    """Send invalid requests and return the HTTP status of each response; 0 means no response.

    `row` is a valid row; one of the requests is a copy of it with a list as its first value.
    """
    invalid: dict[str, object] = {**row, **{name: [] for name in list(row)[:1]}}
    bodies = {
        "no JSON": b'{"',
        "no body": b"",
        "a list as a value": msgspec.json.encode(invalid),
    }
    url = f"{endpoint}/predict"
    return {name: _status("POST", url, body, transport) for name, body in bodies.items()}


def in_flight(
    endpoint: str,
    row: Row,
    meanwhile: Callable[[], object],
    transport: "httpx.BaseTransport | None" = None,
) -> int:
    """Call `meanwhile` while a request is half sent; return the response's status, 0 for none.

    The second half is sent a moment after `meanwhile`, so that a server that does not finish
    requests in flight is detected.
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
    with httpx.Client(
        timeout=10.0, transport=transport, verify=_trust(None), trust_env=False
    ) as client:
        try:
            return client.request(method, url, content=content, headers=headers).status_code
        except httpx.HTTPError:
            return 0


def _at_rate(
    send: _Send, requests: Sequence[Request], rate: float, clock: Callable[[], float]
) -> list[Reply]:
    """Send at a constant rate: a slow response delays no other request and hides no latency."""
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        start, pending = clock(), []
        for number, request in enumerate(requests):
            due = start + number / rate
            time.sleep(max(0.0, due - clock()))
            pending.append(pool.submit(send, request, due))
        return [future.result() for future in pending]


def _reply(response: "httpx.Response", rows: int, latency_ms: float) -> Reply:
    body, error = _Body(release="", predictions=()), ""
    try:
        body = decoded(_BODY.decode, response.content)
        if len(body.predictions) != rows:
            error = f"{len(body.predictions)} predictions for {rows} rows"
    except msgspec.DecodeError as problem:
        error = f"the response has no predictions: {problem}"
    if not response.is_success:
        error = f"HTTP {response.status_code}: {response.text[:200]}"
    return Reply(
        status=response.status_code,
        latency_ms=latency_ms,
        outputs=() if error else body.predictions,
        release=body.release,
        error=error,
    )
