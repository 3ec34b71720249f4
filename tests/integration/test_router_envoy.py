"""The configuration of a router and its preStop hook, on a real Envoy on this machine."""

import functools
import http.server
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from mlship.adapters.targets.envoy import limits, resources, statistics
from mlship.adapters.targets.kubernetes import (
    applied,
    router_drain,
    router_manifests,
    router_routing,
    router_tls,
)
from mlship.adapters.targets.kubernetes.applied import Asked
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.routing import Placed
from mlship.adapters.targets.local import envoy
from mlship.config.project import TargetConfig
from mlship.config.targets import KubernetesConfig
from mlship.domain.counts import Look, grown
from mlship.domain.deployment import Slot, Split
from tests.harness import asking, certificates
from tests.harness.clusters import until
from tests.harness.sockets import unused_port

SCOPE = Scope(project="iris", target="staging")
CONFIG = TargetConfig(kind="kubernetes", kubernetes=KubernetesConfig(path="/iris"))
NOBODY = Split()


class Running(NamedTuple):
    url: str
    probe: str
    admin: str
    folder: Path
    start: int

    def write(
        self, split: Split, sides: "dict[Slot, Side] | None" = None, *, only: str = ""
    ) -> str:
        """Write a route as a kubelet does, by renaming, or one file of it; return its name."""
        places = None if sides is None else {slot: side.place for slot, side in sides.items()}
        parked = frozenset(sides or ())
        made = router_routing.written(SCOPE, CONFIG, None, split, parked, places)
        port = next((side.port for side in (sides or {}).values()), 80)
        for name, text in made["data"].items():
            if only not in ("", name):
                continue
            own = text.replace('"port_value": 80\n', f'"port_value": {port}\n')
            (self.folder / f".{name}").write_text(own)
            (self.folder / f".{name}").rename(self.folder / name)
        made["metadata"]["uid"] = "0123456789"
        return router_routing.read(SCOPE, made).name

    def number(self, stat: str) -> int:
        """Return a number of Envoy's statistics."""
        text = router_drain._ask(self.admin, "GET", f"/stats?filter=^{re.escape(stat)}$")
        return int(text.rpartition(":")[2])

    def named(self) -> str:
        """Return the name of the route in an answer."""
        answer = client().get(f"{self.url}/iris/v2", headers={"Connection": "close"})
        return str(answer.headers.get("mlship-route", ""))


@contextmanager
def router(folder: Path, volume: Path | None = None) -> Iterator[Running]:
    """Run a router; with TLS, its certificate is in the folder of a volume."""
    port, probe, start = unused_port(), unused_port(), unused_port()
    found = Running(
        url=f"http{'s' if volume else ''}://127.0.0.1:{port}",
        probe=f"http://127.0.0.1:{probe}",
        admin=str(folder / "admin.sock"),
        folder=folder,
        start=start,
    )
    found.write(NOBODY)
    text = resources.text(router_manifests.bootstrap(is_encrypted=volume is not None)).decode()
    secured = (
        ("/etc/mlship/tls", str(volume)),
        ('"port_value": 8443', f'"port_value": {port}'),
        ('"port_value": 8082', f'"port_value": {start}'),
    )
    plain = (('"port_value": 8080', f'"port_value": {port}'),)
    for written, here in (
        *(secured if volume else plain),
        (str(router_manifests.FILES), str(folder)),
        ("/tmp/admin.sock", found.admin),  # noqa: S108 (in the pod, a volume of its own)
        ('"port_value": 8081', f'"port_value": {probe}'),
    ):
        assert written in text
        text = text.replace(written, here)
    argv = [envoy.program(), "--config-yaml", text, "--disable-hot-restart"]
    with subprocess.Popen([*argv, "--concurrency", "1", "--log-level", "error"]) as process:
        try:
            until(lambda: answers(found.probe))
            yield found
        finally:
            process.kill()


def answers(url: str) -> bool:
    try:
        return asking.get(url).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with router(tmp_path) as found:
        yield found


def test_a_route_is_applied_when_its_file_is_replaced(running: Running) -> None:
    assert running.named().startswith("0-")
    name = running.write(Split(weights={Slot("r1"): 90, Slot("r2"): 10}, shadow=Slot("r3")))
    until(lambda: running.named() == name)
    other = asking.get(f"{running.url}/irises/v2")
    assert other.status_code == 404, "it is not below the path"
    copy = asking.get(f"{running.url}/iris/v2", headers={"Host": "iris-shadow"})
    assert copy.status_code == 400


