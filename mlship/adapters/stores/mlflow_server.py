"""A store on a tracking server, by its REST API alone.

Each request may be repeated: it only reads, is idempotent, or looks for its object before it is
repeated. Files go through the server. If the server does not serve them
(`mlflow server --no-serve-artifacts`), the `mlflow` package transfers them to their store.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from mlship.adapters.mlflow import library
from mlship.adapters.mlflow.rest import PATIENCE, Server
from mlship.adapters.stores import mlflow_fast, mlflow_runs
from mlship.adapters.stores.mlflow_fast import RELEASE
from mlship.adapters.stores.mlflow_runs import (
    FOLDER,
    HOME,
    OLDEST,
    ORDER,
    Batch,
    KeptRun,
    Page,
    StoredModel,
)
from mlship.domain import bundle
from mlship.domain.digests import Digest
from mlship.domain.versions import DataSet, Version
from mlship.errors import ConflictError, IntegrityError, NotFoundError, shown

_SERVED: Final = "mlflow-artifacts:/"
_PARAMS: Final = 100
"""MLflow accepts up to 100 params for a new logged model; all are params of its run."""


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
        self._known: dict[str, Any] | None = None
        self._has_versions = False

    def home(self) -> str:
        """Return the home of the project that the experiment is of; empty if it has no mark."""
        self._known = None  # another process may have marked it
        tags = (self._experiment() or {}).get("tags") or ()
        return next((str(tag["value"]) for tag in tags if tag["key"] == HOME), "")

    def settle(self, home: str) -> None:
        """Mark the experiment with the home of its project."""
        number = str((self._experiment() or {}).get("experiment_id"))
        body = {"experiment_id": number, "key": HOME, "value": home}
        self._server.post("experiments/set-experiment-tag", body, repeat="always")

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
        metrics: list[dict[str, Any]] = [
            {"key": key, "value": _json_number(value), "timestamp": self._now(), "step": 0}
            for key, value in batch.metrics.items()
        ]
        for metric in metrics:
            metric.update(batch.measured)
        body = {
            "run_id": run.number,
            "params": _pairs(batch.params),
            "metrics": metrics,
            "tags": _pairs(batch.tags),
        }
        self._server.post("runs/log-batch", body, repeat="always")

    def use(self, run: KeptRun, data: Sequence[DataSet]) -> None:
        """Add data sets to the inputs of a run; repeated ones are stored once."""
        inputs = [
            {"dataset": mlflow_runs.described(each), "tags": _pairs({mlflow_runs.USE: each.use})}
            for each in data
        ]
        body = {"run_id": run.number, "datasets": inputs}
        self._server.post("runs/log-inputs", body, repeat="always")

    def upload(self, artifacts: str, files: Mapping[str, Path]) -> None:
        """Store files under their paths below a URI; existing ones are replaced."""
        if not files:
            return
        if artifacts.startswith(_SERVED):
            for path, file in files.items():
                self._server.upload(_served(artifacts, path), file)
            return
        with library.artifacts(self._uri, artifacts, self._environ) as store:
            library.upload(store.log_artifact, files)

    def finish(self, run: KeptRun) -> None:
        """Mark a run as finished."""
        body = {"run_id": run.number, "status": "FINISHED", "end_time": self._now()}
        self._server.post("runs/update", body, repeat="always")

    def model(self, number: str) -> StoredModel:
        """Return a logged model.

        Raises:
            NotFoundError: somebody deleted it.
        """
        return _stored(self._server.get(f"logged-models/{number}", {})["model"])

    def create_model(
        self, run: KeptRun, name: str, tags: Mapping[str, str], params: Mapping[str, str]
    ) -> StoredModel:
        """Create the logged model of a run; of several ones, the oldest stays."""
        experiment = str((self._experiment() or {}).get("experiment_id"))

        def first(seconds: float = PATIENCE.deadline) -> StoredModel | None:
            body = {
                "experiment_ids": [experiment],
                "filter": f"source_run_id = '{run.number}'",
                "order_by": OLDEST,
            }
            listed = self._server.post(
                "logged-models/search", body, repeat="always", within=seconds
            )
            return next((_stored(model) for model in listed.get("models", [])), None)

        model = first()
        if model is None:
            body = {
                "experiment_id": experiment,
                "name": name,
                "source_run_id": run.number,
                "tags": _pairs(tags),
                "params": _pairs(params)[:_PARAMS],
            }
            created = self._server.create("logged-models", body, first)
            model = first()
            own = created if isinstance(created, StoredModel) else _stored(created["model"])
            if model is None:
                return own
            if own.number != model.number:
                with suppress(NotFoundError):
                    self._server.send("DELETE", f"logged-models/{own.number}", {})
            else:
                # MLflow refuses an output that is there, so only the creator adds it.
                outputs = [{"model_id": own.number, "step": 0}]
                body = {"run_id": run.number, "models": outputs}
                self._server.create("runs/outputs", body, lambda s: self._output(run, own, s))
        return model

    def _output(self, run: KeptRun, model: StoredModel, seconds: float) -> Any:
        """Return the output of a run that a logged model is, or `None`."""
        got = self._server.send("GET", "runs/get", {"run_id": run.number}, within=seconds)
        outputs = got["run"].get("outputs", {}).get("model_outputs", [])
        return next((each for each in outputs if each["model_id"] == model.number), None)

    def publish(self, model: StoredModel) -> None:
        """Mark a logged model as ready."""
        body = {"model_id": model.number, "status": "LOGGED_MODEL_READY"}
        self._server.send("PATCH", f"logged-models/{model.number}", body, repeat="always")

    def download(self, artifacts: str, into: Path, expected: Digest) -> Path:
        """Download the folder `bundle` below a URI into an existing folder.

        The manifest names the files. Others that the server may have are not downloaded.

        Raises:
            IntegrityError: the manifest is not the expected one.
            NotFoundError: there is no such folder, or a file is missing in it.
        """
        if not artifacts.startswith(_SERVED):
            with library.artifacts(self._uri, artifacts, self._environ) as store:
                return Path(store.download_artifacts(FOLDER, str(into)))
        folder = into / FOLDER
        root = _served(artifacts, FOLDER)
        self._server.download(f"{root}/{bundle.MANIFEST}", folder / bundle.MANIFEST)
        for name in bundle.manifest(folder, expected=expected).files:
            self._server.download(f"{root}/{name}", folder / name)
        return folder

    def take(self, artifacts: str, names: Sequence[str], into: Path) -> None:
        """Download files below a URI into an existing folder, under their paths.

        Raises:
            NotFoundError: a file does not exist.
        """
        if artifacts.startswith(_SERVED):
            for name in names:
                self._server.download(_served(artifacts, name), into / name)
            return
        with library.artifacts(self._uri, artifacts, self._environ) as store:
            for name in names:
                store.download_artifacts(name, str(into))

    def versions(self) -> list[Version]:
        """Return the current registered versions, oldest first."""
        versions = self._versions()
        self._has_versions = bool(versions)
        return versions

    def register(self, run: KeptRun, model: StoredModel, release: Digest, page: Page) -> str:
        """Register a version of a run's model; return its number.

        Of two concurrent ones, the first stays.
        """
        if not self._has_versions:
            with suppress(ConflictError):
                self._server.post("registered-models/create", {"name": self._name}, repeat="always")

        def find(seconds: float) -> Version | None:
            listed = self._versions(seconds)
            return next((version for version in listed if version.release == release), None)

        body = {
            "name": self._name,
            "source": model.source,
            "run_id": run.number,
            "description": page.description,
            "tags": _pairs(page.tags),
        }
        if model.number:
            body["model_id"] = model.number
        created = self._server.create("model-versions/create", body, find)
        first = find(PATIENCE.deadline)
        if isinstance(created, Version):
            return (first or created).number
        own = str(created["model_version"]["version"])
        if first is None:
            return own
        if own != first.number:
            values = {"name": self._name, "version": own}
            with suppress(NotFoundError):
                self._server.send("DELETE", "model-versions/delete", values)
        return first.number

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
        """Return the experiment, which is asked for until it exists."""
        if self._known is not None:
            return self._known
        query = {"experiment_name": self._name}
        try:
            answer: dict[str, Any] = self._server.get("experiments/get-by-name", query)
        except NotFoundError:
            return None
        self._known = dict(answer["experiment"])
        return self._known

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

    def _now(self) -> int:
        return int(self._clock() * 1000)


def _served(artifacts: str, path: str) -> str:
    return f"{artifacts.removeprefix(_SERVED).strip('/')}/{path}"


def _stored(model: Mapping[str, Any]) -> StoredModel:
    info = model["info"]
    return StoredModel(number=info["model_id"], artifacts=info["artifact_uri"])


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
