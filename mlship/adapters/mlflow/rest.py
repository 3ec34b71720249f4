"""A tracking server by its documented REST API, without importing MLflow, which takes seconds.

https://mlflow.org/docs/latest/rest-api.html; credentials come from MLflow's own variables.
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import httpx

from mlship.adapters.mlflow.faults import denied, unavailable
from mlship.errors import ConflictError, NotFoundError, shown

_SECONDS: Final = 5.0


class Server:
    """A tracking server that a client is open to."""

    def __init__(self, uri: str, client: httpx.Client) -> None:
        self._uri = uri
        self._client = client

    def get(self, path: str, query: Mapping[str, str]) -> Any:
        """Return the answer to a GET of `registered-models/get` and its like.

        Raises:
            UnavailableError: the server does not answer, or does not let us in.
            NotFoundError: it has no such object.
        """
        return self._answer("GET", path, params=dict(query))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the answer to a POST of `runs/create` and its like.

        Raises:
            UnavailableError: the server does not answer, or does not let us in. Whether it did
                what was asked is not known.
            NotFoundError: it has no such object.
            ConflictError: the object exists.
        """
        return self._answer("POST", path, json=dict(body))

    def _answer(self, method: str, path: str, **given: Any) -> Any:
        try:
            response = self._client.request(method, path, **given)
            if response.status_code in (401, 403):
                raise denied(self._uri)
            if response.is_success:
                return response.json()
        except httpx.HTTPError as error:
            raise unavailable(self._uri, str(error) or type(error).__name__) from error
        except ValueError as error:
            reason = f"{path} did not answer in JSON; is it MLflow?"
            raise unavailable(self._uri, reason) from error
        what = " ".join(str(value) for value in next(iter(given.values())).values())[:100]
        if response.status_code == 404 and "RESOURCE_DOES_NOT_EXIST" in response.text:
            message = f"MLflow at {shown(self._uri)} has no such object: {path} {what}"
            raise NotFoundError(message, hint="see `mlship status`")
        if "RESOURCE_ALREADY_EXISTS" in response.text:
            message = f"MLflow at {shown(self._uri)} has it already: {path} {what}"
            raise ConflictError(message, hint="run the command again")
        raise unavailable(self._uri, f"{path} answered {response.status_code}")


@contextmanager
def connected(uri: str, environ: Mapping[str, str]) -> Iterator[Server]:
    """Open a client to a tracking server. Nothing is asked yet."""
    headers = {}
    auth = None
    user, password = (environ.get(f"MLFLOW_TRACKING_{key}") for key in ("USERNAME", "PASSWORD"))
    if user and password:
        auth = httpx.BasicAuth(user, password)
    elif token := environ.get("MLFLOW_TRACKING_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    base = f"{uri.rstrip('/')}/api/2.0/mlflow/"
    with httpx.Client(
        base_url=base, headers=headers, auth=auth, timeout=_SECONDS, verify=_trust(environ)
    ) as client:
        yield Server(uri, client)


def check_server(uri: str, environ: Mapping[str, str]) -> None:
    """See within seconds that a server answers and lets us in.

    Raises:
        UnavailableError: it does not.
    """
    with connected(uri, environ) as server:
        server.get("experiments/search", {"max_results": "1"})


def _trust(environ: Mapping[str, str]) -> ssl.SSLContext | bool:
    if environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        return False
    return _context(environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))


@cache
def _context(authority: str | None) -> ssl.SSLContext:
    """Read the certificates once; it takes longer than a request."""
    return ssl.create_default_context(cafile=authority) if authority else httpx.create_ssl_context()
