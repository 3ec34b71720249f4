"""The configuration of a router and its preStop hook, on a real Envoy on this machine."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from mlship.adapters.targets.envoy import resources
from mlship.adapters.targets.kubernetes import (
    applied,
    router_drain,
    router_manifests,
    router_routing,
)
from mlship.adapters.targets.kubernetes.applied import Asked
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.local import envoy
from mlship.adapters.targets.local.loopback import free_port
from mlship.config.project import TargetConfig
from mlship.config.targets import KubernetesConfig
from mlship.domain.deployment import Slot, Split
from tests.harness.clusters import until

SCOPE = Scope(project="iris", target="staging")
CONFIG = TargetConfig(kind="kubernetes", kubernetes=KubernetesConfig(path="/iris"))
NOBODY = Split()


class Running(NamedTuple):
    url: str
    probe: str
    admin: str
    folder: Path

    def write(self, split: Split) -> str:
        """Write a route as a kubelet does, by renaming; return its name."""
        made = router_routing.written(SCOPE, CONFIG, None, split, frozenset())
        for name, text in made["data"].items():
            (self.folder / f".{name}").write_text(text)
            (self.folder / f".{name}").rename(self.folder / name)
        made["metadata"]["uid"] = "0123456789"
        return router_routing.read(SCOPE, made).name

    def named(self) -> str:
        """Return the name of the route in an answer."""
        with httpx.Client() as client:
            return str(client.get(f"{self.url}/iris/v2").headers.get("mlship-route", ""))


@contextmanager
def router(folder: Path) -> Iterator[Running]:
    port = free_port(20_000, set())
    probe = free_port(21_000, {port})
    found = Running(
        url=f"http://127.0.0.1:{port}",
        probe=f"http://127.0.0.1:{probe}",
        admin=str(folder / "admin.sock"),
        folder=folder,
    )
    found.write(NOBODY)
    text = resources.text(router_manifests.bootstrap()).decode()
    for written, here in (
        (str(router_manifests.FILES), str(folder)),
        ("/tmp/admin.sock", found.admin),  # noqa: S108 (in the pod, a volume of its own)
        ('"port_value": 8080', f'"port_value": {port}'),
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
        return httpx.get(url).is_success
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
    other = httpx.get(f"{running.url}/irises/v2")
    assert other.status_code == 404, "it is not below the path"
    copy = httpx.get(f"{running.url}/iris/v2", headers={"Host": "iris-shadow"})
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
    port = free_port(22_000, set())
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

    with httpx.Client() as client:
        assert "connection" not in client.get(f"{running.url}/iris").headers
        thread = threading.Thread(target=drain)
        thread.start()
        time.sleep(0.5)
        assert not ended.is_set(), "a client is connected"
        assert client.get(f"{running.url}/iris").headers["connection"] == "close"
    thread.join(10)
    assert ended.is_set()


def test_the_hook_does_not_wait_for_ever(running: Running) -> None:
    with httpx.Client() as client:
        client.get(f"{running.url}/iris")
        started = time.monotonic()
        router_drain.drain(running.admin, 0.1, 0.4)
        assert time.monotonic() - started >= 0.5
    router_drain.drain(str(running.folder / "nowhere"), 0, 30)
