"""The protocol of HTTP/1.1: what arrives as bytes, and what is written."""

import asyncio
import json
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import pytest

from mlship.runtime import connection as module
from mlship.runtime import messages, request_reader
from mlship.runtime.budget import Budget
from mlship.runtime.connection import Connection
from mlship.runtime.http import BODY_BYTES, Request, Response


class Transport(asyncio.BaseTransport):
    """What a connection does with its socket."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_reading = True
        self.is_ended = False
        self.is_closed = False
        self.is_aborted = False
        self.unsent = 0

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: bytes) -> None:
        assert not self.is_ended, "nothing follows the end"
        self.written += data

    def writelines(self, parts: Sequence[bytes]) -> None:
        self.write(b"".join(parts))

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_ended = True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True


def all_room_is_there(side: "Side") -> bool:
    return side.budget.take(BODY_BYTES, mock.Mock()).is_granted


class Begun:
    """A request that was begun."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.is_cancelled = False
        self.held = 1

    def cancel(self) -> None:
        self.is_cancelled = True

    def hold(self) -> None:
        self.held += 1

    def end(self) -> None:
        self.held -= 1


class Side:
    """A server with one clock, whose requests the test answers."""

    def __init__(self, budget: int = BODY_BYTES) -> None:
        self.budget = Budget(budget)
        self.date = b"Fri, 27 Nov 2026 12:00:00 GMT"
        self.now = 100.0
        self.begun: list[Begun] = []
        self.refusals: list[tuple[bytes, int]] = []
        self.active = 0
        self.connections: list[Connection] = []
        self.later: list[Callable[[], None]] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        self.later.append(call)

    def turn(self) -> None:
        """Let what was put off happen, as in the next turns of the event loop."""
        while self.later:
            self.later.pop(0)()

    def time(self) -> float:
        return self.now

    def opened(self, connection: Connection) -> None:
        self.connections.append(connection)

    def lost(self, connection: Connection) -> None:
        self.connections.remove(connection)

    def knows(self, headers: Mapping[str, str]) -> bool:
        return headers.get("x-api-key", "right") == "right"

    def refused(self, url: bytes, status: int) -> None:
        self.refusals.append((url, status))

    def begin(self, request: Request, _: Connection) -> Begun:
        self.active += 1
        self.begun.append(Begun(request))
        return self.begun[-1]

    def end(self) -> None:
        self.active -= 1


class Client:
    def __init__(self, side: Side) -> None:
        self.side = side
        self.transport: Any = Transport()
        self.connection = Connection(side, side)  # type: ignore[arg-type]  # it only has a clock
        self.connection.connection_made(self.transport)

    def send(self, data: bytes) -> None:
        self.connection.data_received(data)

    def answer(self, text: str = "{}", **headers: str) -> None:
        self.connection.reply(Response(status=200, headers=dict(headers), body=text.encode()))

    def check(self, seconds: float) -> None:
        self.connection.check(self.side.now)  # a server does so twice a second
        self.side.now += seconds
        self.connection.check(self.side.now)

    def statuses(self) -> list[int]:
        lines = self.transport.written.split(b"HTTP/1.1 ")[1:]
        return [int(line[:3]) for line in lines]

    def error(self) -> str:
        body = self.transport.written.rpartition(b"\r\n\r\n")[2]
        error: dict[str, str] = json.loads(body)["error"]
        assert error["hint"]
        return error["message"]


@pytest.fixture
def side() -> Side:
    return Side()


@pytest.fixture
def client(side: Side) -> Client:
    return Client(side)


POST = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"


def test_a_request_arrives_whole_however_it_is_cut(side: Side) -> None:
    data = POST.replace(b"/predict", b"/pre%64ict?a=b")
    for cut in range(1, len(data)):
        client = Client(side)
        client.send(data[:cut])
        client.send(data[cut:])
        request = side.begun.pop().request
        assert (request.method, request.path, request.body) == ("POST", "/predict", b"{}")
        assert request.headers == {"host": "x", "content-length": "2"}


