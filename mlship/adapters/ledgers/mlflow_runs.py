"""The runs of a ledger's records in MLflow: on a tracking server, or in a database."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from mlship.adapters.http.retries import Patience
from mlship.adapters.mlflow import library
from mlship.adapters.mlflow.database import alone, check_database, database_path, reading
from mlship.adapters.mlflow.rest import PATIENCE, Server, connected
from mlship.errors import ConflictError, IntegrityError, NotFoundError, shown

_PAGE: Final = 1000
_COLUMNS: Final = {
    "experiments": {"experiment_id", "name", "lifecycle_stage"},
    "runs": {"run_uuid", "experiment_id", "lifecycle_stage"},
    "tags": {"run_uuid", "key", "value"},
}


class StoredRun(msgspec.Struct, frozen=True, kw_only=True):
    """The current state of a run of the ledger's experiment.

    Attributes:
        run: its id in MLflow.
        deleted: whether it is marked as deleted.
    """

    run: str
    deleted: bool
    tags: dict[str, str]


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run to create by one call.

    Attributes:
        name: for people.
        time: of its start and end, in milliseconds since 1970.
        tags: the first one is the digest of the record, which is unique.
    """

    name: str
    time: int
    tags: dict[str, str]


class Runs(Protocol):
    """Stores runs in one experiment."""

    def read(self) -> Sequence[StoredRun]:
        """Return all runs, including deleted ones. Creates nothing."""

    def write(self, fresh: NewRun) -> StoredRun:
        """Create a finished run with its tags, atomically, and read it back."""


class ServerRuns:
    """Runs on a tracking server, by its REST API."""

    def __init__(
        self,
        uri: str,
        experiment: str,
        environ: Mapping[str, str],
        patience: Patience = PATIENCE,
    ) -> None:
        self._uri = uri
        self._experiment = experiment
        self._environ = environ
        self._patience = patience
        self._number: str | None = None

    def read(self) -> list[StoredRun]:
        """Return all runs, including deleted ones. Creates nothing.

        Raises:
            UnavailableError: the server does not respond, or denies access.
            IntegrityError: the experiment was deleted.
        """
        with connected(self._uri, self._environ, patience=self._patience) as server:
            try:
                self._number = self._experiment_id(server)
            except NotFoundError:
                return []
            query: dict[str, Any] = {
                "experiment_ids": [self._number],
                "run_view_type": "ALL",
                "max_results": _PAGE,
            }
            pages = server.pages("POST", "runs/search", query)
            return [_kept_by_server(run) for page in pages for run in page.get("runs", [])]

    def write(self, fresh: NewRun) -> StoredRun:
        """Create a finished run with its tags, atomically, and read it back.

        Raises:
            UnavailableError: the server does not respond; the run may have been created.
        """
        with connected(self._uri, self._environ, patience=self._patience) as server:
            self._number = self._number or self._created_experiment(server)
            body = {
                "experiment_id": self._number,
                "run_name": fresh.name,
                "start_time": fresh.time,
                "tags": [{"key": key, "value": value} for key, value in fresh.tags.items()],
            }
            created = server.create("runs/create", body, partial(self._run_of, server, fresh))
            run = created["run"]["info"]["run_id"]
            update = {"run_id": run, "status": "FINISHED", "end_time": fresh.time}
            server.post("runs/update", update, repeat="always")
            return _kept_by_server(server.get("runs/get", {"run_id": run})["run"])

    def _run_of(self, server: Server, fresh: NewRun, seconds: float) -> dict[str, Any] | None:
        """Return the run of a record, in the shape of the response to its creation."""
        key, value = next(iter(fresh.tags.items()))
        body = {"experiment_ids": [self._number], "filter": f"tags.`{key}` = '{value}'"}
        runs = server.post("runs/search", body, repeat="always", within=seconds).get("runs", [])
        return {"run": runs[0]} if runs else None

    def _experiment_id(self, server: Server) -> str:
        query = {"experiment_name": self._experiment}
        experiment = server.get("experiments/get-by-name", query)["experiment"]
        if experiment.get("lifecycle_stage") == "deleted":
            raise _deleted(self._uri, self._experiment, experiment["experiment_id"])
        return str(experiment["experiment_id"])

    def _created_experiment(self, server: Server) -> str:
        try:
            return str(
                server.post("experiments/create", {"name": self._experiment}, repeat="always")[
                    "experiment_id"
                ]
            )
        except ConflictError:
            return self._experiment_id(server)  # another process created it first


