"""HTTP clients: certificates, proxies, and connections that are opened on demand."""

import functools
import os
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

import httpx
import msgspec

from mlship.adapters.http import bodies
from mlship.adapters.http.connections import bound
from mlship.adapters.http.proxies import is_loopback, proxy_for
from mlship.adapters.http.retries import ProxyTimeout, causes
from mlship.errors import ConfigError, shown

_T = TypeVar("_T")
SILENCE = httpx.Timeout(20.0, connect=10.0)
"""How long a server may be silent, in seconds."""
_KEPT = httpx.Limits(keepalive_expiry=2.0)
"""Servers close idle connections after 5 s or more; a request must not coincide with that."""


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """How a server is reached.

    Attributes:
        environment: has the proxies; by default the process's own.
        trust: returns the trusted certificates on demand: reading them takes longer than a request.
        proxy: of this server, instead of the environment's.
        transport: replaces the server in tests.
    """

    environment: Mapping[str, str] | None = None
    trust: Callable[[], ssl.SSLContext] | None = None
    proxy: str | None = None
    transport: httpx.BaseTransport | None = None


def open_client(
    reach: Reach,
    *,
    base_url: str = "",
    headers: Mapping[str, str] | None = None,
    auth: httpx.Auth | None = None,
    timeout: httpx.Timeout = SILENCE,
) -> httpx.Client:
    """Open a client; nothing is connected yet.

    It never follows a redirect from https to http, and limits the responses that it reads.
    """
    defaults = {"User-Agent": "mlship", "Accept-Encoding": bodies.ENCODINGS}
    return bodies.Client(
        base_url=base_url,
        headers={**defaults, **(headers or {})},
        auth=auth,
        timeout=timeout,
        transport=reach.transport or _Routes(reach),
        event_hooks={"request": [_refuse_downgrade], "response": [bodies.limit]},
        trust_env=False,
    )


@functools.cache
def system_trust() -> ssl.SSLContext:
    """Return the trusted certificates: SSL_CERT_FILE, SSL_CERT_DIR or certifi's.

    Raises:
        ConfigError: the variable does not name certificates.
    """
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if os.environ.get(name):
            return named_trust(name, os.environ[name], httpx.create_ssl_context)
    return httpx.create_ssl_context()


def named_trust(name: str, path: str, read: Callable[[], _T]) -> _T:
    """Read certificates from the path in an environment variable.

    Raises:
        ConfigError: they cannot be read; the message names the variable and the path.
    """
    try:
        return read()
    except (OSError, ValueError) as error:
        is_other = isinstance(error, ssl.SSLError)
        reason = getattr(error, "strerror", "") or str(error)
        reason = "it has no certificates in PEM format" if is_other else reason
        message = f"{name}: cannot use {path}: {reason}"
        hint = f"set {name} to a file of certificates, or unset it"
        raise ConfigError(message, hint=hint) from error


class _Routes(httpx.BaseTransport):
    """Sends each request directly or through its proxy; connections are opened on demand.

    Each thread has connections of its own. Where threads share them, one may close an idle
    connection that another has just chosen, whose request then waits until its time limit
    (httpcore, issue 1110).
    """

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._transports: dict[tuple[str | None, bool, int], httpx.HTTPTransport] = {}
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        proxy = self._proxy(request.url)
        try:
            return self._transport(request.url, proxy).handle_request(request)
        except UnicodeError as error:
            message = f"{request.url.host[:80]} is not a valid host name"
            raise httpx.LocalProtocolError(message, request=request) from error
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            # A TLS error comes from the server behind the proxy.
            if proxy is None or any(isinstance(cause, ssl.SSLError) for cause in causes(error)):
                raise
            kind = ProxyTimeout if isinstance(error, httpx.TimeoutException) else type(error)
            message = f"proxy {shown(proxy)}: {str(error) or 'timed out'}"
            raise kind(message, request=request) from error

    def close(self) -> None:
        with self._lock:
            for transport in self._transports.values():
                transport.close()
            self._transports.clear()

    def _proxy(self, url: httpx.URL) -> str | None:
        environment = self._reach.environment
        return self._reach.proxy or proxy_for(
            url, os.environ if environment is None else environment
        )

    def _transport(self, url: httpx.URL, proxy: str | None) -> httpx.HTTPTransport:
        key = (proxy, url.scheme == "https", threading.get_ident())
        with self._lock:
            if key not in self._transports:
                self._transports[key] = self._opened(proxy, is_secure=key[1])
            return self._transports[key]

    def _opened(self, proxy: str | None, *, is_secure: bool) -> httpx.HTTPTransport:
        needs_trust = is_secure or (proxy is not None and proxy.startswith("https:"))
        trust = (self._reach.trust or system_trust)() if needs_trust else False
        try:
            transport = httpx.HTTPTransport(
                verify=trust, proxy=proxy, limits=_KEPT, trust_env=False
            )
        except ImportError as error:
            message = f"the SOCKS proxy {shown(proxy or '')} needs the package socksio"
            raise ConfigError(message, hint='pip install "httpx[socks]"') from error
        bound(transport)
        return transport


def _refuse_downgrade(request: httpx.Request) -> None:
    """Refuse a redirect from https to http on another machine.

    A redirected request has the extensions of the original one.
    """
    scheme = request.extensions.setdefault("mlship.scheme", request.url.scheme)
    if scheme == "https" and request.url.scheme == "http" and not is_loopback(request.url.host):
        message = f"redirect from https to {request.url.copy_with(query=None)}"
        raise httpx.UnsupportedProtocol(message, request=request)
