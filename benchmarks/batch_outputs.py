"""The places to which a batch is killed while it writes, for `batch_kills.py`."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import psycopg
import pyarrow.parquet as pq

from mlship.domain import batch as batches
from mlship.domain.batch import Manifest
from mlship.domain.batch_ports import Runs
from mlship.domain.bundle import Field
from mlship.wire.batch import runs_in
from tests.harness.postgres import Server, server

OUTPUTS: Final = ("url", "delta", "postgresql")
_FIELDS: Final = (
    Field(name="species", kind="text"),
    *(
        Field(name=f"probability_{name}", kind="number")
        for name in ("setosa", "versicolor", "virginica")
    ),
)
_TABLES: Final = (
    """CREATE TABLE scores (id text, key bigint, species text, probability_setosa float8,
    probability_versicolor float8, probability_virginica float8, mlship_release text,
    mlship_run text)""",
    """CREATE TABLE mlship_runs (table_name text, run text, release text, name text,
    time timestamptz, rows bigint, rejected bigint, manifest json,
    PRIMARY KEY (table_name, run))""",
)
"""Without a key of the rows, which would hide that they are there twice."""


class Output(Protocol):
    """A place for outputs.

    Attributes:
        is_table: whether a copy is complete before it gets anything.
        may_fork: whether a process that has used it may be forked.
    """

    is_table: bool
    may_fork: bool

    def runs(self) -> Runs:
        """Open it."""

    def rows(self) -> Iterable[Mapping[str, Any]]:
        """Return what a reader sees."""

    def clear(self) -> None:
        """Remove everything."""


class InFolder:
    """A folder, or a URL of files, whose reader takes what the manifest names."""

    is_table = False
    may_fork = True

    def __init__(self, folder: Path, url: str = "") -> None:
        self._folder = folder
        self._output = url or "scores"

    def runs(self) -> Runs:
        """Open it."""
        return runs_in(self._folder)(self._output, _FIELDS)

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """Return the rows of the parts that the manifest names."""
        [path] = self._folder.glob(f"scores/*/run-*/{batches.MANIFEST}")
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
        for part in manifest.parts:
            yield from pq.read_table(path.with_name(f"part-{part.name}.parquet")).to_pylist()

    def clear(self) -> None:
        """Remove everything."""
        clear(self._folder)


class InDelta:
    """A Delta table; its library has threads, which a fork would not have."""

    is_table = True
    may_fork = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def runs(self) -> Runs:
        """Open it."""
        return runs_in(self._folder)("delta+scores", _FIELDS)

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """Return the rows of the files in the log; its library must not be used before a fork."""
        added: set[str] = set()
        for entry in sorted((self._folder / "scores" / "_delta_log").glob("*.json")):
            for line in entry.read_text().splitlines():
                added |= {add["path"] for add in [json.loads(line).get("add")] if add}
        found: list[Mapping[str, Any]] = []
        for path in sorted(added):
            found += pq.read_table(self._folder / "scores" / path).to_pylist()
        return sorted(found, key=lambda row: str(row["id"]))

    def clear(self) -> None:
        """Remove everything."""
        clear(self._folder)


class InPostgres:
    """A table of PostgreSQL."""

    is_table = True
    may_fork = True

    def __init__(self, folder: Path, database: Server) -> None:
        self._folder = folder
        self._database = database
        os.environ["PGPASSWORD"] = database.password
        address = f"postgresql://mlship@{database.host}:{database.port}/postgres"
        self._output = f"{address}?table=public.scores"
        database.execute("postgres", *_TABLES)

    def runs(self) -> Runs:
        """Open it."""
        return runs_in(self._folder)(self._output, _FIELDS)

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """Return the rows of the table."""
        with psycopg.connect(self._database.url()) as connection:
            cursor = connection.execute(b"SELECT * FROM scores")
            names = [each.name for each in cursor.description or []]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def clear(self) -> None:
        """Remove everything."""
        clear(self._folder)
        self._database.execute("postgres", "TRUNCATE scores, mlship_runs")


def clear(folder: Path) -> None:
    """Remove outputs, copies and journals."""
    shutil.rmtree(folder / "scores", ignore_errors=True)
    shutil.rmtree(folder / ".mlship", ignore_errors=True)


@contextmanager
def output_of(name: str, folder: Path) -> Iterator[Output]:
    """Give a place for outputs."""
    match name:
        case "delta":
            yield InDelta(folder)
        case "postgresql":
            with server() as database:
                yield InPostgres(folder, database)
        case "url":
            yield InFolder(folder, f"file://{folder}/scores")
        case _:
            yield InFolder(folder)
