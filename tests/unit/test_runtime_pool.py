"""The pool: its queue, its deadlines, and workers that end or hang, on workers of the test."""

import errno
import math
import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from mlship.domain import bundle as bundles
from mlship.domain import digests
from mlship.domain.bundle import Value
from mlship.domain.columns import Columns
from mlship.errors import IntegrityError, ProjectError
from mlship.runtime.faults import Fault, RefusedRequest
from mlship.runtime.jobs import Answer, Computed, Health, Job, Refused, Table
from mlship.runtime.link import Answers, Failed, Loaded, Unfit
from mlship.runtime.memory import MEMORY_BYTES
from mlship.runtime.pool import GRACE_SECONDS, SILENT_SECONDS, Pool
from mlship.runtime.pressure import Pressure
from mlship.runtime.processes import Events
from tests.harness.bundles import iris_bundle


class Fake:
    """A worker that answers when the test says so."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self.jobs: Sequence[Columns] = []
        self.is_killed = self.is_closed = False

    def rows(self) -> list[list[tuple[Value, ...]]]:
        """Return the rows of each job that it was sent."""
        return [list(job) for job in self.jobs]

    def send(self, jobs: Sequence[Columns]) -> None:
        assert not self.jobs, "it has not answered yet"
        self.jobs = jobs

    def kill(self) -> None:
        self.is_killed = True

    def close(self) -> None:
        self.is_closed = True

    def check(self) -> None:
        if self.is_killed:
            self.is_killed = False
            self.events.ended("by signal SIGKILL")

    def answer(self) -> None:
        jobs, self.jobs = self.jobs, []
        self.events.reported(Answers([Computed(("y",), [list(rows.values[0])]) for rows in jobs]))


class World:
    """A pool with a clock, its workers, and what it told."""

    def __init__(self, folder: Path, workers: int = 1) -> None:
        self.now = 0.0
        self.workers: list[Fake] = []
        self.refusals: list[str] = []
        self.notes: list[str] = []
        self.sizes: list[int] = []
        self.restarts: list[bool] = []
        self.answers: dict[str, Answer] = {}
        self._later: list[Callable[[], None]] = []
        self.sent, self.refused, self.note = (
            self.sizes.append,
            self.refusals.append,
            self.notes.append,
        )
        self.pool = Pool(
            bundles.manifest(folder),
            digests.of_file(folder / bundles.MANIFEST),
            self._start,
            workers=workers,
            watcher=self,
            soon=self._later.append,
            clock=lambda: self.now,
        )
        self.pool.start()

    def restarted(self, *, hung: bool) -> None:
        self.restarts.append(hung)

    def _start(self, events: Events) -> Fake:
        self.workers.append(Fake(events))
        return self.workers[-1]

    def load(self, seconds: float = 0.001, each: float | None = None) -> None:
        report = Loaded(seconds, seconds if each is None else each)
        self.workers[-1].events.reported(report)
        self.turn()

    def turn(self) -> None:
        """End a turn of the event loop."""
        later, self._later[:] = self._later[:], []
        for function in later:
            function()

    def submit(self, name: str, rows: int = 1, seconds: float = 30.0, size: int = 0) -> Job:
        def finish(answer: Answer) -> None:
            assert name not in self.answers, "a job has one answer"
            self.answers[name] = answer

        job = Job(
            Table.of([(float(number),) for number in range(rows)]), self.now + seconds, finish, name
        )
        job.size = size
        self.pool.submit(job)
        return job

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.pool.check()
        self.turn()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool") / "iris"
    iris_bundle(folder)
    return folder


@pytest.fixture
def world(folder: Path) -> World:
    world = World(folder)
    world.load()
    return world


def status_of(world: World, name: str) -> int:
    answer = world.answers[name]
    return answer.status if isinstance(answer, Refused) else 200


def test_what_comes_in_one_turn_is_sent_together_and_answered_in_order(world: World) -> None:
    world.submit("a")
    world.submit("b", rows=2)
    world.turn()
    assert world.workers[0].rows() == [[(0.0,)], [(0.0,), (1.0,)]]
    world.submit("c")
    world.turn()
    assert world.pool.queued() == 1
    assert world.pool.in_flight() == 2
    world.workers[0].answer()
    assert world.answers["b"] == Computed(("y",), [[0.0, 1.0]])
    world.turn()
    world.workers[0].answer()
    assert list(world.answers) == ["a", "b", "c"]
    assert world.sizes == [3, 1]


def test_a_message_takes_no_longer_than_a_few_milliseconds(folder: Path) -> None:
    world = World(folder)
    world.load(seconds=0.004)
    for number in range(5):
        world.submit(str(number))
    world.turn()
    assert len(world.workers[0].jobs) == 2
    slow = World(folder)
    slow.load(seconds=1.0)
    slow.submit("a")
    slow.submit("b")
    slow.turn()
    assert len(slow.workers[0].jobs) == 1


def test_workers_share_what_waits(folder: Path) -> None:
    world = World(folder, workers=2)
    for worker in world.workers:
        worker.events.reported(Loaded(0.001, 0.001))
    for number in range(4):
        world.submit(str(number))
    world.turn()
    assert [len(worker.jobs) for worker in world.workers] == [2, 2]


def test_a_request_that_would_be_late_is_refused_at_once(folder: Path) -> None:
    world = World(folder)
    world.load(seconds=1.0)
    world.submit("a", seconds=5)
    world.turn()
    for name in "bcd":
        world.submit(name, seconds=5)
    with pytest.raises(RefusedRequest) as refusal:
        world.submit("e", seconds=4.5)
    assert refusal.value.status == 429
    assert refusal.value.retry_after == 4
    assert "retry after 4 seconds" in refusal.value.fault.hint
    assert refusal.value.reason == "", "that of its status"
    assert world.refusals == [], "whoever answers it counts it"
    world.submit("f", seconds=30), "one that waits longer is taken"
    assert world.pool.queued() == 4


def test_requests_take_a_bounded_part_of_the_memory_until_they_are_answered(folder: Path) -> None:
    world = World(folder)
    world.load()
    large = MEMORY_BYTES // 4

    def submit(name: str, size: int) -> Job:
        return world.submit(name, size=size)

    alone = submit("alone", 2 * MEMORY_BYTES)
    world.turn()
    world.workers[0].answer()
    world.turn()
    with pytest.raises(RefusedRequest):
        submit("beside it", 1)
    with pytest.raises(RefusedRequest):
        world.pool.admit(1)
    for _ in range(2):
        alone.release()
    world.pool.admit(2 * MEMORY_BYTES)
    waiting = [submit(name, large) for name in "abcd"]
    with pytest.raises(RefusedRequest) as refusal:
        submit("e", large)
    assert (refusal.value.status, refusal.value.retry_after) == (429, 1)
    assert "take all memory that is for them" in str(refusal.value)
    world.pool.cancel(waiting[0])
    submit("e", large)
    world.turn()
    world.workers[0].answer()
    with pytest.raises(RefusedRequest):
        submit("f", large)
    waiting[1].release()
    submit("f", large)


def test_a_large_request_is_not_taken_for_as_slow_as_its_rows_one_by_one(folder: Path) -> None:
    world = World(folder)
    world.load(seconds=0.002, each=0.00002)
    world.submit("large", rows=95_000)  # 190 s one by one, 2 s together
    world.turn()
    world.submit("beside it", seconds=30)
    with pytest.raises(RefusedRequest) as refusal:
        world.submit("in a hurry", seconds=1.5)
    assert refusal.value.retry_after == 2
    world.pass_time(0.95)
    world.workers[0].answer()  # 0.01 ms a row, which is known from now on
    world.turn()
    world.submit("large again", rows=95_000, seconds=5)
    with pytest.raises(RefusedRequest) as refusal:
        world.submit("small", seconds=0.5)
    assert refusal.value.retry_after == 1
    world.submit("patient", seconds=1.5)
    assert world.pool.queued() == 95_001
    world.workers[0].answer()
    world.turn()
    assert world.workers[0].rows() == [[(float(n),) for n in range(95_000)]], "alone"
    world.workers[0].answer()
    world.turn()
    world.workers[0].answer()
    assert world.pool.queued() == 0
    assert [status_of(world, name) for name in world.answers] == [200] * 4


class Arrivals:
    """What becomes of requests, each of which takes its worker 20 ms, with a deadline of 1 s."""

    EACH = 0.02

    def __init__(self, world: World) -> None:
        self.refusals: set[tuple[int, int | None]] = set()
        self._world = world
        self._due: dict[str, float] = {}
        self._waits: dict[str, float] = {}
        self._done_at: float | None = None

    def arrive(self, times: Iterable[float]) -> None:
        """Submit a request at each time, and have the worker answer in the meantime."""
        for time in times:
            self._work(time)
            name = str(len(self._due))
            self._due[name] = time
            try:
                self._world.submit(name, seconds=1.0)
            except RefusedRequest as refusal:
                self.refusals.add((refusal.status, refusal.retry_after))
            self._begin()

    def waits(self) -> list[float]:
        """Return the seconds of those that were answered, in order, when all are."""
        self._work(math.inf)
        return sorted(self._waits.values())

    def _begin(self) -> None:
        self._world.turn()
        if self._world.workers[0].jobs and self._done_at is None:
            self._done_at = self._world.now + self.EACH * len(self._world.workers[0].jobs)

    def _work(self, until: float) -> None:
        while self._done_at is not None and self._done_at <= until:
            self._world.now, self._done_at = self._done_at, None
            self._world.workers[0].answer()
            for name in self._world.answers.keys() - self._waits.keys():
                assert status_of(self._world, name) == 200
                self._waits[name] = self._world.now - self._due[name]
            self._begin()
        self._world.now = until


@pytest.mark.parametrize("is_protected", [True, False])
def test_a_standing_overload_costs_those_that_are_answered_no_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, is_protected: bool
) -> None:
    """Of four times what it bears, a worker does as much with a short queue as with a long one."""
    if not is_protected:
        monkeypatch.setattr(Pressure, "refuses", lambda *_: False)
    world = World(folder)
    world.load(seconds=Arrivals.EACH)
    arrivals = Arrivals(world)
    arrivals.arrive(number * 0.02 / 0.9 for number in range(90))  # 2 s of 0.9 of what it bears
    assert not arrivals.refusals
    arrivals.arrive(2 + number * 0.005 for number in range(12_000))  # 60 s
    waits = arrivals.waits()
    assert arrivals.refusals == {(429, 1)} if is_protected else {(429, 1), (429, 2)}
    assert len(waits) > 0.98 * 62 / Arrivals.EACH, "it was never idle"
    assert (waits[int(0.99 * len(waits))] < 0.07) is is_protected
    assert (waits[len(waits) // 2] > 0.9) is not is_protected


def test_a_burst_that_fits_into_the_deadline_is_answered_and_what_comes_after_it(
    folder: Path,
) -> None:
    world = World(folder)
    world.load(seconds=Arrivals.EACH)
    arrivals = Arrivals(world)
    for second in range(0, 20, 2):
        arrivals.arrive([second + number * 0.001 for number in range(45)])  # 0.9 s of work
        arrivals.arrive([second + 0.3, second + 0.6, second + 0.9, second + 1.2, second + 1.6])
    assert not arrivals.refusals
    assert len(arrivals.waits()) == 500


def test_clients_that_ask_again_when_they_are_answered_are_no_standing_overload() -> None:
    """40 of them, of whom ten are answered at a time, keep 0.6 s of work in the queue."""
    pressure = Pressure()
    for number in range(1_000):
        now = number * 10 * Arrivals.EACH
        assert not any(pressure.refuses(Arrivals.EACH, 0.6, 0.02, now) for _ in range(10))


def test_what_waits_for_a_large_request_is_no_standing_overload(folder: Path) -> None:
    world = World(folder)
    world.load(seconds=0.001, each=0.00002)
    for number in range(20):
        world.submit(f"large {number}", rows=50_000)
        for beside in range(50):
            world.submit(f"{number} {beside}")
            world.pass_time(0.02)
        world.turn()
        while world.workers[0].jobs:
            world.workers[0].answer()
            world.turn()
    assert {status_of(world, name) for name in world.answers} == {200}
    assert len(world.answers) == 20 * 51


def test_a_free_worker_refuses_nothing(folder: Path) -> None:
    world = World(folder)
    world.load(seconds=100.0)
    world.submit("a", seconds=1)
    world.turn()
    assert world.workers[0].jobs


def test_work_whose_client_has_gone_is_not_done(world: World) -> None:
    world.submit("a")
    world.turn()
    gone = world.submit("b")
    world.submit("c")
    world.pool.cancel(gone)
    assert world.pool.queued() == 1
    world.workers[0].answer()
    world.turn()
    assert world.workers[0].rows() == [[(0.0,)]]
    world.workers[0].answer()
    assert sorted(world.answers) == ["a", "c"]
    assert world.refusals == ["gone"]


def test_what_waits_too_long_is_answered_at_its_deadline(world: World) -> None:
    world.submit("a", seconds=30)
    world.turn()
    world.submit("b", seconds=30)
    world.submit("c", seconds=1)
    world.pass_time(1.1)
    assert list(world.answers) == ["c"]
    assert status_of(world, "c") == 504
    assert world.pool.queued() == 1


def answer_one(world: World, name: str) -> None:
    world.submit(name)
    world.turn()
    world.workers[-1].answer()
    assert status_of(world, name) == 200


def test_a_worker_that_ends_fails_only_what_it_computed(world: World) -> None:
    world.submit("poison")
    world.turn()
    world.submit("other")
    world.workers[0].events.ended("by signal SIGSEGV")
    assert status_of(world, "poison") == 500
    answer = world.answers["poison"]
    assert isinstance(answer, Refused)
    assert "ended by signal SIGSEGV while it computed this request" in answer.fault.message
    assert answer.reason == "crashed"
    assert world.notes == [
        "a worker ended by signal SIGSEGV while it computed poison; another is started"
    ]
    assert len(world.workers) == 2, "the first time at once"
    assert not world.pool.health().is_ready
    world.load()
    assert world.workers[1].rows() == [[(0.0,)]], "what waited; never the poison"
    world.workers[1].answer()
    assert status_of(world, "other") == 200
    assert world.pool.health() == Health(
        is_ready=True, restarts=1, hung=0, last_restart="ended by signal SIGSEGV"
    )


def test_a_worker_that_ends_in_a_large_computation_costs_what_it_computed(folder: Path) -> None:
    """The request gets 500, those that wait are answered, and no memory stays taken."""
    world = World(folder)
    world.load(seconds=0.001, each=0.00002)
    large = world.submit("large", rows=95_000, size=MEMORY_BYTES // 2)
    world.turn()
    waiting = [world.submit(name, size=1_000) for name in "ab"]
    with pytest.raises(RefusedRequest):
        world.pool.admit(MEMORY_BYTES // 2)
    world.workers[0].kill()
    world.pass_time(0.5)
    assert status_of(world, "large") == 500
    assert "ended by signal SIGKILL while it computed this request" in str(world.answers["large"])
    large.release()  # as the exchange does when its client has read the response
    world.pool.admit(MEMORY_BYTES // 2)
    with pytest.raises(RefusedRequest) as refusal:
        world.submit("in a hurry", seconds=-1)
    assert refusal.value.status == 503, "the model is being started again"
    world.load()
    world.workers[1].answer()
    assert [status_of(world, name) for name in "ab"] == [200, 200]
    for job in waiting:
        job.release()
    world.pool.admit(MEMORY_BYTES)  # nothing is taken
    assert world.notes == [
        "a worker ended by signal SIGKILL while it computed large; another is started"
    ]


def test_a_worker_that_ends_again_is_started_later_each_time(world: World) -> None:
    world.workers[-1].events.ended("with code 1")
    pauses = []
    for _ in range(7):
        world.load()
        world.workers[-1].events.ended("with code 1")
        started = world.now
        count = len(world.workers)
        while len(world.workers) == count:
            world.pass_time(0.05)
        pauses.append(round(world.now - started, 1))
    assert pauses[0] == pytest.approx(0.25, abs=0.06)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(5, abs=0.06)
    world.load()
    answer_one(world, "good")
    count = len(world.workers)
    world.workers[-1].events.ended("with code 1")
    assert len(world.workers) == count + 1, "one that has answered is replaced at once"


def test_a_hung_worker_is_replaced_when_all_it_computes_is_late(world: World) -> None:
    world.submit("hung", seconds=2)
    world.submit("beside", seconds=4)
    world.turn()
    world.pass_time(2.1)
    assert status_of(world, "hung") == 504
    world.pass_time(GRACE_SECONDS)
    assert not world.workers[0].is_killed, "another request may still be answered"
    world.pass_time(1)
    assert status_of(world, "beside") == 504
    world.pass_time(GRACE_SECONDS)
    world.pass_time(0.1)
    assert world.restarts == [True]
    assert world.notes == [
        "a worker that did not answer was ended while it computed hung, beside; another is started"
    ]
    world.load()
    assert world.pool.health() == Health(
        is_ready=True, restarts=1, hung=1, last_restart="did not answer"
    )


def test_a_client_without_patience_ends_no_worker(world: World) -> None:
    job = Job(Table.of([(0.0,)] * 5_000), world.now + 0.001, lambda _: None, "much", world.now + 30)
    world.pool.submit(job)
    world.turn()
    for _ in range(50):
        world.pass_time(0.5)
    assert job.is_done
    assert not world.workers[0].is_killed
    for _ in range(20):
        world.pass_time(0.5)
    assert world.restarts == [True], "it hangs by what the server allows"


def test_a_worker_is_not_hung_because_the_machine_stood_still(world: World) -> None:
    world.submit("a", seconds=2)
    world.turn()
    world.pass_time(60)
    assert status_of(world, "a") == 504
    assert not world.workers[0].is_killed
    world.workers[0].answer()
    answer_one(world, "b")
    assert world.restarts == []


def test_what_two_workers_did_not_read_is_given_to_no_third_one(world: World) -> None:
    world.submit("large")
    world.turn()
    for worker in range(2):
        world.workers[worker].events.lost(is_unread=True)
        world.workers[worker].events.ended("by signal SIGKILL")
        world.pass_time(0.5)
        world.load()
    assert status_of(world, "large") == 500
    answer_one(world, "other")
    assert len(world.workers) == 3


def test_a_worker_that_cannot_be_started_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Events) -> Fake:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with monkeypatch.context() as patch:
        patch.setattr(world.pool, "_start", full)
        world.workers[0].events.ended("by signal SIGKILL")
        assert "cannot be started: Resource temporarily unavailable" in world.notes[-1]
        world.pass_time(6)
    world.pass_time(6)
    world.load()
    answer_one(world, "a")


def test_what_a_dropped_job_leads_to_is_let_go(world: World) -> None:
    class Exchange:
        def heard(self, answer: Answer) -> None:
            raise AssertionError

    world.submit("first")
    world.turn()
    exchange = Exchange()
    known = weakref.ref(exchange)
    job = Job(Table.of([(0.0,)]), world.now + 30, exchange.heard, "gone")
    world.pool.submit(job)
    world.pool.cancel(job)
    del exchange
    assert known() is None
    world.workers[0].answer()
    answer_one(world, "next")


def test_a_silent_worker_is_replaced_before_the_deadline_of_those_that_wait(world: World) -> None:
    answer_one(world, "good")
    world.submit("silent")
    world.turn()
    for _ in range(100):
        world.pass_time(0.1)
    assert not world.workers[0].is_killed, "nobody waits"
    world.submit("other")
    world.turn()
    world.pass_time(0.1)
    answer = world.answers["silent"]
    assert isinstance(answer, Refused)
    assert answer.status == 504
    assert "did not answer within 10 s, while others waited" in answer.fault.message
    world.pass_time(0.1)
    assert world.notes == [
        "a worker that did not answer was ended while it computed silent; another is started"
    ]
    world.load()
    world.workers[1].answer()
    assert status_of(world, "other") == 200
    assert world.pool.health() == Health(
        is_ready=True, restarts=1, hung=1, last_restart="did not answer"
    )


def test_a_silent_worker_is_not_ended_for_requests_whose_deadline_has_passed(
    world: World,
) -> None:
    answer_one(world, "good")
    world.submit("silent", seconds=60)
    world.turn()
    world.submit("impatient", seconds=SILENT_SECONDS)
    for _ in range(round(SILENT_SECONDS * 10) - 1):
        world.pass_time(0.1)
    world.pass_time(0.2)
    assert status_of(world, "impatient") == 504
    assert "silent" not in world.answers
    assert not world.workers[0].is_killed
    world.workers[0].answer()
    assert status_of(world, "silent") == 200


def test_a_worker_that_was_ended_gets_no_jobs_though_its_answer_is_read(world: World) -> None:
    world.submit("late", seconds=1)
    world.turn()
    for _ in range(5):
        world.pass_time(0.5)
    assert world.workers[0].is_killed
    world.workers[0].answer()
    world.submit("next")
    world.turn()
    assert world.workers[0].jobs == []
    world.pass_time(0.1)
    assert world.restarts == [True]
    world.load()
    world.workers[1].answer()
    assert status_of(world, "next") == 200


def test_a_free_worker_saves_a_silent_one(folder: Path) -> None:
    world = World(folder, workers=2)
    for worker in world.workers:
        worker.events.reported(Loaded(0.001, 0.001))
    world.submit("silent")
    world.turn()
    for number in range(50):
        world.pass_time(0.1)
        world.submit(f"other {number}")
        world.turn()
        world.workers[1].answer()
    assert not world.workers[0].is_killed
    assert "silent" not in world.answers


def test_rows_that_take_long_are_given_the_time(folder: Path) -> None:
    world = World(folder)
    world.load(seconds=0.5)
    world.submit("long", rows=2)
    world.turn()
    world.submit("other")
    for _ in range(199):
        world.pass_time(0.1)
    assert not world.workers[0].is_killed
    world.pass_time(0.2)
    assert status_of(world, "long") == 504


def test_no_worker_is_silent_because_the_machine_stood_still(world: World) -> None:
    world.submit("short")
    world.turn()
    world.submit("other")
    world.pass_time(20)
    assert not world.workers[0].is_killed
    world.workers[0].answer()
    assert status_of(world, "short") == 200


def test_a_late_answer_of_a_worker_is_dropped(world: World) -> None:
    world.submit("late", seconds=1)
    world.turn()
    world.pass_time(1.5)
    world.workers[0].answer()
    assert status_of(world, "late") == 504
    world.submit("next")
    world.turn()
    world.workers[0].answer()
    assert status_of(world, "next") == 200


def test_a_pool_that_is_starting_again_says_so(world: World) -> None:
    world.now += 10
    world.workers[0].events.ended("with code 1")
    world.submit("patient", seconds=30)
    world.pool._load_seconds = 3.0
    with pytest.raises(RefusedRequest) as refusal:
        world.submit("hasty", seconds=1)
    assert refusal.value.status == 503
    assert refusal.value.reason == "restarting"


def test_a_model_that_cannot_be_loaded_is_an_error_of_the_tree(folder: Path) -> None:
    world = World(folder)
    world.workers[0].events.reported(Failed("IntegrityError", "the file changed", "train again"))
    assert isinstance(world.pool.error, IntegrityError)
    assert world.pool.error.hint == "train again"
    crashed = World(folder)
    crashed.workers[0].events.ended("by signal SIGILL")
    assert isinstance(crashed.pool.error, ProjectError)
    assert "ended by signal SIGILL while it was loaded" in crashed.pool.error.message
    unfit = World(folder)
    unfit.workers[0].events.reported(Unfit("golden example 0: other"))
    assert unfit.pool.failure == "golden example 0: other"
    assert unfit.pool.error is None


@pytest.mark.parametrize(
    ("report", "says"),
    [
        (Unfit("golden example 0: other"), "failed its check: golden example 0: other"),
        (
            Failed("IntegrityError", "model.onnx has changed", "train again"),
            "could not load the model again: model.onnx has changed",
        ),
    ],
)
def test_a_worker_that_cannot_compute_when_it_is_started_again_says_why_and_gets_no_jobs(
    world: World, report: Unfit | Failed, says: str
) -> None:
    world.workers[0].events.ended("by signal SIGSEGV")
    world.submit("a")
    world.workers[1].events.reported(report)
    world.turn()
    assert world.workers[1].jobs == []
    assert not world.pool.health().is_ready
    assert world.pool.health().last_restart == "ended by signal SIGSEGV"
    world.workers[1].events.ended("with code 0")
    assert world.pool.health() == Health(is_ready=False, restarts=2, hung=0, last_restart=says)
    assert world.notes[1:] == [f"a worker {says}; another is started"]
    assert world.pool.failure == "", "the model was ready: another worker may be"
    assert world.pool.error is None
    world.pass_time(1)
    world.workers[2].events.ended("with code 1")
    assert world.pool.health().last_restart == "ended with code 1", "of this worker, not the last"
    world.pass_time(5)
    world.load()
    world.workers[3].answer()
    assert status_of(world, "a") == 200


def test_a_worker_that_fails_its_check_after_an_answer_gets_no_more_jobs(world: World) -> None:
    world.submit("a")
    world.turn()
    world.submit("b")
    answer = Refused(Fault(message="internal error"), 500)
    world.workers[0].events.reported(Answers([answer]))
    world.workers[0].events.reported(Unfit("golden example 0: other"))
    world.turn()
    assert status_of(world, "a") == 500
    assert not world.pool.health().is_ready
    world.workers[0].events.ended("with code 0")
    world.load()
    world.workers[1].answer()
    assert status_of(world, "b") == 200
    assert world.pool.health().last_restart == "failed its check: golden example 0: other"


def test_a_worker_that_fails_its_check_costs_others_nothing(folder: Path) -> None:
    world = World(folder, workers=2)
    for worker in world.workers:
        worker.events.reported(Loaded(0.001, 0.001))
    world.workers[0].events.ended("with code 1")
    world.workers[2].events.reported(Unfit("golden example 0: other"))
    world.workers[2].events.ended("with code 0")
    for name in "abc":
        world.submit(name)
        world.turn()
        world.workers[1].answer()
        assert status_of(world, name) == 200
    health = world.pool.health()
    assert health.is_ready
    assert health.last_restart == "failed its check: golden example 0: other"


def test_a_model_that_returns_fewer_rows_is_an_error(world: World) -> None:
    world.submit("a", rows=2)
    world.turn()
    world.workers[0].jobs = []
    world.workers[0].events.reported(Answers([Computed(("y",), [[1.0]])]))
    assert status_of(world, "a") == 500


def test_closing_lets_workers_end_and_starts_no_other(world: World) -> None:
    world.pool.close()
    assert world.workers[0].is_closed
    world.workers[0].events.ended("with code 0")
    assert len(world.workers) == 1
