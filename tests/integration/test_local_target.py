"""The local target as its users meet it: kills, ports, shadows, sticky clients, `down`."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from mlship.adapters.targets.local import admin, supervision
from mlship.adapters.targets.local.processes import is_alive
from mlship.config.project import TargetConfig
from mlship.domain import digests
from mlship.domain.deployment import Slot, Split, slot_of
from mlship.domain.stream import Side
from mlship.errors import (
    ConflictError,
    IntegrityError,
    MlshipError,
    ProjectError,
    TimedOutError,
    UnavailableError,
)
from mlship.runtime.stream.sides import Choice
from tests.harness import asking
from tests.harness.load import load
from tests.harness.places import CONFIG, Place, accepts, place
from tests.harness.samples import release

ONE = release("one")
TWO = release("two")


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as found:
        yield found


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    supervision.until(condition, seconds=seconds, what="the test")


def ready(local: Place, slot: Slot) -> int:
    return local.target.inspect()[slot].ready


def ask(local: Place, **headers: str) -> httpx.Response:
    return asking.post(local.target.routes().endpoint + "/predict", json={}, headers=headers)


def test_a_killed_replica_comes_back_and_no_request_fails_meanwhile(local: Place) -> None:
    """What was in flight when it died fails; here nothing was."""
    slot = local.deploy(ONE, replicas=2)
    local.route({slot: 100})
    before = local.running.replicas[0]
    os.kill(before.process.pid, signal.SIGKILL)
    until(lambda: not accepts(before))
    with load(local.target.routes().endpoint) as requests:
        until(lambda: local.running.replicas[0].process != before.process)
        until(lambda: ready(local, slot) == 2)
        time.sleep(1)
    assert requests.failed == {}
    assert sum(requests.answers.values()) > 20


def test_a_killed_router_comes_back_on_its_port(local: Place) -> None:
    slot = local.deploy(ONE)
    local.route({slot: 100})
    port, process = local.port, local.router.process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: local.router.process not in (process, None))
    until(lambda: admin.is_live(local.router.admin))
    assert local.port == port
    assert ask(local).status_code == 200


def test_without_a_supervisor_traffic_flows_and_the_next_deploy_takes_over(local: Place) -> None:
    slot = local.deploy(ONE, replicas=2)
    local.route({slot: 100})
    first, *others = local.running.replicas
    router = local.router.process
    os.kill(local.supervisor, signal.SIGKILL)
    os.kill(first.process.pid, signal.SIGKILL)
    until(lambda: not accepts(first))
    until(lambda: not local.target.inspect()[slot].supervised)
    assert ask(local).status_code == 200
    observed = local.target.inspect()[slot]
    assert (observed.ready, observed.wanted) == (1, 2)
    assert "supervisor is not running" in observed.detail
    local.deploy(ONE, replicas=2)
    assert local.target.inspect()[slot].supervised
    assert local.router.process == router
    assert local.running.replicas[1:] == tuple(others)


def test_down_stops_everything_and_says_what(local: Place) -> None:
    slot = local.deploy(ONE, replicas=2)
    local.route({slot: 100})
    processes = local.processes()
    stopped = local.target.down()
    assert stopped == (
        f"2 replicas of {slot}",
        f"the router on port {local.port}",
        "the supervisor",
    )
    assert not any(is_alive(process) for process in processes)
    assert not supervision.runs(local.state)
    assert local.target.down() == ()
    assert ready(local, slot) == 0


def test_down_finds_what_a_killed_supervisor_left(local: Place) -> None:
    local.deploy(ONE, replicas=2)
    processes = local.processes()
    os.kill(local.supervisor, signal.SIGKILL)
    until(lambda: not supervision.runs(local.state))
    assert len(local.target.down()) == 2
    assert not any(is_alive(process) for process in processes)


def test_after_down_a_deploy_brings_back_all_slots_and_the_route(local: Place) -> None:
    one = local.deploy(ONE)
    local.route({one: 100})
    before = local.target.routes()
    local.target.down()
    local.deploy(TWO)
    until(lambda: ready(local, one) == 1)
    assert local.target.routes() == before


def test_removing_a_slot_after_down_starts_nothing(local: Place) -> None:
    slot = local.deploy(ONE)
    local.target.down()
    local.target.remove(slot)
    assert local.target.inspect() == {}
    assert not supervision.runs(local.state)


def test_a_deploy_while_down_stops_all_comes_after_it(local: Place) -> None:
    slot = local.deploy(ONE, answer_seconds=0.5)
    local.route({slot: 100})
    local.notes.lines.clear()
    with load(local.target.routes().endpoint, rate=20):
        time.sleep(0.3)
        going = threading.Thread(target=local.target.down)
        going.start()
        until(lambda: bool((wanted := local.state.wanted()) and wanted.stopped))
        local.deploy(ONE, answer_seconds=0.5)
        going.join()
    assert ask(local).status_code == 200


def test_a_process_that_was_not_written_down_does_not_outlive_its_starter(tmp_path: Path) -> None:
    starter = (
        "import sys, time; from pathlib import Path;"
        "from mlship.adapters.targets.local import processes;"
        "child = processes.Child([sys.executable, '-c', 'import time; time.sleep(60)'],"
        "Path(sys.argv[1]) / 'log', {}); print(child.process.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", starter, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_all_stops_when_the_folder_is_deleted(local: Place) -> None:
    local.deploy(ONE)
    processes = local.processes()
    shutil.rmtree(local.state.folder)
    until(lambda: not any(is_alive(process) for process in processes))


def test_inspect_is_quick_and_starts_nothing_when_all_is_dead(local: Place) -> None:
    slot = local.deploy(ONE, replicas=2)
    processes = local.processes()
    os.kill(local.supervisor, signal.SIGKILL)
    until(lambda: not supervision.runs(local.state))
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
    until(lambda: not any(is_alive(process) for process in processes))
    started = time.monotonic()
    observed = local.target.inspect()[slot]
    assert time.monotonic() - started < 0.3
    assert (observed.ready, observed.wanted) == (0, 2)
    assert not supervision.runs(local.state)


def test_of_two_routes_at_once_exactly_one_wins(local: Place) -> None:
    one, two = local.deploy(ONE), local.deploy(TWO)
    for _ in range(10):
        expected = local.target.routes().revision
        results: list[str] = []
        barrier = threading.Barrier(2)

        def change(weights: dict[Slot, int]) -> None:
            barrier.wait()  # noqa: B023 (joined in the same turn)
            try:
                local.again().route(Split(weights=weights), expected=expected)  # noqa: B023
                results.append("won")  # noqa: B023
            except ConflictError:
                results.append("lost")  # noqa: B023

        share = 1 + int(expected.partition("-")[0]) % 40
        splits = [{one: share, two: 100 - share}, {one: 100 - share, two: share}]
        threads = [threading.Thread(target=change, args=(split,)) for split in splits]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == ["lost", "won"]


def test_weights_hold_from_the_moment_that_route_returns(local: Place) -> None:
    one, two = local.deploy(ONE), local.deploy(TWO)
    local.route({one: 75, two: 25})
    with httpx.Client(base_url=local.target.routes().endpoint) as client:
        shares = Counter(client.post("/", json={}).json()["slot"] for _ in range(400))
        assert 60 <= shares[two] <= 140
        local.route({two: 100})
        assert {client.post("/", json={}).json()["slot"] for _ in range(50)} == {two}


def test_a_sticky_header_keeps_a_client_on_one_side(tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, sticky_header="x-user")
    with place(tmp_path, config) as local:
        one, two = local.deploy(ONE), local.deploy(TWO)
        local.route({one: 50, two: 50})
        sides = {
            user: {ask(local, **{"x-user": user}).json()["slot"] for _ in range(4)}
            for user in map(str, range(20))
        }
        assert all(len(side) == 1 for side in sides.values())
        assert set().union(*sides.values()) == {one, two}
        local.route({one: 40, two: 60})
        moved = {
            user
            for user, side in sides.items()
            if {ask(local, **{"x-user": user}).json()["slot"]} != side
        }
        assert all(sides[user] == {one} for user in moved)


def test_a_shadow_gets_a_copy_of_each_request_with_the_same_id(local: Place) -> None:
    one, two = local.deploy(ONE), local.deploy(TWO)
    local.route({one: 100}, shadow=two)
    answered = [ask(local).json() for _ in range(10)]
    assert {answer["slot"] for answer in answered} == {one}
    ids = {answer["id"] for answer in answered}
    assert len(ids) == 10

    def copies() -> list[dict[str, str]]:
        return [line for line in local.log() if line["slot"] == two]

    until(lambda: len(copies()) == 10)
    assert {copy["id"] for copy in copies()} == ids
    assert all(copy["host"].startswith("127.0.0.1-shadow") for copy in copies())


def test_a_client_chooses_neither_a_request_id_nor_to_be_a_copy(local: Place) -> None:
    slot = local.deploy(ONE)
    local.route({slot: 100})
    assert ask(local, **{"x-request-id": "mine"}).json()["id"] != "mine"
    for host in ("x-shadow", "x-shadow:80"):
        assert ask(local, host=host).status_code == 400


def test_before_the_first_route_the_router_says_that_nobody_gets_traffic(local: Place) -> None:
    local.deploy(ONE)
    refused = ask(local)
    assert (refused.status_code, refused.headers["content-type"]) == (503, "application/json")
    text = "the load balancer answered 503: no release gets traffic here yet"
    assert refused.json() == {"error": {"message": text}}
    ready = asking.get(local.target.routes().endpoint + "/v2/health/ready")
    assert (ready.status_code, ready.json()) == (503, {"error": text})


def test_an_error_of_the_router_has_the_shape_of_those_of_replicas(local: Place) -> None:
    slot = local.deploy(ONE)
    local.route({slot: 100})
    too_large = asking.post(local.target.routes().endpoint + "/predict", content=bytes(10_000_001))
    assert too_large.status_code == 413
    assert too_large.json()["error"]["message"].startswith("the load balancer answered 413: ")


def test_a_taken_port_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        with place(tmp_path, msgspec.structs.replace(CONFIG, port=port)) as local:
            with pytest.raises(UnavailableError, match=str(port)) as caught:
                local.deploy(ONE)
            assert "targets.staging.port" in caught.value.hint
            assert local.target.inspect() == {}
            assert not supervision.runs(local.state)


def test_a_port_that_is_configured_later_moves_the_router(local: Place) -> None:
    slot = local.deploy(ONE)
    local.route({slot: 100})
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    local.target = local.again(msgspec.structs.replace(CONFIG, port=port))
    local.deploy(ONE)
    assert local.port == port
    assert ask(local).status_code == 200


@pytest.mark.parametrize(
    ("behaviour", "kind", "words"),
    [
        ({"fail": "no column petal_colour"}, ProjectError, "no column petal_colour"),
        ({"fail": "model.onnx was changed", "exit_code": 7}, IntegrityError, "was changed"),
        ({"refuses": "golden row 3 differs"}, ProjectError, "golden row 3 differs"),
        ({"never_ready": True}, TimedOutError, "0 of 1 replicas ready after 1 s"),
    ],
)
def test_a_failed_deploy_says_why_and_leaves_no_process(
    local: Place, behaviour: dict[str, Any], kind: type[MlshipError], words: str
) -> None:
    good = local.deploy(ONE)
    local.target = local.again(msgspec.structs.replace(CONFIG, ready_seconds=1))
    if kind is not TimedOutError:
        local.target = local.again()
    with pytest.raises(kind, match=words) as caught:
        local.deploy(TWO, **behaviour)
    assert f"{slot_of(TWO)}-1.log" in caught.value.hint
    assert {replica.slot for replica in local.running.replicas} == {good}
    assert ready(local, good) == 1


def test_progress_tells_how_many_replicas_are_ready(local: Place) -> None:
    slot = local.deploy(ONE, replicas=2, start_seconds=0.3)
    assert local.notes.lines[-1] == f"{slot}: 2 of 2 replicas ready"


def test_a_deep_folder_with_spaces_works(tmp_path: Path) -> None:
    folder = tmp_path / ("a long name with spaces " * 4) / ("and another " * 6)
    folder.mkdir(parents=True)
    with place(folder, TargetConfig(ready_seconds=20, drain_seconds=1)) as local:
        slot = local.deploy(ONE)
        local.route({slot: 100})
        assert ask(local).status_code == 200


def test_an_idle_supervisor_takes_little_time(local: Place) -> None:
    local.deploy(ONE, replicas=2)

    def ticks() -> int:
        stat = Path(f"/proc/{local.supervisor}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(2)
    assert (ticks() - before) / os.sysconf("SC_CLK_TCK") < 0.2


def test_a_key_gets_the_same_side_over_http_and_in_a_stream(tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, sticky_header="x-user")
    users = [*map(str, range(970)), *(f"Kunde-{number} äöü/{number * 7}" for number in range(30))]
    with place(tmp_path, config) as local:
        one, two, three = local.deploy(ONE), local.deploy(TWO), local.deploy(release("three"))
        local.route({one: 35, two: 0, three: 65})
        sides = [
            Side(
                slot=slot,
                release=digests.of_bytes(slot.encode()),
                name=slot,
                bundle="",
                digest=digests.of_bytes(b""),
                weight=local.target.routes().split.share(slot),
            )
            for slot in sorted((one, two, three))
        ]
        choice = Choice(sides)
        with httpx.Client(base_url=local.target.routes().endpoint) as client:
            for user in users:
                answer = client.post("/predict", json={}, headers={b"x-user": user.encode()})
                assert choice.of(user.encode()).slot == answer.json()["slot"], user
