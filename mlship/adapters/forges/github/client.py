"""The one door to GitHub's REST API: who we are, pages, patience, and faults in a person's words.

Source: https://docs.github.com/en/rest/using-the-rest-api
"""

import math
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from mlship.adapters.forges.github.answers import Answer, Purpose, Shape, fault
from mlship.errors import UnavailableError

_VERSION: Final = "2022-11-28"
_TIMEOUT: Final = httpx.Timeout(20.0, connect=10.0)
_PAGES: Final = 100
"""More than this many pages are an answer that runs in circles."""
_PATIENCE: Final = 60.0
"""Seconds that are waited at once; who wants more is told to the user instead."""
_ATTEMPTS: Final = 4
_PASSING: Final = {500, 502, 503, 504}


class Rest:
    """Sends requests to the API of one GitHub.

    Args:
        url: of the API.
        token: tells who we are.
        transport: answers in GitHub's place, in tests.
        pause: waits so many seconds.
        clock: tells the seconds since 1970, as the limits do.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        transport: httpx.BaseTransport | None = None,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url.rstrip("/")
        self._pause = pause
        self._clock = clock
        self._client = httpx.Client(
            headers={
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {token}",
                "User-Agent": "mlship",
                "X-GitHub-Api-Version": _VERSION,
            },
            timeout=_TIMEOUT,
            transport=transport,
        )
        weakref.finalize(self, self._client.close)

    def get(self, path: str, purpose: Purpose, *, accept: frozenset[int] = frozenset()) -> Answer:
        """Return the answer to a question; a status of `accept` is no error."""
        return _judged(self._send("GET", self._url + path, None), purpose, accept)

    def pages(
        self, path: str, params: Mapping[str, str], purpose: Purpose, shape: type[Shape]
    ) -> Iterator[Shape]:
        """Give the items of a list, page by page, as the Link header leads.

        Raises:
            UnavailableError: a page lies on another server, which must not get the token.
        """
        query = httpx.QueryParams({**params, "per_page": "100"})
        url: str | None = f"{self._url}{path}?{query}"
        for _ in range(_PAGES):
            if url is None:
                return
            response = self._send("GET", url, None)
            yield from _judged(response, purpose, frozenset()).read(list[shape])  # type: ignore[valid-type]
            url = response.links.get("next", {}).get("url")
            if url is not None and not url.startswith(f"{self._url}/"):
                raise UnavailableError(
                    f"GitHub continues a list on another server: {url[:200]}",
                    hint="look whether GITHUB_API_URL is what the server calls itself",
                )

    def write(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any],
        purpose: Purpose,
        *,
        accept: frozenset[int] = frozenset(),
    ) -> Answer:
        """Change something; a status of `accept` is no error."""
        return _judged(self._send(method, self._url + path, body), purpose, accept)

    def _send(self, method: str, url: str, body: Mapping[str, Any] | None) -> httpx.Response:
        """Return the answer of the last attempt.

        What GitHub put off is sent again. What failed on the way is sent again too, unless it makes
        something new: a comment might have been posted. Who was silent for long is silent.
        """
        for attempt in range(_ATTEMPTS):
            is_last = attempt == _ATTEMPTS - 1
            is_final = is_last or method == "POST"
            try:
                response = self._client.request(method, url, json=body)
            except httpx.TransportError as error:
                if is_final or isinstance(error, httpx.TimeoutException):
                    raise self._silent(error) from error
                self._pause(0.5 * 2**attempt)
                continue
            delay = self._put_off(response)
            if delay is not None:
                if is_last or delay > _PATIENCE:
                    raise self._limited(delay)
                self._pause(delay)
            elif response.status_code in _PASSING and not is_final:
                self._pause(0.5 * 2**attempt)
            else:
                return response
        raise AssertionError(method)  # the last attempt returns or raises

    def _put_off(self, response: httpx.Response) -> float | None:
        """Return for how many seconds GitHub wants no request; `None` where it answered.

        Source: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
        """
        headers = response.headers
        is_spent = headers.get("x-ratelimit-remaining") == "0"
        is_named = (
            "rate limit" in response.text.casefold() if response.status_code == 403 else False
        )
        if response.status_code != 429 and not (
            response.status_code == 403 and (is_spent or is_named or "retry-after" in headers)
        ):
            return None
        wait = _number(headers.get("retry-after"))
        if wait is None and is_spent:
            reset = _number(headers.get("x-ratelimit-reset"))
            wait = None if reset is None else reset - self._clock()
        return 60.0 if wait is None else max(1.0, wait)

    def _limited(self, delay: float) -> UnavailableError:
        until = datetime.fromtimestamp(math.ceil(self._clock() + delay), UTC)
        return UnavailableError(
            f"GitHub takes no more requests of this token until {until:%Y-%m-%d %H:%M:%S} UTC",
            hint="run the command again after that",
        )

    def _silent(self, error: httpx.TransportError) -> UnavailableError:
        kind = "did not answer in time" if isinstance(error, httpx.TimeoutException) else str(error)
        return UnavailableError(
            f"{self._url} cannot be reached: {kind or type(error).__name__}",
            hint="look at https://www.githubstatus.com and at GITHUB_API_URL, then run it again",
        )


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _judged(response: httpx.Response, purpose: Purpose, accept: frozenset[int]) -> Answer:
    answer = Answer(response.status_code, response.content)
    if response.is_success or answer.status in accept:
        return answer
    raise fault(answer, purpose)