class LibraryRuns:
    """Runs in a database, through the mlflow library; a sqlite file is read without it."""

    def __init__(
        self, uri: str, experiment: str, artifacts: Path, environ: Mapping[str, str]
    ) -> None:
        self._uri = uri
        self._experiment = experiment
        self._artifacts = artifacts.absolute()
        self._environ = environ
        self._database = database_path(uri)

    def read(self) -> list[StoredRun]:
        """Return all runs, including deleted ones. Creates nothing.

        Raises:
            UnavailableError: the database cannot be reached or read.
            IntegrityError: it is damaged, or the experiment was deleted.
        """
        if self._database:
            if not self._database.exists():
                return []
            with reading(self._uri, self._database, _COLUMNS) as database:
                if database:
                    return self._selected(database)
        with library.session(self._uri, self._environ) as client:
            return self._searched(client)

    def write(self, fresh: NewRun) -> StoredRun:
        """Create a finished run with its tags, atomically, and read it back.

        Raises:
            UnavailableError: the database cannot be written.
            IntegrityError: it is damaged, or the experiment was deleted.
        """
        with self._changing(), library.session(self._uri, self._environ) as client:
            experiment = self._experiment_id(client)
            if experiment is None:
                with library.existing_is_fine():
                    place = self._artifacts.as_uri() if self._database else None
                    client.create_experiment(self._experiment, artifact_location=place)
                experiment = self._experiment_id(client)
            created = client.create_run(
                experiment, start_time=fresh.time, tags=fresh.tags, run_name=fresh.name
            )
            client.set_terminated(created.info.run_id, end_time=fresh.time)
            return _kept_by_library(client.get_run(created.info.run_id))

    @contextmanager
    def _changing(self) -> Iterator[None]:
        if self._database is None:
            yield
            return
        with alone(self._uri, self._database):
            if not self._database.exists():
                library.create_database(self._database, self._artifacts, self._environ)
            check_database(self._uri, self._database)
            yield

    def _experiment_id(self, client: Any) -> str | None:
        experiment = client.get_experiment_by_name(self._experiment)
        if experiment is None:
            return None
        if experiment.lifecycle_stage == "deleted":
            raise _deleted(self._uri, self._experiment, experiment.experiment_id)
        return str(experiment.experiment_id)

    def _searched(self, client: Any) -> list[StoredRun]:
        from mlflow.entities import ViewType

        experiment = self._experiment_id(client)
        runs: list[StoredRun] = []
        token = None
        while experiment is not None:
            page = client.search_runs(
                [experiment], "", ViewType.ALL, max_results=_PAGE, page_token=token
            )
            runs += [_kept_by_library(run) for run in page]
            token = page.token
            if not token:
                break
        return runs

    def _selected(self, database: sqlite3.Connection) -> list[StoredRun]:
        query = "SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = ?"
        row = database.execute(query, (self._experiment,)).fetchone()
        if row is None:
            return []
        if row[1] == "deleted":
            raise _deleted(self._uri, self._experiment, row[0])
        query = "SELECT run_uuid, lifecycle_stage FROM runs WHERE experiment_id = ?"
        stages = dict(database.execute(query, (row[0],)).fetchall())
        query = (
            "SELECT run_uuid, key, value FROM tags WHERE run_uuid IN "
            "(SELECT run_uuid FROM runs WHERE experiment_id = ?)"
        )
        tags: dict[str, dict[str, str]] = {run: {} for run in stages}
        for run, key, value in database.execute(query, (row[0],)):
            tags[run][key] = value
        return [
            StoredRun(run=run, deleted=stage == "deleted", tags=tags[run])
            for run, stage in stages.items()
        ]


def _kept_by_server(run: Any) -> StoredRun:
    return StoredRun(
        run=run["info"]["run_id"],
        deleted=run["info"].get("lifecycle_stage") == "deleted",
        tags={tag["key"]: tag.get("value", "") for tag in run["data"].get("tags", [])},
    )


def _kept_by_library(run: Any) -> StoredRun:
    return StoredRun(
        run=run.info.run_id,
        deleted=run.info.lifecycle_stage == "deleted",
        tags=dict(run.data.tags),
    )


def _deleted(uri: str, experiment: str, number: object) -> IntegrityError:
    message = f"experiment {experiment} of MLflow at {shown(uri)}, the ledger, was deleted"
    return IntegrityError(message, hint=f"run `mlflow experiments restore -x {number}`")
