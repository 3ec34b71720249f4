"""Runs that go to a table: each once, whenever a kill comes, and whatever the table says."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mlship.adapters.rows import table_runs
from mlship.adapters.rows.table_runs import TableRuns
from mlship.domain import shapes
from mlship.domain.batch import Manifest, Plan
from mlship.domain.batch_record import Batched
from mlship.errors import ConfigError, IntegrityError, UnavailableError
from mlship.steps.batch import Batching
from tests.fakes.batch import KilledError, batching
from tests.harness.batches import Here


class Rows:
    """The port Table, in memory; its transactions are assignments.

    Attributes:
        before: is called before the rows are there, and `after` when they are.
    """

    shown = "memory://rows"

    def __init__(self) -> None:
        self.runs: dict[str, Manifest] = {}
        self.rows: list[dict[str, object]] = []
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self.checks = 0

    def check(self, plan: Plan) -> None:
        assert plan.parts
        self.checks += 1

    def has(self, plan: Plan) -> bool:
        return plan.run in self.runs

    def find(self, plan: Plan) -> Manifest | None:
        return self.runs.get(plan.run)

    def publish(self, plan: Plan, manifest: Manifest, folder: Path) -> None:
        if plan.run in self.runs:
            return
        batches = table_runs.outputs(plan, manifest, folder)
        rows = [row for batch in batches for row in batch.to_pylist()]
        self.before()
        self.rows, self.runs[plan.run] = self.rows + rows, manifest
        self.after()


class ToTable(Here):
    """A project whose batch writes to a table."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, keep=("key",))
        self.table = Rows()

    @property
    def ports(self) -> Batching:
        ports = batching(self.root, self.workers)
        object.__setattr__(ports, "runs", lambda *_: TableRuns(self.table, self.root / "copies"))
        return ports


@pytest.fixture
def here(tmp_path: Path) -> ToTable:
    made = ToTable(tmp_path)
    made.write("a.parquet", key=list(range(25)))
    return made


def kill() -> None:
    raise KilledError


def test_each_row_is_in_the_table_once_with_its_release_and_run(here: ToTable) -> None:
    result = here.run()
    facts = shapes.of(result.record, Batched)
    assert (facts.table, facts.rows) == ("memory://rows", 25)
    assert sorted(row["key"] for row in here.table.rows) == list(range(25))  # type: ignore[type-var]
    assert {row["mlship_release"] for row in here.table.rows} == {here.release.id}
    assert {row["mlship_run"] for row in here.table.rows} == {facts.run}
    assert not here.run().is_new
    assert len(here.table.rows) == 25


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_while_the_table_is_written_leaves_no_row_missing_or_twice(
    here: ToTable, moment: str
) -> None:
    setattr(here.table, moment, kill)
    with pytest.raises(KilledError):
        here.run()
    here.table.before = here.table.after = lambda: None
    scored = len(here.workers.scored)
    result = here.run()
    assert result.record.evidence.verdict == "passed"
    assert sorted(row["key"] for row in here.table.rows) == list(range(25))  # type: ignore[type-var]
    assert len(here.workers.scored) == scored, "no row is scored again"


def test_a_kill_while_rows_are_scored_leaves_the_table_as_it_was(here: ToTable) -> None:
    here.workers.kill_at = 1
    with pytest.raises(KilledError):
        here.run()
    assert not here.table.rows
    here.workers.kill_at = None
    here.run()
    assert len(here.table.rows) == 25


def test_a_run_that_does_not_pass_its_gates_is_not_in_the_table(here: ToTable) -> None:
    here.write("a.parquet", sepal_width=[1e9] + [1.0] * 24, key=list(range(25)))
    result = here.run()
    assert result.record.evidence.verdict == "failed"
    assert not here.table.rows
    assert shapes.of(result.record, Batched).table == ""


def test_another_machine_finds_the_run_in_the_table(here: ToTable, tmp_path: Path) -> None:
    here.run()
    other = ToTable(tmp_path / "other")
    other.table = here.table
    other.write("a.parquet", key=list(range(25)))
    assert not other.workers.scored
    assert other.run().record.evidence.verdict == "passed"
    assert not other.workers.scored
    assert len(here.table.rows) == 25


def test_a_run_that_the_table_has_lost_is_added_again(here: ToTable) -> None:
    here.run()
    here.table.rows, here.table.runs = [], {}
    here.workers.asked.clear()
    here.run()
    assert len(here.table.rows) == 25
    assert not here.workers.scored


def test_a_table_that_is_unavailable_costs_no_part(here: ToTable) -> None:
    def refuse() -> None:
        message = "the connection broke"
        raise UnavailableError(message, hint="run it again")

    here.table.before = refuse
    with pytest.raises(UnavailableError):
        here.run()
    assert not here.table.rows
    here.table.before = lambda: None
    here.workers.asked.clear()
    assert here.run().record.evidence.verdict == "passed"
    assert not here.workers.scored
    assert len(here.table.rows) == 25


def test_a_damaged_part_is_not_published(here: ToTable) -> None:
    here.table.before = kill
    with pytest.raises(KilledError):
        here.run()
    here.table.before = lambda: None
    part = next(here.root.glob("copies/*/run-*/part-*"))
    whole = part.read_bytes()
    for damaged in (whole[:-1], whole[:20] + bytes([whole[20] ^ 1]) + whole[21:]):
        part.write_bytes(damaged)
        with pytest.raises(IntegrityError):
            here.run()
    assert not here.table.rows


def test_what_a_table_cannot_get_is_refused_before_rows_are_scored(here: ToTable) -> None:
    here.configure(format="csv")
    with pytest.raises(ConfigError, match="is for outputs in a folder"):
        here.run()
    here.configure(format="parquet", keep=("tags",))
    here.write("a.parquet", tags=[["a"]] * 25)
    with pytest.raises(ConfigError, match="column tags has type list"):
        here.run()
    here.configure(keep=("mlship_run",))
    here.write("a.parquet", mlship_run=["a"] * 25)
    with pytest.raises(ConfigError, match="is a column that mlship writes"):
        here.run()
    assert not here.workers.scored
