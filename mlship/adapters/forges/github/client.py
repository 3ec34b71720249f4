"""The client of GitHub's REST API: token, pages, rate limits, and errors for failures.

Source: https://docs.github.com/en/rest/using-the-rest-api
"""

import math
import weakref
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from mlship.adapters.forges.github.responses import Purpose, Response, Shape, fault
from mlship.adapters.http.clients import Reach, open_client
from mlship.adapters.http.door import Door, NoAnswerError, Terms
from mlship.adapters.http.retries import Patience, Repeat, Timing, retry_after
from mlship.errors import UnavailableError

_VERSION: Final = "2022-11-28"
_PAGES: Final = 100
"""The most pages of a list that are read, against an endless list."""
_PATIENCE: Final = Patience(deadline=240, attempts=4, first=0.5, longest=4, longest_asked=60)


class Rest:
    """Sends requests to the API of one GitHub server.

    Args:
        url: of the API.
        token: the credentials.
        reach: how the server is reached.
        timing: time and randomness.
    """

    def __init__(self, url: str, token: str, *, reach: Reach, timing: Timing) -> None:
        self._url = url.rstrip("/")
        self._clock = timing.clock
        client = open_client(
            reach,
            headers={
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {token}",
                "X-GitHub-Api-Version": _VERSION,
            },
        )
        terms = Terms(
            name="GitHub",
            patience=_PATIENCE,
            timing=timing,
            put_off=_is_limited,
            asked=_wait_seconds,
        )
        self._door = Door(client, terms)
        weakref.finalize(self, client.close)

    def get(self, path: str, purpose: Purpose, *, accept: frozenset[int] = frozenset()) -> Response:
        """Send a GET request; a status in `accept` is not an error."""
        return _checked(self._send("GET", self._url + path, None), purpose, accept)

    def pages(
        self, path: str, params: Mapping[str, str], purpose: Purpose, shape: type[Shape]
    ) -> Iterator[Shape]:
        """Yield the items of a list, page by page, by the Link header.

        Raises:
            UnavailableError: a page is on another server, which must not get the token.
        """
        query = httpx.QueryParams({**params, "per_page": "100"})
        url: str | None = f"{self._url}{path}?{query}"
        for _ in range(_PAGES):
            if url is None:
                return
            response = self._send("GET", url, None)
            yield from _checked(response, purpose, frozenset()).read(list[shape])  # type: ignore[valid-type]
            url = response.links.get("next", {}).get("url")
            if url is not None and not url.startswith(f"{self._url}/"):
                raise UnavailableError(
                    f"GitHub continues a list on another server: {url[:200]}",
                    hint="check that GITHUB_API_URL is the URL that the server uses in its links",
                )

    def write(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any],
        purpose: Purpose,
        *,
        accept: frozenset[int] = frozenset(),
        once: bool = False,
    ) -> Response:
        """Send a request that changes something; a status in `accept` is not an error.

        With `once`, it is not sent again after a failure.
        """
        received = self._send(method, self._url + path, body, once=once)
        return _checked(received, purpose, accept)

    def _send(
        self, method: str, url: str, body: Mapping[str, Any] | None, *, once: bool = False
    ) -> httpx.Response:
        """Send a request and return the response.

        A request that was rejected because of a rate limit is sent again. After a network error, a
        request is sent again unless it creates something, which may exist already.
        """
        repeat: Repeat = "idempotent" if method == "POST" else "always"
        if once:
            repeat = "never"
        request = self._door.client.build_request(method, url, json=body)
        try:
            response = self._door.send(request, repeat=repeat)
        except NoAnswerError as error:
            raise self._unreachable(error) from error
        if _is_limited(response):
            raise self._limited(_wait_seconds(response, self._clock()))
        return response

    def _limited(self, seconds: float | None) -> UnavailableError:
        until = datetime.fromtimestamp(math.ceil(self._clock() + (seconds or 0.0)), UTC)
        return UnavailableError(
            f"the rate limit of GitHub is exceeded until {until:%Y-%m-%d %H:%M:%S} UTC",
            hint="run the command again after that time",
        )

    def _unreachable(self, error: NoAnswerError) -> UnavailableError:
        return UnavailableError(
            f"cannot reach {self._url}: {error}",
            hint="check https://www.githubstatus.com and GITHUB_API_URL, then retry",
        )


def _is_limited(response: httpx.Response) -> bool:
    """Return whether GitHub rejected a request because of a rate limit.

    Source: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
    """
    if response.status_code == 429:
        return True
    headers = response.headers
    return response.status_code == 403 and (
        headers.get("x-ratelimit-remaining") == "0"
        or "retry-after" in headers
        or "rate limit" in response.text.casefold()
    )


def _wait_seconds(response: httpx.Response, now: float) -> float | None:
    """Return the seconds until GitHub accepts requests again; `None` if unknown."""
    headers = response.headers
    wait = retry_after(headers.get("retry-after"), now)
    if wait is None and headers.get("x-ratelimit-remaining") == "0":
        reset = _number(headers.get("x-ratelimit-reset"))
        wait = None if reset is None else reset - now
    if not _is_limited(response):
        return wait
    return 60.0 if wait is None else max(1.0, wait)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _checked(received: httpx.Response, purpose: Purpose, accept: frozenset[int]) -> Response:
    response = Response(received.status_code, received.content)
    if received.is_success or response.status in accept:
        return response
    raise fault(response, purpose)
