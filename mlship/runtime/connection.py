"""A connection of HTTP/1.1: its requests are answered in their order, within bounds of time.

`RequestReader` makes requests of what arrives. What a client may take of the time, and what of the
memory its requests take together, is bounded here.
"""

import asyncio
from collections import deque
from typing import NamedTuple, cast

from mlship.runtime import http, messages
from mlship.runtime.budget import Room
from mlship.runtime.faults import Fault
from mlship.runtime.http import Request, Response
from mlship.runtime.ports import Exchange, Server
from mlship.runtime.request_reader import RequestReader

IDLE_SECONDS = 620.0
"""Longer than load balancers keep a connection: Google's do so for 600 s."""
WRITE_SECONDS = 30.0
WRITE_BYTES = 65_536
"""A client may take WRITE_SECONDS to read WRITE_BYTES of what was written, or the rest of it."""
LINGER_SECONDS = 5.0
LINGER_BYTES = 256 << 20
"""What is read and dropped after the last response: closing with unread bytes resets."""
ROOM_SECONDS = 10.0
"""How long a large body waits for room in memory, before its client is told to retry."""
PIPELINED = 16
"""With so many requests that wait for their turn, no more are read."""


class _Waiting(NamedTuple):
    """A request that waits for its turn.

    Attributes:
        room: of its body, if that is large.
    """

    request: Request
    is_last: bool
    room: Room | None


