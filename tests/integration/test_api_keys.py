"""API keys and certificates of real servers: under load, over gRPC, and metrics apart."""

import codecs
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import httpx
import msgspec
import pytest

from mlship.adapters.load.generator import ProcessGenerator
from mlship.adapters.targets.local import LocalTarget, supervision
from mlship.adapters.targets.local.state import Logging, State
from mlship.config.access import TlsConfig
from mlship.config.project import TargetConfig
from mlship.domain import digests, tls
from mlship.domain.bundle import MANIFEST
from mlship.domain.deployment import Artifact, Slot, Split, slot_of
from mlship.domain.load import LoadPlan, LoadResult
from mlship.domain.workload import Request
from mlship.errors import ConfigError, UnavailableError
from mlship.runtime.dialects.grpc_messages import SERVICE, messages
from mlship.steps import api_keys
from mlship.steps.api_keys import KeyPlace
from mlship.steps.replay import replay
from tests.harness import asking, certificates, serving
from tests.harness.bundles import SETOSA, iris_bundle
from tests.harness.places import Notes
from tests.harness.samples import release

ONE = release("one")
RELEASE = "sha256:" + "ab" * 32


def add(place: KeyPlace, name: str) -> str:
    return api_keys.add(place, name, datetime.now(UTC))


class Local:
    """A local target with the real runtime."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = KeyPlace(path=folder / "api-keys.json")
        self.slot: Slot = slot_of(ONE)
        self.state = State(folder / "target")
        iris_bundle(folder / "iris")

    def target(self, *, keyed: bool) -> LocalTarget:
        config = TargetConfig(
            ready_seconds=60, drain_seconds=3, api_keys=str(self.keys.path) if keyed else None
        )
        logs = Logging(place=str(self.folder / "log"))
        return LocalTarget("staging", self.folder / "target", config, logs, Notes())

    def deploy(self, *, keyed: bool) -> None:
        target = self.target(keyed=keyed)
        digest = digests.of_file(self.folder / "iris" / MANIFEST)
        bundle = Artifact(kind="bundle", digest=digest, location=str(self.folder / "iris"))
        target.deploy(ONE, bundle, self.slot, replicas=2)

    def route(self) -> str:
        """Send all requests to the slot; return the address."""
        target = self.target(keyed=True)
        target.route(Split(weights={self.slot: 100}), expected=target.routes().revision)
        return target.routes().endpoint


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    local = Local(tmp_path)
    yield local
    local.target(keyed=True).down()


def statuses(url: str, key: str = "", count: int = 8) -> set[int]:
    """Return how requests on connections of their own are answered, by whichever replica."""
    headers = {"x-api-key": key} if key else {}
    return {
        asking.post(f"{url}/predict", json=SETOSA, headers=headers, timeout=10).status_code
        for _ in range(count)
    }


def until(url: str, key: str, status: int) -> None:
    supervision.until(
        lambda: statuses(url, key) == {status}, seconds=20, what=f"status {status} everywhere"
    )


@contextmanager
def load(url: str, keys: list[str]) -> Iterator[Counter[int]]:
    """Ask all the time with the key that is last in the list; count the statuses."""
    answers: Counter[int] = Counter()
    ended = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=20) as client:
            while not ended.is_set():
                headers = {"authorization": f"Bearer {keys[-1]}"}
                answer = client.post(f"{url}/predict", json=SETOSA, headers=headers)
                answers[answer.status_code] += 1
                time.sleep(0.005)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_keys_are_required_and_rotated_under_load_without_a_failure(local: Local) -> None:
    former = add(local.keys, "web")
    local.deploy(keyed=True)
    url = local.route()
    before = {replica.process.pid for replica in local.state.running().replicas}
    assert statuses(url) == {401}
    assert statuses(url, "wrong") == {401}
    assert statuses(url, former) == {200}
    assert asking.get(f"{url}/v2/health/ready").status_code == 200
    assert asking.get(f"{url}/docs").status_code == 401
    keys = [former]
    with load(url, keys) as answers:
        fresh = add(local.keys, "web2")
        until(url, fresh, 200)
        keys.append(fresh)
        time.sleep(0.5)
        api_keys.remove(local.keys, "web")
        until(url, former, 401)
        time.sleep(0.5)
    assert set(answers) == {200}
    assert answers[200] > 100
    assert {replica.process.pid for replica in local.state.running().replicas} == before


def test_a_client_that_keeps_a_removed_key_is_refused(local: Local) -> None:
    """The control of the test above: a removed key fails requests."""
    former = add(local.keys, "web")
    local.deploy(keyed=True)
    url = local.route()
    with load(url, [former]) as answers:
        supervision.until(lambda: answers[200] > 20, seconds=20, what="answers")
        api_keys.remove(local.keys, "web")
        supervision.until(lambda: answers[401] > 20, seconds=20, what="refusals")
    assert set(answers) == {200, 401}


def test_running_replicas_are_replaced_when_a_target_gets_keys(local: Local) -> None:
    with pytest.raises(ConfigError, match="cannot read the API keys"):
        local.deploy(keyed=True)
    local.deploy(keyed=False)
    url = local.route()
    assert statuses(url) == {200}
    key = add(local.keys, "web")
    with load(url, [key]) as answers:
        local.deploy(keyed=True)
        assert statuses(url) == {401}
        assert statuses(url, key) == {200}
    assert set(answers) == {200}
    local.deploy(keyed=False)
    assert statuses(url) == {200}


def test_metrics_of_each_replica_are_where_prometheus_looks(local: Local) -> None:
    key = add(local.keys, "web")
    local.deploy(keyed=True)
    url = local.route()
    assert statuses(url, key, count=20) == {200}
    assert asking.get(f"{url}/metrics", headers={"x-api-key": key}).status_code == 404
    places = json.loads((local.folder / "target" / "metrics.json").read_text())
    assert len(places) == 2
    texts = [asking.get(f"http://{place['targets'][0]}/metrics").text for place in places]
    assert sum('mlship_api_key_requests_total{key="web"}' in text for text in texts) >= 1
    assert not any(key in text for text in texts)
    for place in places:
        other = asking.post(f"http://{place['targets'][0]}/predict", json=SETOSA)
        assert other.status_code == 404, "no predictions on this port"
    local.target(keyed=True).down()
    assert json.loads((local.folder / "target" / "metrics.json").read_text()) == []


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Server:
    """A server with keys, gRPC and a port for metrics."""

    def __init__(self, folder: Path) -> None:
        self.keys = KeyPlace(path=folder / "api-keys.json")
        self.key = add(self.keys, "web")
        iris_bundle(folder / "iris")
        port, rpc, metrics = free_ports(3)
        self.url, self.metrics = (f"http://127.0.0.1:{each}" for each in (port, metrics))
        self.channel = grpc.insecure_channel(f"127.0.0.1:{rpc}")
        options = ["--bundle", "iris", "--release", RELEASE, "--slot", "r", "--port", str(port)]
        options += ["--log", "log", "--grpc-port", str(rpc), "--metrics-port", str(metrics)]
        options += ["--api-keys", "api-keys.json", "--shutdown-seconds", "2"]
        self.errors = folder / "stderr"
        with self.errors.open("wb") as errors:
            self.process = serving.start(options, folder, errors=errors)
        until = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < until:
            try:
                asking.get(f"{self.url}/v2/health/live", timeout=1)
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return

    def call(self, method_name: str, metadata: list[tuple[str, str]], /, **fields: Any) -> Any:
        """Call a method of gRPC with metadata and a message of these fields."""
        method = self.channel.unary_unary(
            f"/{SERVICE}/{method_name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=messages()[f"{method_name}Response"].FromString,
        )
        return method(messages()[f"{method_name}Request"](**fields), timeout=20, metadata=metadata)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.channel.close()
    server.process.kill()
    server.process.wait(10)


def code_of(server: Server, method: str, *metadata: tuple[str, str], **fields: Any) -> str:
    try:
        server.call(method, list(metadata), **fields)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def test_grpc_has_the_same_keys(server: Server) -> None:
    key = ("authorization", f"Bearer {server.key}")
    assert code_of(server, "ServerLive") == code_of(server, "ServerReady") == "OK"
    assert code_of(server, "ModelReady", name="iris") == "OK"
    for name, fields in (("ServerMetadata", {}), ("ModelMetadata", {"name": "iris"})):
        assert code_of(server, name, **fields) == "UNAUTHENTICATED"
        assert code_of(server, name, ("x-api-key", "wrong"), **fields) == "UNAUTHENTICATED"
        assert code_of(server, name, key, **fields) == "OK"
    assert code_of(server, "ModelInfer", model_name="iris") == "UNAUTHENTICATED"
    assert code_of(server, "ModelInfer", key, model_name="iris") == "INVALID_ARGUMENT"
    with pytest.raises(grpc.RpcError) as refused:
        server.call("ModelInfer", [], model_name="iris")
    assert "authorization: Bearer" in refused.value.details()


def test_the_message_of_a_stranger_is_not_read(server: Server) -> None:
    """One that is too large would be refused for its size, once its length is read."""
    infer = server.channel.unary_unary(f"/{SERVICE}/ModelInfer")
    codes = []
    for key in ("wrong", server.key):
        with pytest.raises(grpc.RpcError) as refused:
            infer(bytes(10_000_001), timeout=20, metadata=[("x-api-key", key)])
        codes.append(refused.value.code().name)
    assert codes == ["UNAUTHENTICATED", "RESOURCE_EXHAUSTED"]
    assert code_of(server, "ServerMetadata", ("x-api-key", server.key)) == "OK"


def test_a_stranger_learns_nothing_from_paths_methods_or_headers(server: Server) -> None:
    paths = ("/predict", "/predict?x=1", "/PREDICT", "/%70redict", "//predict", "/nothing")
    with httpx.Client(base_url=server.url) as client:
        for path in paths:
            for method in ("GET", "POST", "PUT", "HEAD", "QUERY"):
                answer = client.request(method, path)
                assert answer.status_code == 401, (method, path)
                assert answer.headers["www-authenticate"].startswith("Bearer")
        hostile = (
            [("authorization", f"Bearer {server.key}"), ("authorization", "Bearer wrong")],
            [("x-api-key", server.key), ("x-api-key", "")],
            [("x-api-key", "a" * 60_000)],
            [("x-api-key\n", server.key)],
        )
        for headers in hostile:
            try:
                answer = client.post("/predict", json=SETOSA, headers=headers)
            except httpx.LocalProtocolError:
                continue
            assert answer.status_code == 401, headers
        own = {"x-api-key": server.key}
        assert client.post("/predict", json=SETOSA, headers=own).status_code == 200


def test_a_large_body_of_a_stranger_is_dropped_and_the_connection_stays(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        for _ in range(5):
            assert client.post("/predict", content=b" " * 9_000_000).status_code == 401
        own = {"x-api-key": server.key}
        assert client.post("/predict", json=SETOSA, headers=own).status_code == 200
    with httpx.Client(base_url=server.url, timeout=20) as client:
        assert client.post("/predict", content=b" " * 11_000_000).status_code == 413


def test_log_lines_name_keys_and_never_show_them(server: Server) -> None:
    own = {"x-api-key": server.key}
    assert asking.post(f"{server.url}/predict", json=SETOSA, headers=own).status_code == 200
    wrong = {"x-api-key": "mlship_wrong"}
    assert asking.post(f"{server.url}/predict", json=SETOSA, headers=wrong).status_code == 401
    text = asking.get(f"{server.metrics}/metrics").text
    assert 'mlship_api_key_requests_total{key="web"} 1.0' in text
    assert 'mlship_unauthorized_total{reason="wrong"} 1.0' in text
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    said = server.errors.read_text()
    assert "API keys that are accepted: web" in said
    assert server.key not in said + text
    assert "mlship_wrong" not in said + text


@pytest.mark.parametrize("content", [None, b"{", b'{"keys": [{"name": "web"}]}'])
def test_a_server_without_a_valid_file_does_not_start(
    tmp_path: Path, content: bytes | None
) -> None:
    iris_bundle(tmp_path / "iris")
    if content is not None:
        (tmp_path / "api-keys.json").write_bytes(content)
    port = free_ports(1)[0]
    options = ["--bundle", "iris", "--release", RELEASE, "--slot", "r", "--port", str(port)]
    options += ["--log", "log", "--api-keys", "api-keys.json"]
    command = [sys.executable, "-P", "-m", "mlship.runtime", "serve", *options]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "api-keys.json" in ended.stderr.decode()
    assert "mlship api-keys add" in ended.stderr.decode()


def test_the_file_of_hashes_is_all_that_a_server_needs(server: Server) -> None:
    document = msgspec.json.decode(server.keys.path.read_bytes())
    assert set(document["keys"][0]) == {"name", "sha256", "added"}


class Encrypted(Local):
    """The same with a certificate."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.certificate, self.private = folder / "certificate.pem", folder / "key.pem"
        # A client that trusts the authority opens connections before and after a renewal.
        self.trusted, self.authority = folder / "authority.pem", certificates.Authority()
        self.authority.write(self.trusted)
        self.renew()

    def renew(self) -> bytes:
        """Write another certificate, and return it."""
        return certificates.write(self.folder, authority=self.authority)

    def target(self, *, keyed: bool) -> LocalTarget:
        own = TlsConfig(certificate=str(self.certificate), key=str(self.private))
        config = TargetConfig(
            ready_seconds=60, drain_seconds=3, api_keys=str(self.keys.path), tls=own
        )
        config = config if keyed else msgspec.structs.replace(config, tls=None)
        logs = Logging(place=str(self.folder / "log"))
        return LocalTarget("staging", self.folder / "target", config, logs, Notes())

    def shown(self) -> bytes:
        """Return the certificate that a client gets."""
        url = httpx.URL(self.target(keyed=True).routes().endpoint)
        return ssl.get_server_certificate((url.host, url.port or 0), timeout=10).encode()


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[Encrypted]:
    encrypted = Encrypted(tmp_path)
    yield encrypted
    encrypted.target(keyed=True).down()


