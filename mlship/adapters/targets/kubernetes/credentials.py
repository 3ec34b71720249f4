"""Authentication of requests to a cluster: tokens, passwords, and impersonation."""

import re
import string
from collections.abc import Generator, Sequence
from pathlib import Path

import httpx

from mlship.errors import ConfigError
from mlship.files import read_regular

_LARGEST = 1 << 20
_UNSAFE = re.compile(r"[^\x20-\x7e]")
_NAME = frozenset(string.ascii_letters + string.digits + "!#$&'*+-.^_`|~")

Flow = Generator[httpx.Request, httpx.Response]
Headers = Sequence[tuple[str, str]]


class Token(httpx.Auth):
    """A token that does not change."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Flow:
        """Add the token."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


class FileToken(httpx.Auth):
    """A token in a file that is renewed, for example by the kubelet: read for each request.

    Args:
        path: of the file.
        otherwise: the token if the file cannot be read; may be empty.
    """

    def __init__(self, path: Path, otherwise: str = "") -> None:
        self._path = path
        self._otherwise = otherwise

    def auth_flow(self, request: httpx.Request) -> Flow:
        """Add the current token.

        Raises:
            ConfigError: the file has no token.
        """
        request.headers["Authorization"] = f"Bearer {self._read()}"
        yield request

    def _read(self) -> str:
        try:
            token = read_regular(self._path, _LARGEST).decode("ascii").strip()
        except (OSError, ValueError) as error:
            if self._otherwise:
                return self._otherwise
            why = getattr(error, "strerror", "") or "it is not ASCII text"
            message = f"cannot read the token in {self._path}: {why}"
            raise ConfigError(message, hint="correct tokenFile, or mount the account") from error
        if not token or not is_safe(token):
            message = f"{self._path} is empty" if not token else f"{self._path} is not a token"
            raise ConfigError(message, hint="correct tokenFile, or mount the account")
        return token


class Impersonation(httpx.Auth):
    """Adds the headers that impersonate another user to one's own credentials.

    https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
    """

    def __init__(self, headers: Headers, credentials: httpx.Auth | None) -> None:
        self._headers = headers
        self._credentials = credentials or httpx.Auth()

    def auth_flow(self, request: httpx.Request) -> Flow:
        """Add the headers once, however often the request is sent, and the credentials."""
        if "Impersonate-User" not in request.headers:
            request.headers = httpx.Headers([*request.headers.multi_items(), *self._headers])
        yield from self._credentials.auth_flow(request)


def header_name(key: str) -> str:
    """Return a key of `as-user-extra` as it may end a header's name, percent-encoded."""
    return "".join(chr(byte) if chr(byte) in _NAME else f"%{byte:02X}" for byte in key.encode())


def is_safe(text: str) -> bool:
    """Return whether text may be the value of a header: ASCII without control characters."""
    return _UNSAFE.search(text) is None
