"""The client of a registry: what it sends, and what it makes of faults."""

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mlship.adapters.http.clients import Reach
from mlship.adapters.images.registry.client import Exchange
from mlship.adapters.images.registry.credentials import Credential, challenge, credential
from mlship.adapters.images.registry.registry import Registry
from mlship.adapters.images.registry.uploads import Content
from mlship.domain.image import is_google, reference
from mlship.errors import ConfigError, IntegrityError, NotFoundError, UnavailableError
from tests.fakes.registry import FakeRegistry, digest_of
from tests.fakes.timing import passing, patient

DATA = bytes(range(256)) * 12_000


@pytest.fixture
def fake() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def registry(fake: FakeRegistry, waits: list[float]) -> Registry:
    return client(fake, waits)


def client(
    fake: FakeRegistry,
    waits: list[float],
    known: Credential | None = None,
    host: str = "localhost:5000",
) -> Registry:
    return Registry(
        Exchange(host, lambda: known, reach=Reach(transport=fake.transport), timing=patient(waits))
    )


def content(data: bytes = DATA) -> Content:
    def read(offset: int) -> Iterator[bytes]:
        for start in range(offset, len(data), 100_000):
            yield data[start : start + 100_000]

    return Content(digest=digest_of(data), size=len(data), read=read)  # type: ignore[arg-type]


def test_a_blob_is_sent_once_and_then_found(fake: FakeRegistry, registry: Registry) -> None:
    assert registry.bring("iris", content()) == "sent"
    assert fake.blobs["iris"][digest_of(DATA)] == DATA
    assert registry.bring("iris", content()) == "there"
    assert registry.exchange.sent == len(DATA)


def test_a_blob_of_another_repository_is_mounted_and_not_sent(
    fake: FakeRegistry, registry: Registry
) -> None:
    fake.put("library/python", DATA)
    assert registry.bring("iris", content(), "library/python") == "mounted"
    assert registry.exchange.sent == 0


def test_a_registry_that_does_not_mount_gets_the_bytes(
    fake: FakeRegistry, registry: Registry
) -> None:
    fake.put("library/python", DATA)
    fake.mounts_nothing = True
    assert registry.bring("iris", content(), "library/python") == "sent"


def test_a_broken_upload_goes_on_where_the_registry_has_it(
    fake: FakeRegistry, registry: Registry
) -> None:
    fake.breaks = [1_000_000, 700_000]
    assert registry.bring("iris", content()) == "sent"
    assert fake.blobs["iris"][digest_of(DATA)] == DATA
    last = len(DATA) - 1
    assert fake.ranges == ["", f"1000000-{last}", f"1700000-{last}"]
    assert fake.requests["POST"] == 1


def test_an_upload_that_broke_before_its_first_byte_is_sent_whole(
    fake: FakeRegistry, registry: Registry
) -> None:
    fake.breaks = [0]
    assert registry.bring("iris", content()) == "sent"
    assert fake.blobs["iris"][digest_of(DATA)] == DATA


def test_an_upload_that_the_registry_forgot_begins_again(
    fake: FakeRegistry, registry: Registry
) -> None:
    fake.breaks, fake.forgets = [1_000_000], True
    assert registry.bring("iris", content()) == "sent"
    assert fake.requests["POST"] == 2


def test_a_registry_that_breaks_every_upload_is_given_up(
    fake: FakeRegistry, registry: Registry
) -> None:
    fake.breaks, fake.forgets = [10] * 100, True
    with pytest.raises(UnavailableError, match="localhost:5000 interrupted 5 uploads"):
        registry.bring("iris", content())
    assert "iris" not in fake.blobs


def test_a_broken_download_goes_on_where_it_broke(fake: FakeRegistry, registry: Registry) -> None:
    digest = content().digest
    fake.put("iris", DATA)
    fake.cuts = [1_000_000, 5]
    assert b"".join(registry.read_blob("iris", digest)) == DATA
    assert registry.small_blob("iris", digest) == DATA
    fake.blobs["iris"][digest] = b"other bytes"
    with pytest.raises(IntegrityError, match="has digest"):
        registry.small_blob("iris", digest)


def test_a_busy_registry_is_waited_for_as_long_as_it_asks(
    fake: FakeRegistry, registry: Registry, waits: list[float]
) -> None:
    fake.put("iris", DATA)
    fake.answers = [(429, {"Retry-After": "7"}), (503, {})]
    assert registry.has_blob("iris", content().digest)
    assert waits == [7.5, 1.0]


def test_more_patience_than_a_minute_is_the_users_to_decide(
    fake: FakeRegistry, registry: Registry, waits: list[float]
) -> None:
    fake.answers = [(429, {"Retry-After": "3600"})]
    with pytest.raises(UnavailableError, match="busy") as caught:
        registry.has_blob("iris", content().digest)
    assert "3600" in caught.value.hint
    assert waits == []


def test_a_registry_that_is_down_is_named(waits: list[float]) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused", request=request)

    exchange = Exchange(
        "localhost:5000",
        lambda: None,
        reach=Reach(transport=httpx.MockTransport(refuse)),
        timing=passing(waits),
    )
    with pytest.raises(UnavailableError, match=r"localhost:5000 does not answer.*refused"):
        Registry(exchange).manifest(reference("localhost:5000/iris:1"))
    assert waits == [0.5, 1.0, 2.0, 4.0]


