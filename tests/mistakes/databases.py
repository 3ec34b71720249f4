"""Mistakes with what keeps evidence and predictions for all: PostgreSQL and MLflow."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from mlship.adapters.ledgers.directory import DirectoryLedger
from mlship.domain.prediction import Prediction
from mlship.runtime.postgres import PostgresRecorder
from tests.harness.postgres import Server, server
from tests.harness.sockets import gate
from tests.harness.tracking import server as tracking
from tests.mistakes.project import Project
from tests.mistakes.remote import Remote, RemoteMistake
from tests.mistakes.starts import Starts
from tests.stand_ins.faulty import Fault, before

_URL = "MLSHIP_OBSERVATIONS__URL"
_TABLES = ("mlship_predictions", "mlship_outcomes")


@contextmanager
def _postgres(_: Path) -> Iterator[Server]:
    with server() as running:
        running.execute("postgres", "CREATE ROLE reader LOGIN PASSWORD 'secret'")
        yield running


class Database(Remote):
    """A database with the predictions of production, behind a gate."""

    def __init__(self, project: Project, starts: Starts) -> None:
        super().__init__(project)
        self.server = starts.share(_postgres)
        self.gate = project.held.enter_context(gate(self.server.port))
        self.name = f"mistakes_{uuid.uuid4().hex[:8]}"
        self.real = self.server.create(self.name)
        self._fill()
        project.variables |= {
            "MLSHIP_OBSERVATIONS__KIND": "postgres",
            _URL: self.url("mlship"),
            "PGPASSWORD": self.server.password,
        }
        self.names |= {self.name: "DATABASE", str(self.gate.port): "PORT"}
        self.settle()

    def url(self, user: str, name: str = "") -> str:
        """Return the address of the database by the gate, without a password."""
        return f"postgresql://{user}@127.0.0.1:{self.gate.port}/{name or self.name}"

    def _fill(self) -> None:
        ledger = DirectoryLedger(self.project.folder / ".mlship" / "ledger")
        release = ledger.records()[0].evidence.release
        prediction = Prediction(
            id="one.0",
            release=release.id,
            slot="champion",
            time=datetime(2026, 11, 21, tzinfo=UTC),
            inputs={"petal_length": 1.4},
            outputs={"species": "setosa"},
            latency_ms=1.0,
        )
        recorder = PostgresRecorder(self.real, "champion")
        recorder.append([prediction]).result()
        recorder.close()
        self.project.write("outcomes.csv", "prediction_id,outcome\none.0,setosa\n")

    def left(self) -> dict[str, str]:
        """Return how many predictions there are, and all outcomes."""
        with psycopg.connect(self.real) as connection:
            found = {}
            for table in _TABLES:
                exists = connection.execute("SELECT to_regclass(%s)", [table]).fetchone()
                if exists and exists[0]:
                    query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
                    found[table] = str(connection.execute(query).fetchone())
        return found

    def mend(self) -> None:
        super().mend()
        self.gate.is_silent = False
        self.gate.up()


HASTY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}
"""A tracking server in trouble is waited for a minute; a mistake is told sooner."""


class Tracking(Remote):
    """A tracking server behind a proxy."""

    def __init__(self, project: Project, starts: Starts) -> None:
        super().__init__(project)
        self._real = starts.share(tracking)
        self.proxy = project.held.enter_context(before(self._real))
        name = f"iris-{uuid.uuid4().hex[:8]}"
        project.variables |= {
            "MLSHIP_NAME": name,
            "MLSHIP_STORE__KIND": "mlflow",
            "MLSHIP_STORE__URI": f"http://{self.proxy.host}",
            **HASTY,
        }
        self.names |= {name: "NAME", self.proxy.host: "HOST"}
        self.settle()

    def mend(self) -> None:
        super().mend()
        self.proxy.faults.clear()
        self.proxy.up()


def _silent(database: Database) -> None:
    database.gate.is_silent = True


def _locked(database: Database) -> None:
    """Have somebody else hold the lock that taking outcomes needs, until the end."""
    held = database.broken.enter_context(psycopg.connect(database.real))
    held.execute("SELECT pg_advisory_xact_lock(119182827122033)")


def _answers(status: int, at: str = "") -> Callable[[Tracking], None]:
    return lambda tracking: tracking.proxy.faults.append(Fault(status=status, body="{}", at=at))


def _takes(name: str, breaks: Callable[[Any], object], **more: Any) -> RemoteMistake:
    values: dict[str, Any] = {
        "on": "trained",
        "at": Database,
        "command": ("feedback", "outcomes.csv"),
        "code": 4,
        "needs": ("postgresql",),
    }
    return RemoteMistake(name=name, breaks=breaks, **{**values, **more})


def _trains(name: str, breaks: Callable[[Any], object], **more: Any) -> RemoteMistake:
    values: dict[str, Any] = {
        "on": "fresh",
        "at": Tracking,
        "command": ("train",),
        "code": 4,
        "seconds": 30,
        "is_rare": True,
    }
    return RemoteMistake(name=name, breaks=breaks, **{**values, **more})


def _as(user: str, password: str, name: str = "") -> Callable[[Database], None]:
    return lambda database: database.project.variables.update(
        {_URL: database.url(user, name), "PGPASSWORD": password}
    )


DATABASES = (
    _takes(
        "PostgreSQL is down",
        lambda database: database.gate.down(),
        says="cannot use the observations",
        hints="check that the database is running",
    ),
    _takes(
        "PostgreSQL is silent", _silent, says="timeout", hints="check that the database is running"
    ),
    _takes(
        "a wrong password for PostgreSQL",
        lambda database: database.project.variables.update(PGPASSWORD="wrong"),
        says="password authentication failed",
        hints="PGPASSWORD",
    ),
    _takes(
        "no such database",
        lambda database: database.project.variables.update(
            {_URL: database.url("mlship", "nothing")}
        ),
        says='database "nothing" does not exist',
        hints="observations.url",
    ),
    _takes(
        "no right to the tables",
        _as("reader", "secret"),
        says="permission denied for table mlship_predictions",
        hints="grant the user access to the tables",
    ),
    _takes(
        "another process holds the outcomes", _locked, says="lock timeout", hints="pg_stat_activity"
    ),
)
TRACKING = (
    _trains(
        "MLflow does not know us",
        _answers(401),
        says="refused the credentials",
        hints="MLFLOW_TRACKING_TOKEN",
    ),
    _trains(
        "MLflow does not let us",
        _answers(403),
        says="does not permit",
        hints="administrator for the permission",
    ),
    _trains(
        "MLflow is in trouble", _answers(503), says="answered 503", hints="run the command again"
    ),
    _trains("MLflow is slow", _answers(0), says="timed out", hints="run the command again"),
    _trains(
        "MLflow's disk is full",
        _answers(500, "^PUT .*/mlflow-artifacts/"),
        says="500",
        hints="run the command again",
        leaves=("bundles",),
    ),
    _trains(
        "MLflow takes no files from us",
        _answers(403, "^PUT .*/mlflow-artifacts/"),
        says="does not permit",
        hints="administrator for the permission",
        leaves=("bundles",),
    ),
)