def test_a_command_waits_until_answers_name_the_route(running: Running) -> None:
    name = running.write(Split(weights={Slot("r1"): 100}))
    nudges: list[int] = []
    asked = Asked(
        url=f"{running.url}/iris",
        agreeing=14,
        settle_seconds=0.2,
        hint="",
        nudge=lambda: nudges.append(1),
    )
    assert applied.wait(asked, name)
    assert len(nudges) >= 14
    assert running.named() == name


def test_a_command_waits_for_a_while_where_nobody_answers() -> None:
    nudges: list[int] = []
    port = unused_port()
    asked = Asked(
        url=f"http://127.0.0.1:{port}",
        agreeing=1,
        settle_seconds=0.2,
        hint="",
        nudge=lambda: nudges.append(1),
    )
    assert not applied.wait(asked, "1-abc")
    assert len(nudges) > 1


def test_the_hook_closes_connections_and_returns_after_the_last(running: Running) -> None:
    ended = threading.Event()

    def drain() -> None:
        router_drain.drain(running.admin, 0, 30)
        ended.set()

    with httpx.Client(verify=asking.TRUST) as client:
        assert "connection" not in client.get(f"{running.url}/iris").headers
        thread = threading.Thread(target=drain)
        thread.start()
        time.sleep(0.5)
        assert not ended.is_set(), "a client is connected"
        assert client.get(f"{running.url}/iris").headers["connection"] == "close"
    thread.join(10)
    assert ended.is_set()


def test_the_hook_does_not_wait_for_ever(running: Running) -> None:
    with httpx.Client(verify=asking.TRUST) as client:
        client.get(f"{running.url}/iris")
        started = time.monotonic()
        router_drain.drain(running.admin, 0.1, 0.4)
        assert time.monotonic() - started >= 0.5
    router_drain.drain(str(running.folder / "nowhere"), 0, 30)


