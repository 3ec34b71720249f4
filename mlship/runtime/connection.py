"""A connection of HTTP/1.1: bytes become requests, and responses become bytes, in their order.

llhttp, through httptools, refuses what two parsers may read differently: two lengths, a length
beside chunks, a bare LF. What a client may take of the memory and of the time is bounded here.
"""

import asyncio
import math
from collections import deque
from typing import Literal, cast

import httptools

from mlship.runtime import http, messages
from mlship.runtime.faults import Fault
from mlship.runtime.http import BODY_BYTES, Request, Response
from mlship.runtime.ports import Exchange, Server

HEAD_BYTES = 65_536
HEAD_SECONDS = 10.0
BODY_SECONDS = 10.0
BODY_RATE = 65_536
"""A body may take BODY_SECONDS, and a second more for each BODY_RATE bytes that have arrived."""
IDLE_SECONDS = 620.0
"""Longer than load balancers keep a connection: Google's do so for 600 s."""
WRITE_SECONDS = 30.0
"""How long a client may leave a response unread."""
LINGER_SECONDS = 5.0
LINGER_BYTES = 256 << 20
"""What is read and dropped after the last response: closing with unread bytes resets."""
PIPELINED = 16
"""With so many requests that wait for their turn, no more are read."""
_SMALL_BYTES = 65_536
"""Larger bodies take from the budget that all connections share."""

State = Literal["idle", "head", "body", "closing", "closed"]
_SECONDS: dict[State, float] = {
    "idle": IDLE_SECONDS,
    "head": HEAD_SECONDS,
    "body": BODY_SECONDS,
    "closing": LINGER_SECONDS,
    "closed": math.inf,
}
"""How long a connection may be in a state."""


