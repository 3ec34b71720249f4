"""Credentials for a registry, and content of images, go where the registry's own address allows."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from mlship.adapters.http.clients import Reach
from mlship.adapters.images.registry.client import Ask, Exchange
from mlship.adapters.images.registry.credentials import Credential
from mlship.adapters.images.registry.registry import Registry
from mlship.adapters.images.registry.uploads import Content, upload
from mlship.domain import digests
from mlship.errors import MlshipError, UnavailableError
from tests.fakes.timing import patient

HOST, STORAGE = "registry.example.org", "storage.example.net"
ADA = Credential(user="ada", password="secret")
DATA = bytes(2 << 20)
GET = Ask(method="GET", url="/v2/iris/manifests/1", scope="repository:iris:pull")
Answer = Callable[[httpx.Request], httpx.Response]


class Net:
    """Two hosts; `answers` has what each answers. The registry asks for a token of `/token`."""

    def __init__(self, registry: Answer, storage: Answer) -> None:
        self._registry, self._storage = registry, storage
        self.seen: list[tuple[str, str, str]] = []
        self.bodies: dict[str, int] = {}
        self.waits: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = len(request.read())
        authorization = request.headers.get("Authorization", "")
        self.seen.append((request.method, str(request.url.copy_with(query=None)), authorization))
        if request.url.host == STORAGE:
            self.bodies[STORAGE] = self.bodies.get(STORAGE, 0) + body
            return self._storage(request)
        if request.url.path == "/token":
            assert authorization == ADA.basic
            return httpx.Response(200, json={"token": "t"})
        if authorization != "Bearer t":
            asked = f'Bearer realm="https://{HOST}/token"'
            return httpx.Response(401, headers={"WWW-Authenticate": asked})
        return self._registry(request)

    @property
    def exchange(self) -> Exchange:
        reach = Reach(transport=httpx.MockTransport(self))
        return Exchange(HOST, lambda: ADA, reach=reach, timing=patient(self.waits))

    def sent_to(self, host: str) -> list[tuple[str, str]]:
        """Return method and Authorization of the requests to a host."""
        return [(method, auth) for method, url, auth in self.seen if httpx.URL(url).host == host]


def redirects(status: int = 307, to: str = f"https://{STORAGE}/x") -> Answer:
    return lambda _: httpx.Response(status, headers={"Location": to})


def content() -> Content:
    def read(offset: int) -> Iterator[bytes]:
        yield DATA[offset:]

    return Content(digest=digests.of_bytes(DATA), size=len(DATA), read=read)


def test_a_download_from_a_storage_host_has_no_credentials() -> None:
    net = Net(redirects(), lambda _: httpx.Response(200, content=iter([DATA])))
    digest = digests.of_bytes(DATA)
    assert Registry(net.exchange).small_blob("iris", digest) == DATA
    assert net.sent_to(STORAGE) == [("GET", "")]


@pytest.mark.parametrize("scheme", ["Basic", f'Bearer realm="https://{STORAGE}/token"'])
def test_a_storage_host_that_asks_for_a_password_gets_none(scheme: str) -> None:
    asks = httpx.Response(401, headers={"WWW-Authenticate": scheme})
    first = [httpx.Response(200)]
    net = Net(lambda request: first.pop() if first else redirects()(request), lambda _: asks)
    exchange = net.exchange
    assert exchange.send(GET).status_code == 200
    before = len(net.seen)
    with pytest.raises(UnavailableError, match="denied"):
        exchange.send(GET)
    assert [auth for _, _, auth in net.seen[before:]] == ["Bearer t", ""]


def uploading(request: httpx.Request) -> httpx.Response:
    if request.method == "POST":
        return httpx.Response(202, headers={"Location": "/v2/iris/blobs/uploads/1"})
    return redirects()(request)


def stored(request: httpx.Request) -> httpx.Response:
    if request.method == "PATCH":
        headers = {"Location": f"https://{STORAGE}/y", "Range": f"0-{len(DATA) - 1}"}
        return httpx.Response(202, headers=headers)
    return httpx.Response(201)


def test_an_upload_that_is_redirected_arrives_whole_without_credentials() -> None:
    net = Net(uploading, stored)
    assert upload(net.exchange, "iris", content(), None) == "sent"
    assert net.sent_to(STORAGE) == [("PATCH", ""), ("PUT", "")]
    assert net.bodies[STORAGE] == len(DATA)


def test_an_upload_to_the_location_of_another_host_has_no_credentials() -> None:
    begin = httpx.Response(202, headers={"Location": f"https://{STORAGE}/x"})
    net = Net(lambda _: begin, stored)
    assert upload(net.exchange, "iris", content(), None) == "sent"
    assert net.sent_to(STORAGE) == [("PATCH", ""), ("PUT", "")]


@pytest.mark.parametrize("host", [HOST, STORAGE])
def test_nothing_is_sent_without_tls_after_https(host: str) -> None:
    for registry in (
        redirects(to=f"http://{host}/x"),
        lambda _: httpx.Response(202, headers={"Location": f"http://{host}/x"}),
    ):
        net = Net(registry, lambda _: httpx.Response(201))
        with pytest.raises(UnavailableError, match=f"URL without TLS: http://{host}/x") as caught:
            upload(net.exchange, "iris", content(), None)
        assert "X-Forwarded-Proto" in caught.value.hint
        assert not [url for _, url, _ in net.seen if url.startswith("http:")]


def test_a_token_is_not_fetched_through_a_redirect() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        if request.url.path == "/token":
            return redirects(to=f"https://{STORAGE}/token")(request)
        asked = f'Bearer realm="https://{HOST}/token"'
        return httpx.Response(401, headers={"WWW-Authenticate": asked})

    reach = Reach(transport=httpx.MockTransport(answer))
    with pytest.raises(UnavailableError, match="denied"):
        Exchange(HOST, lambda: ADA, reach=reach, timing=patient([])).send(GET)
    assert STORAGE not in seen


def test_redirects_that_go_round_end() -> None:
    net = Net(redirects(to="/v2/iris/manifests/1"), stored)
    with pytest.raises(UnavailableError, match="redirects"):
        net.exchange.send(GET)
    assert len(net.seen) < 20


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_a_refusal_is_not_repeated(status: int, method: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == method:
            return httpx.Response(status)
        if request.method == "PATCH":
            return httpx.Response(202, headers={"Location": "/x", "Range": f"0-{len(DATA) - 1}"})
        return httpx.Response(202, headers={"Location": "/v2/iris/blobs/uploads/1"})

    net = Net(answer, stored)
    with pytest.raises(MlshipError):
        upload(net.exchange, "iris", content(), None)
    tries = [auth for each, _, auth in net.seen if each == method and auth == "Bearer t"]
    # The token may have expired, so 401 is answered with a new one, once.
    assert len(tries) <= (2 if status == 401 else 1)
    assert not net.waits


@pytest.mark.parametrize("after", ["1", "Fri, 27 Nov 2026 10:00:00 GMT"])
def test_a_busy_registry_gets_the_bytes_later(after: str) -> None:
    busy = [httpx.Response(429, headers={"Retry-After": after}) for _ in range(2)]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH":
            if busy:
                return busy.pop()
            return httpx.Response(202, headers={"Location": "/x", "Range": f"0-{len(DATA) - 1}"})
        if request.method == "PUT":
            return httpx.Response(201)
        return httpx.Response(202, headers={"Location": "/v2/iris/blobs/uploads/1"})

    net = Net(answer, stored)
    assert upload(net.exchange, "iris", content(), None) == "sent"
    assert not busy