class Side:
    """A release in a cluster of its own: a server on a loopback address, which may fall silent."""

    def __init__(self, slot: Slot, host: str, port: int) -> None:
        self.slot = slot
        self.host = host
        self.port = port
        self.place = Placed(cluster=slot, address=host, release="r", artifact="a")
        self.asked: list[str] = []
        self.fails_checks = False
        self.resumed = threading.Event()
        self.resumed.set()
        self.start()

    def start(self) -> None:
        side = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                side.resumed.wait(30)
                side.asked += [self.path] if side.resumed.is_set() else []
                body = side.slot.encode()
                is_late = side.fails_checks and self.path.endswith("/ready")
                self.send_response(500 if is_late else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer((self.host, self.port), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, as the address of a Service without ready pods does."""
        self.server.shutdown()
        self.server.server_close()

    @property
    def predictions(self) -> int:
        return self.asked.count("/predict")


@pytest.fixture
def sides(running: Running) -> Iterator[dict[Slot, Side]]:
    """Give a champion with 80 % and a challenger with 20 %, behind a running router."""
    hosts = {Slot("r1"): "127.0.0.2", Slot("r2"): "127.0.0.3"}
    port = unused_port(*hosts.values())
    made = {slot: Side(slot, host, port) for slot, host in hosts.items()}
    running.write(Split(), made)
    until(lambda: all(reached(running, slot) for slot in made))
    name = running.write(SHARES, made)
    until(lambda: running.named() == name)
    yield made
    for side in made.values():
        side.resumed.set()
        side.stop()


SHARES = Split(weights={Slot("r1"): 80, Slot("r2"): 20})


@functools.cache
def client() -> httpx.Client:
    """Return a client for many requests; to make one takes longer than a request."""
    return httpx.Client(timeout=10)


def reached(running: Running, slot: str) -> bool:
    answer = client().get(f"{running.url}/iris/v2/health/ready", headers={"mlship-slot": slot})
    return answer.is_success and answer.text == slot


def answering(running: Running, count: int = 60) -> set[str]:
    """Return who answers; no request may fail."""
    names = set()
    for _ in range(count):
        answer = client().get(f"{running.url}/iris/predict")
        assert answer.status_code == 200, answer.text
        names.add(answer.text)
    return names


@pytest.mark.parametrize("gone", ["r1", "r2"])
def test_a_share_falls_back_where_connections_are_refused(
    running: Running, sides: dict[Slot, Side], gone: str
) -> None:
    assert answering(running) == {"r1", "r2"}
    sides[Slot(gone)].stop()
    assert answering(running) == {"r1", "r2"} - {gone}
    assert not reached(running, gone)
    sides[Slot(gone)].start()
    until(lambda: answering(running) == {"r1", "r2"})


def test_a_share_falls_back_where_nothing_is_answered(
    running: Running, sides: dict[Slot, Side]
) -> None:
    assert answering(running) == {"r1", "r2"}
    sides[Slot("r2")].resumed.clear()
    until(lambda: are_answered_at_once(running, "r1"))


def test_the_port_of_the_probe_tells_what_was_counted_and_who_answered_for_whom(
    running: Running, sides: dict[Slot, Side]
) -> None:
    before = counted(running)
    answering(running, 100)

    def requests() -> int:
        now = counted(running)
        return sum(grown(before, now, Slot(slot)).requests for slot in ("r1", "r2"))

    # An answer arrives before it is counted.
    until(lambda: requests() == 100)
    own = grown(before, after := counted(running), Slot("r2"))
    assert (own.failed, own.elsewhere) == (0, 0)
    assert own.requests > 0
    sides[Slot("r2")].stop()
    answering(running, 100)
    lost = grown(after, counted(running), Slot("r2"))
    assert (lost.answered, lost.elsewhere > 0) == (0, True)


def test_times_of_requests_are_counted_after_a_few_seconds(
    running: Running, sides: dict[Slot, Side]
) -> None:
    assert sides
    before = counted(running)
    answering(running, 50)
    # Times of earlier requests may be counted in the same seconds.
    until(lambda: times(before, counted(running)) >= 50)


def times(before: Look, after: Look) -> int:
    return sum(grown(before, after, Slot(slot)).timed for slot in ("r1", "r2"))


def counted(running: Running) -> Look:
    """Read the counts as `router_counts` does through the API server."""
    pages = [
        asking.get(f"{running.probe}{path}", params=query).text
        for path, query in (
            (statistics.ADDRESSES, statistics.ADDRESSES_QUERY),
            (statistics.TIMES, statistics.TIMES_QUERY),
        )
    ]
    return {"pod/0": statistics.counts(*pages)}


@pytest.mark.parametrize("path", ["/quitquitquit", "/drain_listeners", "/config_dump", "/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_other_part_of_the_admin_interface_is_open(
    running: Running, path: str, method: str
) -> None:
    answer = asking.request(method, f"{running.probe}{path}")
    assert (answer.status_code, answer.text) == (200, "")
    assert answers(running.probe)
    assert router_drain._ask(running.admin, "GET", "/ready").strip() == "LIVE"


@pytest.mark.parametrize("path", [statistics.ADDRESSES, statistics.TIMES])
def test_what_was_counted_can_only_be_read(running: Running, path: str) -> None:
    assert asking.post(f"{running.probe}{path}").text == ""
    assert asking.get(f"{running.probe}{path}").text != ""


def are_answered_at_once(running: Running, slot: str) -> bool:
    """Return whether a slot answers 40 requests, none of which waits for another one."""
    for _ in range(40):
        try:
            answer = client().get(f"{running.url}/iris/predict", timeout=0.5)
        except httpx.ReadTimeout:
            return False
        if answer.text != slot:
            return False
    return True


def test_a_former_champion_gets_nothing_back(running: Running, sides: dict[Slot, Side]) -> None:
    name = running.write(Split(weights={Slot("r2"): 100}), sides)
    until(lambda: running.named() == name)
    before = sides[Slot("r1")].predictions
    assert answering(running, 20) == {"r2"}
    sides[Slot("r2")].stop()
    answer = client().get(f"{running.url}/iris/predict")
    assert answer.status_code == 503
    assert sides[Slot("r1")].predictions == before


def test_no_request_fails_while_only_the_clusters_of_a_rollback_are_applied(
    running: Running, sides: dict[Slot, Side]
) -> None:
    """Envoy reads routes and clusters one after the other, on a busy node half a second later."""
    sides[Slot("r2")].stop()
    until(lambda: not reached(running, "r2"))
    before = running.number("cluster_manager.cds.update_success")
    running.write(Split(weights={Slot("r1"): 100}), sides, only=router_manifests.CLUSTERS)
    until(lambda: running.number("cluster_manager.cds.update_success") > before)
    until(lambda: running.number("cluster_manager.warming_clusters") == 0)
    assert answering(running, 200) == {"r1"}


def test_checks_that_fail_are_no_outage_where_nothing_is_better(
    running: Running, sides: dict[Slot, Side]
) -> None:
    sides[Slot("r2")].fails_checks = True
    until(lambda: answering(running) == {"r1"})
    name = running.write(Split(weights={Slot("r2"): 100}), sides)
    until(lambda: running.named() == name)
    until(lambda: answering(running) == {"r2"})
    assert answering(running) == {"r2"}


def test_a_copy_goes_to_the_shadow_alone(running: Running, sides: dict[Slot, Side]) -> None:
    one, two = sides[Slot("r1")], sides[Slot("r2")]
    name = running.write(Split(weights={Slot("r1"): 100}, shadow=Slot("r2")), sides)
    until(lambda: running.named() == name)
    before, copies = one.predictions, two.predictions
    assert answering(running, 20) == {"r1"}
    until(lambda: two.predictions == copies + 20)
    two.stop()
    assert answering(running, 20) == {"r1"}
    assert one.predictions == before + 40


@contextmanager
def connected(running: Running) -> Iterator[socket.socket]:
    """Give a connection to the router whose other end has 30 s to say something."""
    port = int(running.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as made:
        yield made


def said(connection: socket.socket) -> bytes:
    """Return all that a router says until it closes a connection."""
    return b"".join(iter(functools.partial(connection.recv, 65536), b""))


HEAD = b"POST /iris/predict HTTP/1.1\r\nhost: iris\r\n"


def test_a_client_that_is_slow_with_its_request_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {**limits.DEADLINES, "request_headers_timeout": "1s", "request_timeout": "2s"}
    own["common_http_protocol_options"] = {"idle_timeout": "1s"}
    monkeypatch.setattr(limits, "DEADLINES", own)
    with router(tmp_path) as running, ExitStack() as stack:
        running.write(Split(weights={Slot("r1"): 100}))
        slow = [stack.enter_context(connected(running)) for _ in range(3)]
        slow[0].sendall(HEAD[:20])
        slow[1].sendall(HEAD + b"content-length: 100\r\n\r\n{")
        assert b" 408 " in said(slow[0])
        assert b" 408 " in said(slow[1])
        assert said(slow[2]) == b"", "it never said anything"


@pytest.mark.parametrize("is_chunked", [True, False])
def test_a_body_that_is_too_large_is_answered_with_413_and_reaches_no_replica(
    running: Running, sides: dict[Slot, Side], is_chunked: bool
) -> None:
    pieces = [b"x" * 100_000] * (3 * limits.BODY_BYTES // 100_000)
    body = iter(pieces) if is_chunked else b"".join(pieces)
    answer = client().post(f"{running.url}/iris/predict", content=body)
    assert answer.status_code == 413
    assert sum(side.predictions for side in sides.values()) == 0
    assert answering(running) == {"r1", "r2"}


class Volume:
    """The volume of a router's Secret, whose files a kubelet replaces by renaming one link."""

    def __init__(self, folder: Path) -> None:
        self.path, self._made = folder / "tls", folder / "made"
        self._count = 0
        for each in (self.path, self._made):
            each.mkdir()
        template = {
            "metadata": {"labels": {}},
            "spec": {"containers": [{"volumeMounts": []}], "volumes": []},
        }
        annotations = router_tls.mounted(template, "iris-tls")["metadata"]["annotations"]
        self._file = annotations[router_tls.ANNOTATION].replace("/etc/mlship/tls", str(self.path))

    def renew(self, *, fits: bool = True) -> bytes:
        """Replace the certificate and its key, and return the certificate."""
        self._count += 1
        text = certificates.write(self._made)
        if not fits:
            certificates.write(self._made)
        own = self.path / f"..{self._count}"
        own.mkdir()
        (own / "tls.crt").write_bytes(text)
        (own / "tls.key").write_bytes((self._made / "key.pem").read_bytes())
        (own / "certificate.json").write_text(self._file)
        (self.path / "..data_tmp").symlink_to(own.name)
        (self.path / "..data_tmp").rename(self.path / "..data")
        for file in own.iterdir():
            if not (self.path / file.name).is_symlink():
                (self.path / file.name).symlink_to(f"..data/{file.name}")
        return text


def shown(url: str) -> bytes:
    """Return the certificate that a client gets."""
    where = httpx.URL(url)
    return ssl.get_server_certificate((where.host, where.port or 443), timeout=10).encode()


def test_a_renewed_certificate_is_taken_if_its_key_fits(tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    first = volume.renew()
    with router(tmp_path, volume.path) as running:
        start = f"https://127.0.0.1:{running.start}"
        assert (shown(running.url), shown(start)) == (first, first)
        with pytest.raises(httpx.TransportError):
            asking.get(running.url.replace("https", "http"))
        second = volume.renew()
        until(lambda: shown(running.url) == second)
        volume.renew(fits=False)
        until(lambda: running.number("sds.router.key_rotation_failed") > 0)
        assert shown(running.url) == second
        third = volume.renew()
        until(lambda: shown(running.url) == third)


def test_without_a_certificate_that_works_the_startup_probe_fails(tmp_path: Path) -> None:
    volume = Volume(tmp_path)
    volume.renew(fits=False)
    with router(tmp_path, volume.path) as running:
        assert answers(running.probe), "the probe without TLS would call the pod ready"
        for url in (running.url, f"https://127.0.0.1:{running.start}"):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                shown(url)
