"""The local target when things happen at the same time, or in the middle of something else."""

import functools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.adapters.targets.local import LocalTarget, admin, loopback, routing, supervision
from mlship.adapters.targets.local.processes import Process, is_alive, own
from mlship.adapters.targets.local.router import EnvoyProcess, Published
from mlship.adapters.targets.local.state import Router, Running, State, Wanted, write
from mlship.domain.deployment import Slot, Split, slot_of
from mlship.errors import MlshipError, ProjectError, UnavailableError
from tests.harness import asking
from tests.harness.places import CONFIG, Place, place
from tests.harness.samples import release

ONE = release("one")
DEAD = Process(pid=own().pid, started="before the machine was restarted")


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as found:
        yield found


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    supervision.until(condition, seconds=seconds, what="the test")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def on_port(local: Place, port: int) -> LocalTarget:
    return local.again(msgspec.structs.replace(CONFIG, port=port))


def ask(port: int) -> int:
    return asking.post(f"http://127.0.0.1:{port}/predict", json={}).status_code


def programs(folder: Path) -> list[int]:
    """Return the pids of all processes that were given a path of a folder."""
    pids = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and str(folder).encode() in (entry / "cmdline").read_bytes():
                pids.append(int(entry.name))
    return pids


class Deploying(threading.Thread):
    """A deploy by another command, with what came of it."""

    def __init__(self, local: Place, target: LocalTarget) -> None:
        super().__init__(daemon=True)
        self._local, self._target = local, target
        self.error: MlshipError | None = None
        self.start()

    def run(self) -> None:
        slot = slot_of(ONE)
        artifact = self._local.artifact(slot)
        try:
            self._target.deploy(ONE, artifact, slot, replicas=1)
        except MlshipError as error:
            self.error = error

    def outcome(self) -> MlshipError | None:
        self.join(40)
        assert not self.is_alive(), "the deploy hangs"
        return self.error


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Hold a process still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# The router by itself: a step is one look of the supervisor.


class Routed:
    """Envoy, kept running by steps that the test makes."""

    def __init__(self, folder: Path, router: Router | None = None) -> None:
        self.state = State(folder / "target")
        self.wanted = Wanted(
            port=free_port(), stopped=False, log="", program=(), drain_seconds=1, generation=1
        )
        routing.ensure(self.state)
        Published(self.state).step({}, Split(), checked=True)
        self.state.logs.mkdir(parents=True, exist_ok=True)
        self._supervisors: list[EnvoyProcess] = []
        self.take_over(router)

    def take_over(self, router: Router | None) -> None:
        """Be the supervisor that comes after another one."""
        self.envoy = EnvoyProcess(self.state, os.environ, router)
        self._supervisors.append(self.envoy)

    @property
    def router(self) -> Router:
        assert self.envoy.router is not None
        return self.envoy.router

    def step(self) -> Router:
        self.envoy.step(self.wanted)
        self.envoy.let_go()
        return self.router

    def until(self, condition: Callable[[Router], bool]) -> list[Router]:
        """Make steps until something holds; return what each of them wrote down."""
        written = [self.step()]

        def holds() -> bool:
            written.append(self.step())
            return condition(written[-1])

        until(holds)
        return written

    def is_live(self, router: Router) -> bool:
        return router.port == self.wanted.port and admin.is_live(router.admin)

    def move(self) -> None:
        self.wanted = msgspec.structs.replace(self.wanted, port=free_port())

    def end(self) -> None:
        """End what each of the supervisors started, which has to see it end."""
        self.move()
        with socket.create_server(("127.0.0.1", self.wanted.port)):
            for envoy in self._supervisors:
                router = envoy.router
                if router and router.process and is_alive(router.process):
                    os.killpg(router.process.pid, signal.SIGKILL)
                until(functools.partial(self._has_ended, envoy))

    def _has_ended(self, envoy: EnvoyProcess) -> bool:
        envoy.step(self.wanted)
        return envoy.router is not None and envoy.router.process is None


@pytest.fixture
def routed(tmp_path: Path) -> Iterator[Routed]:
    found = Routed(tmp_path)
    yield found
    found.end()


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_router_that_was_told_to_move_before_it_was_seen_live_did_not_fail(
    routed: Routed, is_replaced: bool
) -> None:
    router = routed.step()
    until(lambda: admin.is_live(router.admin))
    routed.move()
    routed.step()
    if is_replaced:
        routed.take_over(routed.router)
    written = routed.until(routed.is_live)
    assert {each.problem for each in written} == {""}


