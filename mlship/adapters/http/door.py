"""Requests to one server: through its proxy, with time limits, again where that is right.

An adapter opens a client, puts a `Door` before it and gives its own words to what comes back:

    door = Door(open_client(Reach(), base_url=url), Terms(name="registry localhost:5000"))
    response = door.send(door.client.build_request("GET", "/v2/"))
"""

import logging
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
"""So many answers of success that cannot be read are an error of the server, not of the way."""
_TOLD = 1.0
"""Pauses from so many seconds on are told."""
_LOG = logging.getLogger("mlship")


class NoAnswerError(Exception):
    """A server gave no answer; the text is the reason, with how often and how long it was tried.

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
        """The reason why there was no trusted connection; `None` where that was not it."""
        return next((one for one in causes(self.error) if isinstance(one, ssl.SSLError)), None)


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How a door deals with its server.

    Attributes:
        name: the server for people.
        patience: how long it is waited for.
        timing: time and randomness.
        put_off: whether the server put the request off without acting on it.
        asked: the seconds that it asks to wait, where it says so; by default in Retry-After.
        is_final: whether an answer is the last one, whatever its status.
        is_whole: whether the body of a success can be read; what a proxy answers often cannot.
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

    def send(
        self,
        request: httpx.Request,
        *,
        repeat: Repeat = "idempotent",
        stream: bool = False,
        follow: bool = False,
        patience: Patience | None = None,
    ) -> httpx.Response:
        """Return the answer of the last attempt, whatever its status.

        Args:
            request: its body can be read again; see `attempt` for one that cannot.
            repeat: what may be done again.
            stream: leave the body of a success to the caller, who closes the response.
            follow: follow redirects.
            patience: for this request, instead of the door's.

        Raises:
            NoAnswerError: there was no answer within the deadline.
            ConfigError: the environment's proxy cannot be used.
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
        """Do something that ends in a response, again as `send` does.

        Raises:
            NoAnswerError: there was no answer within the deadline.
        """
        patience = patience or self._terms.patience
        return _Attempts(self._terms, patience, once, method, repeat).run()


class _Attempts:
    """The attempts of one request."""

    def __init__(
        self,
        terms: Terms,
        patience: Patience,
        once: Callable[[], httpx.Response],
        method: str,
        repeat: Repeat,
    ) -> None:
        self._terms, self._timing, self._patience = terms, terms.timing, patience
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
        """Make one attempt; the deadline holds for the body that is read in it too."""
        end = self._began + self._patience.deadline
        token = DEADLINE.set(Deadline(end, self._timing.monotonic))
        try:
            response = self._once()
            if response.is_error:
                response.read()
            return response
        finally:
            DEADLINE.reset(token)

    def _waited(self, pause: float, reason: str) -> bool:
        """Wait; tell whether the request may be sent again after that."""
        if pause >= _TOLD:
            _LOG.warning("%s: %s; next attempt in %.0f s", self._terms.name, reason, pause)
        self._timing.pause(pause)
        return not self._is_open or not callable(self._repeat) or self._repeat(self._left())

    def _left(self) -> float:
        passed = self._timing.monotonic() - self._began
        return max(1.0, self._patience.deadline - passed)

    def _after_error(self, error: httpx.RequestError) -> float | None:
        """Return the pause before the next attempt; `None` where this one was the last."""
        is_silent = isinstance(error, httpx.TimeoutException)
        if is_final(error) or (is_silent and not self._patience.after_silence):
            return None
        return self._within(self._back_off(), is_open=not was_not_sent(error))

    def _after(self, response: httpx.Response) -> float | None:
        """Return the pause before the next attempt; `None` where this answer is the last."""
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

    def _within(self, pause: float, *, is_open: bool) -> float | None:
        """Return the pause where another attempt is allowed and has time.

        Args:
            pause: before that attempt.
            is_open: whether the server may have acted on the request.
        """
        self._is_open = is_open
        passed = self._timing.monotonic() - self._began
        if self._count >= self._patience.attempts or passed + pause >= self._patience.deadline:
            return None
        if self._repeat == "never" or (is_open and not may_repeat(self._method, self._repeat)):
            return None
        return pause

    def _tried(self) -> str:
        if self._count == 1:
            return ""
        return f" ({self._count} attempts in {self._timing.monotonic() - self._began:.0f} s)"


def tried(response: httpx.Response) -> str:
    """Return ` (4 attempts in 7 s)`, to be put after a message; empty after one attempt."""
    return str(response.extensions.get("mlship.tried", ""))
