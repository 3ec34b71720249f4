"""The door to HTTP: what is sent again and when, which proxy is taken, and when it is given up."""

import itertools
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest
from msgspec import structs

from mlship.adapters.http import bodies
from mlship.adapters.http.clients import Reach, open_client, system_trust
from mlship.adapters.http.door import Door, NoAnswerError, Terms, tried
from mlship.adapters.http.downloads import pieces
from mlship.adapters.http.proxies import proxy_for
from mlship.adapters.http.retries import Patience, Repeat, Timing, retry_after
from mlship.errors import ConfigError

NOON = 1_772_366_400.0
"""2026-03-01 12:00:00 UTC."""
Answer = httpx.Response | type[httpx.RequestError] | httpx.RequestError


class Server:
    """Answers in turn, and keeps what it was asked; its time passes only by pauses."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []
        self.waits: list[float] = []
        self.now = 0.0
        self.chance = 1.0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, httpx.Response):
            return answer
        raise answer("", request=request) if isinstance(answer, type) else answer

    def pause(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    @property
    def timing(self) -> Timing:
        return Timing(
            clock=lambda: NOON + self.now,
            monotonic=lambda: self.now,
            pause=self.pause,
            chance=lambda: self.chance,
        )

    def door(self, terms: Terms | None = None) -> Door:
        client = open_client(Reach(transport=httpx.MockTransport(self)), base_url="https://a")
        return Door(client, structs.replace(terms or Terms(name="server a"), timing=self.timing))

    def send(
        self, method: str = "GET", repeat: Repeat = "idempotent", patience: Patience | None = None
    ) -> httpx.Response:
        door = self.door(Terms(name="server a", patience=patience or Patience()))
        return door.send(door.client.build_request(method, "/x"), repeat=repeat)


def ok() -> httpx.Response:
    return httpx.Response(200, json={})


def busy(status: int, after: str | None = None) -> httpx.Response:
    return httpx.Response(status, headers={} if after is None else {"Retry-After": after})


FAILURES: list[tuple[Answer, str]] = [
    (httpx.ConnectError, "nothing was sent"),
    (httpx.ConnectTimeout, "nothing was sent"),
    (busy(429), "not acted on"),
    (busy(425), "not acted on"),
    (busy(500), "open"),
    (busy(502), "open"),
    (busy(503), "open"),
    (busy(503, "1"), "open"),
    (busy(504), "open"),
    (httpx.ReadError, "open"),
    (httpx.RemoteProtocolError, "open"),
    (httpx.DecodingError, "open"),
    (httpx.ReadTimeout, "open"),
]


@pytest.mark.parametrize(("failure", "outcome"), FAILURES)
@pytest.mark.parametrize(
    ("method", "repeat", "is_repeatable"),
    [
        ("GET", "idempotent", True),
        ("HEAD", "idempotent", True),
        ("PUT", "idempotent", True),
        ("DELETE", "idempotent", True),
        ("POST", "idempotent", False),
        ("PATCH", "idempotent", False),
        ("POST", "always", True),
    ],
)
def test_what_may_have_been_acted_on_is_repeated_where_twice_is_as_once(
    failure: Answer, outcome: str, method: str, repeat: Repeat, is_repeatable: bool
) -> None:
    server = Server(failure, ok())
    patience = Patience(after_silence=True)
    if outcome != "open" or is_repeatable:
        assert server.send(method, repeat, patience).status_code == 200
        assert len(server.asked) == 2
        return
    if isinstance(failure, httpx.Response):
        assert server.send(method, repeat, patience).status_code == failure.status_code
    else:
        with pytest.raises(NoAnswerError):
            server.send(method, repeat, patience)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 409, 501, 505])
def test_other_answers_are_not_repeated(status: int) -> None:
    server = Server(httpx.Response(status))
    assert server.send("GET", "always").status_code == status
    assert len(server.asked) == 1


def test_a_request_that_must_not_be_repeated_is_sent_once() -> None:
    for failure in (httpx.ConnectError, busy(429, "0")):
        server = Server(failure, ok())
        with suppress(NoAnswerError):
            assert server.send("GET", "never").status_code == 429
        assert len(server.asked) == 1


@pytest.mark.parametrize(("is_missing", "times"), [(True, 2), (False, 1)])
def test_a_look_decides_whether_a_creation_is_repeated(is_missing: bool, times: int) -> None:
    left: list[float] = []

    def look(seconds: float) -> bool:
        left.append(seconds)
        return is_missing

    server = Server(busy(502), ok())
    assert server.send("POST", look).status_code == (200 if is_missing else 502)
    assert len(server.asked) == times
    assert left == [59.5]
    unsent = Server(httpx.ConnectError, ok())
    assert unsent.send("POST", look).status_code == 200
    assert len(left) == 1, "nothing was sent, so there is nothing to look for"


def test_pauses_grow_to_a_limit_with_full_jitter() -> None:
    server = Server(busy(503))
    patience = Patience(attempts=7, first=0.5, longest=4.0)
    response = server.send(patience=patience)
    assert server.waits == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert tried(response) == " (7 attempts in 16 s)"
    server = Server(busy(503))
    server.chance = 0.25
    server.send(patience=patience)
    assert server.waits == [0.125, 0.25, 0.5, 1.0, 1.0, 1.0]


def test_no_attempt_begins_after_the_deadline_and_none_outlasts_it() -> None:
    limits: list[float] = []

    def silent(request: httpx.Request) -> httpx.Response:
        limits.append(request.extensions["timeout"]["read"])
        server.now += limits[-1]
        raise httpx.ReadTimeout("", request=request)

    server = Server(ok())
    client = open_client(Reach(transport=httpx.MockTransport(silent)), base_url="https://a")
    patience = Patience(deadline=60.0, attempts=1000, after_silence=True)
    door = Door(client, Terms(name="a", patience=patience, timing=server.timing))
    with pytest.raises(NoAnswerError, match=r"timed out \(3 attempts in 60 s\)"):
        door.send(client.build_request("GET", "/x"))
    assert limits == [20.0, 20.0, 18.5]


def test_a_server_that_was_never_reached_is_waited_for_more_briefly() -> None:
    patience = Patience(attempts=1000, longest=1.0, unreached=5.0)
    server = Server(httpx.ConnectError)
    with pytest.raises(NoAnswerError, match="attempts in 4 s"):
        server.send(patience=patience)
    server = Server(busy(503), httpx.ConnectError)
    with pytest.raises(NoAnswerError, match=r"attempts in (59|60) s"):
        server.send(patience=patience)
    server = Server(ok(), httpx.ConnectError)
    door = server.door(Terms(name="server a", patience=patience))
    door.send(door.client.build_request("GET", "/x"))
    with pytest.raises(NoAnswerError, match=r"attempts in (59|60) s"):
        door.send(door.client.build_request("GET", "/x"))


def test_a_host_name_that_cannot_be_resolved_is_given_up_in_seconds() -> None:
    error = caused(httpx.ConnectError("no"), socket.gaierror(socket.EAI_AGAIN, "for now"))
    patience = Patience(attempts=1000, longest=1.0)
    server = Server(error)
    with pytest.raises(NoAnswerError, match=r"attempts in (9|10) s"):
        server.send(patience=patience)
    server = Server(busy(503), error)
    with pytest.raises(NoAnswerError, match=r"attempts in (59|60) s"):
        server.send(patience=patience)


def test_silence_is_final_unless_the_door_is_told_otherwise() -> None:
    server = Server(httpx.ReadTimeout, ok())
    with pytest.raises(NoAnswerError, match=r"^timed out$"):
        server.send()
    assert server.waits == []


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("12", 12.0),
        (" 0 ", 0.0),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sunday, 01-Mar-26 12:00:30 GMT", 30.0),
        ("Sun Mar  1 12:00:30 2026", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("²", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOON) == seconds


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("after", ["7", "Sun, 01 Mar 2026 12:00:07 GMT"])
def test_a_server_is_waited_for_at_least_as_long_as_it_asks(status: int, after: str) -> None:
    server = Server(busy(status, after), ok())
    assert server.send().status_code == 200
    assert 7.0 <= server.waits[0] <= 7.5


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_for_more_than_the_patience_is_not_waited_for(status: int) -> None:
    server = Server(busy(status, "3600"), ok())
    assert server.send().status_code == status
    assert server.waits == []


def test_a_success_that_cannot_be_read_is_asked_for_again_and_not_for_ever() -> None:
    def whole(response: httpx.Response) -> bool:
        return response.text == "{}"

    server = Server(httpx.Response(200, text='{"a'), ok())
    door = server.door(Terms(name="a", is_whole=whole))
    assert door.send(door.client.build_request("GET", "/x")).text == "{}"
    server = Server(httpx.Response(200, text="<html>"))
    door = server.door(Terms(name="a", is_whole=whole))
    assert door.send(door.client.build_request("GET", "/x")).text == "<html>"
    assert len(server.asked) == 3
    server.asked.clear()
    door.send(door.client.build_request("POST", "/x"))
    assert len(server.asked) == 1


def test_the_body_of_an_error_is_read_although_a_stream_was_asked_for() -> None:
    server = Server(httpx.Response(404, content=iter([b"no such blob"])))
    door = server.door()
    response = door.send(door.client.build_request("GET", "/x"), stream=True)
    assert response.text == "no such blob"


def caused(error: httpx.RequestError, cause: Exception) -> httpx.RequestError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (caused(httpx.ConnectError("no"), ssl.SSLCertVerificationError(1, "self-signed")), 1),
        (caused(httpx.ConnectError("no"), socket.gaierror(socket.EAI_NONAME, "unknown")), 1),
        (caused(httpx.ConnectError("no"), socket.gaierror(socket.EAI_AGAIN, "for now")), 5),
        (caused(httpx.ConnectError("no"), ConnectionRefusedError()), 5),
        (httpx.UnsupportedProtocol("ftp"), 1),
    ],
)
def test_what_another_attempt_cannot_change_is_final(error: httpx.RequestError, times: int) -> None:
    server = Server(error)
    with pytest.raises(NoAnswerError):
        server.send()
    assert len(server.asked) == times


def redirecting(target: str) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/x":
            return httpx.Response(307, headers={"Location": target})
        return httpx.Response(200, json={"token": request.headers.get("Authorization")})

    return answer


def followed(base: str, target: str, *, follow: bool = True) -> httpx.Response:
    transport = httpx.MockTransport(redirecting(target))
    headers = {"Authorization": "Bearer t"}
    client = open_client(Reach(transport=transport), base_url=base, headers=headers)
    return Door(client, Terms(name="a")).send(client.build_request("GET", "/x"), follow=follow)


def test_redirects_are_followed_where_asked_for_and_credentials_stay_with_their_server() -> None:
    assert followed("https://a", "https://a/y").json() == {"token": "Bearer t"}
    assert followed("https://a", "https://b/y").json() == {"token": None}
    assert followed("http://a", "https://b/y").status_code == 200
    assert followed("https://a", "http://localhost/y").status_code == 200
    assert followed("https://a", "http://b/y", follow=False).status_code == 307
    with pytest.raises(NoAnswerError, match="redirect from https to http://b/y"):
        followed("https://a", "http://b/y?token=secret")


PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("http://a.example", {}, None),
        ("http://a.example", {"HTTP_PROXY": PROXY}, PROXY),
        ("http://a.example", {"HTTPS_PROXY": PROXY}, None),
        ("https://a.example", {"HTTPS_PROXY": PROXY}, PROXY),
        ("https://a.example", {"HTTP_PROXY": PROXY}, None),
        ("https://a.example", {"ALL_PROXY": PROXY}, PROXY),
        ("https://a.example", {"ALL_PROXY": "socks5://p:1"}, "socks5://p:1"),
        ("https://a.example", {"https_proxy": PROXY, "HTTPS_PROXY": "http://other"}, PROXY),
        ("https://a.example", {"HTTPS_PROXY": "proxy:3128"}, PROXY),
        ("https://a.example", {"HTTPS_PROXY": ""}, None),
        ("http://localhost:5000", {"ALL_PROXY": PROXY}, None),
        ("http://LOCALHOST.:5000", {"ALL_PROXY": PROXY}, None),
        ("http://registry.localhost", {"ALL_PROXY": PROXY}, None),
        ("http://127.0.0.9:5000", {"ALL_PROXY": PROXY}, None),
        ("http://[::1]:5000", {"ALL_PROXY": PROXY}, None),
        ("http://localhost.example", {"ALL_PROXY": PROXY}, PROXY),
    ],
)
def test_the_proxy_is_the_environments(
    url: str, environment: dict[str, str], proxy: str | None
) -> None:
    assert proxy_for(httpx.URL(url), environment) == proxy


@pytest.mark.parametrize(
    ("url", "listed", "is_direct"),
    [
        ("https://a.example", "*", True),
        ("https://a.example", "a.example", True),
        ("https://A.example", "b.example, A.EXAMPLE", True),
        ("https://a.example", "b.example a.example", True),
        ("https://x.a.example", "a.example", True),
        ("https://x.a.example", ".a.example", True),
        ("https://x.a.example", "*.a.example", True),
        ("https://xa.example", "a.example", False),
        ("https://a.example", "a.example:443", True),
        ("https://a.example", "a.example:8443", False),
        ("https://a.example:8443", "a.example:8443", True),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://11.1.2.3", "10.0.0.0/8", False),
        ("https://10.1.2.3", "10.1.2.3", True),
        ("https://110.1.2.3", "10.1.2.3", False),
        ("https://[fd00::1]", "fd00::/8", True),
        ("https://[fd00::1]:6443", "[fd00::1]:6443", True),
        ("https://[fd00::1]", "fd00::1", True),
        ("https://a.example", "10.0.0.0/8, ,/, .", False),
    ],
)
def test_no_proxy_names_hosts_networks_and_ports(url: str, listed: str, is_direct: bool) -> None:
    environment = {"HTTPS_PROXY": PROXY, "NO_PROXY": listed}
    assert proxy_for(httpx.URL(url), environment) == (None if is_direct else PROXY)


@pytest.mark.parametrize(
    "value", ["ftp://proxy", "http://", "http://a:b:c", "://", "a:65536", "http://a..b"]
)
def test_a_proxy_that_is_no_url_is_named_with_its_variable(value: str) -> None:
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        proxy_for(httpx.URL("https://a.example"), {"HTTPS_PROXY": value})
    assert caught.value.hint


def test_a_proxys_password_is_not_shown() -> None:
    for value in ("ftp://ada:s3cret@proxy", "ada:s3cret@proxy:65536"):
        with pytest.raises(ConfigError) as caught:
            proxy_for(httpx.URL("https://a.example"), {"HTTPS_PROXY": value})
        assert "s3cret" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_trusted_certificates_that_cannot_be_read_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "authorities.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    client = open_client(Reach(environment={}, trust=system_trust.__wrapped__))
    with pytest.raises(ConfigError, match=f"SSL_CERT_FILE: cannot use {path}: ") as caught:
        Door(client, Terms(name="a")).send(client.build_request("GET", "https://a.example"))
    assert "SSL_CERT_FILE" in caught.value.hint


def test_threads_share_no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=10)
    users: dict[httpx.HTTPTransport, set[int]] = {}

    def handle(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        users.setdefault(transport, set()).add(threading.get_ident())
        both.wait()
        return httpx.Response(200, request=request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", handle)
    with open_client(Reach(environment={})) as client, ThreadPoolExecutor(2) as pool:
        list(pool.map(client.get, ["http://a/1", "http://a/2"]))
    assert [len(threads) for threads in users.values()] == [1, 1]


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Server:
    """Let every connection fail, with or without a proxy."""

    def handle(_: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        raise error

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", handle)
    return Server()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (httpx.ConnectError("refused"), "proxy http://proxy:3128: refused"),
        (httpx.ConnectTimeout("timed out"), "proxy http://proxy:3128: timed out"),
        (httpx.ProxyError("407 Authentication"), "proxy http://proxy:3128: 407 Authentication"),
        (httpx.ReadTimeout(""), "timed out"),
        (httpx.ReadError("reset"), "reset"),
    ],
)
@pytest.mark.parametrize("is_own", [True, False])
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, error: httpx.RequestError, says: str, is_own: bool
) -> None:
    server = failing(monkeypatch, error)
    proxy = "http://ada:s3cret@proxy:3128"
    reach = (
        Reach(environment={}, proxy=proxy) if is_own else Reach(environment={"ALL_PROXY": proxy})
    )
    client = open_client(reach)
    terms = Terms(name="a", patience=Patience(attempts=1), timing=server.timing)
    with pytest.raises(NoAnswerError) as caught:
        Door(client, terms).send(client.build_request("GET", "http://a.example"))
    assert str(caught.value) == says


def test_an_untrusted_server_behind_a_proxy_is_not_the_proxys_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = caused(httpx.ConnectError("no"), ssl.SSLCertVerificationError(1, "self-signed"))
    failing(monkeypatch, error)
    client = open_client(Reach(environment={"ALL_PROXY": PROXY}))
    with pytest.raises(NoAnswerError, match=r"^no$") as caught:
        Door(client, Terms(name="a")).send(client.build_request("GET", "http://a.example"))
    assert caught.value.untrusted is not None


def test_a_name_that_no_host_can_have_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, UnicodeError("label too long"))
    client = open_client(Reach(environment={}))
    url = f"http://{'a' * 64}.example"
    with pytest.raises(NoAnswerError, match=r"example is not a valid host name$"):
        Door(client, Terms(name="a")).send(client.build_request("GET", url))


def broken(data: bytes) -> Iterator[bytes]:
    yield data
    raise httpx.ReadError("reset")


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_download_goes_on_where_it_broke(has_ranges: bool) -> None:
    data = bytes(range(256)) * 16
    cuts = [1000, 300, 0]
    offsets: list[int] = []

    def open_at(offset: int) -> httpx.Response:
        offsets.append(offset)
        rest = data[offset:] if has_ranges else data
        status = 206 if has_ranges and offset else 200
        if cuts:
            start = 0 if has_ranges else offset
            return httpx.Response(status, content=broken(rest[: start + cuts.pop(0)]))
        return httpx.Response(status, content=iter([rest]))

    server = Server(ok())
    got = b"".join(pieces(open_at, patience=Patience(), timing=server.timing))
    assert got == data
    assert offsets == [0, 1000, 1300, 1300]
    assert server.waits == [0.5, 0.5, 1.0]


def test_a_download_that_brings_nothing_again_and_again_is_given_up() -> None:
    server = Server(ok())

    def open_at(_: int) -> httpx.Response:
        return httpx.Response(200, content=broken(b""))

    with pytest.raises(NoAnswerError, match=r"reset \(5 attempts\)"):
        list(pieces(open_at, patience=Patience(), timing=server.timing))


class Endless(httpx.SyncByteStream):
    """A body of many equal pieces; each takes some seconds of a server's time."""

    def __init__(self, server: Server, piece: bytes, seconds: float) -> None:
        self.server, self.piece, self.seconds = server, piece, seconds
        self.count = 0
        self.is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(10_000):
            self.count += 1
            self.server.now += self.seconds
            yield self.piece
        pytest.fail("the body was read to its end")

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(("status", "stream"), [(200, False), (500, False), (500, True)])
def test_the_deadline_holds_for_the_body_of_an_answer(status: int, stream: bool) -> None:
    server = Server()
    body = Endless(server, b" ", 0.5)
    server.answers = [httpx.Response(status, stream=body)]
    door = server.door(Terms(name="a", patience=Patience(after_silence=True)))
    with pytest.raises(NoAnswerError, match=r"^timed out$"):
        door.send(door.client.build_request("GET", "/x"), stream=stream)
    assert server.now <= 61
    assert body.is_closed