def test_a_certificate_is_renewed_under_load_without_a_failure(encrypted: Encrypted) -> None:
    key = add(encrypted.keys, "web")
    encrypted.deploy(keyed=True)
    url = encrypted.route()
    assert url.startswith("https://127.0.0.1:")
    request = Request(name="setosa", body=SETOSA)

    def ask(number: int = 1) -> set[int]:
        own = encrypted.certificate
        replies = replay([request] * number, url, api_key=key, certificate=own)
        return {reply.status for reply in replies}

    assert ask(20) == {200}
    with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        replay([request], url, api_key=key)
    with pytest.raises(httpx.TransportError):
        asking.get(url.replace("https", "http") + "/v2/health/live")
    plan = LoadPlan(
        url=f"{url}/predict",
        bodies=(msgspec.json.encode(SETOSA).decode(),),
        rate=50,
        seconds=6,
        users=4,
    )
    answers: list[LoadResult] = []
    generator = ProcessGenerator(key, encrypted.trusted)
    loading = threading.Thread(target=lambda: answers.append(generator.run(plan, lambda _: None)))
    loading.start()
    time.sleep(2)
    before = {replica.process.pid for replica in encrypted.state.running().replicas}
    router = encrypted.state.running().router
    fresh = encrypted.renew()
    supervision.until(lambda: encrypted.shown() == fresh, seconds=20, what="the new certificate")
    loading.join()
    assert (answers[0].answered, answers[0].errors) == (300, {})
    assert ask(20) == {200}
    assert {replica.process.pid for replica in encrypted.state.running().replicas} == before
    assert encrypted.state.running().router == router