AFTER = {
    "the same": POST,
    "another body": POST.replace(b"{}", b"[]"),
    "another path": POST.replace(b"predict", b"metrics"),
    "another header": POST.replace(b"host: x", b"host: y"),
    "no body": b"GET /docs HTTP/1.1\r\nhost: x\r\n\r\n",
    "a longer body": POST.replace(b"length: 2", b"length: 3") + b" ",
    "two at once": POST + POST,
    "one and a half": POST + POST[:30],
    "a body too long": POST + b"}",
    "an end of a line more": POST + b"\r\n",
    "an end of a line before": b"\r\n" + POST,
    "ends of lines": b"\r\n\r\n",
    "the last": POST.replace(b"host: x", b"host: x\r\nconnection: close"),
    "no host": POST.replace(b"host: x\r\n", b""),
    "two hosts": POST.replace(b"host: x", b"host: x\r\nhost: x"),
    "chunked": b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    b"2\r\n{}\r\n0\r\n\r\n",
    "an upgrade": POST.replace(b"host: x", b"host: x\r\nconnection: upgrade\r\nupgrade: h2c"),
    "an expectation": POST.replace(b"host: x", b"host: x\r\nexpect: 100-continue"),
    "no HTTP": b"HELLO\r\n\r\n",
}
"""Pieces that follow each other on a connection."""


@pytest.mark.parametrize("first", AFTER)
@pytest.mark.parametrize("second", AFTER)
def test_what_was_sent_before_does_not_change_what_a_request_is(first: str, second: str) -> None:
    """A head that is sent again is not parsed again; every other piece has to be."""

    def of(*pieces: bytes, cut: int) -> list[tuple[str, str, Any, bytes]]:
        """Return the requests in pieces, each answered before the next is sent."""
        side = Side()
        client = Client(side)
        for piece in pieces:
            for part in (piece[:cut], piece[cut:]):
                client.send(part)
            while side.active:
                client.answer()
        requests = [begun.request for begun in side.begun]
        written = client.transport.written.replace(b"connection: close", b"connection: keep-alive")
        ends = [("", "", client.statuses(), written)]
        return [*((r.method, r.path, dict(r.headers), r.body) for r in requests), *ends]

    pieces = (AFTER[first], AFTER[second], AFTER[second], POST)
    # In two parts, which are never taken for a head that was sent before.
    assert of(*pieces, cut=100_000) == of(*pieces, cut=5)


def test_a_head_that_is_sent_again_is_not_parsed_again(side: Side, client: Client) -> None:
    client.send(POST)
    client.answer()
    parser = client.connection._reader._parser
    client.connection._reader._parser = None  # type: ignore[assignment]  # whoever parses, fails
    client.send(POST.replace(b"{}", b"[]"))
    client.answer()
    assert [begun.request.body for begun in side.begun] == [b"{}", b"[]"]
    assert side.begun[1].request.headers == {"host": "x", "content-length": "2"}
    client.connection._reader._parser = parser
    client.send(POST[:-1])
    client.check(11.0)
    assert client.statuses() == [200, 200, 408], "half a request is none"


@pytest.mark.parametrize(
    ("header", "size"), [(b"a: " + b"b" * 2_000, 2), (b"a: b", 70_000), (b"expect: x", 2)]
)
def test_large_and_special_requests_are_not_kept(
    side: Side, client: Client, header: bytes, size: int
) -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\n%b\r\ncontent-length: %d\r\n\r\n" % (header, size)
    client.send(head + b"x" * size)
    client.answer()
    assert [len(begun.request.body) for begun in side.begun] == [size]
    assert client.connection._reader.repeated._request is None
    assert client.connection._reader._latest is None, "an idle connection has no body in memory"


def test_a_response_has_its_length_and_its_date(client: Client) -> None:
    client.send(POST)
    client.answer("[1]", **{"content-type": "application/json"})
    assert client.transport.written == (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 3\r\n"
        b"connection: keep-alive\r\ndate: Fri, 27 Nov 2026 12:00:00 GMT\r\n\r\n[1]"
    )
    assert not client.transport.is_ended


