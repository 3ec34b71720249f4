"""A proxy before a real server over HTTP, which answers in its place as a test tells it to."""

import dataclasses
import http.client
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_PIECE = 1 << 18
_HOP = {"connection", "keep-alive", "transfer-encoding"}


@dataclasses.dataclass(kw_only=True)
class Fault:
    """What is answered in the server's place.

    Attributes:
        status: 0 is silence for as long as the client waits.
        at: a pattern of `METHOD path`; by default of all requests.
        times: so many requests meet it; by default all.
    """

    status: int
    body: str = ""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    at: str = ""
    times: int | None = None

    def meets(self, request: str) -> bool:
        """Tell whether a request meets it, and count that."""
        if self.times == 0 or not re.search(self.at, request):
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Proxy:
    """Forwards to one server.

    Args:
        upstream: `http://host:port`, `https://host:port` or `unix:///path`.
        trust: for https.
        address: where it listens.
        identity: its certificate and key, for one that speaks TLS itself.

    Attributes:
        faults: that are met now; the first that fits.
        seen: `METHOD path` of each request, in order.
    """

    def __init__(
        self,
        upstream: str,
        trust: ssl.SSLContext | None = None,
        *,
        address: str = "127.0.0.1",
        identity: Path | None = None,
    ) -> None:
        self.upstream, self.trust = urlsplit(upstream), trust
        self._address, self._identity = address, identity
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self.lock = threading.Lock()
        self.over = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.up()

    @property
    def host(self) -> str:
        return f"{self._address}:{self.port}"

    def up(self) -> None:
        """Listen: the first time at a free port, then at the same one again."""
        if self._server is not None:
            return
        self.over.clear()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server((self._address, self.port), handler)
        if self._identity is not None:
            own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            own.load_cert_chain(self._identity)
            self._server.socket = own.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()

    def down(self) -> None:
        """Listen no more: connections are refused."""
        self.over.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def fault(self, request: str) -> Fault | None:
        """Return the fault that a request meets."""
        with self.lock:
            self.seen.append(request)
            return next((one for one in self.faults if one.meets(request)), None)


class _Local(http.client.HTTPConnection):
    """A connection to a socket in the file system."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away, or that speaks no TLS."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (http.server's name)
        pass

    def _serve(self) -> None:
        fault = self.proxy.fault(f"{self.command} {self.path}")
        with suppress(OSError, http.client.HTTPException):
            if fault is None:
                self._forward()
            else:
                self._answer(fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

    def _answer(self, fault: Fault) -> None:
        if fault.status == 0:
            self.proxy.over.wait(120)
            self.close_connection = True
            return
        for _ in self._body():
            pass
        data = b"" if self.command == "HEAD" else fault.body.encode()
        self.send_response(fault.status)
        for name, value in {"Content-Type": "application/json", **fault.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _forward(self) -> None:
        # A client may say in several fields what it accepts.
        headers = {
            name: ", ".join(self.headers.get_all(name) or ())
            for name in self.headers
            if name.lower() not in _HOP
        }
        has_body = "Content-Length" in self.headers or "Transfer-Encoding" in self.headers
        connection = self._connection()
        try:
            is_chunked = has_body and "Content-Length" not in self.headers
            body = self._body() if has_body else None
            connection.request(self.command, self.path, body, headers, encode_chunked=is_chunked)
            self._give(connection.getresponse())
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        where = self.proxy.upstream
        if where.scheme == "https":
            return http.client.HTTPSConnection(where.netloc, context=self.proxy.trust, timeout=60)
        if where.scheme == "unix":
            return _Local(where.path)
        return http.client.HTTPConnection(where.netloc, timeout=60)

    def _give(self, answer: http.client.HTTPResponse) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        is_known = answer.getheader("Content-Length") is not None or self.command == "HEAD"
        if not is_known and answer.status not in (204, 304):
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        while piece := answer.read(_PIECE):
            self.wfile.write(piece)

    def _body(self) -> Iterator[bytes]:
        if "Transfer-Encoding" in self.headers:
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read(min(left, _PIECE))
            left -= len(piece)
            yield piece


@contextmanager
def before(
    upstream: str,
    trust: ssl.SSLContext | None = None,
    *,
    address: str = "127.0.0.1",
    identity: Path | None = None,
) -> Iterator[Proxy]:
    """Give a proxy before a server, and close it in the end."""
    proxy = Proxy(upstream, trust, address=address, identity=identity)
    try:
        yield proxy
    finally:
        proxy.down()