class Connection(asyncio.Protocol):
    """Reads requests from a client and writes the responses in their order."""

    def __init__(self, server: Server, clock: "asyncio.AbstractEventLoop") -> None:
        self.state: State = "idle"
        self.since = clock.time()
        self._time = clock.time
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._exchange: Exchange | None = None
        self._repeated = messages.Repeated()
        self._latest: Request | None = None
        self._is_busy = self._is_beginning = self._is_last = self._is_head = False
        self._refusal: Response | None = None
        self._unread_since = 0.0
        self._dropped = 0
        self._is_paused = False
        self._is_resuming = False
        self._taken = 0
        self._waits_for_budget = False
        self._clear()

    def _clear(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._hosts = self._size = self._head_size = 0
        self._body: list[bytes] = []
        self._wants_continue = self._is_stranger = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to read."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop has a class of its own
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's name)
        """Drop what the client has not been answered."""
        self.state = "closed"
        self._transport = None
        self._waiting.clear()
        self._give_back()
        self._abandon()
        self._server.lost(self)

    def eof_received(self) -> None:
        """Take a client that sends no more for one that has gone."""
        self._waiting.clear()
        self._abandon()

    def pause_writing(self) -> None:
        """Note since when the client does not read its responses."""
        self._unread_since = self._time()
        self._update_reading()

    def resume_writing(self) -> None:
        """Go on with the requests that wait."""
        self._unread_since = 0.0
        self._update_reading()
        self._next()

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; a request that is complete is begun."""
        if self.state in ("closing", "closed") or self._refusal is not None:
            self._drop(len(data))
            return
        is_start = self.state == "idle"
        is_free = is_start and not (self._is_busy or self._unread_since)
        if is_free and (request := self._repeated.request(data)) is not None:
            self._begin(request, is_last=False)
            return
        self._parse(data)
        if is_start and self.state == "idle" and self._latest is not None:
            self._repeated.keep(data, self._latest)
        self._latest = None

    # What httptools calls, within `data_received`.

    def on_message_begin(self) -> None:
        """Start a request."""
        if self._refusal is None and not self._is_resuming:
            self._clear()
            self.state = "head"
            self.since = self._time()

    def on_url(self, url: bytes) -> None:
        """Add a part of the URL."""
        if not self._is_resuming:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; those after the body are dropped."""
        if self.state != "head":
            return
        self._head_size += len(name) + len(value)
        named = messages.name_of(name)
        if named == "host":
            self._hosts += 1
        self._headers[named] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Refuse a request that cannot be read on; otherwise read its body."""
        if self._refusal is not None or self._is_resuming:
            self._is_resuming = False
            return
        headers = self._headers
        version = self._parser.get_http_version()
        if self._head_size + len(self._url) > HEAD_BYTES:
            self._refuse_head()
        elif self._hosts > 1 or (self._hosts == 0 and version != "1.0"):
            self._refuse(400, "the request needs exactly one header `host`", "correct the client")
        elif version == "1.0" and "transfer-encoding" in headers:
            self._refuse(400, "HTTP/1.0 has no transfer-encoding", "send a content-length")
        elif self._parser.get_method() == b"CONNECT":
            self._refuse(405, "method CONNECT is not allowed", "send requests to this server only")
        elif int(headers.get("content-length", "0")) > BODY_BYTES:
            self._refuse_body()
        else:
            self.state = "body"
            self.since = self._time()
            self._is_stranger = not self._server.admits(self._url, headers)
            if headers.get("expect", "").lower() == "100-continue" and version != "1.0":
                self._wants_continue = True
                self._send_continue()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body within the bounds."""
        if self._refusal is not None or self.state != "body":
            return
        self._size += len(body)
        self._wants_continue = False
        if self._size > BODY_BYTES:
            self._refuse_body()
            return
        if self._is_stranger:
            return  # what nobody may ask takes no memory
        self._body.append(body)
        if self._size > _SMALL_BYTES and not self._taken:
            self._taken = int(self._headers.get("content-length", BODY_BYTES))
            if not self._server.budget.take(self, self._taken):
                self._waits_for_budget = True
                self._update_reading()

    def on_message_complete(self) -> None:
        """Begin the request, or let it wait for the one before."""
        if self._refusal is not None or self.state != "body":
            return
        if self._parser.should_upgrade() and messages.has_body(self._headers):
            return  # the body follows, by another parser
        path = messages.path_of(self._url)
        method = self._parser.get_method().decode("ascii")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Request(method=method, path=path, headers=self._headers, body=body)
        self._body = []
        self.state = "idle"
        is_last = not self._parser.should_keep_alive()
        self._latest = None if is_last else request
        if self._is_busy or self._unread_since:
            self._waiting.append((request, is_last))
            if len(self._waiting) >= PIPELINED:
                self._update_reading()
        else:
            self._begin(request, is_last=is_last)
        if self._taken:
            self._give_back()

    # What the server calls.

    def granted(self) -> None:
        """Read on: the budget has room for the body."""
        self._waits_for_budget = False
        self.since = self._time() - self._size / BODY_RATE
        self._update_reading()

    def reply(self, response: Response) -> None:
        """Write the response to the request that was begun last."""
        transport = self._transport
        if transport is None or not self._is_busy:
            return
        self._is_busy = False
        self._exchange = None
        self._server.end()
        is_last = self._is_last or response.headers.get("connection") == "close"
        self._write(transport, response, is_last=is_last)
        if is_last:
            self._close()
        elif self._waiting or self._refusal is not None or self._wants_continue:
            self._next()
        else:
            self.since = self._time()

    def check(self, now: float) -> None:
        """Close the connection if the client has taken too long."""
        if self._unread_since and now - self._unread_since > WRITE_SECONDS:
            self.abort()
            return
        if (self._is_busy and self.state == "idle") or self._refusal is not None:
            return
        allowed = _SECONDS[self.state] + (self._size / BODY_RATE if self.state == "body" else 0.0)
        if self._waits_for_budget or now - self.since <= allowed:
            return
        if self.state in ("head", "body"):
            what = "headers" if self.state == "head" else "body"
            message = f"the {what} did not arrive within {allowed:.0f} seconds"
            self._refuse(408, message, "send the request at once")
        else:
            self.abort()

    def abort(self) -> None:
        """Close the connection now; what was written is sent."""
        if self._transport is not None:
            if self._unread_since:
                self._transport.abort()
            else:
                self._transport.close()

    # The rest.

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            # After a request to close, llhttp takes more bytes for an error: they are dropped.
            if not self._has_last():
                message = f"the request is not valid HTTP/1.1: {error}"
                self._refuse(400, message, "correct the client")
        else:
            if self.state == "head":
                self._head_size += len(data)
                if self._head_size > HEAD_BYTES:
                    self._refuse_head()

    def _next(self) -> None:
        """Begin the request that is next, or write the refusal that ends the connection."""
        # A reply at once comes back here: the loop goes on, however many requests wait.
        while not (self._is_busy or self._unread_since or self._is_beginning):
            if (transport := self._transport) is None or self.state == "closing":
                return
            if not self._waiting:
                if self._refusal is not None:
                    self._write(transport, self._refusal, is_last=True)
                    self._close()
                elif self._wants_continue:
                    self._send_continue()
                return
            request, is_last = self._waiting.popleft()
            self._is_beginning = True
            self._begin(request, is_last=is_last)
            self._is_beginning = False
            if self._is_paused:
                self._update_reading()

    def _begin(self, request: Request, *, is_last: bool) -> None:
        self._is_last = is_last
        self._is_busy = True
        self._is_head = request.method == "HEAD"
        exchange = self._server.begin(request, self)
        if self._is_busy:
            self._exchange = exchange

    def _refuse(self, status: int, message: str, hint: str) -> None:
        """Answer what was asked before, then this error, and read no further request."""
        if self._refusal is None:
            self._server.refused(self._url, status)
        self._refusal = http.of_fault(Fault(message=message, hint=hint), status)
        self._body = []
        self._wants_continue = self._is_head = False
        self._give_back()
        self._next()

    def _refuse_head(self) -> None:
        self._refuse(431, f"the headers are larger than {HEAD_BYTES:,} bytes", "send fewer headers")

    def _refuse_body(self) -> None:
        message = f"the body is larger than {BODY_BYTES:,} bytes"
        self._refuse(413, message, "send fewer rows per request")

    def _has_last(self) -> bool:
        if self._waiting:
            return self._waiting[-1][1]
        return self._is_busy and self._is_last

    def _decline_upgrade(self, rest: bytes) -> None:
        """Read on after headers that offer another protocol, which a server may ignore.

        llhttp takes what follows for the other protocol; here a parser that knows nothing of the
        offer reads the body.
        """
        self._parser = httptools.HttpRequestParser(self)
        if self.state == "body":
            self._is_resuming = True
            self._parser.feed_data(messages.without_upgrade(self._headers))
        if rest:
            self.data_received(rest)

    def _abandon(self) -> None:
        if self._is_busy:
            self._is_busy = False
            self._server.end()
            if self._exchange is not None:
                self._exchange.cancel()
                self._exchange = None

    def _give_back(self) -> None:
        if self._taken:
            self._server.budget.give(self, self._taken)
            self._taken = 0

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > LINGER_BYTES:
            self.abort()

    def _update_reading(self) -> None:
        if self._transport is None or self.state == "closing":
            return
        is_paused = (
            self._waits_for_budget or bool(self._unread_since) or len(self._waiting) >= PIPELINED
        )
        if is_paused != self._is_paused:
            self._is_paused = is_paused
            if is_paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _send_continue(self) -> None:
        if not self._is_busy and not self._waiting and self._transport is not None:
            self._wants_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _write(self, transport: asyncio.Transport, response: Response, *, is_last: bool) -> None:
        transport.write(
            messages.of_response(
                response, self._server.date, is_last=is_last, is_head=self._is_head
            )
        )

    def _close(self) -> None:
        """Send the end of what is written, and drop what still arrives until the client closes."""
        self.state = "closing"
        self.since = self._time()
        self._waiting.clear()
        if self._transport is not None:
            if self._is_paused:
                self._is_paused = False
                self._transport.resume_reading()
            if self._transport.can_write_eof():
                self._transport.write_eof()
