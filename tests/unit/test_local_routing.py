"""The route's file: what was written is read back, and nothing else is believed."""

import json
from pathlib import Path

import msgspec
import pytest

from mlship.adapters.targets.local import envoy, observation, routing
from mlship.adapters.targets.local.processes import Process
from mlship.adapters.targets.local.state import (
    Phase,
    Placement,
    Replica,
    Running,
    State,
    Wanted,
)
from mlship.domain import digests
from mlship.domain.deployment import Slot, Split
from mlship.errors import IntegrityError, UnavailableError

ONE, TWO = Slot("rone"), Slot("rtwo")
DIGEST = digests.of_bytes(b"")
PLACEMENT = Placement(bundle="/b", artifact=DIGEST, release=DIGEST, name="iris@1", replicas=2)


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path)


def replica(number: int, phase: Phase) -> Replica:
    process = Process(pid=1, started="")
    return Replica(slot=ONE, number=number, process=process, port=20000 + number, phase=phase)


@pytest.mark.parametrize(
    "split",
    [
        Split(),
        Split(weights={ONE: 100}),
        Split(weights={TWO: 10, ONE: 90}),
        Split(weights={ONE: 100, TWO: 0}, shadow=TWO),
    ],
)
def test_a_split_is_read_back(state: State, split: Split) -> None:
    revision = routing.change(state, split, None)
    written = routing.read(state)
    assert (written.split, written.revision) == (split, revision)


def test_revisions_never_come_back(state: State) -> None:
    splits = [Split(weights={slot: 100}) for slot in (ONE, TWO, ONE, TWO)]
    assert len({routing.change(state, split, None) for split in splits}) == 4


def test_the_same_split_is_not_written_again(state: State) -> None:
    routing.change(state, Split(weights={ONE: 100}), None)
    before = state.routes.stat().st_ino
    routing.change(state, Split(weights={ONE: 100}), None)
    assert state.routes.stat().st_ino == before


def test_another_sticky_header_is_a_change(state: State) -> None:
    split = Split(weights={ONE: 50, TWO: 50})
    first = routing.change(state, split, None)
    assert routing.change(state, split, "x-user") != first
    assert "x-user" in state.routes.read_text()


def test_the_order_of_weights_does_not_move_sticky_clients(state: State) -> None:
    first = routing.change(state, Split(weights={ONE: 90, TWO: 10}), "x-user")
    assert routing.change(state, Split(weights={TWO: 10, ONE: 90}), "x-user") == first


@pytest.mark.parametrize("text", ["", "{}", '{"version_info": "1", "resources": []}', "[1]"])
def test_a_file_that_is_no_route_is_not_taken_for_one(state: State, text: str) -> None:
    state.envoy.mkdir()
    state.routes.write_text(text)
    with pytest.raises(IntegrityError, match=r"routes\.json"):
        routing.read(state)


def test_weights_that_do_not_add_up_are_not_believed(state: State) -> None:
    routing.change(state, Split(weights={ONE: 100}), None)
    state.routes.write_text(state.routes.read_text().replace("100", "99"))
    with pytest.raises(IntegrityError):
        routing.read(state)


def test_a_replica_that_drains_stays_known_but_gets_nothing_new() -> None:
    document = json.loads(envoy.endpoints(ONE, [replica(2, "draining"), replica(1, "ready")]))
    hosts = document["resources"][0]["endpoints"][0]["lb_endpoints"]
    assert [host["health_status"] for host in hosts] == ["UNKNOWN", "DRAINING"]


def test_what_is_wanted_is_read_back(state: State) -> None:
    wanted = Wanted(
        port=1, stopped=False, log="/l", program=("a", "b"), drain_seconds=1, slots={ONE: PLACEMENT}
    )
    assert state.wanted() is None
    state.want(wanted)
    assert state.wanted() == wanted
    state.slots.write_bytes(msgspec.json.encode({"port": "no"}))
    with pytest.raises(IntegrityError, match=r"slots\.json"):
        state.wanted()


@pytest.mark.parametrize(
    ("stopped", "supervised", "told"),
    [(False, True, True), (False, False, False), (True, False, True)],
)
def test_only_a_target_that_was_stopped_needs_no_supervisor(
    *, stopped: bool, supervised: bool, told: bool
) -> None:
    slots = {ONE: PLACEMENT}
    wanted = Wanted(port=1, stopped=stopped, log="/l", program=("a",), drain_seconds=1, slots=slots)
    seen = observation.deployments(wanted, Running(), supervised=supervised)
    assert seen[ONE].supervised == told


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("")
    with pytest.raises(UnavailableError, match="target"):
        routing.change(State(tmp_path / "target"), Split(weights={ONE: 100}), None)