def test_requests_sent_at_once_are_answered_one_after_the_other(side: Side) -> None:
    client = Client(side)
    client.send(POST.replace(b"/predict", b"/1") + POST.replace(b"/predict", b"/2"))
    assert [begun.request.path for begun in side.begun] == ["/1"]
    client.answer("1")
    assert [begun.request.path for begun in side.begun] == ["/1", "/2"]
    client.answer("2")
    assert client.statuses() == [200, 200]
    assert side.active == 0


def test_a_flood_of_requests_at_once_is_not_read_on(side: Side) -> None:
    client = Client(side)
    client.send(POST * (module.PIPELINED + 1))
    assert not client.transport.is_reading
    client.answer()
    assert client.transport.is_reading


CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


def test_a_flood_of_requests_is_answered_at_once_without_end(side: Side) -> None:
    client = Client(side)

    def begin(request: Request, connection: Connection) -> None:
        side.active += 1
        if side.begun:
            connection.reply(Response(status=200, headers={}, body=b"{}"))
        side.begun.append(Begun(request))

    with mock.patch.object(side, "begin", begin):
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * 3_000)
        assert client.statuses() == []
        client.answer()
        side.later.pop(0)()
        assert client.statuses() == [200] * 3, "others have their turn after each"
        side.turn()
    assert client.statuses() == [200] * 3_000
    assert side.active == 0


def test_paths_that_a_client_makes_up_are_not_kept() -> None:
    before = messages._short_path_of.cache_info().currsize
    for number in range(50):
        made_up = b"/%F0%9F%98%80" * 100 + str(number).encode()
        assert messages.path_of(made_up).startswith("/\U0001f600")
    assert messages._short_path_of.cache_info().currsize == before


def test_chunks_make_a_body_and_what_follows_them_is_no_header(side: Side) -> None:
    client = Client(side)
    client.send(CHUNKED + b"2\r\n[1\r\n1\r\n]\r\n0\r\nmlship-timeout: 9\r\n\r\n")
    assert side.begun[0].request.body == b"[1]"
    assert "mlship-timeout" not in side.begun[0].request.headers


def test_a_request_whose_body_was_not_waited_for_gets_no_100_continue(side: Side) -> None:
    client = Client(side)
    post = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 0\r\n\r\n"
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" + post)
    client.answer()
    client.answer()
    assert client.statuses() == [200, 200]


def test_a_body_of_small_pieces_takes_no_more_memory_than_its_bytes(side: Side) -> None:
    client = Client(side)
    client.send(CHUNKED)
    tracemalloc.start()
    try:
        for _ in range(1_000):
            client.send(b"2\r\n[]\r\n" * 20)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 100_000
    client.send(b"0\r\n\r\n")
    assert side.begun[0].request.body == b"[]" * 20_000


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"xchunked"])
def test_another_transfer_coding_is_refused(side: Side, coding: bytes) -> None:
    client = Client(side)
    client.send(CHUNKED.replace(b"chunked", coding) + b"0\r\n\r\n" + POST)
    assert side.begun == []
    assert client.statuses() == [501]
    assert client.transport.is_ended


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\nhost: x\ncontent-length: 2\n\n{}",
        b"POST / HTTP/1.1\r\nhost: x\ncontent-length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nhost : x\r\ncontent-length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nhost: x\r\n folded: y\r\ncontent-length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nhost: x\r\nhost: y\r\ncontent-length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}",
        CHUNKED + b"fffffffffffffffff\r\n",
        CHUNKED + b"2\n{}\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_two_parsers_may_read_differently_is_refused(side: Side, data: bytes) -> None:
    client = Client(side)
    client.send(data + POST)
    assert side.begun == [], "neither this request nor one that is hidden in it"
    assert client.statuses() == [400]
    assert client.error()
    assert client.transport.is_ended
    assert b"connection: close" in client.transport.written


