"""The one run of a release in MLflow: found by a tag, added to, never doubled.

The tag `mlship.bundle` is written after the last file of the bundle: a run without it has no
bundle yet, whatever a killed process uploaded.
"""

import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from mlship.adapters.mlflow.library import existing_is_fine
from mlship.adapters.stores.mlflow_fast import RELEASE
from mlship.domain.bundle import MANIFEST, Bundle
from mlship.domain.digests import Digest
from mlship.domain.release import Release
from mlship.domain.versions import Run
from mlship.errors import ConflictError

BUNDLE: Final = "mlship.bundle"
FOLDER: Final = "bundle"

_FOREIGN: Final = re.compile(r"[^\w/. :-]")
_LONGEST: Final = 5000
_BATCH: Final = 100
"""MLflow takes at most 100 params and 100 tags in one call, and values of 5,000 characters."""


def find(client: Any, name: str, release: Release) -> Any:
    """Return the run of a release, or None.

    A server may hold two that were made at the same moment: the one with a bundle, then the older.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return None
    tagged = f"tags.`{RELEASE}` = '{release.id}'"
    order = ["attributes.start_time ASC", "attributes.run_id ASC"]
    found = client.search_runs([experiment.experiment_id], tagged, order_by=order)
    return min(found, key=lambda run: BUNDLE not in run.data.tags, default=None)


def create(client: Any, name: str, release: Release, artifacts: str | None) -> Any:
    """Return a new run of a release, or the one that another process made meanwhile.

    Args:
        client: of MLflow.
        name: of the experiment, made where it is new.
        release: what the run is of.
        artifacts: where the experiment keeps files; `None` leaves it to the server.

    Raises:
        ConflictError: somebody deleted the experiment.
    """
    if client.get_experiment_by_name(name) is None:
        with existing_is_fine():
            client.create_experiment(name, artifact_location=artifacts)
    experiment = client.get_experiment_by_name(name)
    if experiment.lifecycle_stage != "active":
        message = f"MLflow's experiment {name} was deleted"
        hint = f"`mlflow experiments restore -x {experiment.experiment_id}`, or remove it for good"
        raise ConflictError(message, hint=hint)
    tags = _texts(_identity(release))
    created = client.create_run(experiment.experiment_id, tags=tags, run_name=str(release))
    found = find(client, name, release)
    if found.info.run_id != created.info.run_id:
        client.delete_run(created.info.run_id)
    return found


def log(client: Any, found: Any, run: Run) -> None:
    """Add params, metrics and tags that the run does not have yet.

    MLflow keeps a param as it was first written, and the history of a metric.
    """
    from mlflow.entities import Param, RunTag  # noqa: PLC0415 (takes a second)

    run_id = found.info.run_id
    known = found.data
    params = [Param(*item) for item in _new(_texts(run.params), known.params, changed=False)]
    tags = [RunTag(*item) for item in _new(_texts(run.tags), known.tags, changed=True)]
    for start in range(0, max(len(params), len(tags)), _BATCH):
        end = start + _BATCH
        client.log_batch(run_id, params=params[start:end], tags=tags[start:end])
    metrics = {_FOREIGN.sub("_", key): value for key, value in run.metrics.items()}
    for key, value in _new(metrics, known.metrics, changed=True):
        client.log_metric(run_id, key, value)


def upload_files(client: Any, found: Any, files: Mapping[str, Path]) -> None:
    """Keep files with the run under their paths; one of that path is replaced."""
    if not files:
        return
    with tempfile.TemporaryDirectory(prefix="mlship-") as temporary:
        for name, path in files.items():
            staged = Path(temporary) / name
            staged.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, staged)
        client.log_artifacts(found.info.run_id, temporary)


def upload_bundle(client: Any, found: Any, folder: Path, manifest: Bundle, digest: Digest) -> None:
    """Keep a bundle with the run, once; the tag that says so, with its digest, is written last."""
    if BUNDLE in found.data.tags:
        return
    run_id = found.info.run_id
    for name in (*manifest.files, MANIFEST):
        within = posixpath.dirname(posixpath.join(FOLDER, name))
        client.log_artifact(run_id, str(folder / name), within)
    client.set_tag(run_id, BUNDLE, digest)


def _identity(release: Release) -> dict[str, str]:
    fields = msgspec.to_builtins(release)
    return {
        RELEASE: release.id,
        "mlflow.source.git.commit": release.commit,
        "mlship.commit": release.commit,
        "mlship.dirty": str(release.dirty).lower(),
        **{f"mlship.{key}": fields[key] for key in ("data", "params", "code", "environment")},
    }


def _texts(values: Mapping[str, str]) -> dict[str, str]:
    return {_FOREIGN.sub("_", key): value[:_LONGEST] for key, value in values.items()}


def _new(
    given: Mapping[str, Any], known: Mapping[str, Any], *, changed: bool
) -> Iterable[tuple[str, Any]]:
    return [
        (key, value)
        for key, value in given.items()
        if key not in known or (changed and known[key] != value)
    ]
