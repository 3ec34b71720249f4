"""What a worker computes, the messages of its link, and what it is measured for at its start."""

import socket
from array import array
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from mlship.domain.bundle import Row, Value
from mlship.domain.columns import Columns, packed
from mlship.runtime import golden, link, warmup, worker
from mlship.runtime.faults import Fault
from mlship.runtime.jobs import Computed, Refused, Table
from mlship.runtime.link import Answers, Frames, Loaded
from mlship.runtime.model import Model
from tests.harness.bundles import SETOSA, VIRGINICA, iris_bundle

A, B = list(SETOSA.values()), list(VIRGINICA.values())
PICKY = """
def preprocess(rows):
    if (rows.sepal_length > 100).any():
        raise ValueError("too long")
    if (rows.sepal_length < -100).any():
        raise MemoryError("no room")
    return rows
"""
SPOILED = """
state = []
def preprocess(rows):
    if (rows.sepal_length < 0).any():
        raise ValueError("too short")
    if (rows.sepal_length == 111.0).any():
        state.append("spoiled")
    if state:
        raise RuntimeError("device-side assert triggered")
    return rows
"""
EMPTY = """
def postprocess(rows):
    rows.loc[rows.probability_virginica > 0.9, "probability_setosa"] = float("nan")
    return rows
"""

UNSENDABLE = r"""
def postprocess(rows):
    value = %s
    fine = 2**64 - 1 if isinstance(value, int) else "a"
    notes = [value if share > 0.9 else fine for share in rows.probability_virginica]
    rows["note"] = __import__("pandas").Series(notes, dtype="object")
    return rows
"""
SORTED = """
def preprocess(rows):
    return rows.sort_values("petal_length", kind="stable")
"""


def columns(*jobs: list[list[Value]]) -> list[list[list[Value]]]:
    """Return the columns of each job."""
    return [[list(column) for column in zip(*rows, strict=True)] for rows in jobs]