def test_an_error_waits_for_the_response_before_it(side: Side) -> None:
    client = Client(side)
    client.send(POST + b"nonsense\r\n\r\n")
    assert client.statuses() == []
    client.answer()
    assert client.statuses() == [200, 400]
    assert client.transport.is_ended


@pytest.mark.parametrize(
    ("data", "is_last"),
    [
        (POST, False),
        (POST.replace(b"host: x", b"host: x\r\nConnection: close"), True),
        (POST.replace(b"HTTP/1.1", b"HTTP/1.0"), True),
        (POST.replace(b"1.1\r\nhost: x", b"1.0\r\nconnection: keep-alive"), False),
    ],
)
def test_the_client_decides_whether_the_connection_is_kept(
    client: Client, data: bytes, is_last: bool
) -> None:
    client.send(data)
    client.answer()
    assert client.transport.is_ended is is_last
    assert (b"connection: close" in client.transport.written) is is_last


def test_a_response_may_be_the_last_one(client: Client) -> None:
    client.send(POST)
    client.answer(connection="close")
    assert client.transport.is_ended
    assert not client.transport.is_closed, "what still arrives is read, or it would be a reset"
    client.send(POST)
    assert len(client.side.begun) == 1
    client.check(module.LINGER_SECONDS + 0.1)
    assert client.transport.is_closed


def test_head_is_answered_without_a_body(client: Client) -> None:
    client.send(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n")
    client.answer("", **{"content-length": "7"})
    assert client.transport.written.endswith(b"\r\n\r\n")
    assert b"content-length: 7\r\n" in client.transport.written


def test_an_offer_of_another_protocol_is_ignored(side: Side) -> None:
    client = Client(side)
    offer = b"host: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c"
    client.send(POST.replace(b"host: x", offer) + POST.replace(b"/predict", b"/2"))
    assert side.begun[0].request.body == b"{}"
    client.answer()
    assert side.begun[1].request.path == "/2"
    get = Client(side)
    get.send(b"GET /3 HTTP/1.1\r\n" + offer + b"\r\n\r\n" + POST)
    assert side.begun[2].request.path == "/3"
    get.answer()
    assert side.begun[3].request.body == b"{}"
    chunked = Client(side)
    data = CHUNKED.replace(b"host: x", offer) + b"2\r\n{}\r\n0\r\n\r\n"
    for place in range(len(data)):
        chunked.send(data[place : place + 1])
    assert side.begun[4].request.body == b"{}"


def test_a_client_that_asks_before_it_sends_a_body_is_told_to(side: Side) -> None:
    client = Client(side)
    head = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    client.send(head % 2)
    assert client.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"{}")
    assert side.begun[0].request.body == b"{}"
    other = Client(side)
    other.send(head % (BODY_BYTES + 1))
    assert other.statuses() == [413]


def too_large_by_length(client: Client) -> None:
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (BODY_BYTES + 1))


