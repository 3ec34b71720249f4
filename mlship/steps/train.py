"""train: run the user's training code and seal what comes out as a bundle, a new release."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from mlship import files
from mlship.domain import bundle as bundles
from mlship.domain.commit import Commit, named
from mlship.domain.evidence import Record, Saw
from mlship.domain.facts import Trained
from mlship.domain.inputs import Inputs, Opened
from mlship.domain.release import Release
from mlship.domain.versions import Run
from mlship.errors import ConflictError
from mlship.steps.pipeline import Pipeline

STAYS_OUT: Final = "the release cannot go to production"


def train(pipeline: Pipeline, *, anew: bool = False) -> Record:
    """Train a release from the tree as it is, or find the one that was trained from it before.

    Args:
        pipeline: the project.
        anew: train even where the same inputs already made a release.

    Returns:
        The evidence `train`; the same inputs give the same release and bundle.

    Raises:
        ProjectError: the user's code, data or repository is wrong; nothing was recorded.
        ConflictError: what it depends on changed meanwhile; nothing was recorded.
        UnavailableError: the store or the disk cannot be used.
    """
    records = pipeline.read()
    commit, inputs = pipeline.source.commit(), pipeline.trainer.inputs()
    found = None if anew else pipeline.made_from(records, commit, inputs)
    if found is not None:
        pipeline.progress.note(f"{found} was trained from the same inputs before")
        pipeline.bundle(found)
        record = records.latest("train", found)
        if record is not None:
            return record
    # A store that is down is found out before the training, not after it.
    pipeline.store.versions()
    return _train(pipeline, commit, inputs)


def _train(pipeline: Pipeline, commit: Commit, inputs: Inputs) -> Record:
    started = pipeline.clock()
    workplace = pipeline.state / "bundles"
    workplace.mkdir(parents=True, exist_ok=True)
    # `git add -A` in a repository whose .gitignore does not know mlship must not take it in.
    ignore = pipeline.state / ".gitignore"
    if not ignore.exists():
        files.write_atomically(ignore, b"*\n")
    with files.temporary_folder(workplace, ".train-") as temporary:
        folder = temporary / "bundle"
        pipeline.progress.note("training")
        trained = pipeline.trainer.train(folder)
        opened = _checked(pipeline, inputs, trained.opened)
        digest = trained.bundle
        uncommitted = opened.uncommitted(commit.changes)
        release = Release(
            name=pipeline.config.name,
            commit=commit.sha,
            dirty=bool(uncommitted),
            data=inputs.data,
            params=inputs.params,
            code=inputs.code(opened.read, opened.written),
            environment=inputs.environment,
            bundle=digest,
        )
        _keep(folder, pipeline.bundle_folder(digest))
    if uncommitted:
        pipeline.progress.note(f"uncommitted changes: {named(uncommitted)}; {STAYS_OUT}")
    made = bundles.read(pipeline.bundle_folder(digest), expected=digest)
    pipeline.progress.note("recording the run")
    pipeline.store.record(_run(pipeline, release, commit, made))
    # Another machine may have trained the same meanwhile.
    records = pipeline.read()
    before = records.latest("train", release)
    if before is not None:
        return before
    facts = Trained(
        commit=msgspec.structs.replace(commit, changes=(), dirty=release.dirty),
        uncommitted=named(uncommitted),
        opened=opened,
        seconds=round((pipeline.clock() - started).total_seconds(), 3),
        format=made.model.format,
        metrics=dict(made.metrics),
        params=pipeline.config.model.params,
        notes=trained.notes,
        profile=trained.profile,
    )
    saw = Saw(data=inputs.data, code=release.code, environment=inputs.environment)
    return pipeline.learn(release, "train", "passed", facts, saw, after=records)


def _checked(pipeline: Pipeline, inputs: Inputs, opened: Opened) -> Opened:
    """Return the other files that a training opened, after it ran on what was looked at before.

    Raises:
        ConflictError: something of it is different now.
    """
    now = pipeline.trainer.inputs()
    changed = inputs.changed(now, opened)
    if changed:
        raise ConflictError(
            f"{named(changed)} changed while training ran; nothing was recorded",
            hint="train again while nothing else writes into the project or its data",
        )
    return inputs.beside(now, opened)


def _keep(folder: Path, place: Path) -> None:
    """Move a sealed bundle to its place; one that is there under its digest may be damaged."""
    shutil.rmtree(place, ignore_errors=True)
    folder.rename(place)


def _run(pipeline: Pipeline, release: Release, commit: Commit, made: bundles.Bundle) -> Run:
    return Run(
        release=release,
        params=_flat(pipeline.config.model.params),
        metrics=finite(made.metrics),
        tags={"branch": commit.branch, "author": commit.author, "format": made.model.format},
        bundle=pipeline.bundle_folder(release.bundle),
    )


def _flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def finite(metrics: Mapping[str, float | str]) -> dict[str, float]:
    """Return the metrics that are finite numbers: a store keeps no others."""
    return {
        name: value
        for name, value in metrics.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
