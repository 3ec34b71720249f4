"""A proxy before a real server over HTTP, which answers in its place as a test tells it to."""

import dataclasses
import email.utils
import http.client
import random
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
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


KINDS = ("429 seconds", "429 date", "500", "503", "reset", "lost", "truncated")
ALL_KINDS = (*KINDS, "502", "slow")
_SLOW_PIECE, _SLOW_PAUSE = 100, 0.1
"""Bytes, and seconds after each of them: 1 kB/s."""
_SLOW_MOST = 20_000
"""So many bytes pass a slow connection before it ends."""


@dataclasses.dataclass(kw_only=True)
class Storm:
    """Trouble by chance, as of a server that is overloaded behind a proxy.

    Of the kinds, `reset` closes the connection before the server gets the request, and `lost`
    after it has acted on it; `truncated` ends in the middle of the answer's body; `slow` passes 1
    kB/s in both directions, and ends after 20 s.

    Attributes:
        share: of the requests that meet it.
        kinds: from which one is taken by chance.
        counts: how often each was met, and how many requests were not.
    """

    share: float
    seed: int = 7
    kinds: tuple[str, ...] = KINDS
    counts: Counter[str] = dataclasses.field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def draw(self) -> str:
        """Return the kind of trouble that the next request meets, empty for none."""
        kind = self._random.choice(self.kinds) if self._random.random() < self.share else ""
        self.counts[kind] += 1
        return kind


class Proxy:
    """Forwards to one server.

    Args:
        upstream: `http://host:port`, `https://host:port` or `unix:///path`.
        trust: for https.
        address: where it listens.
        identity: its certificate and key, for one that speaks TLS itself.

    Attributes:
        faults: that are met now; the first that fits.
        storm: trouble by chance for what meets no fault.
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
        self.storm: Storm | None = None
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

    def trouble(self) -> str:
        """Return the kind of trouble that a request meets by chance."""
        with self.lock:
            return self.storm.draw() if self.storm else ""

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
            if fault is not None:
                self._answer(fault)
            elif kind := self.proxy.trouble():
                self._fail(kind)
            else:
                self._forward()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

    def _fail(self, kind: str) -> None:
        match kind:
            case "429 seconds":
                self._answer(Fault(status=429, headers={"Retry-After": "1"}))
            case "429 date":
                until = email.utils.formatdate(time.time() + 2, usegmt=True)
                self._answer(Fault(status=429, headers={"Retry-After": until}))
            case "500" | "502" | "503":
                self._answer(Fault(status=int(kind), body="<html>"))
            case "reset":
                self._reset()
            case _:
                self._forward(kind)

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True

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

    def _forward(self, kind: str = "") -> None:
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
            pieces = self._slowed(self._body()) if kind == "slow" else self._body()
            body = pieces if has_body else None
            connection.request(self.command, self.path, body, headers, encode_chunked=is_chunked)
            answer = connection.getresponse()
            match kind:
                case "lost":
                    answer.read()
                    self._reset()
                case "truncated":
                    self._truncate(answer)
                case _:
                    self._give(answer, is_slow=kind == "slow")
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        where = self.proxy.upstream
        if where.scheme == "https":
            return http.client.HTTPSConnection(where.netloc, context=self.proxy.trust, timeout=60)
        if where.scheme == "unix":
            return _Local(where.path)
        return http.client.HTTPConnection(where.netloc, timeout=60)

    def _truncate(self, answer: http.client.HTTPResponse) -> None:
        data = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.getheader("Content-Type") or "text/plain")
        self.send_header("Content-Length", str(len(data) + 1))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.close_connection = True

    def _slowed(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield bytes at 1 kB/s; end the connection where they are too many."""
        passed = 0
        for piece in pieces:
            for start in range(0, len(piece), _SLOW_PIECE):
                yield piece[start : start + _SLOW_PIECE]
                passed += _SLOW_PIECE
                if passed >= _SLOW_MOST or self.proxy.over.wait(_SLOW_PAUSE):
                    self._reset()
                    raise ConnectionResetError

    def _give(self, answer: http.client.HTTPResponse, *, is_slow: bool = False) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        is_known = answer.getheader("Content-Length") is not None or self.command == "HEAD"
        if not is_known and answer.status not in (204, 304):
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        pieces: Iterator[bytes] = iter(lambda: answer.read(_PIECE), b"")
        for piece in self._slowed(pieces) if is_slow else pieces:
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