class Dripping(httpcore.NetworkStream):
    """A connection that gives endless headers, a byte every few seconds."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self.server.now += 3.0
        if self.server.now > 10_000:
            pytest.fail("the headers were read for ever")
        return next(self.text)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.text = itertools.chain([b"HTTP/1.1 200 OK\r\n"], itertools.repeat(b"X"))

    def close(self) -> None:
        pass

    def get_extra_info(self, info: str) -> None:
        return None


class Tap(httpcore.NetworkBackend):
    """Opens dripping connections."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def connect_tcp(self, *_args: object, **_options: object) -> httpcore.NetworkStream:
        return Dripping(self.server)


def test_the_deadline_holds_for_the_headers_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()

    class Transport(httpx.HTTPTransport):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            pool: Any = self._pool
            pool._network_backend = Tap(server)

    monkeypatch.setattr(httpx, "HTTPTransport", Transport)
    client = open_client(Reach(environment={}), base_url="http://a")
    door = Door(client, Terms(name="a", timing=server.timing))
    with pytest.raises(NoAnswerError, match=r"^timed out$"):
        door.send(client.build_request("GET", "/x"))
    assert 60 <= server.now <= 70


def squeezed(data: bytes, window: int = 31) -> bytes:
    packer = zlib.compressobj(wbits=window)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(("encoding", "window"), [("gzip", 31), ("deflate", 15), ("deflate", -15)])
