"""What a registry answers, or does not, in a person's words."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from mlship.adapters.http.clients import Reach
from mlship.adapters.http.door import NoAnswerError
from mlship.adapters.images.registry import faults
from mlship.adapters.images.registry.client import Ask, Exchange
from mlship.adapters.images.registry.uploads import Content, upload
from mlship.domain import digests
from mlship.errors import ConflictError, MlshipError, UnavailableError
from tests.fakes.timing import passing

ASK = Ask(method="GET", url="/v2/iris/manifests/1", scope="repository:iris:pull")


def exchange(answer: Callable[[httpx.Request], httpx.Response], waits: list[float]) -> Exchange:
    transport = httpx.MockTransport(answer)
    return Exchange(
        "localhost:5000", lambda: None, reach=Reach(transport=transport), timing=passing(waits)
    )


def raising(error: type[httpx.RequestError], seen: list[str], text: str = "") -> Exchange:
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        raise error(text, request=request)

    return exchange(answer, [])


def test_a_silent_registry_is_asked_once_and_a_broken_connection_again() -> None:
    for error, times, says in (
        (httpx.ReadTimeout, 1, "does not answer at http://localhost:5000: timed out"),
        (httpx.ConnectError, 5, "does not answer at http://localhost:5000: ConnectError"),
    ):
        seen: list[str] = []
        with pytest.raises(UnavailableError, match=says):
            raising(error, seen).send(ASK)
        assert len(seen) == times


def test_a_certificate_that_is_not_believed_is_told_from_silence() -> None:
    with pytest.raises(UnavailableError, match="no trusted connection") as caught:
        raising(httpx.ConnectError, [], "[SSL: WRONG_VERSION_NUMBER]").send(ASK)
    assert "SSL_CERT_FILE" in caught.value.hint
    assert "image.insecure: [localhost:5000]" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "message", "error", "hint"),
    [
        (400, "repository is immutable", ConflictError, "image.repository"),
        (412, "configured as immutable", ConflictError, "image.repository"),
        (413, "", UnavailableError, "size of a request"),
        (429, "", UnavailableError, "retry after 90 s"),
        (500, "no space left", UnavailableError, "registry's log"),
    ],
)
def test_each_refusal_has_a_next_step(
    status: int, message: str, error: type[MlshipError], hint: str
) -> None:
    headers = {"Retry-After": "90"} if status == 429 else {}
    answer = httpx.Response(status, headers=headers, json={"errors": [{"message": message}]})
    found = exchange(lambda _: answer, []).failure(answer, "tag 1 of iris")
    assert type(found) is error
    assert message in found.message
    assert hint in found.hint


def test_who_gives_tokens_and_cannot_is_told_from_one_that_denies() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/token":
            return httpx.Response(503)
        asked = 'Bearer realm="http://localhost:5001/token"'
        return httpx.Response(401, headers={"WWW-Authenticate": asked})

    with pytest.raises(UnavailableError, match="answered 503 for a token of localhost"):
        exchange(answer, []).send(ASK)


def test_an_upload_that_breaks_off_again_and_again_tells_the_registrys_words() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH":
            said = {"code": "UNKNOWN", "message": "no space left on device"}
            return httpx.Response(500, json={"errors": [said]})
        if request.method == "GET":
            return httpx.Response(404)
        return httpx.Response(202, headers={"Location": "/v2/iris/blobs/uploads/1"})

    def read(offset: int) -> Iterator[bytes]:
        yield data[offset:]

    data = bytes(2 << 20)
    content = Content(digest=digests.of_bytes(data), size=len(data), read=read)
    with pytest.raises(UnavailableError, match="no space left on device"):
        upload(exchange(answer, []), "iris", content, None)


@pytest.mark.parametrize(
    ("host", "starts", "names_base"),
    [
        ("localhost:5000", True, False),
        ("registry.example.org", True, False),
        ("europe-west1-docker.pkg.dev", False, False),
        ("ghcr.io", False, False),
        ("docker.io", False, True),
    ],
)
def test_nobody_is_asked_to_start_a_public_registry(
    host: str, starts: bool, names_base: bool
) -> None:
    error = faults.unreachable(
        NoAnswerError(httpx.ReadTimeout("slow"), ""), host, f"https://{host}"
    )
    assert ("start it" in error.hint) == starts
    assert ("`image.base` may name a copy" in error.hint) == names_base
    assert "the network and the proxy" in error.hint
