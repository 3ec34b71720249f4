"""Requests to one server: through its proxy, with time limits, and retried where that is safe.

An adapter opens a client, sends its requests through a `Door`, and maps the outcome to its errors:

    door = Door(open_client(Reach(), base_url=url), Terms(name="registry localhost:5000"))
    response = door.send(door.client.build_request("GET", "/v2/"))
"""

import logging
import math
import socket
import ssl
from collections.abc import Callable

import httpx
import msgspec

from mlship.adapters.http.bodies import DEADLINE, Deadline
from mlship.adapters.http.retries import (
    PASSING,
    PUT_OFF,
    Patience,
    ProxyTimeout,
    Repeat,
    Timing,
    causes,
    is_final,
    may_repeat,
    retry_after,
    was_not_sent,
)

_UNREADABLE = 3
"""So many unreadable successes are an error of the server, not of the network."""
_TOLD = 1.0
"""Pauses of so many seconds or more are logged."""
_NAME_SECONDS = 10.0
"""How long a host name is tried that could not be resolved yet."""
_LOG = logging.getLogger("mlship")


class NoAnswerError(Exception):
    """A server did not answer; the text is the reason, with the number and time of the attempts.

    Attributes:
        error: of the last attempt.
    """

    def __init__(self, error: httpx.RequestError, tried: str) -> None:
        is_silent = isinstance(error, httpx.TimeoutException)
        is_silent = is_silent and not isinstance(error, ProxyTimeout)
        reason = "timed out" if is_silent else str(error) or type(error).__name__
        super().__init__(f"{reason}{tried}")
        self.error = error

    @property
    def untrusted(self) -> ssl.SSLError | None:
        """The TLS error; `None` if that was not the reason."""
        return next(
            (cause for cause in causes(self.error) if isinstance(cause, ssl.SSLError)), None
        )


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How a door treats its server.

    Attributes:
        name: the name of the server in messages.
        patience: how long it is waited for.
        timing: time and randomness.
        put_off: whether the server deferred the request without acting on it.
        asked: the seconds to wait that the server asks for; by default those of Retry-After.
        is_final: whether a response is not retried, whatever its status.
        is_whole: whether the body of a success can be read; a proxy's often cannot.
    """

    name: str
    patience: Patience = Patience()
    timing: Timing = Timing()
    put_off: Callable[[httpx.Response], bool] = lambda response: response.status_code in PUT_OFF
    asked: Callable[[httpx.Response, float], float | None] = lambda response, now: retry_after(
        response.headers.get("Retry-After"), now
    )
    is_final: Callable[[httpx.Response], bool] = lambda _: False
    is_whole: Callable[[httpx.Response], bool] = lambda _: True


class Door:
    """Sends the requests of one client, which `clients.open_client` gives, on some terms."""

    def __init__(self, client: httpx.Client, terms: Terms) -> None:
        self.client = client
        self._terms = terms
        self._was_reached = False

    def send(
        self,
        request: httpx.Request,
        *,
        repeat: Repeat = "idempotent",
        stream: bool = False,
        follow: bool = False,
        patience: Patience | None = None,
    ) -> httpx.Response:
        """Return the response of the last attempt, whatever its status.

        Args:
            request: its body can be read again; otherwise, use `attempt`.
            repeat: what may be repeated.
            stream: the caller reads the body of a success and closes the response.
            follow: follow redirects.
            patience: for this request, instead of the door's.

        Raises:
            NoAnswerError: the server did not answer before the deadline.
            ConfigError: the environment's proxy is invalid.
        """
        patience = patience or self._terms.patience
        monotonic = self._terms.timing.monotonic
        end = monotonic() + patience.deadline
        limits = dict(request.extensions.get("timeout") or {})

        def once() -> httpx.Response:
            left = max(1.0, end - monotonic())
            request.extensions["timeout"] = {
                name: left if limit is None else min(limit, left) for name, limit in limits.items()
            }
            return self.client.send(request, stream=stream, follow_redirects=follow)

        return self.attempt(once, request.method, repeat=repeat, patience=patience)

    def attempt(
        self,
        once: Callable[[], httpx.Response],
        method: str,
        *,
        repeat: Repeat = "idempotent",
        patience: Patience | None = None,
    ) -> httpx.Response:
        """Call a function that returns a response, with the retries of `send`.

        Raises:
            NoAnswerError: the server did not answer before the deadline.
        """
        attempts = _Attempts(
            self._terms,
            patience or self._terms.patience,
            once,
            method,
            repeat,
            was_reached=self._was_reached,
        )
        try:
            return attempts.run()
        finally:
            self._was_reached = attempts.was_reached


class _Attempts:
    """The attempts of one request."""

    def __init__(
        self,
        terms: Terms,
        patience: Patience,
        once: Callable[[], httpx.Response],
        method: str,
        repeat: Repeat,
        *,
        was_reached: bool,
    ) -> None:
        self._terms, self._timing, self._patience = terms, terms.timing, patience
        self.was_reached = was_reached
        self._once, self._method, self._repeat = once, method, repeat
        self._began = self._timing.monotonic()
        self._count = 0
        self._unreadable = 0
        self._is_open = False

    def run(self) -> httpx.Response:
        while True:
            self._count += 1
            try:
                response = self._answered()
            except httpx.RequestError as error:
                pause = self._after_error(error)
                reason = str(error) or type(error).__name__
                if pause is None or not self._waited(pause, reason):
                    raise NoAnswerError(error, self._tried()) from error
            else:
                pause = self._after(response)
                if pause is not None:
                    response.close()
                if pause is None or not self._waited(pause, f"answered {response.status_code}"):
                    response.extensions["mlship.tried"] = self._tried()
                    return response

    def _answered(self) -> httpx.Response:
        """Make one attempt; the deadline includes its body."""
        end = self._began + self._patience.deadline
        token = DEADLINE.set(Deadline(end, self._timing.monotonic))
        try:
            response = self._once()
            self.was_reached = True
            if response.is_error:
                response.read()
            return response
        finally:
            DEADLINE.reset(token)

    def _waited(self, pause: float, reason: str) -> bool:
        """Wait; return whether the request may be repeated after that."""
        if pause >= _TOLD:
            _LOG.warning("%s: %s; next attempt in %.0f s", self._terms.name, reason, pause)
        self._timing.pause(pause)
        return not self._is_open or not callable(self._repeat) or self._repeat(self._left())

    def _left(self) -> float:
        passed = self._timing.monotonic() - self._began
        return max(1.0, self._patience.deadline - passed)

    def _after_error(self, error: httpx.RequestError) -> float | None:
        """Return the pause before the next attempt; `None` if this was the last."""
        self.was_reached = self.was_reached or not was_not_sent(error)
        is_silent = isinstance(error, httpx.TimeoutException)
        if is_final(error) or (is_silent and not self._patience.after_silence):
            return None
        is_unnamed = any(isinstance(cause, socket.gaierror) for cause in causes(error))
        limit = _NAME_SECONDS if is_unnamed and not self.was_reached else math.inf
        return self._within(self._back_off(), is_open=not was_not_sent(error), limit=limit)

    def _after(self, response: httpx.Response) -> float | None:
        """Return the pause before the next attempt; `None` if this response is the last."""
        if self._terms.is_final(response):
            return None
        is_put_off = self._terms.put_off(response)
        if is_put_off or response.status_code in PASSING:
            asked = self._terms.asked(response, self._timing.clock())
            if asked is None:
                return self._within(self._back_off(), is_open=not is_put_off)
            if asked > self._patience.longest_asked:
                return None
            jitter = self._timing.chance() * self._patience.first
            return self._within(asked + jitter, is_open=not is_put_off)
        if response.is_success and not self._terms.is_whole(response):
            self._unreadable += 1
            if self._unreadable < _UNREADABLE:
                return self._within(self._back_off(), is_open=True)
        return None

    def _back_off(self) -> float:
        return self._patience.back_off(self._count, self._timing.chance())

    def _within(self, pause: float, *, is_open: bool, limit: float = math.inf) -> float | None:
        """Return the pause if another attempt is allowed and in time.

        Args:
            pause: before that attempt.
            is_open: whether the server may have acted on the request.
            limit: a deadline that may be shorter than that of the patience.
        """
        self._is_open = is_open
        passed = self._timing.monotonic() - self._began
        deadline = min(limit, self._patience.deadline)
        if not self.was_reached:
            deadline = min(deadline, self._patience.unreached)
        if self._count >= self._patience.attempts or passed + pause >= deadline:
            return None
        if self._repeat == "never" or (is_open and not may_repeat(self._method, self._repeat)):
            return None
        return pause

    def _tried(self) -> str:
        if self._count == 1:
            return ""
        return f" ({self._count} attempts in {self._timing.monotonic() - self._began:.0f} s)"


def tried(response: httpx.Response) -> str:
    """Return ` (4 attempts in 7 s)`, to append to a message; empty after one attempt."""
    return str(response.extensions.get("mlship.tried", ""))
