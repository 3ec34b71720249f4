"""A tracking server by its documented REST API, without importing MLflow, which takes seconds.

https://mlflow.org/docs/latest/rest-api.html; credentials come from MLflow's own variables.
A server that is busy, restarts, or is behind a failing proxy is waited for; see `PATIENCE`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec

from mlship.adapters.http.bodies import decoded
from mlship.adapters.http.clients import Reach, open_client
from mlship.adapters.http.door import Door, NoAnswerError, Terms, tried
from mlship.adapters.http.downloads import pieces
from mlship.adapters.http.retries import PUT_OFF, Patience, Repeat, Timing
from mlship.adapters.mlflow import answers, faults, settings
from mlship.adapters.mlflow.faults import denied, unavailable
from mlship.errors import MlshipError, UnavailableError, shown

PATIENCE: Final = Patience(
    deadline=60.0, attempts=1000, first=0.5, longest=5.0, longest_asked=60.0, after_silence=True
)
"""For a command that changes something: a server that restarts takes up to half a minute."""
READING: Final = msgspec.structs.replace(PATIENCE, unreached=5.0)
"""For a command that only reads: a wrong address is reported soon."""
CHECKING: Final = msgspec.structs.replace(PATIENCE, deadline=10.0, unreached=2.0)
"""For `mlship doctor`, which reports the state of the server as it is now."""
_SECONDS: Final = 20.0
_FILES: Final = "api/2.0/mlflow-artifacts/artifacts"
_PIECE: Final = 1 << 18
_MOST_PAGES: Final = 1000
"""A million runs, or 200,000 versions: a list that is longer has no end."""
_SLOWEST: Final = 256 * 1024
"""Bytes per second: an upload at this rate does not exceed its deadline."""


class Server:
    """A connected tracking server."""

    def __init__(self, uri: str, door: Door, patience: Patience, timing: Timing) -> None:
        self._uri = uri
        self._door = door
        self._patience = patience
        self._timing = timing

    def get(self, path: str, query: Mapping[str, str], *, within: float = PATIENCE.deadline) -> Any:
        """Return the response to a GET, for example of `registered-models/get`.

        Args:
            path: of the API.
            query: its parameters.
            within: a deadline shorter than that of the patience, in seconds.

        Raises:
            UnavailableError: the server does not answer, or denies access.
            NotFoundError: it has no such object.
        """
        return self.send("GET", path, query, within=within)

    def post(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        repeat: Repeat = "idempotent",
        within: float = PATIENCE.deadline,
    ) -> Any:
        """Return the response to a POST, for example of `runs/create`.

        Args:
            path: of the API.
            body: is sent as JSON.
            repeat: `always` for a request that is idempotent; a `Look` for a creation. By default,
                a request is not repeated once the server may have acted on it.
            within: a deadline shorter than that of the patience, in seconds.

        Raises:
            UnavailableError: the server does not answer, or denies access. Whether it acted is not
                known.
            NotFoundError: it has no such object.
            ConflictError: the object exists.
            ConfigError: it rejects a value.
        """
        return self.send("POST", path, body, repeat=repeat, within=within)

    def send(
        self,
        method: str,
        path: str,
        values: Mapping[str, Any],
        *,
        repeat: Repeat = "idempotent",
        within: float = PATIENCE.deadline,
    ) -> Any:
        """Return the response to a request with its values in the query of a GET, else as JSON."""
        client, where = self._door.client, f"api/2.0/mlflow/{path}"
        arguments: dict[str, Any] = {"params" if method == "GET" else "json": dict(values)}
        request = client.build_request(method, where, **arguments)
        patience = msgspec.structs.replace(
            self._patience, deadline=min(within, self._patience.deadline)
        )
        with self._mapped(path):
            response = self._door.send(request, repeat=repeat, patience=patience)
        if response.is_success:
            try:
                return answers.answer(response, "" if method == "DELETE" else path)
            except msgspec.DecodeError as error:
                reason = f"{path} returned an unexpected answer; is it MLflow?"
                raise unavailable(self._uri, reason) from error
        what = " ".join(str(value) for value in values.values())[:100]
        raise self._refused(response, f"{path} {what}")

    def pages(
        self,
        method: str,
        path: str,
        values: Mapping[str, Any],
        *,
        within: float = PATIENCE.deadline,
    ) -> Iterator[Any]:
        """Yield the pages of the response to a search or a list.

        Args:
            method: `GET` or `POST`.
            path: of the API, `runs/search`.
            values: as for `send`.
            within: the deadline of one page, in seconds.

        Raises:
            UnavailableError: the server does not answer, denies access, or does not end the list.
            NotFoundError: it has no such object.
        """
        token, tokens = "", set[str]()
        while True:
            query = {**values, "page_token": token} if token else values
            page = self.send(method, path, query, repeat="always", within=within)
            yield page
            token = page.get("next_page_token", "")
            if not token:
                return
            if token in tokens:
                raise unavailable(self._uri, f"{path} returned the same page twice")
            if len(tokens) == _MOST_PAGES:
                raise unavailable(self._uri, f"{path} returned more than {_MOST_PAGES} pages")
            tokens.add(token)

    def create(self, path: str, body: Mapping[str, Any], find: Callable[[float], Any]) -> Any:
        """Create an object; if the response is lost, look for the object before another attempt.

        Returns:
            The response, or what `find` returned if the response was lost.

        Args:
            path: of the API, `runs/create`.
            body: is sent as JSON.
            find: returns the object, or `None`, within so many seconds.

        Raises:
            UnavailableError: the server does not answer, and the object does not exist.
            ConfigError: it rejects a value.
            ConflictError: an object of that name exists.
        """
        objects: list[Any] = []

        def is_missing(seconds: float) -> bool:
            objects.append(find(seconds))
            return objects[-1] is None

        try:
            return self.post(path, body, repeat=is_missing)
        except UnavailableError:
            if not objects or objects[-1] is None:
                raise
            return objects[-1]

    def upload(self, path: str, file: Path) -> None:
        """Store a file as an artifact, through the server's proxy of its artifact store.

        Args:
            path: below the root of that store, such as `3/<run>/artifacts/plots/roc.png`.
            file: replaces an artifact with that path.

        Raises:
            UnavailableError: the server does not answer, or denies access.
            NotFoundError: the server does not serve artifacts.
        """
        size = file.stat().st_size
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        deadline = self._patience.deadline + size / _SLOWEST
        client, where = self._door.client, f"{_FILES}/{quote(path)}"

        def once() -> httpx.Response:
            request = client.build_request("PUT", where, headers=headers, content=_read(file))
            return client.send(request)

        with self._mapped(path):
            response = self._door.attempt(
                once, "PUT", patience=msgspec.structs.replace(self._patience, deadline=deadline)
            )
        if not response.is_success:
            raise self._refused(response, path)

    def download(self, path: str, file: Path) -> None:
        """Write an artifact to a file; a broken download is resumed.

        Raises:
            UnavailableError: the server does not answer, or denies access.
            NotFoundError: the artifact does not exist.
        """
        client, where = self._door.client, f"{_FILES}/{quote(path)}"

        def open_at(offset: int) -> httpx.Response:
            headers = {"Accept-Encoding": "identity"}
            headers |= {"Range": f"bytes={offset}-"} if offset else {}
            request = client.build_request("GET", where, headers=headers)
            response = self._door.send(request, stream=True)
            if response.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
                response.read()
                raise self._refused(response, path)
            return response

        patience = msgspec.structs.replace(self._patience, attempts=10)
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._mapped(path), file.open("wb") as target:
            target.writelines(pieces(open_at, patience=patience, timing=self._timing))

    @contextmanager
    def _mapped(self, path: str) -> Iterator[None]:
        try:
            yield
        except NoAnswerError as error:
            raise unavailable(self._uri, str(error)) from error
        except httpx.InvalidURL as error:
            raise unavailable(self._uri, f"{path}: {error}") from error

    def _refused(self, response: httpx.Response, what: str) -> MlshipError:
        if response.status_code == httpx.codes.UNAUTHORIZED:
            return denied(self._uri)
        if response.status_code == httpx.codes.FORBIDDEN:
            return faults.forbidden(self._uri, what.partition(" ")[0])
        if response.is_redirect:
            target = shown(response.headers.get("Location", ""))
            return unavailable(self._uri, f"it redirects to {target}; use the address of MLflow")
        return faults.refused(response, self._uri, what, tried(response))


@contextmanager
def connected(
    uri: str,
    environ: Mapping[str, str],
    timing: Timing | None = None,
    patience: Patience = PATIENCE,
) -> Iterator[Server]:
    """Open a client to a tracking server. Nothing is requested yet.

    MLFLOW_HTTP_REQUEST_TIMEOUT sets how many seconds a server may be silent, and
    MLFLOW_HTTP_REQUEST_MAX_RETRIES how often a request is repeated.

    Raises:
        ConfigError: one of these is not a number, or the address or the credentials are invalid.
    """
    headers, auth = settings.credentials(environ)
    seconds = settings.number(environ, "MLFLOW_HTTP_REQUEST_TIMEOUT", _SECONDS, least=1)
    attempts = 1 + int(
        settings.number(environ, "MLFLOW_HTTP_REQUEST_MAX_RETRIES", patience.attempts - 1)
    )
    patience = msgspec.structs.replace(patience, attempts=attempts)
    timing = timing or Timing()
    with open_client(
        Reach(environment=environ, trust=lambda: settings.trust(environ)),
        base_url=settings.address(uri),
        headers=headers,
        auth=auth,
        timeout=httpx.Timeout(seconds, connect=min(seconds, 5.0)),
    ) as client:
        terms = Terms(
            name=f"MLflow at {shown(uri)}",
            patience=patience,
            timing=timing,
            put_off=lambda response: response.status_code in PUT_OFF or faults.was_second(response),
            is_whole=_is_whole,
        )
        yield Server(uri, Door(client, terms), patience, timing)


def _read(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while piece := source.read(_PIECE):
            yield piece


def _is_whole(response: httpx.Response) -> bool:
    """Return whether a response can be read: artifacts are streams, others JSON or empty."""
    if not response.is_closed:
        return True
    try:
        decoded(response.content or b"null", object)
    except msgspec.DecodeError:
        return False
    return True
