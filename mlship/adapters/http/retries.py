"""What may be sent again, and when: RFC 9110 section 9.2.2, back-off with full jitter, Retry-After.

Full jitter: each pause is a random part of a limit that doubles, so that clients which failed
together do not come back together. Source: M. Brooker, "Exponential Backoff And Jitter", 2015.
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
"""Looks within so many seconds whether the server has not acted on a request."""
Repeat = Literal["idempotent", "always", "never"] | Look
"""What may be done again after a failure that leaves open whether the server acted.

`idempotent`: GET, HEAD, OPTIONS, TRACE, PUT and DELETE. `always`: the caller knows that doing it
twice is as doing it once. `never`: one attempt, whatever happens. A `Look` is asked before each
repetition.
"""

_IDEMPOTENT: Final = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}
PUT_OFF: Final = {408, 425, 429}
"""The server did not act on the request (RFC 9110, 8470, 6585): any method may be sent again."""
PASSING: Final = {500, 502, 503, 504}
"""The server or a proxy failed; whether the request was acted on is not known."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Time and randomness; the tests give their own.

    Attributes:
        clock: seconds since 1970, for Retry-After as a date.
        monotonic: seconds, for deadlines.
        pause: waits so many seconds.
        chance: a random number from 0 to 1.
    """

    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random


class ProxyTimeout(httpx.ConnectTimeout):
    """No connection to a proxy was made in time; the text names it."""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a server in trouble is waited for. Times are in seconds.

    Attributes:
        deadline: the whole time for one request with its repetitions.
        attempts: at most so many.
        first: the limit of the first back-off; each further limit is twice the one before.
        longest: the highest limit of a back-off.
        longest_asked: a server that asks for a longer pause is not waited for.
        after_silence: whether a request that got no answer within its time limit is sent again.
    """

    deadline: float = 60.0
    attempts: int = 5
    first: float = 0.5
    longest: float = 10.0
    longest_asked: float = 60.0
    after_silence: bool = False

    def back_off(self, attempt: int, chance: float) -> float:
        """Return the pause after the failure of an attempt, which are counted from 1."""
        return chance * float(min(self.longest, self.first * 2 ** min(attempt - 1, 30)))


def retry_after(header: str | None, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number of seconds, or a date.

    Args:
        header: its value; `None` where there is none.
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
    """Tell whether a request may be sent again although the server may have acted on it.

    Where a `Look` decides, it may until that has looked.
    """
    if repeat == "idempotent":
        return method in _IDEMPOTENT
    return repeat != "never"


def was_not_sent(error: httpx.RequestError) -> bool:
    """Tell whether no byte of a request was sent: there was no connection."""
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def is_final(error: httpx.RequestError) -> bool:
    """Tell whether another attempt would fail in the same way.

    So it is with a certificate that is not trusted, a host that does not exist, an answer that is
    too large, and a URL or message that breaks the protocol. A name server that failed for now is
    another matter.
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
    """Give an error and those that led to it, the last one first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
