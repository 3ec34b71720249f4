"""Requests of HTTP/1.1 from the bytes of a connection.

llhttp, through httptools, refuses what two parsers may read differently: two lengths, a length
beside chunks, a bare LF. What a request may take of the memory is bounded here.
"""

from collections.abc import Callable, Mapping
from typing import Literal, Protocol

import httptools

from mlship.runtime import messages
from mlship.runtime.http import BODY_BYTES, Request

HEAD_BYTES = 65_536
HEAD_SECONDS = 10.0
BODY_SECONDS = 10.0
BODY_RATE = 65_536
"""A body may take BODY_SECONDS, and a second more for each BODY_RATE bytes that have arrived."""
_SMALL_BYTES = 65_536
"""Larger bodies take from the budget that all connections share."""
_LINE_BYTES = 4
"""What a header has beside its name and its value: a colon, a space and the end of the line."""

State = Literal["idle", "head", "body"]


class Receiver(Protocol):
    """Gets what is read from a connection."""

    def received(self, request: Request, *, is_last: bool) -> None:
        """Answer a request; if it is the last one, its client wants the connection closed."""

    def refuse(self, status: int, message: str, hint: str) -> None:
        """Answer what was received, then this error, and read no further request."""

    def take_room(self, size: int) -> None:
        """Take room for the body that is arriving, which is larger than most."""

    def continue_soon(self) -> None:
        """Tell the client to send the body for which it waits."""