def test_a_certificate_that_begins_with_a_byte_order_mark_is_served(encrypted: Encrypted) -> None:
    own = encrypted.certificate.read_bytes()
    encrypted.certificate.write_bytes(codecs.BOM_UTF8 + own)
    add(encrypted.keys, "web")
    encrypted.deploy(keyed=True)
    assert encrypted.shown() == own


def test_only_tls_1_2_or_later_is_spoken(encrypted: Encrypted) -> None:
    add(encrypted.keys, "web")
    encrypted.deploy(keyed=True)
    url = httpx.URL(encrypted.route())
    old = tls.client_context(encrypted.certificate)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection((url.host, url.port or 0), 10) as raw,
        pytest.raises(ssl.SSLError),
    ):
        old.wrap_socket(raw)
    new = tls.client_context(encrypted.certificate)
    with (
        socket.create_connection((url.host, url.port or 0), 10) as raw,
        new.wrap_socket(raw) as secured,
    ):
        assert secured.version() in ("TLSv1.2", "TLSv1.3")


def test_a_target_gets_and_loses_its_certificate(encrypted: Encrypted) -> None:
    key = add(encrypted.keys, "web")
    encrypted.deploy(keyed=False)
    url = encrypted.route()
    assert url.startswith("http://")
    certificates.write(encrypted.folder, until=-certificates.DAY / 2)
    with pytest.raises(ConfigError, match="certificate has expired"):
        encrypted.deploy(keyed=True)
    assert statuses(url, key) == {200}
    certificates.write(encrypted.folder)
    encrypted.deploy(keyed=True)
    trust = tls.client_context(encrypted.certificate)
    secured = encrypted.target(keyed=True).routes().endpoint
    assert secured == url.replace("http://", "https://")
    with httpx.Client(verify=trust, headers={"x-api-key": key}) as client:
        assert client.post(f"{secured}/predict", json=SETOSA).status_code == 200
    encrypted.deploy(keyed=False)
    assert statuses(url, key) == {200}
    assert not encrypted.state.certificate.exists()
