"""Outputs in memory: which rows are the same, how many are kept, and what is never kept."""

from collections.abc import Sequence
from typing import Any

import pytest

from mlship.domain import digests
from mlship.runtime.cache import KEY_BYTES, Cached
from mlship.runtime.faults import Fault, RefusedRequest
from mlship.runtime.jobs import Answer, Computed, Health, Job, Refused, Table

NAMES = ("y",)


class Fake:
    """Computes how often it was asked, and answers when the test says so."""

    bundle: Any = None
    digest = digests.of_bytes(b"")

    def __init__(self) -> None:
        self.asked: list[Sequence[Any]] = []
        self.waiting: list[Job] = []
        self.cancelled: list[Job] = []
        self.is_busy = False

    def admit(self, size: int) -> None:
        if self.is_busy:
            raise RefusedRequest(f"no room for {size} bytes", status=429, hint="")

    def submit(self, job: Job) -> None:
        if self.is_busy:
            raise RefusedRequest("the model is busy", status=429, hint="")
        self.asked += job.rows
        self.waiting.append(job)

    def cancel(self, job: Job) -> None:
        self.cancelled.append(job)

    def health(self) -> Health:
        return Health(is_ready=False)

    def answer(self) -> None:
        for job in self.waiting:
            job.finish(Computed(NAMES, [[f"{row[0]!r}" for row in job.rows]]))
        self.waiting = []


class World:
    def __init__(self, rows: int = 4) -> None:
        self.model = Fake()
        self.found: list[int] = []
        self.cached = Cached(self.model, rows, self.found.append)

    def ask(self, *values: object) -> list[Any]:
        """Return the outputs for a request with these rows."""
        answers = self.begin(*values)
        self.model.answer()
        (answer,) = answers
        assert isinstance(answer, Computed)
        assert answer.names == NAMES
        return list(answer.columns[0])

    def begin(self, *values: Any) -> list[Answer]:
        answers: list[Answer] = []
        self.job = Job(Table.of([(value,) for value in values]), 9.0, answers.append, "id")
        self.cached.submit(self.job)
        return answers

    @property
    def asked(self) -> list[Any]:
        return [row[0] for row in self.model.asked]


def test_a_row_is_computed_once() -> None:
    world = World()
    assert world.ask(1.5) == world.ask(1.5) == ["1.5"]
    assert (world.asked, world.found) == ([1.5], [1])


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 1.0), (1, True), (0.0, -0.0), (None, False), ("1", 1), ("", None), ("a", "A")],
)
def test_values_that_are_equal_for_python_are_not_the_same_row(one: object, other: object) -> None:
    world = World()
    assert [world.ask(one), world.ask(other)] == [[f"{one!r}"], [f"{other!r}"]]
    assert [world.ask(one), world.ask(other)] == [[f"{one!r}"], [f"{other!r}"]]
    assert world.found == [1, 1]


def test_columns_do_not_run_into_each_other() -> None:
    world = World()
    tables = [Table.of([("ab", "c")]), Table.of([("a", "bc")])]
    for table in tables:
        world.cached.submit(Job(table, 9.0, lambda _: None, "id"))
    world.model.answer()
    assert world.model.asked == [("ab", "c"), ("a", "bc")]


def test_a_request_is_computed_whole_unless_all_its_rows_are_kept() -> None:
    world = World()
    assert world.ask(1, 2) == ["1", "2"]
    assert world.ask(2, 3) == ["2", "3"]
    assert world.ask(3, 1, 3) == ["3", "1", "3"]
    assert (world.asked, world.found) == ([1, 2, 2, 3], [3])


def test_the_row_that_was_not_asked_for_the_longest_time_goes_first() -> None:
    world = World(rows=2)
    for value in (1, 2, 1, 3, 1, 2):
        assert world.ask(value) == [f"{value}"]
    assert world.asked == [1, 2, 3, 2]
    world.ask(*range(100))
    assert len(world.cached._outputs) == 2


def test_rows_whose_outputs_have_other_names_are_not_mixed() -> None:
    world = World()
    world.ask(1)
    answers = world.begin(2)
    world.job.finish(Computed(("b", "a"), [["B"], ["A"]]))
    world.model.waiting = []
    assert answers == [Computed(("b", "a"), [["B"], ["A"]])]
    again = world.begin(1)
    world.job.finish(Computed(NAMES, [["1"]]))
    assert again == [Computed(NAMES, [["1"]])]


def test_a_large_row_is_not_kept() -> None:
    world = World()
    for value in ("a" * (KEY_BYTES + 1), "b"):
        assert world.ask(value) == world.ask(value)
    assert (len(world.asked), world.found) == (3, [1])


def test_a_refusal_is_not_kept() -> None:
    world = World()
    answers = world.begin(1)
    world.job.finish(Refused(Fault(message="no")))
    world.model.waiting = []
    assert isinstance(answers[0], Refused)
    assert world.ask(1) == ["1"]
    assert world.asked == [1, 1]


def test_what_is_kept_is_answered_while_the_model_is_busy() -> None:
    world = World()
    world.ask(1)
    world.model.is_busy = True
    assert world.ask(1) == ["1"]
    with pytest.raises(RefusedRequest, match="busy"):
        world.begin(2)


def test_what_the_model_says_of_itself_is_passed_on() -> None:
    world = World()
    world.begin(1)
    world.cached.cancel(world.job)
    assert world.model.cancelled == [world.job]
    assert not world.cached.health().is_ready
    assert world.cached.digest == world.model.digest


def test_the_memory_for_requests_is_the_computers() -> None:
    world = World()
    world.cached.admit(7)
    world.model.is_busy = True
    with pytest.raises(RefusedRequest, match="no room for 7 bytes"):
        world.cached.admit(7)