def test_a_body_that_is_too_large_once_decoded_is_given_up_while_it_is_read(
    monkeypatch: pytest.MonkeyPatch, encoding: str, window: int
) -> None:
    monkeypatch.setattr(bodies, "LARGEST", 1 << 20)
    headers = {"Content-Encoding": encoding}
    server = Server()
    plain = Endless(server, b" " * 1000, 0.0)
    bomb = Endless(server, squeezed(b" " * (2 << 20), window), 0.0)
    for body, given in ((plain, {}), (bomb, headers)):
        server.answers = [httpx.Response(200, headers=given, stream=body)]
        server.asked.clear()
        with pytest.raises(NoAnswerError, match=r"^it sent more than 1 MiB$"):
            server.send()
        assert len(server.asked) == 1, "another attempt would give the same"
        assert body.is_closed
        assert body.count <= 1100
    small = Bytes(squeezed(b"[1]", window))
    server.answers = [httpx.Response(200, headers=headers, stream=small)]
    assert server.send().json() == [1]


class Bytes(httpx.SyncByteStream):
    """A body that comes byte by byte."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __iter__(self) -> Iterator[bytes]:
        for each in self.data:
            yield bytes([each])


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, gzip"])
def test_a_body_that_cannot_be_decoded_is_an_error_of_the_server(encoding: str) -> None:
    server = Server()
    data = Bytes(squeezed(b"[1]")[:-9])
    server.answers = [httpx.Response(200, headers={"Content-Encoding": encoding}, stream=data)]
    with pytest.raises(NoAnswerError, match=r"incomplete|unknown Content-Encoding"):
        server.send(patience=Patience(attempts=1))


def test_a_stream_is_left_to_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "LARGEST", 10)
    server = Server()
    headers = {"Content-Encoding": "gzip"}
    server.answers = [httpx.Response(200, headers=headers, stream=Bytes(squeezed(b" " * 100)))]
    door = server.door()
    response = door.send(door.client.build_request("GET", "/x"), stream=True)
    assert b"".join(response.iter_raw()) == squeezed(b" " * 100)
