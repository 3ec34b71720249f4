"""Requests to one registry: credentials, repetitions, and failures as errors.

Only registries on this machine, and those that `image.insecure` names, are reached without TLS.
"""

import functools
import threading
from collections.abc import Callable, Iterable
from typing import Final

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
"""What is sent: bytes, or a function that gives them anew for each attempt."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request to a registry.

    Attributes:
        url: a path, or an address that the registry gave.
        scope: what is asked for, `repository:iris:pull,push`; several with spaces between.
        stream: leave the answer's body to be read by the caller, who closes it.
    """

    method: str
    url: str | httpx.URL
    scope: str
    body: Body = None
    headers: dict[str, str] = {}
    stream: bool = False


PATIENCE: Final = Patience(deadline=240, attempts=5, first=0.5, longest=8, longest_asked=60)
"""A registry that asks for a longer pause is told to the user instead."""
_STORING: Final = httpx.Timeout(60.0, connect=10.0)
"""A registry may take longer to store what it was sent than to answer."""
_LOCAL = {"localhost", "127.0.0.1", "[::1]"}


class Exchange:
    """Sends requests to a registry.

    Args:
        host: the registry as references name it, `localhost:5000`.
        credential: gives the credentials; called once, when the registry asks for them.
        insecure: registries that are spoken to without TLS.
        reach: how it is reached.
        timing: time and randomness.
    """

    def __init__(
        self,
        host: str,
        credential: Callable[[], Credential | None],
        *,
        insecure: Iterable[str] = (),
        reach: Reach = Reach(),  # noqa: B008 (frozen)
        timing: Timing = Timing(),  # noqa: B008 (frozen)
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
        self._open: Door | None = None
        self._headers: dict[str, str] = {}
        self._lock = threading.RLock()

    def send(self, ask: Ask, *, repeat: Repeat = "always") -> httpx.Response:
        """Return the answer of the last attempt; any status but a denial may come back.

        Args:
            ask: what is asked; its body is counted in `sent` each time that it travels.
            repeat: `never` for what must not be sent again before the registry was asked.

        Raises:
            UnavailableError: the registry does not answer, asks for a long pause, or denies.
            ConfigError: Docker's credentials cannot be read.
        """
        try:
            answer = self._door.attempt(lambda: self._authorized(ask), ask.method, repeat=repeat)
        except NoAnswerError as error:
            raise self.unreachable(error) from error
        except httpx.InvalidURL as error:
            message = f"{self.host} returned an invalid URL: {error}"
            raise UnavailableError(message, hint="ask the registry's operator") from error
        return self._undenied(answer, ask.scope)

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
                terms = Terms(name=name, patience=PATIENCE, timing=self.timing)
                self._open = Door(open_client(self._reach), terms)
            return self._open

    def unreachable(self, error: NoAnswerError) -> UnavailableError:
        """Return the error for a registry that does not answer."""
        return faults.unreachable(error, self.host, str(self.url))

    def failure(self, answer: httpx.Response, what: str) -> MlshipError:
        """Return the error for a response that is not a success."""
        return faults.failure(answer, self.host, what)

    def _undenied(self, answer: httpx.Response, scope: str) -> httpx.Response:
        if answer.status_code not in (401, 403):
            return answer
        _, told = faults.words(answer)
        name, _, actions = scope.split(maxsplit=1)[0].removeprefix("repository:").rpartition(":")
        action = "push" if "push" in actions else "pull"
        what = "push to" if action == "push" else "pull from"
        message = f"{self.host} denied the {what} {name}{told}"
        hint = f"`docker login {self.host}` with an account that has access, "
        hint += "or set MLSHIP_REGISTRY_USER and MLSHIP_REGISTRY_PASSWORD"
        if is_google(self.host):
            hint = google_credentials.denied(action)
        raise UnavailableError(message, hint=hint)

    def _authorized(self, ask: Ask) -> httpx.Response:
        url = self.url.join(ask.url)
        is_own = (url.scheme, url.host, url.port) == (self.url.scheme, self.url.host, self.url.port)
        used = self._headers.get(ask.scope) if is_own else None
        answer = self._once(ask, url, used)
        if answer.status_code != 401 or not is_own:
            return answer
        asked = challenge(answer.headers.get("WWW-Authenticate", ""))
        with self._lock:
            # Another thread may have logged in meanwhile.
            is_known = self._headers.get(ask.scope) != used
            if not is_known and not (asked and self._log_in(asked, ask.scope)):
                return answer
        answer.close()
        return self._once(ask, url, self._headers[ask.scope])

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
        return client.send(request, stream=ask.stream, follow_redirects=True)

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

    def _log_in(self, asked: Challenge, scope: str) -> bool:
        """Take what the registry wants into use; tell whether there is anything."""
        found = self._credential()
        if asked.scheme == "basic":
            if found is None:
                return False
            self._headers[scope] = found.basic
            return True
        token = self._token(asked, scope, found)
        if token:
            self._headers[scope] = f"Bearer {token}"
        return bool(token)

    def _token(self, asked: Challenge, scope: str, found: Credential | None) -> str:
        realm = httpx.URL(asked.realm)
        if found and realm.scheme != "https" and not is_loopback(realm.host):
            message = f"{self.host} wants the password sent to {asked.realm} without TLS"
            raise ConfigError(message, hint="nothing was sent; ask the registry's operator")
        service = {"service": asked.service} if asked.service else {}
        client = self._door.client
        if found and found.identity_token:
            form = {"grant_type": "refresh_token", "client_id": "mlship", "scope": scope}
            form |= service | {"refresh_token": found.identity_token}
            request = client.build_request("POST", realm, data=form)
        else:
            headers = {"Authorization": found.basic} if found else {}
            query = realm.params.merge({**service, "scope": scope.split()})
            request = client.build_request("GET", realm.copy_with(params=query), headers=headers)
        answer = self._door.send(request, repeat="always")
        if answer.status_code in PUT_OFF | PASSING:
            raise self.failure(answer, f"a token of {realm.host}")
        if answer.status_code != 200:
            return ""
        told = faults.decoded(answer)
        return str(told.get("token") or told.get("access_token") or "")
