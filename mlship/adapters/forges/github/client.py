"""The one door to GitHub's REST API: the token, pages, rate limits, and failures as errors.

Source: https://docs.github.com/en/rest/using-the-rest-api
"""

import math
import weakref
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from mlship.adapters.forges.github.answers import Answer, Purpose, Shape, fault
from mlship.adapters.http.clients import Reach, open_client
from mlship.adapters.http.door import Door, NoAnswerError, Terms
from mlship.adapters.http.retries import Patience, Repeat, Timing, retry_after
from mlship.errors import UnavailableError

_VERSION: Final = "2022-11-28"
_PAGES: Final = 100
"""A list of more pages than this does not end."""
_PATIENCE: Final = Patience(deadline=240, attempts=4, first=0.5, longest=4, longest_asked=60)


class Rest:
    """Sends requests to the API of one GitHub.

    Args:
        url: of the API.
        token: the credentials.
        reach: how it is reached.
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
            name="GitHub", patience=_PATIENCE, timing=timing, put_off=_is_put_off, asked=_asked
        )
        self._door = Door(client, terms)
        weakref.finalize(self, client.close)

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
                    hint="check that GITHUB_API_URL is the address that the server has for itself",
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
        """Return GitHub's answer.

        A request that it put off is sent again. One that failed on the way is too, unless it makes
        something new: a comment might have been posted.
        """
        repeat: Repeat = "idempotent" if method == "POST" else "always"
        request = self._door.client.build_request(method, url, json=body)
        try:
            response = self._door.send(request, repeat=repeat)
        except NoAnswerError as error:
            raise self._unreachable(error) from error
        if _is_put_off(response):
            raise self._limited(_asked(response, self._clock()))
        return response

    def _limited(self, seconds: float | None) -> UnavailableError:
        until = datetime.fromtimestamp(math.ceil(self._clock() + (seconds or 0.0)), UTC)
        return UnavailableError(
            f"GitHub's rate limit of this token is exhausted until {until:%Y-%m-%d %H:%M:%S} UTC",
            hint="run the command again after that",
        )

    def _unreachable(self, error: NoAnswerError) -> UnavailableError:
        return UnavailableError(
            f"{self._url} cannot be reached: {error}",
            hint="check https://www.githubstatus.com and GITHUB_API_URL, then run it again",
        )


def _is_put_off(response: httpx.Response) -> bool:
    """Tell whether GitHub refused a request because of a limit.

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


def _asked(response: httpx.Response, now: float) -> float | None:
    """Return for how many seconds GitHub wants no request; `None` where it does not say."""
    headers = response.headers
    wait = retry_after(headers.get("retry-after"), now)
    if wait is None and headers.get("x-ratelimit-remaining") == "0":
        reset = _number(headers.get("x-ratelimit-reset"))
        wait = None if reset is None else reset - now
    if not _is_put_off(response):
        return wait
    return 60.0 if wait is None else max(1.0, wait)


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
