"""The one run of a release in MLflow: found by a tag, added to, never doubled.

The tag `mlship.bundle` is written after the last file of the bundle: a run without it has no
bundle yet, whatever a killed process uploaded.
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
"""MLflow takes at most 100 params and 100 tags in one call, and values of 5,000 characters."""


class KeptRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run as MLflow has it now.

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
    """What is added to a run by one call."""

    params: dict[str, str] = {}
    metrics: dict[str, float] = {}
    tags: dict[str, str] = {}


class Place(Protocol):
    """The experiment and the registered model of a project, by the library or by REST."""

    def find(self, release: Digest) -> KeptRun | None:
        """Return the run of a release; of two made at once the one that `chosen` chooses."""

    def create(self, name: str, release: Digest, tags: Mapping[str, str]) -> KeptRun:
        """Make the run of a release and its experiment; of two made at once the first stays."""

    def add(self, run: KeptRun, batch: Batch) -> None:
        """Add values to a run."""

    def upload(self, run: KeptRun, files: Mapping[str, Path]) -> None:
        """Keep files with a run under their paths; one of that path is replaced."""

    def finish(self, run: KeptRun) -> None:
        """Mark a run as finished."""

    def download(self, run: KeptRun, into: Path) -> Path:
        """Put the run's folder `bundle` into an existing folder; return where it is there."""

    def versions(self) -> list[Version]:
        """Return the registered versions as they are now, oldest first."""

    def register(self, run: KeptRun, release: Digest, tags: Mapping[str, str]) -> None:
        """Make a version of a run's bundle; of two made at once the first stays."""

    def point(self, alias: str, number: str | None) -> None:
        """Make an alias name a version, or none."""

    def tag(self, number: str, key: str, value: str | None) -> None:
        """Set a tag of a version, or take it away."""


def chosen(runs: Sequence[KeptRun]) -> KeptRun | None:
    """Return the run to use of those of a release, sorted by `ORDER`; usually there is one.

    A server may hold two that were made at the same moment: the one with a bundle, then the older.
    """
    return min(runs, key=lambda run: BUNDLE not in run.tags, default=None)


def deleted(name: str, experiment: object) -> ConflictError:
    """Return the error of an experiment that somebody deleted."""
    message = f"MLflow's experiment {name} was deleted"
    hint = f"`mlflow experiments restore -x {experiment}`, or remove it for good"
    return ConflictError(message, hint=hint)


def batches(kept: KeptRun, run: Run) -> Iterator[Batch]:
    """Give what a run does not have yet, in pieces that MLflow takes.

    MLflow keeps a param as it was first written, and the history of a metric.
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
    """Return the tags that say which release a run is of."""
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