def test_a_router_that_ended_with_the_machine_did_not_fail(routed: Routed) -> None:
    routed.state.log("envoy").write_text("caught ENVOY_SIGTERM\n")
    routed.take_over(Router(process=DEAD, port=routed.wanted.port, admin=1))
    written = routed.until(routed.is_live)
    assert {each.problem for each in written} == {""}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_router_that_was_ended_from_outside_comes_back_at_once(
    routed: Routed, number: signal.Signals
) -> None:
    routed.until(routed.is_live)
    routed.step()
    process = routed.router.process
    assert process is not None
    os.kill(process.pid, number)
    written = routed.until(lambda router: router.process != process and routed.is_live(router))
    assert {each.problem for each in written} == {""}


def test_a_router_that_cannot_start_says_why_in_its_own_words_of_now(routed: Routed) -> None:
    routed.state.log("envoy").write_text("words of last week\n")
    routed.state.clusters.unlink()
    routed.state.routes.write_text("no route")
    routed.wanted = msgspec.structs.replace(routed.wanted, port=free_port())
    routed.step()
    process = routed.router.process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    written = routed.until(lambda router: router.process is None)
    assert written[-1].problem
    assert "last week" not in written[-1].problem


def test_a_router_serves_on_its_old_port_while_the_new_one_is_taken(routed: Routed) -> None:
    first = routed.until(routed.is_live)[-1]
    routed.move()
    with socket.create_server(("127.0.0.1", routed.wanted.port)):
        for _ in range(5):
            told = routed.step()
            assert told.process == first.process
            assert f"port {routed.wanted.port} of 127.0.0.1 is already in use" in told.problem
        assert admin.is_live(first.admin)
    assert routed.until(routed.is_live)[-1].problem == ""


# A command and the supervisor.


def test_a_deploy_does_not_fail_by_what_failed_before_it(local: Place) -> None:
    local.deploy(ONE)
    with stopped(local.supervisor):
        # What a supervisor writes where the port of an earlier deploy is taken.
        router = Router(process=None, port=local.port, admin=0, problem="the port is taken")
        running = msgspec.structs.replace(local.running, router=router)
        write(local.state.processes, msgspec.json.encode(running))
        deploying = Deploying(local, on_port(local, free_port()))
        time.sleep(0.5)
    assert deploying.outcome() is None
    until(lambda: local.router.problem == "")


@pytest.mark.parametrize(
    "behaviour", [{"fail": "the disk was full"}, {"refuses": "the database was down"}]
)
def test_a_deploy_tries_again_what_failed_before_it(
    local: Place, behaviour: dict[str, Any]
) -> None:
    slot = local.deploy(ONE)
    local.artifact(slot, **behaviour)
    os.kill(local.running.replicas[0].process.pid, signal.SIGKILL)
    until(
        lambda: any(item.crashes >= 3 or item.phase == "failed" for item in local.running.replicas)
    )
    local.deploy(ONE)
    assert local.target.inspect()[slot].ready == 1


def test_a_deploy_that_still_fails_says_so_again(local: Place) -> None:
    slot = local.deploy(ONE)
    artifact = local.artifact(slot, refuses="the database is down")
    for _ in range(2):
        for replica in local.running.replicas:
            with suppress(ProcessLookupError):
                os.kill(replica.process.pid, signal.SIGKILL)
        # A replica counts as ready until the supervisor has seen its end.
        until(lambda: local.target.inspect()[slot].ready == 0)
        with pytest.raises(ProjectError, match="the database is down"):
            local.target.deploy(ONE, artifact, slot, replicas=1)