@pytest.fixture(scope="module")
def picky(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("worker") / "iris"
    iris_bundle(folder, preprocess=PICKY)
    return Model.load(folder, None)


@pytest.mark.parametrize("batch", [0, 1, 2, 3, 100])
def test_each_job_gets_its_own_answer(picky: Model, batch: int) -> None:
    long: list[Value] = [101.0, *A[1:]]
    answers = worker.answers(picky, columns([A], [B, A], [A, long], [B]), batch)
    names = [
        answer.columns[0] if isinstance(answer, Computed) else answer.status for answer in answers
    ]
    assert names == [["setosa"], ["virginica", "setosa"], 400, ["virginica"]]
    assert isinstance(answers[2], Refused)
    assert answers[2].fault.field == "rows[1].sepal_length"


def test_a_worker_asks_after_a_failure_whether_the_model_still_computes(tmp_path: Path) -> None:
    iris_bundle(tmp_path / "iris", preprocess=SPOILED)
    model = Model.load(tmp_path / "iris", None)
    examples = golden.read(tmp_path / "iris")

    def failure_after(job: list[Value]) -> str:
        return worker.failure_after(worker.answers(model, columns([job]), 0), model, examples)

    assert failure_after(A) == ""
    assert failure_after([-1.0, *A[1:]]) == "", "a refusal is the client's"
    assert failure_after([111.0, *A[1:]]).startswith("golden example 0: the hook")
    assert failure_after(A).startswith("golden example 0: the hook"), "until it is replaced"
    fine = Computed(("species",), [["setosa"]])
    assert worker.failure_after([fine], model, examples) == "", "it is asked after failures alone"
    model.check = None  # type: ignore[assignment,method-assign]
    assert worker.failure_after([Refused(Fault(message="m"), 500)], model, examples) == (
        "golden example 0: TypeError"
    )


def test_a_hook_that_sorts_rows_gives_no_job_the_answer_of_another_one(tmp_path: Path) -> None:
    iris_bundle(tmp_path / "iris", preprocess=SORTED)
    model = Model.load(tmp_path / "iris", None)
    first, second, both = worker.answers(model, columns([B], [A], [B, A]), 4)
    assert isinstance(first, Computed)
    assert isinstance(second, Computed)
    assert [first.columns[0], second.columns[0]] == [["virginica"], ["setosa"]]
    assert isinstance(both, Refused)
    assert "in another order" in both.fault.message


def test_nan_from_a_hook_or_a_model_is_an_error_of_its_row(tmp_path: Path) -> None:
    iris_bundle(tmp_path / "iris", postprocess=EMPTY)
    model = Model.load(tmp_path / "iris", None)
    answer = model.answer(model.named([*zip(A, B, strict=True)]))
    assert isinstance(answer, Refused)
    assert (answer.status, answer.fault.field) == (400, "rows[1].petal_length")
    assert "probability_setosa is nan" in answer.fault.message
    assert isinstance(model.answer(model.named([*zip(A, strict=True)])), Computed)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2**64", "outputs[0].note is a whole number beyond 64 bits"),
        ("-2**63 - 1", "outputs[0].note is a whole number beyond 64 bits"),
        (r"'a\ud83d'", "outputs[0].note is a text with half of a surrogate pair"),
    ],
)
@pytest.mark.parametrize("rows", [2, 20])
def test_an_output_that_cannot_be_sent_is_an_error_of_its_row(
    tmp_path: Path, value: str, message: str, rows: int
) -> None:
    iris_bundle(tmp_path / "iris", postprocess=UNSENDABLE % value)
    model = Model.load(tmp_path / "iris", None)
    answer = model.answer(model.named([*zip(*[A] * (rows - 1), B, strict=True)]))
    assert isinstance(answer, Refused)
    assert (answer.status, answer.fault.field) == (400, f"rows[{rows - 1}].petal_length")
    assert message in answer.fault.message
    fine = model.answer(model.named([*zip(*[A] * rows, strict=True)]))
    assert isinstance(fine, Computed)
    assert fine.columns[-1] == [2**64 - 1 if "2**" in value else "a"] * rows


def test_a_name_of_an_output_that_cannot_be_sent_is_an_error(tmp_path: Path) -> None:
    hook = r"""
def postprocess(rows):
    return rows.assign(**{"a\ud83d": 1.0})
"""
    iris_bundle(tmp_path / "iris", postprocess=hook)
    model = Model.load(tmp_path / "iris", None)
    answer = model.answer(model.named([*zip(A, strict=True)]))
    assert isinstance(answer, Refused)
    assert (answer.status, "half of a surrogate pair" in answer.fault.message) == (500, True)


