"""Where MLflow keeps the runs of a ledger's records: a tracking server, or a database."""

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


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A run of the ledger's experiment as MLflow has it now.

    Attributes:
        run: its id in MLflow.
        deleted: it was put into MLflow's trash.
    """

    run: str
    deleted: bool
    tags: dict[str, str]


class Fresh(msgspec.Struct, frozen=True, kw_only=True):
    """A run to be made, whole by one call.

    Attributes:
        name: for people.
        time: when it started and ended, in milliseconds since 1970.
        tags: the first one is the digest of the record, which no other run has.
    """

    name: str
    time: int
    tags: dict[str, str]


class Place(Protocol):
    """Keeps runs in one experiment."""

    def read(self) -> Sequence[Kept]:
        """Return all runs, deleted ones too; nothing is made for it."""

    def write(self, fresh: Fresh) -> Kept:
        """Create a finished run with its tags, whole or not at all, and read it back."""


class ServerPlace:
    """A tracking server, by REST alone."""

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

    def read(self) -> list[Kept]:
        """Return all runs, deleted ones too; nothing is made for it.

        Raises:
            UnavailableError: the server does not answer, or denies access.
            IntegrityError: the experiment was deleted.
        """
        with connected(self._uri, self._environ, patience=self._patience) as server:
            try:
                self._number = self._found(server)
            except NotFoundError:
                return []
            query: dict[str, Any] = {
                "experiment_ids": [self._number],
                "run_view_type": "ALL",
                "max_results": _PAGE,
            }
            pages = server.pages("POST", "runs/search", query)
            return [_kept_by_server(run) for page in pages for run in page.get("runs", [])]

    def write(self, fresh: Fresh) -> Kept:
        """Create a finished run with its tags, whole or not at all, and read it back.

        Raises:
            UnavailableError: the server does not answer; whether the run was made is not known.
        """
        with connected(self._uri, self._environ, patience=self._patience) as server:
            self._number = self._number or self._made(server)
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

    def _run_of(self, server: Server, fresh: Fresh, seconds: float) -> dict[str, Any] | None:
        """Return the run of a record, in the shape of the answer to its creation."""
        key, value = next(iter(fresh.tags.items()))
        body = {"experiment_ids": [self._number], "filter": f"tags.`{key}` = '{value}'"}
        runs = server.post("runs/search", body, repeat="always", within=seconds).get("runs", [])
        return {"run": runs[0]} if runs else None

    def _found(self, server: Server) -> str:
        query = {"experiment_name": self._experiment}
        experiment = server.get("experiments/get-by-name", query)["experiment"]
        if experiment.get("lifecycle_stage") == "deleted":
            raise _deleted(self._uri, self._experiment, experiment["experiment_id"])
        return str(experiment["experiment_id"])

    def _made(self, server: Server) -> str:
        try:
            return str(
                server.post("experiments/create", {"name": self._experiment}, repeat="always")[
                    "experiment_id"
                ]
            )
        except ConflictError:
            return self._found(server)  # another process was first


class LibraryPlace:
    """A database, changed through the mlflow library; an embedded one is read without it."""

    def __init__(
        self, uri: str, experiment: str, artifacts: Path, environ: Mapping[str, str]
    ) -> None:
        self._uri = uri
        self._experiment = experiment
        self._artifacts = artifacts.absolute()
        self._environ = environ
        self._database = database_path(uri)

    def read(self) -> list[Kept]:
        """Return all runs, deleted ones too; nothing is made for it.

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

    def write(self, fresh: Fresh) -> Kept:
        """Create a finished run with its tags, whole or not at all, and read it back.

        Raises:
            UnavailableError: the database cannot be written.
            IntegrityError: it is damaged, or the experiment was deleted.
        """
        with self._changing(), library.session(self._uri, self._environ) as client:
            experiment = self._found(client)
            if experiment is None:
                with library.existing_is_fine():
                    place = self._artifacts.as_uri() if self._database else None
                    client.create_experiment(self._experiment, artifact_location=place)
                experiment = self._found(client)
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

    def _found(self, client: Any) -> str | None:
        experiment = client.get_experiment_by_name(self._experiment)
        if experiment is None:
            return None
        if experiment.lifecycle_stage == "deleted":
            raise _deleted(self._uri, self._experiment, experiment.experiment_id)
        return str(experiment.experiment_id)

    def _searched(self, client: Any) -> list[Kept]:
        from mlflow.entities import ViewType

        experiment = self._found(client)
        runs: list[Kept] = []
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

    def _selected(self, database: sqlite3.Connection) -> list[Kept]:
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
            Kept(run=run, deleted=stage == "deleted", tags=tags[run])
            for run, stage in stages.items()
        ]


def _kept_by_server(run: Any) -> Kept:
    return Kept(
        run=run["info"]["run_id"],
        deleted=run["info"].get("lifecycle_stage") == "deleted",
        tags={tag["key"]: tag.get("value", "") for tag in run["data"].get("tags", [])},
    )


def _kept_by_library(run: Any) -> Kept:
    return Kept(
        run=run.info.run_id,
        deleted=run.info.lifecycle_stage == "deleted",
        tags=dict(run.data.tags),
    )


def _deleted(uri: str, experiment: str, number: object) -> IntegrityError:
    message = f"MLflow's experiment {experiment} at {shown(uri)}, the ledger, was deleted"
    return IntegrityError(message, hint=f"`mlflow experiments restore -x {number}`")
