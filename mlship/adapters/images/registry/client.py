"""Requests to one registry: credentials, retries, and failures as errors.

Only registries on this machine, and those that `image.insecure` names, are reached without TLS.
"""

import functools
import threading
from collections.abc import Callable, Iterable
from typing import Final, Literal

import httpx
import msgspec

from mlship.adapters.http.clients import SILENCE, Reach, open_client
from mlship.adapters.http.door import Door, NoAnswerError, Terms
from mlship.adapters.http.proxies import is_loopback
from mlship.adapters.http.retries import PASSING, PUT_OFF, Patience, Repeat, Timing
from mlship.adapters.images.registry import faults, google_credentials
from mlship.adapters.images.registry.credentials import Challenge, Credential, challenge
from mlship.domain.image import DOCKER_HUB, is_google
from mlship.errors import ConfigError, MlshipError, UnavailableError

Body = bytes | Callable[[], Iterable[bytes]] | None
"""The body of a request: bytes, or a function that yields them again for each attempt."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request to a registry.

    Attributes:
        url: a path, or a URL that the registry returned.
        scope: such as `repository:iris:pull,push`; several are separated by spaces.
        stream: the caller reads the body of the response and closes it.
    """

    method: str
    url: str | httpx.URL
    scope: str
    body: Body = None
    headers: dict[str, str] = {}
    stream: bool = False


DENIED: Final = (401, 403)
PATIENCE: Final = Patience(
    deadline=240, attempts=10, first=0.5, longest=8, longest_asked=60, unreached=10
)
"""A registry that asks for a longer pause is an error.

A push has some 30 requests. With 5 attempts, one push in 14 failed where 3 requests in 10 do.
"""
READING: Final = Patience(deadline=30, attempts=4, longest=4, longest_asked=10)
"""For commands that only read."""
_STORING: Final = httpx.Timeout(60.0, connect=10.0)
"""Storing a body may take a registry longer than other requests."""
_REDIRECTS: Final = 10
_SAFE: Final = ("GET", "HEAD")
_SAME_METHOD: Final = (307, 308)
"""Redirects that leave method and body as they are (RFC 9110, section 15.4)."""
_LOCAL = {"localhost", "127.0.0.1", "[::1]"}