def test_an_output_that_no_message_holds_is_an_error_of_its_job(
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = Computed(("y",), [[1]])
    answered = [good, Computed(("y",), [[2**70]]), Computed(("y",), [["\ud800"]])]
    report = Frames().reports(worker.message_of(list(answered)))[0]
    assert isinstance(report, Answers)
    assert report.answers[0] == good
    assert [a.status for a in report.answers[1:] if isinstance(a, Refused)] == [500, 500]
    assert "OverflowError" in capsys.readouterr().err


def test_values_keep_their_types_on_the_link() -> None:
    row = [1, 1.0, True, None, "ö", -(2**63), 2**64 - 1, -0.0, ""]
    answers = Answers([Computed(("a",), [row]), Refused(Fault(message="m", field="f"), 404)])
    data = link.of_report(Loaded(0.5, 0.25)) + link.of_report(answers)
    frames = Frames()
    reports = [
        report for place in range(len(data)) for report in frames.reports(data[place : place + 1])
    ]
    assert reports == [Loaded(0.5, 0.25), answers]
    assert isinstance(reports[1], Answers)
    first = reports[1].answers[0]
    assert isinstance(first, Computed)
    assert [(type(value), repr(value)) for value in first.columns[0]] == [
        (type(value), repr(value)) for value in row
    ]


def test_columns_of_floats_are_arrays_on_both_ways_of_the_link() -> None:
    floats, mixed = [0.5, -0.0, 1e-320, 1.0] * 4, [1, 1.0, None, 2.5] * 4
    table = Table(("a", "b"), [packed(floats), packed(mixed)])
    data = link.of_jobs([table])[4:]
    assert array("d", floats).tobytes() in data
    ((first, second),) = link.jobs_of(data)
    assert isinstance(first, array)
    assert [list(map(repr, first)), list(map(repr, second))] == [
        list(map(repr, floats)),
        list(map(repr, mixed)),
    ]
    computed = Computed(("a", "b"), [array("d", floats).tobytes(), mixed])
    (report,) = Frames().reports(link.of_report(Answers([computed])))
    assert isinstance(report, Answers)
    answer = report.answers[0]
    assert isinstance(answer, Computed)
    assert len(answer) == 16
    assert list(map(repr, answer.outputs())) == list(map(repr, table))


class Wire:
    """A socket that gives what arrives in small parts."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def recv(self, size: int) -> bytes:
        part, self._data = self._data[: min(size, 3)], self._data[min(size, 3) :]
        return part


def test_jobs_arrive_whole_and_the_end_is_told() -> None:
    rows: list[list[tuple[Any, ...]]] = [[(1.0, "a")], [(2, None), (True, "")]]
    jobs = [Columns.of(job) for job in rows]
    wire: Any = Wire(link.of_jobs(jobs) + link.of_jobs(jobs)[:-1])
    assert link.receive(wire) == [job.values for job in jobs]
    assert link.receive(wire) is None
    assert isinstance(wire, Wire | socket.socket)


class Stub:
    """A model of which the test says how long it takes and what it answers in batches."""

    def __init__(
        self, one: float, each: float, shift: float = 0.0, noise: Iterable[float] = ()
    ) -> None:
        self.now = 0.0
        self._one, self._each, self._shift = one, each, shift
        self._noise = cycle(noise or (0.0,))

    def check(self, rows: Sequence[Any]) -> list[Row]:
        return list(rows)

    def together(self, rows: Sequence[Row]) -> list[Row]:
        self.now += self._one + self._each * len(rows) + next(self._noise)
        shift = self._shift if len(rows) > 2 else 0.0
        return [{"y": row["x"] + shift} for row in rows]  # type: ignore[operator]

    def measured(self) -> warmup.Speed:
        rows: list[Row] = [{"x": 0.1}, {"x": 0.2}, {"x": 0.3}]
        return warmup.measured(self, rows, lambda: self.now)  # type: ignore[arg-type]


def test_batches_are_used_where_they_pay_and_change_nothing() -> None:
    assert Stub(0.001, 0.0001).measured().alone == pytest.approx(0.0011)
    assert Stub(0.0, 0.001).measured().batch == 0, "no faster than one by one"
    assert Stub(0.001, 0.0001, shift=1e-19).measured().batch == 64, "the same bits"
    assert Stub(0.001, 0.0001, shift=1e-15).measured().batch == 0, "other bits in larger batches"
    assert Stub(1.0, 0.1).measured().batch == 0, "too slow to find out"
    assert Stub(0.03, 0.001).measured().batch == 32, "up to what was measured"


def test_other_work_of_the_machine_does_not_decide_whether_batches_are_used() -> None:
    noise = (0.001, 0.0, 0.0007, 0.002, 0.0005, 0.0)
    seconds, _, batch = Stub(0.0002, 0.0001, noise=noise).measured()
    assert seconds == pytest.approx(0.0003)
    assert batch == 64
    assert Stub(0.0, 0.0003, noise=noise).measured().batch == 0


def test_outputs_of_other_types_are_not_the_same() -> None:
    assert warmup._is_same([{"y": 1.0}], [{"y": 1.0}])
    assert not warmup._is_same([{"y": 1}], [{"y": 1.0}])
    assert not warmup._is_same([{"y": True}], [{"y": 1}])