def too_large_in_chunks(client: Client) -> None:
    client.send(CHUNKED)
    for _ in range(BODY_BYTES // 1_000_000 + 1):
        client.send(b"f4240\r\n" + b" " * 1_000_000 + b"\r\n")


@pytest.mark.parametrize("send", [too_large_by_length, too_large_in_chunks])
def test_a_body_that_is_too_large_is_answered_and_the_rest_dropped(
    side: Side, send: Callable[[Client], None]
) -> None:
    client = Client(side)
    send(client)
    assert client.statuses() == [413]
    assert client.side.refusals == [(b"/", 413)]
    assert "larger than 10,000,000 bytes" in client.error()
    assert client.transport.is_ended
    for _ in range(50):
        client.send(b" " * 1_000_000)
    assert not client.transport.is_closed
    for _ in range(module.LINGER_BYTES // 1_000_000):
        client.send(b" " * 1_000_000)
    assert client.transport.is_closed
    assert side.begun == []
    assert all_room_is_there(side), "its room was given back"


def test_headers_that_are_too_large_are_refused(side: Side) -> None:
    for data in (
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 20_000,
        b"GET /" + b"a" * 70_000,
        b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 70_000 + b"\r\n\r\n",
    ):
        client = Client(side)
        client.send(data)
        assert client.statuses() == [431]
    assert side.begun == []


def test_slow_headers_and_slow_bodies_are_cut_off(side: Side) -> None:
    client = Client(side)
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\n")
    client.check(request_reader.HEAD_SECONDS - 0.1)
    client.send(b"a: b\r\n")
    assert client.statuses() == []
    client.check(0.2)
    assert client.statuses() == [408]
    assert [status for _, status in client.side.refusals] == [408]
    assert "headers did not arrive within 10 seconds" in client.error()
    other = Client(side)
    other.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 900000\r\n\r\n")
    for _ in range(9):
        other.send(b" ")
        other.check(1)
    assert other.statuses() == []
    other.check(2)
    assert other.statuses() == [408]
    assert side.active == 0


def test_a_large_body_may_take_longer_than_a_small_one(side: Side) -> None:
    client = Client(side)
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n")
    for _ in range(9):
        client.send(b" " * 1_000_000)
        client.check(10)
    assert len(side.begun) == 1
    assert client.statuses() == []


@pytest.mark.parametrize("form", ["content-length: 6000000", "transfer-encoding: chunked"])
def test_a_body_with_a_wrong_api_key_takes_no_room(side: Side, form: str) -> None:
    good, stranger = Client(side), Client(side)
    head = f"POST / HTTP/1.1\r\nhost: x\r\nx-api-key: wrong\r\n{form}\r\n\r\n".encode()
    piece = b" " * 1_000_000
    stranger.send(head)
    for _ in range(6):
        stranger.send(piece if "length" in form else b"f4240\r\n" + piece + b"\r\n")
    good.send(head.replace(b"wrong", b"right") + b" " * 10)
    assert good.transport.is_reading
    assert stranger.transport.is_reading
    stranger.send(b"" if "length" in form else b"0\r\n\r\n")
    assert [begun.request.body for begun in side.begun] == [b""]
    stranger.answer()
    stranger.send(POST)
    assert [begun.request.body for begun in side.begun] == [b"", b"{}"], "the next one is whole"


def test_a_body_that_was_dropped_for_its_key_is_not_answered_as_empty(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is added after the headers have arrived."""
    client = Client(side)
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\nx-api-key: new\r\ncontent-length: 2\r\n\r\n")
    monkeypatch.setattr(side, "knows", lambda _headers: True)
    client.connection._reader._knows = side.knows
    client.send(b"{}")
    assert side.begun == []
    assert client.transport.written.startswith(b"HTTP/1.1 503 ")
    assert b"the API key was added while the request arrived" in client.transport.written


def test_idle_connections_outlive_those_of_load_balancers(client: Client) -> None:
    client.send(POST)
    client.check(1_000)
    assert not client.transport.is_closed, "a request is being answered"
    client.answer()
    client.check(610)
    assert not client.transport.is_closed
    client.check(11)
    assert client.transport.is_closed


def test_what_a_client_has_asked_is_dropped_when_it_goes(side: Side) -> None:
    for leave in ("eof_received", "connection_lost"):
        client = Client(side)
        client.send(POST + POST)
        begun = side.begun.pop()
        getattr(client.connection, leave)(*([None] if leave == "connection_lost" else []))
        assert begun.is_cancelled
        assert side.active == 0
        assert side.begun == [], "the second is never begun"
        client.answer()
        assert client.statuses() == []


def test_a_client_that_does_not_read_is_not_read_from(client: Client) -> None:
    client.send(POST + POST)
    client.connection.pause_writing()
    client.answer()
    assert len(client.side.begun) == 1
    assert not client.transport.is_reading
    client.connection.resume_writing()
    assert len(client.side.begun) == 2
    client.connection.pause_writing()
    client.transport.unsent = 1
    client.check(module.WRITE_SECONDS + 1)
    assert client.transport.is_closed


def test_large_bodies_wait_for_room_and_are_not_slow_meanwhile(side: Side) -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 6000000\r\n\r\n"
    first, second = Client(side), Client(side)
    first.send(head + b" " * 100_000)
    second.send(head + b" " * 100_000)
    assert (first.transport.is_reading, second.transport.is_reading) == (True, False)
    second.check(9)
    assert second.statuses() == []
    small = Client(side)
    small.send(POST)
    assert len(side.begun) == 1, "small ones need no room"
    first.connection.connection_lost(None)
    assert second.transport.is_reading
    second.send(b" " * 5_900_000)
    assert len(side.begun) == 2
    assert all_room_is_there(side), "all room is there again"


def test_a_large_body_for_which_there_is_no_room_is_told_to_come_later(side: Side) -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 6000000\r\n\r\n"
    first, second = Client(side), Client(side)
    first.send(head + b" " * 100_000)
    second.send(head + b" " * 100_000)
    second.check(11)
    assert (second.statuses(), second.transport.is_ended) == ([503], True)
    assert "no room" in second.error()
    assert b"\r\nretry-after: 1\r\n" in second.transport.written
    first.send(b" " * 5_900_000)
    assert len(side.begun) == 1
    assert all_room_is_there(side)


def test_a_response_takes_memory_until_its_client_has_read_it(side: Side) -> None:
    read, lost, small = Client(side), Client(side), Client(side)
    for client, unsent in ((read, 70_000), (lost, 70_000), (small, 60_000)):
        client.send(POST)
        client.transport.unsent = unsent
        client.answer()
    assert [begun.held for begun in side.begun] == [2, 2, 1]
    read.connection.check(side.now)
    assert side.begun[0].held == 2
    read.transport.unsent = 0
    read.connection.check(side.now)
    lost.connection.connection_lost(None)
    assert [begun.held for begun in side.begun] == [1, 1, 1]
    read.send(POST)
    read.transport.unsent = 70_000
    read.answer()
    read.connection.resume_writing()
    assert side.begun[-1].held == 1


UPGRADE = b"GET /%d HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"


def test_offers_of_another_protocol_in_one_piece_are_all_ignored(side: Side) -> None:
    client = Client(side)
    client.send(b"".join(UPGRADE % number for number in range(3_000)))
    for number in range(3_000):
        assert side.begun[number].request.path == f"/{number}"
        client.answer()
    assert client.statuses() == [200] * 3_000


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD"])
def test_an_offer_of_another_protocol_keeps_the_method(side: Side, method: str) -> None:
    client = Client(side)
    offer = b"host: x\r\nconnection: Upgrade\r\nupgrade: h2c"
    client.send(POST.replace(b"host: x", offer).replace(b"POST", method.encode()) + POST)
    client.answer()
    requests = [begun.request for begun in side.begun]
    assert [request.method for request in requests] == [method, "POST"]
    assert [request.body for request in requests] == [b"{}", b"{}"]


@pytest.mark.parametrize(
    ("data", "is_last"),
    [
        (POST.replace(b"1.1", b"1.0"), True),
        (POST.replace(b"host: x", b"host: x\r\nconnection: close"), True),
        (POST.replace(b"1.1\r\n", b"1.0\r\nconnection: keep-alive\r\n"), False),
        (POST, False),
    ],
)
def test_an_offer_of_another_protocol_keeps_whether_the_connection_is_kept(
    side: Side, data: bytes, is_last: bool
) -> None:
    client = Client(side)
    client.send(data.replace(b"host: x", b"host: x\r\nconnection: Upgrade\r\nupgrade: h2c"))
    client.answer()
    assert client.statuses() == [200]
    assert client.transport.is_ended is is_last


SIZES = {"one header": b"a: %b\r\n" % (b"b" * 38_000), "many": b"abc: defgh\r\n" * 3_000}


@pytest.mark.parametrize("headers", SIZES.values(), ids=list(SIZES))
@pytest.mark.parametrize("size", [100, 1_000, 20_000, 100_000])
def test_headers_are_counted_once_however_they_are_cut(
    side: Side, headers: bytes, size: int
) -> None:
    client = Client(side)
    data = POST + b"GET /2 HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n"
    for place in range(0, len(data), size):
        client.send(data[place : place + size])
    client.answer()
    client.answer()
    assert client.statuses() == [200, 200]


@pytest.mark.parametrize("size", [100, 1_000, 20_000, 200_000])
def test_many_small_headers_are_too_large_however_they_are_cut(side: Side, size: int) -> None:
    client = Client(side)
    data = b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 12_000 + b"\r\n"
    for place in range(0, len(data), size):
        client.send(data[place : place + size])
    assert client.statuses() == [431]
    assert side.begun == []


@pytest.mark.parametrize("piece", [b"a: " + b"b" * 1_000, b"a: b\r\n" * 200], ids=["one", "many"])
def test_headers_after_the_body_are_bounded(side: Side, piece: bytes) -> None:
    client = Client(side)
    client.send(CHUNKED + b"2\r\n{}\r\n0\r\n")
    for _ in range(70):
        client.send(piece)
    assert client.statuses() == [431]


def test_the_end_of_a_large_body_does_not_count_for_the_next_headers(side: Side) -> None:
    client = Client(side)
    head = POST.replace(b"length: 2", b"length: 300000").removesuffix(b"{}")
    client.send(head + b" " * 200_000)
    client.send(b" " * 100_000 + head[:-2])
    client.send(b"\r\n")
    assert client.statuses() == []
    assert len(side.begun) == 1


@pytest.mark.parametrize("is_pipelined", [False, True])
def test_a_connection_that_was_refused_is_closed(side: Side, is_pipelined: bool) -> None:
    client = Client(side)
    client.send((POST if is_pipelined else b"") + b"nonsense\r\n\r\n")
    if is_pipelined:
        client.check(module.LINGER_SECONDS + 0.1)
        assert not client.transport.is_closed, "a response is due before the refusal"
        client.answer()
    client.check(module.LINGER_SECONDS - 0.1)
    assert not client.transport.is_closed
    client.check(0.2)
    assert client.transport.is_closed


def test_nothing_is_read_after_the_last_response(side: Side) -> None:
    """The rest of the piece in which a request came has more of them."""
    client = Client(side)

    def begin(request: Request, connection: Connection) -> None:
        side.active += 1
        side.begun.append(Begun(request))
        connection.reply(Response(status=413, headers={"connection": "close"}, body=b"{}"))

    with mock.patch.object(side, "begin", begin):
        client.send(POST * 3)
    assert len(side.begun) == 1
    assert client.statuses() == [413]
    client.check(module.LINGER_SECONDS + 0.1)
    assert client.transport.is_closed


def body_of_refusal(client: Client) -> bytes:
    body: bytes = client.transport.written.rpartition(b"\r\n\r\n")[2]
    return body


HEAD = b"HEAD /%d HTTP/1.1\r\nhost: x\r\n\r\n"


def test_a_refusal_has_the_form_of_its_own_request(side: Side) -> None:
    after, before, itself = Client(side), Client(side), Client(side)
    after.send(HEAD % 1 + HEAD % 2 + b"nonsense\r\n\r\n")
    after.answer()
    after.answer()
    assert after.statuses() == [200, 200, 400]
    assert body_of_refusal(after), "it does not answer HEAD"
    before.send(HEAD % 1 + b"nonsense\r\n\r\n")
    before.answer("a body")
    assert b"a body" not in before.transport.written
    itself.send(b"HEAD / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n")
    assert itself.statuses() == [400]
    assert not body_of_refusal(itself)


def test_a_client_is_not_slow_while_the_server_does_not_read(side: Side) -> None:
    client = Client(side)
    client.send(POST * module.PIPELINED + POST + POST[:30])
    assert not client.transport.is_reading
    client.check(60)
    for _ in range(module.PIPELINED + 1):
        client.answer()
    client.check(request_reader.HEAD_SECONDS - 0.1)
    client.send(POST[30:])
    client.answer()
    assert client.statuses() == [200] * (module.PIPELINED + 2)
    client.send(POST[:30])
    client.check(request_reader.HEAD_SECONDS + 0.1)
    assert client.statuses()[-1] == 408


def test_a_client_is_not_slow_while_it_waits_to_be_told_to_send(side: Side) -> None:
    client = Client(side)
    head = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
    client.send(POST + head)
    client.check(60)
    client.answer()
    assert client.statuses() == [200, 100]
    client.check(request_reader.BODY_SECONDS - 0.1)
    client.send(b"{}")
    client.answer()
    assert client.statuses() == [200, 100, 200]


def test_a_slow_but_steady_reader_gets_a_large_response(client: Client) -> None:
    client.send(POST)
    client.connection.pause_writing()
    client.transport.unsent = 10_000_000
    client.answer(connection="close")
    while client.transport.unsent:
        client.check(module.WRITE_SECONDS - 1)
        assert not client.transport.is_closed
        client.transport.unsent = max(0, client.transport.unsent - 100_000)
    client.connection.resume_writing()
    client.check(0.5)
    client.check(module.LINGER_SECONDS - 1)
    assert not client.transport.is_closed
    client.check(2)
    assert client.transport.is_closed


@pytest.mark.parametrize(("is_paused", "step"), [(True, 0), (True, 100), (False, 0)])
def test_a_client_that_reads_next_to_nothing_is_cut_off(
    client: Client, is_paused: bool, step: int
) -> None:
    client.send(POST)
    if is_paused:
        client.connection.pause_writing()
    client.transport.unsent = 50_000
    client.answer()
    for _ in range(4):
        client.check(module.WRITE_SECONDS / 3)
        client.transport.unsent -= step
    assert client.transport.is_aborted


def test_bodies_that_wait_for_their_turn_take_room(side: Side) -> None:
    client, other = Client(side), Client(side)
    large = POST.replace(b"length: 2", b"length: 6000000").removesuffix(b"{}") + b" " * 6_000_000
    client.send(POST)
    client.send(large)
    other.send(large[:100_000])
    assert not other.transport.is_reading, "a body of 6 MB waits"
    client.send(large[:100_000])
    assert not client.transport.is_reading
    client.answer()
    assert other.transport.is_reading, "it has begun"
    other.connection.connection_lost(None)
    assert client.transport.is_reading
    client.send(large[100_000:])
    client.answer()
    client.answer()
    assert client.statuses() == [200, 200, 200]
    assert all_room_is_there(side)


@pytest.mark.parametrize("end", ["lost", "eof", "last"])
def test_bodies_that_are_never_begun_give_their_room_back(side: Side, end: str) -> None:
    client = Client(side)
    large = POST.replace(b"length: 2", b"length: 6000000").removesuffix(b"{}") + b" " * 6_000_000
    client.send(POST + large)
    if end == "lost":
        client.connection.connection_lost(None)
    elif end == "eof":
        client.connection.eof_received()
    else:
        client.answer(connection="close")
    assert len(side.begun) == 1
    assert all_room_is_there(side)


def test_a_body_that_ends_before_there_is_room_does_not_stop_the_connection(side: Side) -> None:
    first, second = Client(side), Client(side)
    first.send(POST.replace(b"length: 2", b"length: 6000000") + b" " * 100_000)
    second.send(POST.replace(b"length: 2", b"length: 7000000") + b" " * 100_000)
    second.connection.connection_lost(None)
    third = Client(side)
    body = b" " * 100_000
    third.send(CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    third.answer()
    assert third.transport.is_reading
    third.send(POST)
    third.answer()
    assert third.statuses() == [200, 200]
