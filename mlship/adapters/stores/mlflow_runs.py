"""The run of a release in MLflow: found by a tag and added to; there is never a second one.

A run with a bundle has a logged model, named by the tag `mlship.model`, with the bundle in its
folder `bundle`. Runs of earlier versions of mlship have no logged model, and have that folder
themselves.

The tag `mlship.bundle` is written after the last file of the bundle: a run without it has no
complete bundle, whatever a killed process uploaded.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec

from mlship.adapters.stores.mlflow_fast import RELEASE
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.release import Release
from mlship.domain.versions import DataSet, Run, Version
from mlship.errors import ConflictError

BUNDLE: Final = "mlship.bundle"
MODEL: Final = "mlship.model"
COLUMNS: Final = "mlship.columns"
FOLDER: Final = "bundle"
HOME: Final = "mlship.home"
"""The tag of an experiment with the home of its project."""
USE: Final = "mlflow.data.context"
OLDEST: Final[tuple[dict[str, Any], ...]] = (
    {"field_name": "creation_timestamp", "ascending": True},
    {"field_name": "model_id", "ascending": True},
)
ORDER: Final = ("attributes.start_time ASC", "attributes.run_id ASC")

Value = TypeVar("Value")

_FOREIGN: Final = re.compile(r"[^\w/. :-]")
_LONGEST: Final = 5000
_NAME: Final = 500
_BATCH: Final = 100
"""MLflow accepts up to 100 params and 100 tags per call, and values of 5,000 characters."""


class KeptRun(msgspec.Struct, frozen=True, kw_only=True):
    """The current state of a run in MLflow.

    Attributes:
        number: its id in MLflow.
        artifacts: the URI of its files.
    """

    number: str
    artifacts: str
    is_running: bool
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]

    @property
    def model(self) -> str:
        """The id of the run's logged model; empty if it has none."""
        return self.tags.get(MODEL, "")