def test_a_manifest_is_read_back_and_a_lying_registry_found_out(
    fake: FakeRegistry, registry: Registry
) -> None:
    name = reference("localhost:5000/iris:1")
    registry.put_manifest(name, b"{}", "application/vnd.oci.image.manifest.v1+json")
    fake.lies = True
    with pytest.raises(IntegrityError, match="but the registry returned"):
        registry.put_manifest(name, b"{}", "application/vnd.oci.image.manifest.v1+json")
    with pytest.raises(IntegrityError, match="has digest"):
        registry.manifest(name.at(digest_of(b"{}")))  # type: ignore[arg-type]


def test_who_may_push_logs_in_by_a_token(fake: FakeRegistry, waits: list[float]) -> None:
    fake.password = "secret"
    registry = client(fake, waits, Credential(user="ada", password="secret"))
    assert registry.bring("iris", content()) == "sent"
    assert fake.log.count("GET /token") == 2, "one to look, one to push"


@pytest.mark.parametrize("known", [None, Credential(user="ada", password="wrong")])
def test_who_is_denied_is_told_the_repository_and_how_to_log_in(
    fake: FakeRegistry, waits: list[float], known: Credential | None
) -> None:
    fake.password = "secret"
    with pytest.raises(UnavailableError, match="localhost:5000 denied the pull from iris") as e:
        client(fake, waits, known).bring("iris", content())
    assert "docker login localhost:5000" in e.value.hint
    assert "secret" not in str(e.value)


def test_who_may_only_read_is_told_so_in_the_registrys_words(
    fake: FakeRegistry, waits: list[float]
) -> None:
    fake.password, fake.pushes = "secret", False
    registry = client(fake, waits, Credential(user="ada", password="secret"))
    with pytest.raises(UnavailableError, match=r"push to iris \(DENIED: you may only read\)"):
        registry.bring("iris", content())


def test_a_repository_that_must_be_created_first_is_no_broken_network(
    fake: FakeRegistry, registry: Registry
) -> None:
    fake.answers = [(404, {}), (404, {})]
    with pytest.raises(NotFoundError, match="has no repository iris"):
        registry.bring("iris", content())


def test_a_password_is_not_sent_where_anybody_could_read_it(waits: list[float]) -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        asked = 'Bearer realm="http://elsewhere.example/token"'
        return httpx.Response(401, headers={"WWW-Authenticate": asked})

    exchange = Exchange(
        "ghcr.io",
        lambda: Credential(user="ada", password="secret"),
        reach=Reach(transport=httpx.MockTransport(answer)),
        timing=patient(waits),
    )
    with pytest.raises(ConfigError, match="without TLS"):
        Registry(exchange).has_blob("iris", content().digest)
    assert [request.url.host for request in seen] == ["ghcr.io"]
    assert seen[0].url.scheme == "https"


def test_only_local_and_named_registries_are_spoken_to_without_tls() -> None:
    def scheme(host: str) -> str:
        return Exchange(host, lambda: None, insecure=("10.0.0.5:5000",)).url.scheme

    assert scheme("localhost:5000") == scheme("127.0.0.1:5001") == scheme("[::1]:5000") == "http"
    assert scheme("10.0.0.5:5000") == "http"
    assert scheme("10.0.0.6:5000") == scheme("localhost.example") == scheme("ghcr.io") == "https"


def test_a_challenge_is_read_with_commas_and_quotes_in_it() -> None:
    asked = challenge(
        'Bearer realm="https://auth.example/token",service="a \\"b\\"",'
        'scope="repository:x:pull,push"'
    )
    assert asked is not None
    assert (asked.scheme, asked.realm) == ("bearer", "https://auth.example/token")
    assert (asked.service, asked.scope) == ('a "b"', "repository:x:pull,push")
    basic = challenge("Basic realm=registry")
    assert basic is not None
    assert basic.scheme == "basic"
    assert challenge("Negotiate") is None


def docker(folder: Path, text: str) -> dict[str, str]:
    (folder / "config.json").write_text(text)
    return {"DOCKER_CONFIG": str(folder), "PATH": "/nonexistent"}


def test_credentials_of_docker_are_found_under_each_of_its_keys(tmp_path: Path) -> None:
    auth = base64.b64encode(b"ada:se:cret").decode()
    environment = docker(tmp_path, f'{{"auths": {{"https://ghcr.io/v2/": {{"auth": "{auth}"}}}}}}')
    found = credential("ghcr.io", environment, is_own=True)
    assert found == Credential(user="ada", password="se:cret")
    assert "se:cret" not in repr(found)
    assert credential("docker.io", environment, is_own=False) is None


def test_the_environments_credential_goes_to_the_own_registry_only(tmp_path: Path) -> None:
    environment = docker(tmp_path, "{}")
    environment |= {"MLSHIP_REGISTRY_USER": "ada", "MLSHIP_REGISTRY_PASSWORD": "secret"}
    own = credential("localhost:5000", environment, is_own=True)
    assert own == Credential(user="ada", password="secret")
    assert credential("docker.io", environment, is_own=False) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read .*config.json"),
        ('{"auths": {"ghcr.io": {"auth": "%"}}}', "auths.ghcr.io.auth is not base64"),
        ('{"credsStore": "x; rm -rf /"}', "credential helper"),
    ],
)
def test_broken_files_of_docker_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        credential("ghcr.io", docker(tmp_path, text), is_own=True)


def test_half_a_credential_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be set together"):
        credential("ghcr.io", {"MLSHIP_REGISTRY_USER": "ada"}, is_own=True)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("europe-west1-docker.pkg.dev", True),
        ("gcr.io", True),
        ("eu.gcr.io", True),
        ("ghcr.io", False),
        ("docker.pkg.dev.example", False),
        ("notgcr.io", False),
    ],
)
def test_googles_registries_are_known_by_their_names(host: str, *, expected: bool) -> None:
    assert is_google(host) is expected
