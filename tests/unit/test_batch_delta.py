"""Runs in a Delta table: one commit each, whoever else writes."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deltalake
import msgspec
import pyarrow as pa
import pytest

from mlship.adapters.rows import table_runs
from mlship.adapters.rows.delta_runs import DeltaOutputs
from mlship.domain import bundle as bundles
from mlship.domain import shapes
from mlship.domain.batch import Manifest, Plan
from mlship.domain.batch_record import Batched
from mlship.errors import ConfigError, ConflictError, ProjectError, UnavailableError
from mlship.steps.trace import trace
from tests.fakes.batch import KilledError
from tests.harness.batches import Here


@pytest.fixture
def here(tmp_path: Path) -> Here:
    made = Here(tmp_path, output="delta+scores", keep=("key", "note"))
    notes = ["", None, 'a,"b"', "x\ny", "é"] * 5
    made.write("a.parquet", key=pa.array(range(25), pa.uint8()), note=notes)
    return made


def table(here: Here) -> Any:
    return deltalake.DeltaTable(here.root / "scores")


def rows(here: Here) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table(here).to_pyarrow_table().sort_by("key").to_pylist()
    return found


def test_a_run_is_one_commit_that_names_its_release(here: Here) -> None:
    result = here.run()
    facts = shapes.of(result.record, Batched)
    assert facts.table == "delta+scores"
    assert [row["key"] for row in rows(here)] == list(range(25))
    assert [row["note"] for row in rows(here)] == ["", None, 'a,"b"', "x\ny", "é"] * 5
    assert {row["mlship_run"] for row in rows(here)} == {facts.run}
    commit, _ = table(here).history()
    assert commit["mlship.release"] == here.release.id
    own = rows(here)[7]["id"]
    assert trace(here.world.pipeline, own, batching=here.ports).prediction.id == own


def test_the_same_run_commits_nothing_and_another_release_is_beside(here: Here) -> None:
    here.run()
    assert not here.run().is_new
    assert len(table(here).history()) == 2
    here.release = msgspec.structs.replace(here.release, params=here.release.bundle)
    here.run()
    assert len(table(here).history()) == 3
    assert len({row["mlship_release"] for row in rows(here)}) == 2
    assert len({row["id"] for row in rows(here)}) == 50


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_while_the_table_is_written_leaves_no_row_missing_or_twice(
    here: Here, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = deltalake.write_deltalake

    def dying(*arguments: Any, **named: Any) -> None:
        if moment == "after":
            own(*arguments, **named)
        raise KilledError

    monkeypatch.setattr(deltalake, "write_deltalake", dying)
    with pytest.raises(KilledError):
        here.run()
    monkeypatch.setattr(deltalake, "write_deltalake", own)
    scored = len(here.workers.scored)
    assert here.run().record.evidence.verdict == "passed"
    assert [row["key"] for row in rows(here)] == list(range(25))
    assert len(here.workers.scored) == scored


def test_of_writers_of_a_run_one_commits_and_those_of_others_do_too(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[tuple[Plan, Manifest, Path]] = []
    own = DeltaOutputs.publish

    def note(self: DeltaOutputs, plan: Plan, manifest: Manifest, folder: Path) -> None:
        published.append((plan, manifest, folder))

    monkeypatch.setattr(DeltaOutputs, "publish", note)
    for number in range(3):
        here.write("a.parquet", key=[number] * 25, note=["n"] * 25)
        here.run()
    monkeypatch.setattr(DeltaOutputs, "publish", own)
    fields = bundles.manifest(here.bundle, expected=here.release.bundle).schema.outputs
    faults: list[BaseException] = []

    def publish(run: tuple[Plan, Manifest, Path]) -> Callable[[], None]:
        def call() -> None:
            try:
                DeltaOutputs(here.root, "delta+scores", fields).publish(*run)
            except BaseException as error:  # noqa: BLE001 (of a thread)
                faults.append(error)

        return call

    threads = [threading.Thread(target=publish(run)) for run in published * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    keys = [row["key"] for row in rows(here)]
    assert sorted(keys) == [0] * 25 + [1] * 25 + [2] * 25
    assert sum("mlship.run" in commit for commit in table(here).history()) == 3


def test_another_machine_finds_the_run_in_the_log(here: Here) -> None:
    first = here.run()
    (here.root / ".mlship" / "batch").rename(here.root / "elsewhere")
    here.workers.asked.clear()
    again = here.run()
    assert not here.workers.scored
    assert len(rows(here)) == 25
    assert shapes.of(again.record, Batched).rows == shapes.of(first.record, Batched).rows


def test_a_table_with_other_columns_is_named_before_rows_are_scored(here: Here) -> None:
    here.run()
    here.workers.asked.clear()
    here.configure(keep=("other",))
    here.write("a.parquet", other=["a"] * 25)
    with pytest.raises(ProjectError, match="has no column other"):
        here.run()
    deltalake.write_deltalake(
        here.root / "wrong", pa.table({"id": ["a"], "species": [1]}), mode="append"
    )
    here.configure(output="delta+wrong", keep=())
    with pytest.raises(ProjectError, match="column species has type long, and gets string"):
        here.run()
    here.configure(output="delta+scores?version=3")
    with pytest.raises(ConfigError, match="names a version"):
        here.run()
    assert not here.workers.scored


def test_columns_that_a_run_does_not_have_are_null(here: Here) -> None:
    here.run()
    here.configure(keep=("key",))
    assert here.run().record.evidence.verdict == "passed"
    assert [row["note"] for row in rows(here)].count(None) == 5 + 25


def test_a_disk_that_is_full_publishes_nothing(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    own = table_runs.outputs

    def full(*arguments: Any) -> Any:
        yield next(own(*arguments))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table_runs, "outputs", full)
    with pytest.raises(UnavailableError, match=r"cannot be used: .*; nothing was published"):
        here.run()
    monkeypatch.setattr(table_runs, "outputs", own)
    assert not rows(here)
    here.workers.asked.clear()
    here.run()
    assert len(rows(here)) == 25
    assert not here.workers.scored


@pytest.mark.parametrize("how", ["deleted", "restored"])
def test_a_run_whose_rows_are_gone_is_published_again(here: Here, how: str) -> None:
    here.run()
    if how == "deleted":
        table(here).delete("mlship_run IS NOT NULL")
    else:
        table(here).restore(0)
    assert not rows(here)
    here.workers.asked.clear()
    here.run()
    assert [row["key"] for row in rows(here)] == list(range(25))
    here.run()
    assert len(rows(here)) == 25
    assert not here.workers.scored


def test_a_table_whose_log_was_cleaned_has_nothing_to_do(here: Here) -> None:
    here.run()
    table(here).alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})
    table(here).create_checkpoint()
    time.sleep(0.01)
    table(here).cleanup_metadata()
    assert not any("mlship.run" in commit for commit in table(here).history())
    assert not here.run().is_new
    (here.root / ".mlship" / "batch").rename(here.root / "elsewhere")
    with pytest.raises(ConflictError, match="does not have the commit any more"):
        here.run()


def test_a_kept_column_has_one_type_in_all_files(here: Here) -> None:
    here.configure(keep=("key",), input=".")
    here.write("b.parquet", key=["a"] * 25)
    with pytest.raises(ProjectError, match="column key has type uint8 in one file and string in"):
        here.run()
    assert not here.workers.scored
    here.write("a.parquet", key=pa.nulls(25))
    # As pandas writes whole numbers of which one is missing.
    here.write("b.parquet", key=pa.array(range(25), pa.float64()))
    here.write("c.parquet", key=pa.array([2**40] * 25))
    here.run()
    assert [row["key"] for row in rows(here)] == [*range(25), *[2**40] * 25, *[None] * 25]


@pytest.mark.parametrize(
    ("own", "values", "says"),
    [
        (pa.float32(), [0.1] * 25, "column key has type float, and gets double"),
        (pa.decimal128(9, 2), [0.125] * 25, r"column key has type decimal\(9,2\), and gets double"),
        (pa.date32(), [datetime(2026, 7, 1, 12, tzinfo=UTC)] * 25, "column key has type date"),
        (pa.int32(), [2**40] * 25, r"refuses the outputs: column key: .*; nothing was published"),
    ],
)
def test_a_column_that_would_change_values_is_named(
    here: Here, own: pa.DataType, values: list[Any], says: str
) -> None:
    here.configure(keep=())
    here.run()
    known = pa.schema(table(here).schema().to_arrow())
    deltalake.DeltaTable.create(here.root / "other", pa.schema([*known, ("key", own)]))
    here.configure(keep=("key",), output="delta+other")
    here.write("a.parquet", key=values)
    with pytest.raises(ProjectError, match=says):
        here.run()
    assert not deltalake.DeltaTable(here.root / "other").to_pyarrow_table().num_rows


def test_rows_that_break_a_constraint_are_no_fault_of_the_disk(here: Here) -> None:
    here.run()
    table(here).alter.add_constraint({"few": "key < 100"})
    here.write("a.parquet", key=[200] * 25, note=["n"] * 25)
    with pytest.raises(ProjectError, match=r"refuses the outputs: .*; nothing was published"):
        here.run()
    assert len(rows(here)) == 25
