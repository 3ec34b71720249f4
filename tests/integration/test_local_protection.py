"""One bad request, a dead side and a stranger cost other clients of a local target nothing."""

import os
import resource
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from mlship.adapters.targets.envoy import routes
from mlship.adapters.targets.local import Safeguards, admin, supervision
from mlship.domain.deployment import Slot
from tests.harness import asking
from tests.harness.load import load
from tests.harness.places import CONFIG, Place, accepts, place
from tests.harness.samples import release

ONE, TWO = release("one"), release("two")
POISON = {"poison": "yes"}


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as found:
        yield found


def pids(local: Place) -> set[int]:
    return {replica.process.pid for replica in local.running.replicas}


@pytest.mark.parametrize("is_repeated", [False, True])
def test_a_request_that_ends_a_replica_is_not_carried_to_the_next_one(
    local: Place, monkeypatch: pytest.MonkeyPatch, is_repeated: bool
) -> None:
    if is_repeated:
        monkeypatch.setattr(routes, "RETRY_ON", "connect-failure,refused-stream,reset")
    slot = local.deploy(ONE, replicas=2)
    local.route({slot: 100})
    before = pids(local)
    answer = asking.post(local.target.routes().endpoint, json={}, headers=POISON, timeout=20)
    assert answer.status_code == 503
    supervision.until(
        lambda: local.target.inspect()[slot].ready == 2 and len(pids(local)) == 2,
        seconds=20,
        what="the replicas",
    )
    assert len(pids(local) & before) == (0 if is_repeated else 1)


@pytest.mark.parametrize("is_guarded", [True, False])
def test_the_champion_answers_for_a_challenger_without_a_replica(
    local: Place, is_guarded: bool
) -> None:
    local.target = local.again(safeguards=Safeguards(fallback=is_guarded))
    one, two = local.deploy(ONE), local.deploy(TWO)
    local.route({one: 80, two: 20})
    supervision.until(lambda: answering(local) == {one, two}, seconds=20, what="the split")
    end(local, two)
    before = asked(local, two)
    with load(local.target.routes().endpoint) as requests:
        time.sleep(2)
    assert len(requests.acknowledged) > 20
    assert (requests.failed == {}) == is_guarded, requests.answers
    assert asked(local, two) == before


def test_the_challenger_answers_for_a_champion_without_a_replica_and_gives_back(
    local: Place,
) -> None:
    one, two = local.deploy(ONE), local.deploy(TWO)
    local.route({one: 80, two: 20})
    supervision.until(lambda: answering(local) == {one, two}, seconds=20, what="the split")
    end(local, one)
    assert answering(local) == {two}
    (local.folder / "bundles" / one / "stand-in.json").write_text("{}")
    supervision.until(lambda: answering(local) == {one, two}, seconds=30, what="the champion")


def test_a_slot_without_traffic_answers_for_nobody(local: Place) -> None:
    one, two = local.deploy(ONE), local.deploy(TWO)
    local.route({one: 100})
    end(local, one)
    assert asking.post(local.target.routes().endpoint, json={}).status_code == 503
    assert asked(local, two) == 0


def asked(local: Place, slot: Slot) -> int:
    return sum(line["slot"] == slot for line in local.log())


def end(local: Place, slot: Slot) -> None:
    """End the replicas of a slot, and let each further one fail."""
    (local.folder / "bundles" / slot / "stand-in.json").write_text('{"fail": "no memory"}')
    ended = [each for each in local.running.replicas if each.slot == slot]
    for each in ended:
        os.kill(each.process.pid, signal.SIGKILL)
    # What one that ends has accepted is lost.
    supervision.until(lambda: not any(map(accepts, ended)), seconds=20, what="their end")


def answering(local: Place, count: int = 40) -> set[str]:
    """Return the slots that answer; no request may fail."""
    with httpx.Client(timeout=10) as client:
        answers = [client.post(local.target.routes().endpoint, json={}) for _ in range(count)]
    assert {answer.status_code for answer in answers} == {200}
    return {answer.json()["slot"] for answer in answers}


@pytest.mark.parametrize("name", ["short", "deep/" * 30 + "folder"])
def test_only_the_owner_opens_the_admin_socket_of_the_router(tmp_path: Path, name: str) -> None:
    with place(tmp_path / name) as local:
        local.deploy(ONE)
        own = local.router.admin
        assert isinstance(own, str)
        assert admin.is_live(own)
        assert stat.S_IMODE(Path(own).stat().st_mode) == 0o600
        assert stat.S_IMODE(Path(own).parent.stat().st_mode) == 0o700
        local.target.down()
        assert not Path(own).exists()


def test_a_router_that_accepts_nobody_is_seen(local: Place) -> None:
    slot = local.deploy(ONE)
    assert local.target.inspect()[slot].detail == ""
    admin.stop_listening(local.router.admin)
    supervision.until(
        lambda: f"port {local.port}" in local.target.inspect()[slot].detail,
        seconds=10,
        what="the state of the router",
    )
    assert local.target.inspect()[slot].ready == 1


GREEDY = {"allocate": str(1 << 30)}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce RLIMIT_DATA")
@pytest.mark.parametrize("memory", ["512Mi", None])
def test_a_request_that_needs_more_memory_than_a_replica_may_have_fails_alone(
    tmp_path: Path, memory: str | None
) -> None:
    config = msgspec.structs.replace(CONFIG, memory=memory)
    with place(tmp_path, config) as local:
        slot = local.deploy(ONE)
        local.route({slot: 100})
        before, url = pids(local), local.target.routes().endpoint
        greedy = asking.post(url, json={}, headers=GREEDY, timeout=20)
        assert greedy.is_success == (memory is None)
        assert asking.post(url, json={}, timeout=20).is_success
        assert pids(local) == before


def test_the_router_may_have_as_many_connections_as_the_system_allows(local: Place) -> None:
    local.deploy(ONE)
    process = local.router.process
    assert process is not None
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (min(hard, 65536), hard)
