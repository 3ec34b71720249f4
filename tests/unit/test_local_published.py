"""The files that a supervisor writes for Envoy: when they change, appear and go."""

from pathlib import Path

import pytest

from mlship.adapters.targets.local.processes import Process
from mlship.adapters.targets.local.router import Published
from mlship.adapters.targets.local.state import Replica, State
from mlship.domain.deployment import Slot, Split
from mlship.errors import UnavailableError

ONE, TWO = Slot("r1"), Slot("r2")


def replica(slot: Slot, port: int) -> Replica:
    process = Process(pid=1, started="now")
    return Replica(slot=slot, number=1, process=process, port=port, phase="ready")


def endpoints(state: State) -> set[str]:
    return {path.name for path in state.envoy.glob("endpoints-*.json")}


def test_endpoints_of_a_slot_go_one_step_after_its_cluster_and_come_back(tmp_path: Path) -> None:
    state = State(tmp_path / "target")
    published = Published(state)
    serving = {ONE: [replica(ONE, 1)], TWO: [replica(TWO, 2)]}
    published.step(serving, Split(), checked=True)
    all_files = endpoints(state)
    assert len(all_files) == 4
    published.step({ONE: serving[ONE]}, Split(), checked=True)
    assert "r2" not in state.clusters.read_text()
    assert endpoints(state) == all_files, "Envoy may still read them"
    published.step({ONE: serving[ONE]}, Split(), checked=True)
    assert len(endpoints(state)) == 2
    published.step({ONE: serving[ONE]}, Split(), checked=True)
    published.step(serving, Split(), checked=True)
    assert endpoints(state) == all_files
    assert "r2" in state.clusters.read_text()


@pytest.mark.parametrize("change", ["a port", "the split", "the safeguard"])
def test_each_change_is_written(tmp_path: Path, change: str) -> None:
    state = State(tmp_path / "target")
    published = Published(state)
    serving = {ONE: [replica(ONE, 1)], TWO: [replica(TWO, 2)]}
    for _ in range(3):
        published.step(serving, Split(), checked=True)
    files = [state.clusters, state.endpoints(ONE)]
    before = [path.read_bytes() for path in files]
    if change == "a port":
        serving[ONE][0] = replica(ONE, 3)
    split = Split(weights={ONE: 80, TWO: 20}) if change == "the split" else Split()
    published.step(serving, split, checked=change != "the safeguard")
    assert [path.read_bytes() for path in files] != before


def test_what_could_not_be_written_is_written_by_the_next_step(tmp_path: Path) -> None:
    state = State(tmp_path / "target")
    published = Published(state)
    for _ in range(2):
        published.step({}, Split(), checked=True)
    state.clusters.unlink()
    state.envoy.rmdir()
    state.envoy.touch()
    with pytest.raises(UnavailableError):
        published.step({ONE: [replica(ONE, 1)]}, Split(), checked=True)
    state.envoy.unlink()
    published.step({ONE: [replica(ONE, 1)]}, Split(), checked=True)
    assert len(endpoints(state)) == 2
    assert "r1" in state.clusters.read_text()
