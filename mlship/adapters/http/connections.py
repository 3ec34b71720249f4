"""Connections whose reads end with the deadline of a request.

httpx limits each read. A server that sends one byte of its headers every few seconds meets that
limit for ever, so the reads of one request have a limit together.
"""

import ssl
from typing import Any, Final

import httpcore
import httpx

from mlship.adapters.http.bodies import DEADLINE, GRACE

_ANSWER: Final = 20.0
"""Seconds for the response to a request whose upload exceeded the deadline."""


def bound(transport: httpx.HTTPTransport) -> None:
    """Make the connections of a transport, which has none yet, end their reads in time."""
    # httpx has no parameter for the network backend of its pool, direct or through a proxy.
    pool: Any = transport._pool  # noqa: SLF001
    pool._network_backend = _Backend(pool._network_backend)  # noqa: SLF001


class _Backend(httpcore.NetworkBackend):
    """Opens connections of another backend, with limited reads."""

    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return _Stream(self._backend.connect_tcp(*args, **options))

    def connect_unix_socket(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return _Stream(self._backend.connect_unix_socket(*args, **options))

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class _Stream(httpcore.NetworkStream):
    """A connection whose reads end with the deadline of the request that this thread sends."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._written = float("-inf")

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        deadline = DEADLINE.get()
        if deadline is None:  # a body that its caller streams
            return self._stream.read(max_bytes, timeout)
        is_late = self._written > deadline.end
        end = self._written + _ANSWER if is_late else deadline.end + GRACE
        left = end - deadline.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the response did not end in time")
        return self._stream.read(max_bytes, left if timeout is None else min(timeout, left))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)
        deadline = DEADLINE.get()
        if deadline is not None:
            self._written = deadline.monotonic()

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
