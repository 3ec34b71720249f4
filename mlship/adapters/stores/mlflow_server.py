"""A store on a tracking server, by its REST API alone.

Each request may be repeated: it only reads, is idempotent, or looks for its object before it is
repeated. Files go through the server. If the server does not serve them
(`mlflow server --no-serve-artifacts`), the `mlflow` package transfers them to their store.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Final

from mlship.adapters.mlflow import library
from mlship.adapters.mlflow.rest import PATIENCE, Server
from mlship.adapters.stores import mlflow_fast, mlflow_runs
from mlship.adapters.stores.mlflow_fast import RELEASE
from mlship.adapters.stores.mlflow_runs import FOLDER, ORDER, Batch, KeptRun
from mlship.domain.digests import Digest
from mlship.domain.versions import Version
from mlship.errors import ConflictError, IntegrityError, NotFoundError, shown

_SERVED: Final = "mlflow-artifacts:/"
_MOST_FOLDERS: Final = 1000


class ServerPlace:
    """The experiment and the registered model of a project on a tracking server.

    Args:
        server: the connected server.
        uri: of the server.
        name: of the project.
        environ: has variables `MLFLOW_*` for the package.
        clock: returns the seconds since 1970.
    """

    def __init__(
        self,
        server: Server,
        uri: str,
        name: str,
        environ: Mapping[str, str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._server = server
        self._uri = uri
        self._name = name
        self._environ = environ
        self._clock = clock

    def find(self, release: Digest) -> KeptRun | None:
        """Return the run of a release."""
        experiment = self._experiment()
        if experiment is None:
            return None
        return self._run(str(experiment["experiment_id"]), release)

    def create(self, name: str, release: Digest, tags: Mapping[str, str]) -> KeptRun:
        """Create the run of a release and its experiment; of two concurrent ones, the first stays.

        Raises:
            ConflictError: somebody deleted the experiment.
            UnavailableError: the server does not answer.
            IntegrityError: the server does not find the run.
        """
        experiment = self._experiment()
        if experiment is None:
            with suppress(ConflictError):
                self._server.post("experiments/create", {"name": self._name}, repeat="always")
            experiment = self._experiment() or {}
        number = str(experiment.get("experiment_id"))
        if experiment.get("lifecycle_stage") == "deleted":
            raise mlflow_runs.deleted(self._name, number)
        body = {
            "experiment_id": number,
            "run_name": name,
            "start_time": self._now(),
            "tags": _pairs(tags),
        }
        created = self._server.create(
            "runs/create", body, lambda seconds: self._run(number, release, seconds)
        )
        run = self._run(number, release)
        if run is None:
            message = f"MLflow at {shown(self._uri)} does not find the run that it created"
            raise IntegrityError(message, hint="check the server's log, then run the command again")
        if isinstance(created, KeptRun):
            return run
        own = created["run"]["info"]["run_id"]
        if own != run.number:
            self._server.post("runs/delete", {"run_id": own}, repeat="always")
        return run

    def add(self, run: KeptRun, batch: Batch) -> None:
        """Add values to a run; a repeated metric of the same time is stored once."""
        metrics = [
            {"key": key, "value": _json_number(value), "timestamp": self._now(), "step": 0}
            for key, value in batch.metrics.items()
        ]
        body = {
            "run_id": run.number,
            "params": _pairs(batch.params),
            "metrics": metrics,
            "tags": _pairs(batch.tags),
        }
        self._server.post("runs/log-batch", body, repeat="always")

    def upload(self, run: KeptRun, files: Mapping[str, Path]) -> None:
        """Store files with a run under their paths; existing ones are replaced."""
        if not files:
            return
        if run.artifacts.startswith(_SERVED):
            for path, file in files.items():
                self._server.upload(self._served(run, path), file)
            return
        with library.artifacts(self._uri, run.artifacts, self._environ) as store:
            library.upload(store.log_artifact, files)

    def finish(self, run: KeptRun) -> None:
        """Mark a run as finished."""
        body = {"run_id": run.number, "status": "FINISHED", "end_time": self._now()}
        self._server.post("runs/update", body, repeat="always")

    def download(self, run: KeptRun, into: Path) -> Path:
        """Download the run's folder `bundle` into an existing folder.

        Raises:
            IntegrityError: the server lists a file outside of it.
            NotFoundError: the run has no such folder.
        """
        if not run.artifacts.startswith(_SERVED):
            with library.artifacts(self._uri, run.artifacts, self._environ) as store:
                return Path(store.download_artifacts(FOLDER, str(into)))
        paths = self._files(run, FOLDER)
        if not paths:
            message = f"MLflow at {shown(self._uri)} has no files of run {run.number}"
            raise NotFoundError(message, hint="check out its commit and run `mlship train`")
        for path in paths:
            self._server.download(self._served(run, path), into / path)
        return into / FOLDER

    def versions(self) -> list[Version]:
        """Return the current registered versions, oldest first."""
        return self._versions()

    def register(self, run: KeptRun, release: Digest, tags: Mapping[str, str]) -> None:
        """Register a version of a run's bundle; of two concurrent ones, the first stays."""
        with suppress(ConflictError):
            self._server.post("registered-models/create", {"name": self._name}, repeat="always")

        def find(seconds: float) -> Version | None:
            listed = self._versions(seconds)
            return next((version for version in listed if version.release == release), None)

        body = {
            "name": self._name,
            "source": f"{run.artifacts}/{FOLDER}",
            "run_id": run.number,
            "tags": _pairs(tags),
        }
        created = self._server.create("model-versions/create", body, find)
        first = find(PATIENCE.deadline)
        if isinstance(created, Version) or first is None:
            return
        own = str(created["model_version"]["version"])
        if own != first.number:
            values = {"name": self._name, "version": own}
            with suppress(NotFoundError):
                self._server.send("DELETE", "model-versions/delete", values)

    def point(self, alias: str, number: str | None) -> None:
        """Set an alias to a version, or remove it."""
        values = {"name": self._name, "alias": alias}
        if number is not None:
            values["version"] = number
            self._server.post("registered-models/alias", values, repeat="always")
            return
        with suppress(NotFoundError):
            self._server.send("DELETE", "registered-models/alias", values)

    def tag(self, number: str, key: str, value: str | None) -> None:
        """Set a tag of a version, or remove it."""
        values = {"name": self._name, "version": number, "key": key}
        if value is not None:
            values["value"] = value
            self._server.post("model-versions/set-tag", values, repeat="always")
            return
        with suppress(NotFoundError):
            self._server.send("DELETE", "model-versions/delete-tag", values)

    def _experiment(self) -> dict[str, Any] | None:
        query = {"experiment_name": self._name}
        try:
            answer: dict[str, Any] = self._server.get("experiments/get-by-name", query)
        except NotFoundError:
            return None
        return dict(answer["experiment"])

    def _run(
        self, experiment: str, release: Digest, seconds: float = PATIENCE.deadline
    ) -> KeptRun | None:
        body = {
            "experiment_ids": [experiment],
            "filter": f"tags.`{RELEASE}` = '{release}'",
            "order_by": ORDER,
        }
        answer = self._server.post("runs/search", body, repeat="always", within=seconds)
        return mlflow_runs.chosen([_kept(run) for run in answer.get("runs", [])])

    def _versions(self, seconds: float = PATIENCE.deadline) -> list[Version]:
        return mlflow_fast.of_server(self._server, self._uri, self._name, seconds)

    def _files(self, run: KeptRun, folder: str) -> list[str]:
        """Return the paths of all files below a folder of a run.

        Raises:
            IntegrityError: a path is outside of its folder, or folders have no end.
        """
        files: list[str] = []
        folders = [folder]
        for number, parent in enumerate(folders):  # it grows
            if number == _MOST_FOLDERS:
                message = f"run {run.number} at {shown(self._uri)} has more than {number} folders"
                raise IntegrityError(message, hint="find out who changed the artifacts")
            query = {"run_id": run.number, "path": parent}
            for page in self._server.pages("GET", "artifacts/list", query):
                for entry in page.get("files", []):
                    path = PurePosixPath(entry["path"])
                    if PurePosixPath(parent) not in path.parents or ".." in path.parts:
                        message = (
                            f"MLflow at {shown(self._uri)} lists {path} as a file of {parent}/"
                        )
                        raise IntegrityError(message, hint="find out who changed the artifacts")
                    (folders if entry.get("is_dir", False) else files).append(str(path))
        return files

    def _served(self, run: KeptRun, path: str) -> str:
        return f"{run.artifacts.removeprefix(_SERVED).strip('/')}/{path}"

    def _now(self) -> int:
        return int(self._clock() * 1000)


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _json_number(value: float) -> float | str:
    """Return a number as in protobuf's JSON: NaN and infinities are strings."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _kept(run: Mapping[str, Any]) -> KeptRun:
    info, data = run["info"], run["data"]
    return KeptRun(
        number=info["run_id"],
        artifacts=info["artifact_uri"],
        is_running=info["status"] == "RUNNING",
        params={entry["key"]: entry.get("value", "") for entry in data.get("params", [])},
        metrics={entry["key"]: float(entry.get("value", 0)) for entry in data.get("metrics", [])},
        tags={entry["key"]: entry.get("value", "") for entry in data.get("tags", [])},
    )
