"""Which requests may be repeated, and when: RFC 9110 section 9.2.2, full jitter, Retry-After.

Full jitter: each pause is a random part of a limit that doubles, so that clients which failed
together do not retry together. Source: M. Brooker, "Exponential Backoff And Jitter", 2015.
"""

import email.utils
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final, Literal

import httpx
import msgspec

from mlship.adapters.http.bodies import TooLargeError

Look = Callable[[float], bool]
"""Returns, within so many seconds, whether the server has not acted on a request."""
Repeat = Literal["idempotent", "always", "never"] | Look
"""What may be repeated after a failure that leaves open whether the server acted.

`idempotent`: GET, HEAD, OPTIONS, TRACE, PUT and DELETE. `always`: the caller knows that the request
is idempotent. `never`: one attempt only. A `Look` is called before each repetition.
"""

_IDEMPOTENT: Final = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}
PUT_OFF: Final = {408, 425, 429}
"""The server did not act on the request (RFC 9110, 8470, 6585): any method may be repeated."""
PASSING: Final = {500, 502, 503, 504}
"""The server or a proxy failed; whether the server acted is not known."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Time and randomness; tests replace them.

    Attributes:
        clock: seconds since 1970, for Retry-After as a date.
        monotonic: seconds, for deadlines.
        pause: waits a number of seconds.
        chance: a random number from 0 to 1.
    """

    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random


class ProxyTimeout(httpx.ConnectTimeout):
    """A connection to a proxy timed out; the text names the proxy."""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long an unavailable server is waited for. Times are in seconds.

    Attributes:
        deadline: the time for one request with its retries.
        attempts: the largest number of attempts.
        first: the limit of the first back-off; each further limit is twice the one before.
        longest: the largest limit of a back-off.
        longest_asked: the longest pause that a server may ask for.
        after_silence: whether a request that timed out is repeated.
        unreached: the time for a server to which no connection was made yet: its address may be
            wrong, or it may be starting.
    """

    deadline: float = 60.0
    attempts: int = 5
    first: float = 0.5
    longest: float = 10.0
    longest_asked: float = 60.0
    after_silence: bool = False
    unreached: float = float("inf")

    def back_off(self, attempt: int, chance: float) -> float:
        """Return the pause after a failed attempt; attempts are counted from 1."""
        return chance * float(min(self.longest, self.first * 2 ** min(attempt - 1, 30)))


def retry_after(header: str | None, now: float) -> float | None:
    """Return the seconds in a Retry-After header, which has a number of seconds or a date.

    Args:
        header: its value; `None` without one.
        now: seconds since 1970.
    """
    if not header:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    until = until.replace(tzinfo=UTC) if until.tzinfo is None else until
    return max(0.0, (until - datetime.fromtimestamp(now, UTC)).total_seconds())


def may_repeat(method: str, repeat: Repeat) -> bool:
    """Return whether a request may be repeated although the server may have acted on it.

    With a `Look`, it may; the `Look` is called later.
    """
    if repeat == "idempotent":
        return method in _IDEMPOTENT
    return repeat != "never"


def was_not_sent(error: httpx.RequestError) -> bool:
    """Return whether no byte of a request was sent, because there was no connection."""
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def is_final(error: httpx.RequestError) -> bool:
    """Return whether another attempt would fail in the same way.

    That holds for an untrusted certificate, a host that does not exist, a response that is too
    large, and a URL or message that violates the protocol, but not for a temporary failure of a
    name server.
    """
    wrong = (
        TooLargeError,
        httpx.TooManyRedirects,
        httpx.UnsupportedProtocol,
        httpx.LocalProtocolError,
    )
    if isinstance(error, wrong):
        return True
    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
            return True
    return False


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that caused it, the last one first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
