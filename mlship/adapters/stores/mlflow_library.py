"""A store in MLflow's database, changed by the `mlflow` package."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlship.adapters.mlflow import library
from mlship.adapters.mlflow.library import existing_is_fine
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


class LibraryPlace:
    """The experiment and the registered model of a project, by MLflow's own client.

    Args:
        client: of MLflow.
        name: of the project.
        artifacts: the URI for files of a new experiment; `None` for MLflow's default.
    """

    def __init__(self, client: Any, name: str, artifacts: str | None) -> None:
        self._client = client
        self._name = name
        self._artifacts = artifacts
        self._known: Any = None
        self._has_versions = False

    def home(self) -> str:
        """Return the home of the project that the experiment is of; empty if it has no mark."""
        self._known = None  # another process may have marked it
        experiment = self._experiment()
        return "" if experiment is None else str(experiment.tags.get(HOME, ""))

    def settle(self, home: str) -> None:
        """Mark the experiment with the home of its project."""
        experiment = self._experiment()
        self._client.set_experiment_tag(experiment.experiment_id, HOME, home)

    def find(self, release: Digest) -> KeptRun | None:
        """Return the run of a release."""
        experiment = self._experiment()
        if experiment is None:
            return None
        query = f"tags.`{RELEASE}` = '{release}'"
        runs = self._client.search_runs([experiment.experiment_id], query, order_by=list(ORDER))
        return mlflow_runs.chosen([_kept(run) for run in runs])

    def create(self, name: str, release: Digest, tags: Mapping[str, str]) -> KeptRun:
        """Create the run of a release and its experiment; of two concurrent ones, the first stays.

        Raises:
            ConflictError: somebody deleted the experiment.
        """
        if self._experiment() is None:
            with existing_is_fine():
                self._client.create_experiment(self._name, artifact_location=self._artifacts)
        experiment = self._experiment()
        if experiment.lifecycle_stage != "active":
            raise mlflow_runs.deleted(self._name, experiment.experiment_id)
        created = self._client.create_run(experiment.experiment_id, tags=dict(tags), run_name=name)
        run = self.find(release) or _kept(created)
        if run.number != created.info.run_id:
            self._client.delete_run(created.info.run_id)
        return run

    def add(self, run: KeptRun, batch: Batch) -> None:
        """Add values to a run."""
        from mlflow.entities import Param, RunTag

        params = [Param(*item) for item in batch.params.items()]
        tags = [RunTag(*item) for item in batch.tags.items()]
        if params or tags:
            self._client.log_batch(run.number, params=params, tags=tags)
        for key, value in batch.metrics.items():
            self._client.log_metric(run.number, key, value, **batch.measured)

    def use(self, run: KeptRun, data: Sequence[DataSet]) -> None:
        """Add data sets to the inputs of a run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(**mlflow_runs.described(each)), [InputTag(mlflow_runs.USE, each.use)]
            )
            for each in data
        ]
        self._client.log_inputs(run.number, datasets=inputs)

    def upload(self, artifacts: str, files: Mapping[str, Path]) -> None:
        """Store files under their paths below a URI; existing ones are replaced."""
        library.upload(self._repository(artifacts).log_artifact, files)

    def finish(self, run: KeptRun) -> None:
        """Mark a run as finished."""
        self._client.set_terminated(run.number)

    def model(self, number: str) -> StoredModel:
        """Return a logged model."""
        found = self._client.get_logged_model(number)
        return StoredModel(number=found.model_id, artifacts=found.artifact_location)

    def create_model(
        self, run: KeptRun, name: str, tags: Mapping[str, str], params: Mapping[str, str]
    ) -> StoredModel:
        """Create the logged model of a run; of several ones, the oldest stays."""
        from mlflow.entities import LoggedModelOutput

        experiment = self._experiment().experiment_id

        def listed() -> list[str]:
            found = self._client.search_logged_models(
                [experiment], f"source_run_id = '{run.number}'", order_by=list(OLDEST)
            )
            return [model.model_id for model in found]

        models = listed()
        if not models:
            created = self._client.create_logged_model(
                experiment,
                name=name,
                source_run_id=run.number,
                tags=dict(tags),
                params=dict(params),
            )
            models = listed()
            if models[0] != created.model_id:
                self._client.delete_logged_model(created.model_id)
            else:
                # MLflow refuses an output that is there, so only the creator adds it.
                outputs = [LoggedModelOutput(created.model_id, step=0)]
                self._client.log_outputs(run.number, outputs)
        return self.model(models[0])

    def publish(self, model: StoredModel) -> None:
        """Mark a logged model as ready."""
        self._client.finalize_logged_model(model.number, "READY")

    def download(self, artifacts: str, into: Path, expected: Digest) -> Path:
        """Download the folder `bundle` below a URI into an existing folder; return its path."""
        folder = Path(self._repository(artifacts).download_artifacts(FOLDER, str(into)))
        bundle.manifest(folder, expected=expected)
        return folder

    def take(self, artifacts: str, names: Sequence[str], into: Path) -> None:
        """Download files below a URI into an existing folder, under their paths."""
        repository = self._repository(artifacts)
        for name in names:
            repository.download_artifacts(name, str(into))

    def versions(self) -> list[Version]:
        """Return the versions; MLflow's search omits aliases."""
        entries: list[Any] = []
        token = None
        while not entries or token:
            page = self._client.search_model_versions(f"name='{self._name}'", page_token=token)
            if not page:
                break
            entries += page
            token = page.token
        self._has_versions = bool(entries)
        if not entries:
            return []
        aliases = self._client.get_registered_model(self._name).aliases
        listed = [(int(entry.version), entry.creation_timestamp, entry.tags) for entry in entries]
        return mlflow_fast.listed(listed, {alias: int(aliases[alias]) for alias in aliases})

    def register(self, run: KeptRun, model: StoredModel, release: Digest, page: Page) -> str:
        """Register a version of a run's model; return its number.

        Of two concurrent ones, the first stays.
        """
        if not self._has_versions:
            with existing_is_fine():
                self._client.create_registered_model(self._name)
        created = self._client.create_model_version(
            self._name,
            model.source,
            run.number,
            tags=dict(page.tags),
            description=page.description,
            model_id=model.number or None,
        )
        first = next(version for version in self.versions() if version.release == release)
        if str(created.version) != first.number:
            self._client.delete_model_version(self._name, str(created.version))
        elif model.number:
            # A server does this itself; its pages show the version beside the logged model.
            entry = {"name": self._name, "version": int(first.number)}
            tags = {"mlflow.modelVersions": json.dumps([entry])}
            self._client.set_logged_model_tags(model.number, tags)
        return first.number

    def point(self, alias: str, number: str | None) -> None:
        """Set an alias to a version, or remove it."""
        if number is None:
            self._client.delete_registered_model_alias(self._name, alias)
        else:
            self._client.set_registered_model_alias(self._name, alias, number)

    def tag(self, number: str, key: str, value: str | None) -> None:
        """Set a tag of a version, or remove it."""
        if value is None:
            self._client.delete_model_version_tag(self._name, number, key)
        else:
            self._client.set_model_version_tag(self._name, number, key, value)

    def _experiment(self) -> Any:
        """Return the experiment, which is asked for until it exists."""
        if self._known is None:
            self._known = self._client.get_experiment_by_name(self._name)
        return self._known

    def _repository(self, artifacts: str) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import (
            get_artifact_repository,
        )

        return get_artifact_repository(artifacts)


def _kept(run: Any) -> KeptRun:
    return KeptRun(
        number=run.info.run_id,
        artifacts=run.info.artifact_uri,
        is_running=run.info.status == "RUNNING",
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags=dict(run.data.tags),
    )
