"""The run of a release in MLflow: found by a tag and added to; there is never a second one.

The tag `mlship.bundle` is written after the last file of the bundle: a run without it has no
complete bundle, whatever a killed process uploaded.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec

from mlship.adapters.stores.mlflow_fast import RELEASE
from mlship.domain.digests import Digest
from mlship.domain.release import Release
from mlship.domain.versions import Run, Version
from mlship.errors import ConflictError

BUNDLE: Final = "mlship.bundle"
FOLDER: Final = "bundle"
ORDER: Final = ("attributes.start_time ASC", "attributes.run_id ASC")

Value = TypeVar("Value")

_FOREIGN: Final = re.compile(r"[^\w/. :-]")
_LONGEST: Final = 5000
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


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """The values that one call adds to a run."""

    params: dict[str, str] = {}
    metrics: dict[str, float] = {}
    tags: dict[str, str] = {}


class Place(Protocol):
    """The experiment and the registered model of a project, by the library or by REST."""

    def find(self, release: Digest) -> KeptRun | None:
        """Return the run of a release; of two concurrent ones, that of `chosen`."""

    def create(self, name: str, release: Digest, tags: Mapping[str, str]) -> KeptRun:
        """Create the run of a release and its experiment; of two runs, the first stays."""

    def add(self, run: KeptRun, batch: Batch) -> None:
        """Add values to a run."""

    def upload(self, run: KeptRun, files: Mapping[str, Path]) -> None:
        """Store files with a run under their paths; existing ones are replaced."""

    def finish(self, run: KeptRun) -> None:
        """Mark a run as finished."""

    def download(self, run: KeptRun, into: Path) -> Path:
        """Download the run's folder `bundle` into an existing folder; return its path."""

    def versions(self) -> list[Version]:
        """Return the current registered versions, oldest first."""

    def register(self, run: KeptRun, release: Digest, tags: Mapping[str, str]) -> None:
        """Register a version of a run's bundle; of two concurrent ones, the first stays."""

    def point(self, alias: str, number: str | None) -> None:
        """Set an alias to a version, or remove it."""

    def tag(self, number: str, key: str, value: str | None) -> None:
        """Set a tag of a version, or remove it."""


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
    params = [(key, value) for key, value in _texts(run.params).items() if key not in known]
    tags = _changed(_texts(run.tags), kept.tags)
    metrics = {_FOREIGN.sub("_", key): value for key, value in run.metrics.items()}
    measured = _changed(metrics, kept.metrics)
    for start in range(0, max(len(params), len(tags), len(measured)), _BATCH):
        part = slice(start, start + _BATCH)
        yield Batch(params=dict(params[part]), tags=dict(tags[part]), metrics=dict(measured[part]))


def identity(release: Release) -> dict[str, str]:
    """Return the tags that identify the release of a run."""
    fields = msgspec.to_builtins(release)
    return _texts(
        {
            RELEASE: release.id,
            "mlflow.source.git.commit": release.commit,
            "mlship.commit": release.commit,
            "mlship.dirty": str(release.dirty).lower(),
            **{f"mlship.{key}": fields[key] for key in ("data", "params", "code", "environment")},
        }
    )


def _texts(values: Mapping[str, str]) -> dict[str, str]:
    return {_FOREIGN.sub("_", key): value[:_LONGEST] for key, value in values.items()}


def _changed(values: Mapping[str, Value], known: Mapping[str, Value]) -> list[tuple[str, Value]]:
    return [(key, value) for key, value in values.items() if known.get(key) != value]
