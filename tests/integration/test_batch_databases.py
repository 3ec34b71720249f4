"""Batches from and to a real PostgreSQL: rows are read once and published once."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlship.adapters.rows import postgres_runs, queries, table_runs
from mlship.adapters.rows.listing import LakeFiles
from mlship.adapters.rows.postgres_runs import PostgresTable
from mlship.adapters.rows.table_runs import TableRuns
from mlship.domain import bundle as bundles
from mlship.domain import shapes
from mlship.domain.batch import Manifest, Plan
from mlship.domain.batch_record import Batched
from mlship.errors import (
    IntegrityError,
    MlshipError,
    NotFoundError,
    ProjectError,
    UnavailableError,
)
from mlship.steps.batch import batch
from mlship.steps.trace import trace
from tests.fakes.batch import KilledError
from tests.harness.batches import Contest, Here
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


@pytest.fixture
def table(here: Here, database: Server) -> str:
    """Have the batch write to a table, which is made by the statements of the message."""
    database.execute("lake", "DROP TABLE IF EXISTS scores, mlship_runs")
    text = f"{address(database)}?table=public.scores"
    path = here.write("a.parquet", key=list(range(25)), note=["", None, 'a,"b"', "\\.", "x\ny"] * 5)
    here.configure(input=str(path), output=text, keep=("key", "note"))
    with pytest.raises(NotFoundError, match=r"there is no table .*table=public.scores") as caught:
        here.run()
    assert not here.workers.scored
    database.execute("lake", *caught.value.hint.removeprefix("create it: ").split("; "))
    return text


def rows(database: Server, query: str = "SELECT key, note FROM scores ORDER BY key") -> list[Any]:
    with psycopg.connect(database.url("lake")) as connection:
        return connection.execute(query.encode()).fetchall()


def test_outputs_are_in_the_table_once_and_another_release_is_beside(
    here: Here, database: Server, table: str
) -> None:
    result = here.run()
    assert shapes.of(result.record, Batched).table == table.replace("mlship@", "")
    assert rows(database) == list(enumerate(["", None, 'a,"b"', "\\.", "x\ny"] * 5))
    assert not here.run().is_new
    assert rows(database, "SELECT count(*), count(DISTINCT id) FROM scores") == [(25, 25)]
    [(number, first)] = rows(database, "SELECT count(*), min(id) FROM scores WHERE key = 7")
    assert number == 1
    assert trace(here.world.pipeline, first, batching=here.ports).prediction.id == first
    here.release = msgspec.structs.replace(here.release, params=here.release.bundle)
    here.run()
    both = rows(database, "SELECT count(*), count(DISTINCT mlship_release) FROM scores")
    assert both == [(50, 2)]
    assert rows(database, "SELECT sum(rows) FROM mlship_runs") == [(50,)]


def test_a_server_that_is_killed_while_it_gets_rows_has_all_or_none(
    here: Here, database: Server, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert table
    own = table_runs.outputs

    def dying(*arguments: Any) -> Iterator[Any]:
        for number, outputs in enumerate(own(*arguments)):
            if number == 1:
                database.stop("immediate")
            yield outputs

    monkeypatch.setattr(table_runs, "outputs", dying)
    with pytest.raises(UnavailableError, match="the database cannot be used") as caught:
        here.run()
    assert "run `mlship batch` again" in caught.value.hint
    database.start()
    monkeypatch.setattr(table_runs, "outputs", own)
    assert rows(database) == []
    assert here.run().record.evidence.verdict == "passed"
    assert len(rows(database)) == 25


def test_two_processes_add_a_run_once(here: Here, database: Server, table: str) -> None:
    fields = bundles.manifest(here.bundle, expected=here.release.bundle).schema.outputs
    postgres = PostgresTable(table, fields)
    added = []
    own = postgres.publish

    def publish(plan: Plan, manifest: Manifest, folder: Path) -> None:
        added.append(lambda: PostgresTable(table, fields).publish(plan, manifest, folder))
        own(plan, manifest, folder)

    postgres.publish = publish  # type: ignore[method-assign]
    ports = here.ports
    runs = TableRuns(postgres, here.root / "copies")
    object.__setattr__(ports, "runs", lambda *_: runs)
    batch(here.world.pipeline, ports, here.release, here.world.pipeline.read())
    database.execute("lake", "DELETE FROM scores", "DELETE FROM mlship_runs")
    threads = [threading.Thread(target=added[0]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rows(database)) == 25
    assert rows(database, "SELECT count(*) FROM mlship_runs") == [(1,)]


@pytest.mark.parametrize(
    ("statement", "kind", "says", "hint"),
    [
        ("ALTER TABLE scores DROP COLUMN species", ProjectError, "no column species", "ADD COLUMN"),
        (
            "ALTER TABLE scores ALTER probability_setosa TYPE real",
            ProjectError,
            "column probability_setosa has type real, and gets double precision",
            "TYPE double precision",
        ),
        (
            "ALTER TABLE scores ALTER probability_setosa TYPE numeric(5,2)",
            ProjectError,
            "column probability_setosa has type numeric(5,2), and gets double precision",
            "TYPE double precision",
        ),
        (
            "ALTER TABLE scores ALTER key TYPE real",
            ProjectError,
            "column key has type real, and gets bigint",
            "TYPE bigint",
        ),
        (
            "ALTER TABLE scores ALTER note TYPE name",
            ProjectError,
            "column note has type name, and gets text",
            "TYPE text",
        ),
        (
            "ALTER TABLE scores ADD COLUMN day date NOT NULL",
            ProjectError,
            "column day needs a value",
            "DROP NOT NULL",
        ),
        ("DROP TABLE mlship_runs", NotFoundError, "no table mlship_runs", "CREATE TABLE"),
        (
            "REVOKE INSERT ON scores FROM writer",
            UnavailableError,
            "the user writer may not write to",
            'GRANT INSERT ON "public"."scores" TO "writer"',
        ),
    ],
)
def test_a_table_that_cannot_take_the_outputs_is_named_before_a_row_is_scored(
    here: Here,
    database: Server,
    table: str,
    statement: str,
    kind: type[MlshipError],
    says: str,
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database.execute(
        "lake",
        "DROP ROLE IF EXISTS writer",
        "CREATE ROLE writer LOGIN PASSWORD 'w'",
        "GRANT SELECT, INSERT ON scores, mlship_runs TO writer",
        statement,
    )
    monkeypatch.setenv("PGPASSWORD", "w")
    here.configure(output=table.replace("mlship@", "writer@"))
    with pytest.raises(kind) as caught:
        here.run()
    monkeypatch.setenv("PGPASSWORD", database.password)
    assert says in caught.value.message
    assert hint in caught.value.hint
    assert not here.workers.scored
    database.execute("lake", "DROP OWNED BY writer", "DROP ROLE writer")


def test_a_row_that_the_table_refuses_publishes_none(
    here: Here, database: Server, table: str
) -> None:
    assert table
    database.execute("lake", "ALTER TABLE scores ADD CHECK (key <> 20)")
    with pytest.raises(ProjectError, match=r"refuses the outputs: .*; nothing was published"):
        here.run()
    assert rows(database, "SELECT count(*) FROM mlship_runs") == [(0,)]
    assert rows(database) == []
    database.execute("lake", "ALTER TABLE scores DROP CONSTRAINT scores_key_check")
    here.workers.asked.clear()
    assert here.run().record.evidence.verdict == "passed"
    assert not here.workers.scored
    written = [path.read_bytes() for path in here.root.rglob("*") if path.is_file()]
    assert not any(database.password.encode() in data for data in written)


def test_rows_that_a_trigger_leaves_out_publish_none(
    here: Here, database: Server, table: str
) -> None:
    assert table
    database.execute(
        "lake",
        "CREATE OR REPLACE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN IF NEW.key = 7 THEN RETURN NULL; END IF; RETURN NEW; END'",
        "CREATE TRIGGER leaves BEFORE INSERT ON scores FOR EACH ROW EXECUTE FUNCTION leave_out()",
    )
    with pytest.raises(ProjectError, match="took 24 of 25 rows; nothing was published"):
        here.run()
    assert rows(database) == []
    assert rows(database, "SELECT count(*) FROM mlship_runs") == [(0,)]
    database.execute("lake", "DROP TRIGGER leaves ON scores")
    assert here.run().record.evidence.verdict == "passed"
    assert len(rows(database)) == 25


def test_a_run_whose_rows_were_removed_is_not_said_to_be_there(
    here: Here, database: Server, table: str
) -> None:
    assert table
    here.run()
    database.execute("lake", "TRUNCATE scores")
    with pytest.raises(IntegrityError, match="has no rows of the run") as caught:
        here.run()
    statement = caught.value.hint.partition("there: ")[2].partition("; then")[0]
    database.execute("lake", statement)
    here.run()
    assert len(rows(database)) == 25


def test_times_without_a_zone_do_not_depend_on_the_session(
    here: Here, database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = pa.array([datetime(2026, 7, 1, 12, tzinfo=UTC)] * 25, pa.timestamp("us"))
    path = here.write("a.parquet", key=list(range(25)), seen=times)
    here.configure(input=str(path), output=f"{address(database)}?table=times", keep=("key", "seen"))
    database.execute("lake", "DROP TABLE IF EXISTS times, mlship_runs")
    with pytest.raises(NotFoundError) as caught:
        here.run()
    made = caught.value.hint.removeprefix("create it: ")
    assert '"seen" timestamp,' in made
    # A table of the user's own, where the values get a zone.
    database.execute("lake", *made.replace("timestamp,", "timestamptz,", 1).split("; "))
    monkeypatch.setenv("PGTZ", "America/New_York")
    here.run()
    select = "SELECT DISTINCT (seen AT TIME ZONE 'UTC')::text FROM times"
    assert rows(database, select) == [("2026-07-01 12:00:00",)]


def test_a_table_that_is_locked_is_not_waited_for_without_end(
    here: Here, database: Server, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert table
    monkeypatch.setattr(
        postgres_runs, "_PATIENCE", postgres_runs._PATIENCE.replace("10min", "100ms")
    )
    with psycopg.connect(database.url("lake")) as other:
        other.execute("LOCK TABLE scores IN SHARE MODE")
        with pytest.raises(UnavailableError, match="lock timeout"):
            here.run()
        other.rollback()
    assert here.run().record.evidence.verdict == "passed"
    assert len(rows(database)) == 25


def test_both_sides_of_a_split_are_one_run_of_the_table(
    tmp_path: Path, database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", database.password)
    database.execute("lake", "DROP TABLE IF EXISTS divided, mlship_runs")
    here = Contest(tmp_path, output=f"{address(database)}?table=public.divided", keep=("key",))
    here.write("a.parquet", 60, key=[f"c{number}" for number in range(60)])
    with pytest.raises(NotFoundError, match=r"there is no table") as caught:
        here.compare("split")
    assert not here.workers.scored
    database.execute("lake", *caught.value.hint.removeprefix("create it: ").split("; "))
    here.compare("split")
    assert not here.compare("split").is_new
    found = rows(
        database, "SELECT side, release, mlship_release, count(*) FROM divided GROUP BY 1, 2, 3"
    )
    own = {"champion": here.release, "challenger": here.challenger}
    assert {side: names for side, *names, _ in found} == {
        side: [str(release), release.id] for side, release in own.items()
    }
    assert sum(count for *_, count in found) == 60
    assert rows(database, "SELECT sum(rows) FROM mlship_runs") == [(60,)]
    shadow = here.compare("shadow").shadow
    assert shadow is not None
    assert shadow.record.evidence.verdict == "passed"
    assert rows(database, "SELECT count(*) FROM divided WHERE side IS NULL") == [(60,)]
