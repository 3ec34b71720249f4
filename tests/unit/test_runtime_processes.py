"""The link to a worker that ends: what it has not read is computed by another one."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from mlship.domain import bundle as bundles
from mlship.domain import digests
from mlship.runtime import link
from mlship.runtime.jobs import Answer, Computed, Job, Refused, Table
from mlship.runtime.link import Answers, Loaded
from mlship.runtime.pool import Pool
from mlship.runtime.processes import Events, WorkerProcess
from mlship.runtime.spawned import Spawned
from tests.harness.bundles import iris_bundle

SEGV = -signal.SIGSEGV
ANSWER = link.of_report(Answers([Computed(("y",), [[1.0]])]))


class Process:
    """A process that ends when the test says so."""

    def __init__(self) -> None:
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code

    def kill(self) -> None:
        self.code = -signal.SIGKILL


class Transport:
    """A link that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.is_closed = True


class Unconnected:
    """What was spawned, with a process of the test and no socket."""

    def __init__(self) -> None:
        self.process = Process()
        self.socket = None


class World:
    """A pool of one worker, whose process and link are those of the test."""

    def __init__(self, folder: Path) -> None:
        self.spawned: list[Unconnected] = []
        self.links: list[Transport] = []
        self.workers: list[WorkerProcess] = []
        self.notes: list[str] = []
        self.answers: dict[str, Answer] = {}
        self.note = self.notes.append
        self._later: list[Callable[[], None]] = []
        self.pool = Pool(
            bundles.manifest(folder),
            digests.of_file(folder / bundles.MANIFEST),
            self._start,
            workers=1,
            watcher=self,
            soon=self._later.append,
            clock=lambda: 0.0,
        )
        self.pool.start()
        self.load()

    def sent(self, rows: int) -> None:
        assert rows

    def refused(self, reason: str) -> None:
        raise AssertionError(reason)

    def restarted(self, *, hung: bool) -> None:
        assert not hung

    def _start(self, events: Events) -> WorkerProcess:
        self.spawned.append(Unconnected())
        self.links.append(Transport())
        worker = WorkerProcess(cast("Spawned", self.spawned[-1]), events)
        worker.connection_made(cast("asyncio.Transport", self.links[-1]))
        self.workers.append(worker)
        return worker

    def load(self) -> None:
        self.workers[-1].data_received(link.of_report(Loaded(0.001, 0.001)))
        self.turn()

    def turn(self) -> None:
        later, self._later[:] = self._later[:], []
        for function in later:
            function()

    def submit(self, *names: str) -> None:
        for name in names:
            finish = self._finish(name)
            self.pool.submit(Job(Table.of([(float(ord(name)),)]), 30.0, finish, name))
        self.turn()

    def _finish(self, name: str) -> Callable[[Answer], None]:
        def finish(answer: Answer) -> None:
            assert name not in self.answers, "a job has one answer"
            self.answers[name] = answer

        return finish

    def end(self, code: int = SEGV) -> None:
        """Let the worker's process be gone, and the pool look twice."""
        self.spawned[-1].process.code = code
        self.pool.check()
        self.pool.check()

    def written(self) -> list[Any]:
        """Return what was sent to the latest worker."""
        return [
            row[0]
            for data in self.links[-1].written
            for rows in link._jobs.decode(data[4:])
            for row in rows
        ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes") / "iris"
    iris_bundle(folder)
    return folder


@pytest.fixture
def world(folder: Path) -> World:
    return World(folder)


@pytest.mark.parametrize("exc", [None, ConnectionResetError(), BrokenPipeError()])
def test_an_idle_worker_whose_link_closes_gets_no_jobs(world: World, exc: Exception | None) -> None:
    first = world.workers[0]
    if exc is None:
        first.eof_received()
        world.submit("a")
        assert not world.links[0].written, "the link closes in the next turn of the loop"
    first.connection_lost(exc)
    assert not world.pool.health().is_ready
    world.submit("b")
    world.end()
    assert len(world.workers) == 2
    world.load()
    assert world.written() == ([97.0, 98.0] if exc is None else [98.0])
    assert world.answers == {}
    assert world.notes == [
        "a worker ended by signal SIGSEGV while no request waited for it; another is started"
    ]


@pytest.mark.parametrize("exc", [ConnectionResetError(), BrokenPipeError()])
def test_jobs_that_a_worker_has_not_read_are_computed_by_another_one(
    world: World, exc: Exception
) -> None:
    world.submit("a", "b")
    world.submit("c")
    assert world.written() == [97.0, 98.0]
    world.workers[0].connection_lost(exc)
    assert world.pool.queued() == 3
    assert world.pool.in_flight() == 0
    world.end()
    world.load()
    assert world.written() == [97.0, 98.0, 99.0], "in their order"
    answers = [Computed(("y",), [[number]]) for number in (1.0, 2.0, 3.0)]
    world.workers[1].data_received(link.of_report(Answers(list(answers))))
    assert world.answers == dict(zip("abc", answers, strict=True))


def test_jobs_that_a_worker_may_have_read_are_never_tried_again(world: World) -> None:
    world.submit("a")
    world.workers[0].eof_received()
    world.workers[0].connection_lost(None)
    world.submit("b")
    world.end()
    world.load()
    refused = world.answers.pop("a")
    assert isinstance(refused, Refused)
    assert (refused.status, refused.reason) == (500, "crashed")
    assert world.written() == [98.0]
    assert world.answers == {}


def test_the_answer_of_a_worker_that_has_ended_is_read_first(world: World) -> None:
    world.submit("a")
    world.spawned[0].process.code = SEGV
    world.pool.check()
    world.submit("b")
    assert len(world.links[0].written) == 1, "it is known to have ended"
    world.workers[0].data_received(ANSWER)
    assert world.answers == {"a": Computed(("y",), [[1.0]])}
    world.pool.check()
    assert world.links[0].is_closed, "a process that it left may hold the other end"
    assert len(world.workers) == 2
    world.workers[0].connection_lost(None)
    world.load()
    assert world.written() == [98.0], "the former link says nothing of the new worker"