class RequestReader:
    """Reads the requests of a connection, one after the other.

    Args:
        receiver: gets the requests.
        knows: returns whether a client with these headers has a valid API key, or needs none. What
            others send takes no memory: they are refused, or ask a probe, which needs no body.
        time: returns the time of the event loop.

    Attributes:
        state: which part of a request is arriving.
        since: when it began to arrive.
        size: the bytes of the body that have arrived.
        url: the target of the request.
        wants_continue: whether the client waits to be told to send the body.
        is_stopped: whether what arrives is no longer read.
        repeated: knows the head that the client has sent before.
    """

    def __init__(
        self,
        receiver: Receiver,
        knows: Callable[[Mapping[str, str]], bool],
        time: Callable[[], float],
    ) -> None:
        self.state: State = "idle"
        self.since = 0.0
        self.is_stopped = False
        self.repeated = messages.Repeated()
        self._receiver = receiver
        self._refuse = receiver.refuse
        self._knows = knows
        self._time = time
        self._parser = httptools.HttpRequestParser(self)
        self._latest: Request | None = None
        self._is_resuming = self._is_upgrade_last = False
        self._unseen = 0
        self._clear()

    def _clear(self) -> None:
        self.url = b""
        self.size = 0
        self.wants_continue = False
        self._headers: dict[str, str] = {}
        self._hosts = self._head_size = 0
        self._body: bytes | bytearray = b""
        self._is_stranger = False

    # What the connection calls.

    def feed(self, data: bytes) -> None:
        """Read what has arrived; each request that is complete is given to the receiver."""
        is_start = self.state == "idle"
        self._parse(data)
        if is_start and self.state == "idle" and self._latest is not None:
            self.repeated.keep(data, self._latest)
        self._latest = None

    def stop(self) -> None:
        """Read no more, and drop what has arrived of a request."""
        self.is_stopped = True
        self.state = "idle"
        self.wants_continue = False
        self._body = b""

    def is_head(self) -> bool:
        """Return whether the request that is arriving is of the method HEAD."""
        return bool(self.url) and self._parser.get_method() == b"HEAD"

    def lateness(self, now: float) -> str:
        """Return what is late in arriving; empty if nothing is."""
        if self.state == "head" and now - self.since > HEAD_SECONDS:
            return f"the headers did not arrive within {HEAD_SECONDS:.0f} seconds"
        allowed = BODY_SECONDS + self.size / BODY_RATE
        if self.state == "body" and now - self.since > allowed:
            return f"the body did not arrive within {allowed:.0f} seconds"
        return ""

    def wait_again(self, now: float) -> None:
        """Let the client have its time again: until now, what it sent was not read."""
        self.since = now - self.size / BODY_RATE

    # What httptools calls, within `feed`.

    def on_message_begin(self) -> None:
        """Start a request."""
        if not (self.is_stopped or self._is_resuming):
            self._clear()
            self.state = "head"
            self.since = self._time()

    def on_url(self, url: bytes) -> None:
        """Add a part of the URL."""
        if not (self.is_stopped or self._is_resuming):
            self.url += url
            self._head_size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; those after the body are dropped."""
        if self.state != "head":
            return
        self._head_size += len(name) + len(value) + _LINE_BYTES
        named = messages.name_of(name)
        if named == "host":
            self._hosts += 1
        self._headers[named] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Refuse a request that cannot be read on; otherwise read its body."""
        if self.state != "head":
            self._is_resuming = False
            return
        headers = self._headers
        is_old = self._parser.get_http_version() == "1.0"
        if self._head_size > HEAD_BYTES:
            self._refuse_head()
        elif (fault := self._fault(is_old=is_old)) is not None:
            self._refuse(*fault)
        elif int(headers.get("content-length", "0")) > BODY_BYTES:
            self._refuse_body()
        else:
            self.state = "body"
            self.since = self._time()
            self._is_stranger = not self._knows(headers)
            if headers.get("expect", "").lower() == "100-continue" and not is_old:
                self.wants_continue = True
                self._receiver.continue_soon()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body within the bounds."""
        if self.state != "body":
            return
        had = self.size
        self.size += len(body)
        self.wants_continue = False
        if self.size > BODY_BYTES:
            self._refuse_body()
            return
        if self._is_stranger:
            return  # what nobody may ask takes no memory
        if not self._body:
            self._body = body
        else:
            # Not a list of pieces: those of a few bytes would take many times the memory.
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += body
        if self.size > _SMALL_BYTES >= had:
            self._receiver.take_room(int(self._headers.get("content-length", BODY_BYTES)))

    def on_message_complete(self) -> None:
        """Give the request to the receiver."""
        if self.state != "body":
            return
        is_last = not self._parser.should_keep_alive()
        if self._parser.should_upgrade() and messages.has_body(self._headers):
            self._is_upgrade_last = is_last
            return  # the body follows, by another parser
        if self._is_stranger and self.size and self._knows(self._headers):
            # Without its body, it would be refused for that.
            message = "the API key was added while the request arrived"
            self._refuse(503, message, "send the request again")
            return
        body = bytes(self._body)  # which copies nothing if it came in one piece
        request = Request(
            method=self._parser.get_method().decode("ascii"),
            path=messages.path_of(self.url),
            headers=self._headers,
            body=body,
        )
        self._body = b""
        self.state = "idle"
        self.wants_continue = False
        self._latest = None if is_last else request
        if is_last:
            self.is_stopped = True
        self._receiver.received(request, is_last=is_last)

    # The rest.

    def _parse(self, data: bytes) -> None:
        headers, counted = self._headers, self._head_size + self.size
        rest: bytes | memoryview = data
        while len(rest) and not self.is_stopped:
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = memoryview(rest)[upgrade.args[0] :]
                self._decline_upgrade()
                continue
            except httptools.HttpParserError as error:
                if not self.is_stopped:
                    message = f"the request is not valid HTTP/1.1: {error}"
                    self._refuse(400, message, "correct the client")
            break
        if self.state != "idle":
            # The parser keeps half a header, and skips what is between chunks.
            is_seen = self._headers is not headers or self._head_size + self.size != counted
            self._unseen = 0 if is_seen else self._unseen + len(data)
            if self._head_size + self._unseen > HEAD_BYTES:
                self._refuse_head()

    def _fault(self, *, is_old: bool) -> tuple[int, str, str] | None:
        """Return status, message and hint for headers of which nothing is answered."""
        coding = self._headers.get("transfer-encoding")
        if self._hosts > 1 or (self._hosts == 0 and not is_old):
            return 400, "the request needs exactly one header `host`", "correct the client"
        if coding is not None and is_old:
            return 400, "HTTP/1.0 has no transfer-encoding", "send a content-length"
        if coding is not None and coding.strip().lower() != "chunked":
            return 501, "the transfer coding is not `chunked`", "send a content-length, or chunks"
        if self._parser.get_method() == b"CONNECT":
            return 405, "method CONNECT is not allowed", "send requests to this server only"
        return None

    def _decline_upgrade(self) -> None:
        """Read on after headers that offer another protocol, which a server may ignore.

        llhttp takes what follows for the other protocol; here a parser that knows nothing of the
        offer reads the body.
        """
        request = self._parser
        self._parser = httptools.HttpRequestParser(self)
        if self.state == "body":
            self._is_resuming = True
            head = messages.without_upgrade(
                request.get_method(),
                request.get_http_version(),
                self._headers,
                is_last=self._is_upgrade_last,
            )
            self._parser.feed_data(head)

    def _refuse_head(self) -> None:
        message = f"the headers are larger than {HEAD_BYTES:,} bytes"
        self._refuse(431, message, "send fewer headers")

    def _refuse_body(self) -> None:
        message = f"the body is larger than {BODY_BYTES:,} bytes"
        self._refuse(413, message, "send fewer rows per request")