class Exchange:
    """Sends requests to a registry.

    Args:
        host: the registry as in references, such as `localhost:5000`.
        credential: returns the credentials; called once, when the registry requires them.
        insecure: registries without TLS.
        reach: proxy, certificates and transport.
        timing: time and randomness.
        patience: how long the registry is waited for.
    """

    def __init__(
        self,
        host: str,
        credential: Callable[[], Credential | None],
        *,
        insecure: Iterable[str] = (),
        reach: Reach = Reach(),  # noqa: B008 (frozen)
        timing: Timing = Timing(),  # noqa: B008 (frozen)
        patience: Patience = PATIENCE,
    ) -> None:
        self.host = host
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        is_plain = name in _LOCAL or host in _LOCAL or host in set(insecure)
        where = "registry-1.docker.io" if host == DOCKER_HUB else host
        self.url = httpx.URL(f"{'http' if is_plain else 'https'}://{where}")
        self.sent = 0
        self._credential = functools.cache(credential)
        self._reach = reach
        self.timing = timing
        self.patience = patience
        self._open: Door | None = None
        self._headers: dict[str, str] = {}
        self._lock = threading.RLock()

    def send(
        self, ask: Ask, *, repeat: Repeat = "always", may_be_denied: bool = False
    ) -> httpx.Response:
        """Return the response of the last attempt, with any status except 401 and 403.

        Args:
            ask: the request; its body is counted in `sent` for each attempt.
            repeat: `never` for a request that must not be repeated blindly.
            may_be_denied: return also a response of status 401 or 403.

        Raises:
            UnavailableError: the registry does not answer, asks for a long pause, or denies access.
            ConfigError: Docker's credentials cannot be read.
        """
        try:
            response = self._door.attempt(lambda: self._authorized(ask), ask.method, repeat=repeat)
        except NoAnswerError as error:
            raise self.unreachable(error) from error
        except httpx.InvalidURL as error:
            message = f"{self.host} returned an invalid URL: {error}"
            raise UnavailableError(message, hint="ask the registry's operator") from error
        return response if may_be_denied else self.allowed(response, ask.scope)

    def close(self) -> None:
        """Close the connections; the next request opens another."""
        with self._lock:
            if self._open is not None:
                self._open.client.close()
            self._open = None

    @property
    def _door(self) -> Door:
        with self._lock:
            if self._open is None:
                name = f"registry {self.host}"
                terms = Terms(name=name, patience=self.patience, timing=self.timing)
                self._open = Door(open_client(self._reach), terms)
            return self._open

    def unreachable(self, error: NoAnswerError) -> UnavailableError:
        """Return the error for a registry that does not answer."""
        return faults.unreachable(error, self.host, str(self.url))

    def failure(self, response: httpx.Response, what: str) -> MlshipError:
        """Return the error for a response that is not a success."""
        return faults.failure(response, self.host, what)

    def allowed(self, response: httpx.Response, scope: str) -> httpx.Response:
        """Return a response that is not a denial.

        Raises:
            UnavailableError: it is one.
        """
        if response.status_code not in DENIED:
            return response
        _, details = faults.words(response)
        name, _, actions = scope.split(maxsplit=1)[0].removeprefix("repository:").rpartition(":")
        action: Literal["push", "pull"] = "push" if "push" in actions else "pull"
        what = "push to" if action == "push" else "pull from"
        what = "deletion in" if "delete" in actions else what
        message = f"{self.host} denied the {what} {name}{details}"
        hint = faults.log_in(self.host, action)
        if is_google(self.host):
            hint = google_credentials.denied(action)
        raise UnavailableError(message, hint=hint)

    def _authorized(self, ask: Ask) -> httpx.Response:
        url = self.url.join(ask.url)
        authorization = self._headers.get(ask.scope)
        response = self._followed(ask, url, authorization)
        # Another host, to which the registry redirected, is not to be told a password.
        if response.status_code != 401 or not self._is_own(response.url):
            return response
        wanted = challenge(response.headers.get("WWW-Authenticate", ""))
        with self._lock:
            # Another thread may have logged in meanwhile.
            is_known = self._headers.get(ask.scope) != authorization
            if not is_known and not (wanted and self._log_in(wanted, ask.scope)):
                return response
        response.close()
        return self._followed(ask, url, self._headers[ask.scope])

    def _is_own(self, url: httpx.URL) -> bool:
        own = self.url
        return (url.scheme, url.host, url.port) == (own.scheme, own.host, own.port)

    def _followed(self, ask: Ask, url: httpx.URL, authorization: str | None) -> httpx.Response:
        """Send a request, and follow redirects; only the registry itself gets credentials.

        Unlike httpx, it sends a body that is streamed again.

        Raises:
            UnavailableError: a URL without TLS follows one with TLS.
        """
        for _ in range(_REDIRECTS):
            self._check_tls(url)
            authorization = authorization if self._is_own(url) else None
            response = self._once(ask, url, authorization)
            if not response.has_redirect_location or (
                ask.method not in _SAFE and response.status_code not in _SAME_METHOD
            ):
                return response
            response.close()
            url = response.url.join(response.headers["Location"])
        raise httpx.TooManyRedirects(f"more than {_REDIRECTS} redirects")

    def _check_tls(self, url: httpx.URL) -> None:
        if self.url.scheme == "https" and url.scheme == "http" and not is_loopback(url.host):
            message = f"{self.host} returned a URL without TLS: {url.copy_with(query=None)}"
            hint = "nothing was sent there; a proxy in front of the registry must set "
            hint += "X-Forwarded-Proto, or the registry must know its own address"
            raise UnavailableError(message, hint=hint)

    def _once(self, ask: Ask, url: httpx.URL, authorization: str | None) -> httpx.Response:
        own = {"Authorization": authorization} if authorization else {}
        client = self._door.client
        request = client.build_request(
            ask.method,
            url,
            headers={**ask.headers, **own},
            content=self._counted(ask.body),
            timeout=SILENCE if ask.body is None else _STORING,
        )
        return client.send(request, stream=ask.stream)

    def _counted(self, body: Body) -> bytes | Iterable[bytes] | None:
        if body is None:
            return None
        if isinstance(body, bytes):
            self._count(len(body))
            return body
        return self._counting(body())

    def _counting(self, pieces: Iterable[bytes]) -> Iterable[bytes]:
        for piece in pieces:
            yield piece
            self._count(len(piece))

    def _count(self, size: int) -> None:
        with self._lock:
            self.sent += size

    def _log_in(self, challenge: Challenge, scope: str) -> bool:
        """Store the header that the registry requires; return whether there is one."""
        credential = self._credential()
        if challenge.scheme == "basic":
            if credential is None:
                return False
            self._headers[scope] = credential.basic
            return True
        token = self._token(challenge, scope, credential)
        if token:
            self._headers[scope] = f"Bearer {token}"
        return bool(token)

    def _token(self, challenge: Challenge, scope: str, credential: Credential | None) -> str:
        realm = httpx.URL(challenge.realm)
        if credential and realm.scheme != "https" and not is_loopback(realm.host):
            message = f"{self.host} asks to send the password without TLS to {challenge.realm}"
            raise ConfigError(message, hint="nothing was sent; ask the registry's operator")
        service = {"service": challenge.service} if challenge.service else {}
        client = self._door.client
        if credential and credential.identity_token:
            form = {"grant_type": "refresh_token", "client_id": "mlship", "scope": scope}
            form |= service | {"refresh_token": credential.identity_token}
            request = client.build_request("POST", realm, data=form)
        else:
            headers = {"Authorization": credential.basic} if credential else {}
            query = realm.params.merge({**service, "scope": scope.split()})
            request = client.build_request("GET", realm.copy_with(params=query), headers=headers)
        response = self._door.send(request, repeat="always")
        if response.status_code in PUT_OFF | PASSING:
            raise self.failure(response, f"a token of {realm.host}")
        if response.status_code != 200:
            return ""
        tokens = faults.decoded(response)
        return str(tokens.get("token") or tokens.get("access_token") or "")