class Connection(asyncio.Protocol):
    """Begins the requests of a client and writes the responses in their order."""

    def __init__(self, server: Server, clock: "asyncio.AbstractEventLoop") -> None:
        self._time = clock.time
        self._soon = clock.call_soon
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._reader = RequestReader(self, server.knows, clock.time)
        self._since = clock.time()
        self._waiting: deque[_Waiting] = deque()
        self._exchange: Exchange | None = None
        self._is_busy = self._is_beginning = self._is_last = self._is_head = False
        self._is_resting = False
        self._refusal: Response | None = None
        self._is_refusing_head = False
        self._is_closing = False
        self._is_unread = False
        self._unsent = 0
        self._read_since = 0.0
        self._dropped = 0
        self._is_paused = False
        self._room: Room | None = None
        self._room_since = 0.0
        self._unread: list[Exchange] = []

    @property
    def is_receiving(self) -> bool:
        """Whether a part of a request has arrived."""
        return self._reader.state != "idle"

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to read."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop has a class of its own
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's name)
        """Drop what the client has not been answered."""
        self._transport = None
        self._release()
        self._reader.stop()
        self._drop_requests()
        self._abandon()
        self._server.lost(self)

    def eof_received(self) -> None:
        """Take a client that sends no more for one that has gone."""
        self._drop_requests()
        self._abandon()

    def pause_writing(self) -> None:
        """Begin no request while the client does not read its responses."""
        self._is_unread = True
        self._update_reading()

    def resume_writing(self) -> None:
        """Go on with the requests that wait."""
        self._is_unread = False
        self._release()
        self._update_reading()
        self._next()

    def data_received(self, data: bytes) -> None:
        """Read what has arrived; a request that is complete is begun."""
        reader = self._reader
        if reader.is_stopped:
            self._drop(len(data))
        elif (
            reader.state == "idle"
            and not (self._is_busy or self._is_unread or self._is_resting)
            and (request := reader.repeated.request(data)) is not None
        ):
            self._begin(request, is_last=False)
        else:
            reader.feed(data)

    # What the reader calls, within `feed`.

    def received(self, request: Request, *, is_last: bool) -> None:
        """Begin a request, or let it wait for the one before."""
        room, self._room = self._room, None
        if self._is_busy or self._is_unread or self._is_resting:
            self._waiting.append(_Waiting(request, is_last, room))
            if len(self._waiting) >= PIPELINED:
                self._update_reading()
            return
        self._begin(request, is_last=is_last)
        if room is not None:
            self._give_back(room)

    def refuse(self, status: int, message: str, hint: str) -> None:
        """Answer what was asked before, then this error, and read no further request."""
        self._server.refused(self._reader.url, status)
        again = {"retry_after": "1"} if status == 503 else {}
        self._refusal = http.of_fault(Fault(message=message, hint=hint), status, **again)
        self._is_refusing_head = self._reader.is_head()
        self._reader.stop()
        self._drop_body()
        self._next()

    def take_room(self, size: int) -> None:
        """Take room for the body that is arriving; read on when it is there."""
        self._room = self._server.budget.take(size, self._update_reading)
        self._room_since = self._time()
        if not self._room.is_granted:
            self._update_reading()

    def continue_soon(self) -> None:
        """Tell the client to send the body, once everything before it is answered."""
        if not self._is_busy and not self._waiting and self._transport is not None:
            self._reader.wants_continue = False
            self._reader.wait_again(self._time())
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # What the server calls.

    def reply(self, response: Response) -> None:
        """Write the response to the request that was begun last."""
        transport = self._transport
        if transport is None or not self._is_busy:
            return
        self._is_busy = False
        exchange, self._exchange = self._exchange, None
        self._server.end()
        is_last = self._is_last or response.headers.get("connection") == "close"
        self._write(transport, response, is_last=is_last, is_head=self._is_head)
        if exchange is not None and transport.get_write_buffer_size() > WRITE_BYTES:
            exchange.hold()
            self._unread.append(exchange)
        if is_last:
            self._close()
        elif self._waiting or self._refusal is not None or self._reader.wants_continue:
            self._next()
        else:
            self._since = self._time()

    def check(self, now: float) -> None:
        """Close the connection if the client has taken too long."""
        self._check_writing(now)
        if self._is_closing:
            if now - self._since > LINGER_SECONDS:
                self.abort()
        elif self._room is not None and not self._room.is_granted:
            if now - self._room_since > ROOM_SECONDS:
                self.refuse(503, "there is no room for a large body", "retry later")
        elif self._is_paused or self._reader.wants_continue or self._refusal is not None:
            return  # it waits for the server
        elif late := self._reader.lateness(now):
            self.refuse(408, late, "send the request at once")
        elif not (self._is_busy or self.is_receiving) and now - self._since > IDLE_SECONDS:
            self.abort()

    def abort(self) -> None:
        """Close the connection now; what was written is sent."""
        if self._transport is not None:
            if self._is_unread:
                self._transport.abort()
            else:
                self._transport.close()

    # The rest.

    def _release(self) -> None:
        """Give back the memory of responses that have been read."""
        unread, self._unread = self._unread, []
        for exchange in unread:
            exchange.end()

    def _check_writing(self, now: float) -> None:
        """Close the connection if the client reads too slowly what was written."""
        if self._transport is None:
            return
        unsent = self._transport.get_write_buffer_size()
        if self._unread and unsent <= WRITE_BYTES:
            self._release()
        if not unsent or unsent > self._unsent or self._unsent - unsent >= WRITE_BYTES:
            self._unsent = unsent
            self._read_since = now
        elif now - self._read_since > WRITE_SECONDS:
            self._transport.abort()
        if unsent and self._is_closing:
            self._since = now  # it lingers once all is sent

    def _next(self) -> None:
        """Begin the request that is next, or write the refusal that ends the connection."""
        is_free = not (self._is_busy or self._is_unread or self._is_beginning or self._is_resting)
        if not is_free or self._is_closing or (transport := self._transport) is None:
            return
        if self._waiting:
            following = self._waiting.popleft()
            self._begin(following.request, is_last=following.is_last)
            if following.room is not None:
                self._give_back(following.room)
            if self._is_paused:
                self._update_reading()
        elif self._refusal is not None:
            is_head = self._is_refusing_head
            self._write(transport, self._refusal, is_last=True, is_head=is_head)
            self._close()
        elif self._reader.wants_continue:
            self.continue_soon()

    def _begin(self, request: Request, *, is_last: bool) -> None:
        self._is_last = is_last
        self._is_busy = self._is_beginning = True
        self._is_head = request.method == "HEAD"
        exchange = self._server.begin(request, self)
        self._is_beginning = False
        if self._is_busy:
            self._exchange = exchange
        else:
            # It was answered at once, which may have taken long. However many more have arrived,
            # others have their turn first.
            self._is_resting = True
            self._soon(self._rested)

    def _rested(self) -> None:
        self._is_resting = False
        self._next()

    def _abandon(self) -> None:
        if self._is_busy:
            self._is_busy = False
            self._server.end()
            if self._exchange is not None:
                self._exchange.cancel()
                self._exchange = None

    def _drop_requests(self) -> None:
        """Drop the requests that wait, and the one that is arriving."""
        dropped = tuple(self._waiting)
        self._waiting.clear()
        for waiting in dropped:
            if waiting.room is not None:
                self._server.budget.give(waiting.room)
        self._drop_body()

    def _drop_body(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            self._give_back(room)

    def _give_back(self, room: Room) -> None:
        self._server.budget.give(room)
        self._update_reading()

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > LINGER_BYTES:
            self.abort()

    def _waits_for_room(self) -> bool:
        rooms = (self._room, *(waiting.room for waiting in self._waiting))
        return any(room is not None and not room.is_granted for room in rooms)

    def _update_reading(self) -> None:
        """Read on, or read no more until there is a place or room for what arrives."""
        if self._transport is None or self._is_closing:
            return
        is_full = self._is_unread or len(self._waiting) >= PIPELINED
        is_paused = is_full or self._waits_for_room()
        if is_paused != self._is_paused:
            self._is_paused = is_paused
            if is_paused:
                self._transport.pause_reading()
            else:
                self._reader.wait_again(self._time())
                self._transport.resume_reading()

    def _write(
        self, transport: asyncio.Transport, response: Response, *, is_last: bool, is_head: bool
    ) -> None:
        head = messages.head_of(response, self._server.date, is_last=is_last)
        body = b"" if is_head else response.body
        if len(body) > WRITE_BYTES:
            transport.writelines((head, body))  # without a copy of both together
        else:
            transport.write(head + body)

    def _close(self) -> None:
        """Send the end of what is written, and drop what still arrives until the client closes."""
        self._is_closing = True
        self._since = self._time()
        self._reader.stop()
        self._drop_requests()
        if self._transport is not None:
            if self._is_paused:
                self._is_paused = False
                self._transport.resume_reading()
            if self._transport.can_write_eof():
                self._transport.write_eof()
