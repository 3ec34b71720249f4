"""Waits until the proxies apply a route: their answers name it."""

import ssl
import time
from collections.abc import Callable
from typing import Final

import httpx
import msgspec

from mlship.adapters.http.clients import Reach, open_client
from mlship.adapters.targets.kubernetes.pauses import growing
from mlship.errors import UnavailableError

HEADER: Final = "mlship-route"
"""A header of each response that names the route which sent the request here."""
_ASK_SECONDS = 2.0
_ASK_AGAIN_SECONDS = 0.02
_LONGEST_PAUSE = 0.25
"""Half of the time between two nudges."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asked for the route, and when the answers are enough.

    Attributes:
        url: the URL for requests.
        host: the host name of requests, if it is not that of the URL.
        agreeing: answers in a row that must name the route.
        settle_seconds: how long to wait instead, where nobody answers or answers have no name.
        seconds: how long answers may name another route.
        unnamed_seconds: how long answers may have no name, before that counts as settled.
        hint: for the error that answers name another route.
        nudge: called until answers name the route.
        trust: returns the trusted certificates, if they are not the system's.
    """

    url: str
    host: str | None = None
    agreeing: int
    settle_seconds: float
    seconds: float = 90.0
    unnamed_seconds: float = 5.0
    hint: str
    nudge: Callable[[], None] = lambda: None
    trust: Callable[[], ssl.SSLContext] | None = None


def wait(asked: Asked, name: str) -> bool:
    """Wait until answers name the route; return whether they did.

    If the URL cannot be reached from here, or something in front of it removes the header, a
    fixed time passes instead.

    Raises:
        UnavailableError: answers name another route for longer than `seconds`.
    """
    started = time.monotonic()
    heard, agreeing = started, 0
    pauses = growing(_ASK_AGAIN_SECONDS, _LONGEST_PAUSE)
    # A connection each: another one may be another proxy's.
    headers = {"Connection": "close", **({"Host": asked.host} if asked.host else {})}
    with open_client(Reach(trust=asked.trust), timeout=httpx.Timeout(_ASK_SECONDS)) as client:
        while time.monotonic() - started < asked.seconds:
            asked.nudge()
            try:
                answer = client.get(f"{asked.url}/v2/health/live", headers=headers)
            except httpx.HTTPError:
                agreeing = 0
                if time.monotonic() - heard >= asked.settle_seconds:
                    return False
                time.sleep(next(pauses))
                continue
            heard = time.monotonic()
            named = answer.headers.get(HEADER)
            agreeing = agreeing + 1 if named == name else 0
            if agreeing == asked.agreeing:
                return True
            if named is None and heard - started > asked.unnamed_seconds + asked.settle_seconds:
                return False
            if not agreeing:
                time.sleep(next(pauses))
    message = f"the route is written, but {asked.url} still uses another one"
    raise UnavailableError(message, hint=asked.hint)