def test_a_deploy_to_a_port_that_is_taken_meanwhile_leaves_the_router_where_it_was(
    local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = local.deploy(ONE)
    local.route({slot: 100})
    port, process = local.port, local.router.process
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        # The command looked before the other program took it.
        monkeypatch.setattr(loopback, "obstacle", lambda _: "")
        local.target = on_port(local, number)
        with pytest.raises(UnavailableError, match=f"port {number} of 127.0.0.1 is already in use"):
            local.deploy(ONE)
    monkeypatch.undo()
    assert local.router.process == process
    assert ask(port) == 200
    local.target = local.again()
    local.deploy(ONE)
    assert (local.port, local.router.process, ask(port)) == (port, process, 200)


def test_a_port_of_ones_own_router_is_not_taken_while_it_does_not_answer(local: Place) -> None:
    local.deploy(ONE)
    process = local.router.process
    assert process is not None
    with stopped(process.pid):
        deploying = Deploying(local, on_port(local, local.port))
        time.sleep(0.5)
    assert deploying.outcome() is None


def test_a_move_goes_on_when_its_command_was_killed(local: Place) -> None:
    slot = local.deploy(ONE)
    local.route({slot: 100})
    before = local.state.wanted()
    assert before is not None
    port = free_port()
    moved = msgspec.structs.replace(before, port=port, generation=before.generation + 1)
    with local.state.changing():
        local.state.want(moved)
    until(lambda: local.router.port == port and admin.is_live(local.router.admin))
    local.target = on_port(local, port)
    local.deploy(ONE)
    assert ask(port) == 200


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_move_waits_for_the_requests_in_flight(local: Place, is_replaced: bool) -> None:
    slot = local.deploy(ONE, answer_seconds=1.5)
    local.route({slot: 100})
    port, process = local.port, local.router.process
    statuses: list[int] = []
    request = threading.Thread(target=lambda: statuses.append(ask(port)))
    request.start()
    until(lambda: admin.active_requests(local.router.admin) == 1)
    deploying = Deploying(local, on_port(local, free_port()))
    until(lambda: local.router.draining)
    if is_replaced:
        os.kill(local.supervisor, signal.SIGKILL)
    assert local.router.process == process
    request.join()
    assert statuses == [200]
    assert deploying.outcome() is None
    assert ask(local.port) == 200
    assert not local.router.draining


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.06, 0.15])
def test_a_move_goes_on_when_the_supervisor_is_replaced_in_the_middle(
    local: Place, delay: float
) -> None:
    slot = local.deploy(ONE)
    local.route({slot: 100})
    port = free_port()
    deploying = Deploying(local, on_port(local, port))
    time.sleep(delay)
    os.kill(local.supervisor, signal.SIGKILL)
    assert deploying.outcome() is None
    assert local.port == port
    assert ask(port) == 200
    envoys = [pid for pid in programs(local.state.bootstrap) if is_envoy(pid)]
    assert len(envoys) == 1


def is_envoy(pid: int) -> bool:
    with suppress(OSError):
        return b"--disable-hot-restart" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def test_files_of_an_older_version_are_taken_over(local: Place) -> None:
    slot = local.deploy(ONE)
    local.route({slot: 100})
    processes = local.processes()
    os.kill(local.supervisor, signal.SIGKILL)
    until(lambda: not supervision.runs(local.state))
    for path in (local.state.slots, local.state.processes):
        document = msgspec.json.decode(path.read_bytes())
        del document["generation"]
        path.write_bytes(msgspec.json.encode(document))
    local.deploy(ONE)
    assert local.processes() == processes


def test_what_a_supervisor_of_an_older_version_says_of_a_failure_is_believed(
    local: Place,
) -> None:
    local.deploy(ONE)
    with stopped(local.supervisor):
        problem = Router(process=None, port=1, admin=0, problem="no program")
        write(local.state.processes, msgspec.json.encode(Running(router=problem)))
        error = Deploying(local, on_port(local, free_port())).outcome()
    assert isinstance(error, UnavailableError)
    assert "no program" in error.message


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15, 0.3, 0.6])
def test_down_while_all_starts_leaves_nothing(local: Place, delay: float) -> None:
    deploying = Deploying(local, local.target)
    until(lambda: local.state.wanted() is not None)
    time.sleep(delay)
    local.target.down()
    deploying.outcome()
    local.target.down()
    until(lambda: not programs(local.state.folder))
    assert not supervision.runs(local.state)


def test_a_router_restarts_while_a_slot_is_deployed(local: Place) -> None:
    local.deploy(ONE)
    two = release("two")
    slot = Slot(slot_of(two))
    artifact = local.artifact(slot, start_seconds=0.5)
    outcome: list[MlshipError] = []

    def deploy() -> None:
        try:
            local.target.deploy(two, artifact, slot, replicas=1)
        except MlshipError as error:
            outcome.append(error)

    thread = threading.Thread(target=deploy)
    thread.start()
    for _ in range(3):
        time.sleep(0.2)
        process = local.router.process
        if process is not None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
    thread.join(40)
    assert outcome == []
    assert local.target.inspect()[slot].ready == 1