class StoredModel(msgspec.Struct, frozen=True, kw_only=True):
    """What has the bundle of a run: its logged model, or the run itself.

    Attributes:
        number: the id of the logged model, `m-3f9a...`; empty if the run itself has the bundle.
        artifacts: the URI of the folder that has the folder `bundle`.
    """

    number: str = ""
    artifacts: str

    @property
    def source(self) -> str:
        """The source of a registered version."""
        return f"models:/{self.number}" if self.number else f"{self.artifacts}/{FOLDER}"


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What people see of a registered version.

    Attributes:
        description: Markdown.
    """

    tags: Mapping[str, str]
    description: str


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """The values that one call adds to a run.

    Attributes:
        model: the id of the logged model that the metrics are of; empty if there is none.
        data: the data that the metrics were measured on.
    """

    params: dict[str, str] = {}
    metrics: dict[str, float] = {}
    tags: dict[str, str] = {}
    model: str = ""
    data: DataSet | None = None

    @property
    def measured(self) -> dict[str, str]:
        """What MLflow shows beside a metric: its model and its data."""
        model = {"model_id": self.model} if self.model else {}
        if self.data is None:
            return model
        fields = described(self.data)
        return {**model, "dataset_name": fields["name"], "dataset_digest": fields["digest"]}


class Place(Protocol):
    """The experiment and the registered model of a project, by the library or by REST."""

    def home(self) -> str:
        """Return the home of the project that the experiment is of; empty if it has no mark."""

    def settle(self, home: str) -> None:
        """Mark the experiment with the home of its project."""

    def find(self, release: Digest) -> KeptRun | None:
        """Return the run of a release; of two concurrent ones, that of `chosen`."""

    def create(self, name: str, release: Digest, tags: Mapping[str, str]) -> KeptRun:
        """Create the run of a release and its experiment; of two runs, the first stays."""

    def add(self, run: KeptRun, batch: Batch) -> None:
        """Add values to a run."""

    def use(self, run: KeptRun, data: Sequence[DataSet]) -> None:
        """Add data sets to the inputs of a run."""

    def upload(self, artifacts: str, files: Mapping[str, Path]) -> None:
        """Store files under their paths below a URI; existing ones are replaced."""

    def finish(self, run: KeptRun) -> None:
        """Mark a run as finished."""

    def model(self, number: str) -> StoredModel:
        """Return a logged model."""

    def create_model(
        self, run: KeptRun, name: str, tags: Mapping[str, str], params: Mapping[str, str]
    ) -> StoredModel:
        """Create the logged model of a run; of several ones, the oldest stays."""

    def publish(self, model: StoredModel) -> None:
        """Mark a logged model as ready."""

    def download(self, artifacts: str, into: Path, expected: Digest) -> Path:
        """Download the folder `bundle` below a URI into an existing folder; return its path."""

    def take(self, artifacts: str, names: Sequence[str], into: Path) -> None:
        """Download files below a URI into an existing folder, under their paths."""

    def versions(self) -> list[Version]:
        """Return the current registered versions, oldest first."""

    def register(self, run: KeptRun, model: StoredModel, release: Digest, page: Page) -> str:
        """Register a version of a run's model; return its number.

        Of two concurrent ones, the first stays.
        """

    def point(self, alias: str, number: str | None) -> None:
        """Set an alias to a version, or remove it."""

    def tag(self, number: str, key: str, value: str | None) -> None:
        """Set a tag of a version, or remove it."""


def described(data: DataSet) -> dict[str, str]:
    """Return the fields of a data set in MLflow, which accepts digests of up to 36 characters."""
    source = msgspec.json.encode({"uri": data.name}).decode()
    kind = "http" if data.name.startswith(("http://", "https://")) else "local"
    return {
        "name": data.name[-_NAME:],
        "digest": digests.short(data.digest),
        "source_type": kind,
        "source": msgspec.json.encode({"url": data.name}).decode() if kind == "http" else source,
    }


def chosen(runs: Sequence[KeptRun]) -> KeptRun | None:
    """Choose among the runs of a release, sorted by `ORDER`; usually there is one.

    Two concurrent jobs may create two runs: prefer the one with a bundle, then the older one.
    """
    return min(runs, key=lambda run: BUNDLE not in run.tags, default=None)


def deleted(name: str, experiment: object) -> ConflictError:
    """Return the error of a deleted experiment."""
    message = f"MLflow's experiment {name} was deleted"
    hint = f"`mlflow experiments restore -x {experiment}`, or remove it for good"
    return ConflictError(message, hint=hint)


def batches(kept: KeptRun, run: Run) -> Iterator[Batch]:
    """Yield the values that a run does not have yet, in batches that MLflow accepts.

    MLflow keeps the first value of a param, and the history of a metric.
    """
    known = kept.params
    params = [(key, value) for key, value in texts(run.params).items() if key not in known]
    tags = _changed(texts(run.tags), kept.tags)
    metrics = {_metric_name(key): value for key, value in run.metrics.items()}
    measured = _changed(metrics, kept.metrics)
    for start in range(0, max(len(params), len(tags), len(measured)), _BATCH):
        part = slice(start, start + _BATCH)
        yield Batch(
            params=dict(params[part]),
            tags=dict(tags[part]),
            metrics=dict(measured[part]),
            model=kept.model,
            data=next(iter(sorted(run.data, key=lambda data: data.use)), None),
        )


def identity(release: Release) -> dict[str, str]:
    """Return the tags that identify the release of a run."""
    fields = msgspec.to_builtins(release)
    return texts(
        {
            RELEASE: release.id,
            "mlflow.source.git.commit": release.commit,
            "mlship.commit": release.commit,
            "mlship.dirty": str(release.dirty).lower(),
            **{f"mlship.{key}": fields[key] for key in ("data", "params", "code", "environment")},
        }
    )


def texts(values: Mapping[str, str]) -> dict[str, str]:
    """Return keys and values that MLflow accepts for params and tags."""
    return {_FOREIGN.sub("_", key): value[:_LONGEST] for key, value in values.items()}


def _metric_name(name: str) -> str:
    """Return a name that MLflow accepts: `accuracy.price` for `accuracy[price]`."""
    base, bracket, part = name.partition("[")
    return _FOREIGN.sub("_", f"{base}.{part.removesuffix(']')}" if bracket else name)


def _changed(values: Mapping[str, Value], known: Mapping[str, Value]) -> list[tuple[str, Value]]:
    return [(key, value) for key, value in values.items() if known.get(key) != value]
