"""Batches from a real PostgreSQL: its rows are read once, whatever happens to it meanwhile."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mlship.adapters.rows import queries
from mlship.adapters.rows.listing import LakeFiles
from mlship.domain import shapes
from mlship.domain.batch_record import Batched
from mlship.errors import NotFoundError, ProjectError, UnavailableError
from tests.fakes.batch import KilledError
from tests.harness.batches import Here
from tests.harness.postgres import Server, server

pytestmark = pytest.mark.service("postgresql")

COLUMNS = "sepal_length float8, sepal_width numeric(6,2), petal_length float4, petal_width int"


@pytest.fixture(scope="module")
def database() -> Iterator[Server]:
    with server() as running:
        running.create("lake")
        yield running


@pytest.fixture
def here(tmp_path: Path, database: Server, monkeypatch: pytest.MonkeyPatch) -> Here:
    monkeypatch.setenv("PGPASSWORD", database.password)
    monkeypatch.setattr(queries, "_GROUP_ROWS", 10)
    monkeypatch.setattr(queries, "_BLOCK", 400)
    database.execute(
        "lake",
        "DROP TABLE IF EXISTS flowers",
        f"CREATE TABLE flowers (key int, {COLUMNS}, name text)",
        "INSERT INTO flowers SELECT n, 5.1 + n * 0.01, 3.5, 1.4, 0, 'f' || n "
        "FROM generate_series(0, 49) n",
    )
    return Here(tmp_path, input=f"{address(database)}?table=public.flowers", keep=("key",))


def address(database: Server) -> str:
    return f"postgresql://mlship@{database.host}:{database.port}/lake"


def keys(folder: str) -> list[Any]:
    return sorted(pq.read_table(folder).column("key").to_pylist())


def test_the_same_rows_are_the_same_run_in_whatever_order(here: Here, database: Server) -> None:
    first = here.run()
    assert first.record.evidence.verdict == "passed"
    assert keys(first.folder) == list(range(50))
    facts = shapes.of(first.record, Batched)
    assert facts.parts > 1
    assert facts.input == (f"postgresql://127.0.0.1:{database.port}/lake?table=public.flowers",)
    # An update writes rows anew, at the end of the table.
    database.execute("lake", "UPDATE flowers SET name = name WHERE key < 20")
    assert not here.run().is_new
    database.execute("lake", "UPDATE flowers SET sepal_width = 2 WHERE key = 7")
    second = here.run()
    assert second.is_new
    assert second.folder != first.folder


def test_a_killed_batch_goes_on_with_its_rows_and_the_next_one_asks_again(
    here: Here, database: Server
) -> None:
    here.workers.kill_at = 1
    with pytest.raises(KilledError):
        here.run()
    database.execute("lake", "DELETE FROM flowers WHERE key < 40")
    here.workers.kill_at = None
    done = len(here.workers.scored)
    resumed = here.run()
    assert keys(resumed.folder) == list(range(50))
    parts = shapes.of(resumed.record, Batched).parts
    # The part that was written when the kill came is redone, and no other one.
    assert len(here.workers.scored) == parts + 1 > done
    assert keys(here.run().folder) == list(range(40, 50))


def test_rows_of_a_batch_that_failed_are_asked_for_again(here: Here, database: Server) -> None:
    database.execute("lake", "UPDATE flowers SET petal_length = NULL WHERE key = 3")
    assert here.run().record.evidence.verdict == "failed"
    database.execute("lake", "UPDATE flowers SET petal_length = 1.4 WHERE key = 3")
    assert here.run().record.evidence.verdict == "passed"


def test_rows_that_a_batch_has_held_for_a_day_are_asked_for_again(
    here: Here, database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.workers.kill_at = 0
    with pytest.raises(KilledError):
        here.run()
    here.workers.kill_at = None
    database.execute("lake", "DELETE FROM flowers WHERE key < 40")
    monkeypatch.setattr(queries, "_DAY", 0.0)
    assert keys(here.run().folder) == list(range(40, 50))


def test_each_type_has_the_values_of_the_database(here: Here, database: Server) -> None:
    columns = (
        "1::int2 AS small, 9007199254740993 AS big, 0.1::float4 AS single, 1.5::numeric(4,1) AS n, "
        "99999999999::numeric(12,0) AS whole, '' AS nothing, E'two\\n\"lines\" é' AS text, "
        "NULL::text AS missing, true AS yes, '2026-11-28 03:04:05.123456'::timestamp AS seen, "
        "'2026-11-28 03:04:05+02'::timestamptz AS zoned, '{\"a\": 1}'::jsonb AS doc"
    )
    (here.root / "all.sql").write_text(f"SELECT {columns} -- one row")
    [listed] = LakeFiles(here.root, here.root / ".mlship").list([f"{address(database)}#all.sql"])
    [row] = pq.read_table(listed.path).to_pylist()
    assert str(row.pop("seen")) == "2026-11-28 03:04:05.123456"
    assert str(row.pop("zoned")) == "2026-11-28 01:04:05+00:00"
    assert row == {
        "small": 1,
        "big": 9007199254740993,
        "single": 0.10000000149011612,
        "n": 1.5,
        "whole": 99999999999,
        "nothing": "",
        "text": 'two\n"lines" é',
        "missing": None,
        "yes": True,
        "doc": '{"a": 1}',
    }
    (here.root / "one.sql").write_text("SELECT nullif(n, 1) AS n FROM generate_series(0, 2) n")
    [listed] = LakeFiles(here.root, here.root / ".mlship").list([f"{address(database)}#one.sql"])
    assert pq.read_table(listed.path).column("n").to_pylist() == [0, 2, None]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT array[1] AS list", "column list has type integer[]"),
        ("SELECT avg(n::numeric) AS mean FROM (VALUES (1)) v (n)", "column mean is"),
        ("SELECT 'infinity'::date AS seen", "column seen of the query has a value"),
        ("SELECT 1 AS a, 2 AS a", "returns the column a twice"),
        ("SELECT 1 AS a WHERE 1 / 0 = 1", "division by zero"),
        ("DELETE FROM flowers RETURNING key", "the database refuses"),
        ("SELECT key, sepal_length FROM flowers", "has no column sepal_width"),
    ],
)
def test_what_cannot_be_read_is_named(here: Here, database: Server, query: str, says: str) -> None:
    (here.root / "q.sql").write_text(query)
    here.configure(input=f"{address(database)}#q.sql")
    with pytest.raises(ProjectError) as caught:
        here.run()
    assert says in caught.value.message
    assert caught.value.hint
    assert not here.workers.scored
    assert not list(here.root.glob("scores/*"))


def test_a_database_that_does_not_answer_or_lacks_the_table_is_named(
    here: Here, database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.configure(input=f"{address(database)}?table=nowhere")
    with pytest.raises(NotFoundError, match="there is no table"):
        here.run()
    here.configure(input="postgresql://mlship@127.0.0.1:1/lake?table=flowers")
    with pytest.raises(UnavailableError, match="the database cannot be used"):
        here.run()
    monkeypatch.setenv("PGPASSWORD", "wrong")
    here.configure(input=f"{address(database)}?table=flowers")
    with pytest.raises(UnavailableError, match="authentication failed") as caught:
        here.run()
    assert "PGPASSWORD" in caught.value.hint


def test_no_password_is_written_anywhere(here: Here, database: Server) -> None:
    here.run()
    written = [path.read_bytes() for path in here.root.rglob("*") if path.is_file()]
    assert not any(database.password.encode() in data for data in written)
