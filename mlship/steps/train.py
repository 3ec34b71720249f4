"""train: run the user's training code and pack the model as a bundle, for a new release."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from mlship import files
from mlship.config.check_files import check_files
from mlship.domain import bundle as bundles
from mlship.domain import scores
from mlship.domain.attachments import Attachments
from mlship.domain.commit import Commit, named
from mlship.domain.evidence import Record, Saw
from mlship.domain.facts import Trained
from mlship.domain.inputs import Inputs, Opened
from mlship.domain.outputs import FOLDER, chosen, digested
from mlship.domain.release import Release
from mlship.domain.versions import DataSet, Run
from mlship.errors import ConflictError, shown
from mlship.steps import attachments, outputs
from mlship.steps.pipeline import Pipeline

STAYS_OUT: Final = "the release cannot go to production"


def train(pipeline: Pipeline, *, anew: bool = False) -> Record:
    """Train a release from the working tree, or reuse the one trained from the same inputs.

    Args:
        pipeline: the project.
        anew: train even if the same inputs were trained before.

    Returns:
        The evidence `train`; the same inputs give the same release and bundle.

    Raises:
        ProjectError: the user's code, data or repository is invalid; nothing was recorded.
        ConflictError: an input changed in the meantime; nothing was recorded.
        UnavailableError: the store or the disk is not available.
    """
    records = pipeline.read()
    commit = pipeline.source.commit()
    if anew or all(release.commit != commit.sha for release in records.releases):
        # It will be trained: the libraries are imported while its inputs are looked at.
        pipeline.before_training()
    inputs = pipeline.trainer.inputs()
    release = None if anew else pipeline.made_from(records, commit, inputs)
    if release is not None:
        pipeline.progress.note(f"reusing {release}, which was trained from the same inputs")
        pipeline.bundle(release)
        outputs.bring_back(pipeline, release, records)
        record = records.latest("train", release)
        if record is not None:
            return record
    # Fail before the training if the store is down, not after it.
    pipeline.store.versions()
    return _train(pipeline, commit, inputs)


def _train(pipeline: Pipeline, commit: Commit, inputs: Inputs) -> Record:
    started = pipeline.clock()
    with files.temporary_folder(_workplace(pipeline), ".train-") as temporary:
        folder = temporary / "bundle"
        pipeline.progress.note("training")
        trained = pipeline.trainer.train(folder)
        opened = _checked(pipeline, commit, inputs, trained.opened)
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
    bundle = bundles.read(pipeline.bundle_folder(digest), expected=digest)
    if uncommitted:
        pipeline.progress.note(f"uncommitted changes: {named(uncommitted)}; {STAYS_OUT}")
    kept, left_out = chosen(pipeline.root, trained.outputs)
    if left_out:
        pipeline.progress.note(left_out)
    digest_of_outputs = digested(kept)
    attached = _attach(pipeline, release)
    pipeline.progress.note("recording the run")
    pipeline.store.record(_run(pipeline, release, commit, bundle, kept, attached))
    # Another machine may have trained the same release in the meantime.
    records = pipeline.read()
    before = records.latest("train", release)
    if before is not None:
        return before
    facts = msgspec.structs.replace(
        _facts(pipeline, trained, bundle),
        commit=msgspec.structs.replace(commit, changes=(), dirty=release.dirty),
        uncommitted=named(uncommitted),
        opened=opened,
        seconds=round((pipeline.clock() - started).total_seconds(), 3),
        outputs=digest_of_outputs,
        attachments=attached,
    )
    saw = Saw(data=inputs.data, code=release.code, environment=inputs.environment)
    return pipeline.learn(release, "train", "passed", facts, saw, after=records)


def _workplace(pipeline: Pipeline) -> Path:
    """Return the folder in which bundles are made."""
    workplace = pipeline.state / "bundles"
    workplace.mkdir(parents=True, exist_ok=True)
    # `git add -A` must not add this folder, even if the repository's .gitignore does not list it.
    ignore = pipeline.state / ".gitignore"
    if not ignore.exists():
        files.write_atomically(ignore, b"*\n")
    return workplace


def _attach(pipeline: Pipeline, release: Release) -> Attachments:
    """Take the files that reports of the release show, and tell what is not among them."""
    folder = pipeline.attachments(release)
    attached = attachments.take(pipeline.root, pipeline.config.report.include, folder)
    for line in attached.missing:
        pipeline.progress.note(f"report.include: {line}")
    return attached


def _facts(pipeline: Pipeline, made: scores.Trained, bundle: bundles.Bundle) -> Trained:
    """Return what a training was given and what came of it."""
    config = pipeline.config
    return Trained(
        format=bundle.model.format,
        metrics=dict(bundle.metrics),
        params=config.model.params,
        notes=made.notes,
        profile=made.profile,
        data=shown(config.data.train),
        held_out=shown(config.data.test or ""),
        rows=made.rows,
        features=made.features,
        exposed=made.exposed,
    )


def _checked(pipeline: Pipeline, commit: Commit, inputs: Inputs, opened: Opened) -> Opened:
    """Return the other files that a training opened, after it ran on what was looked at before.

    Raises:
        ConflictError: something of it is different now.
    """
    after = pipeline.source.commit()
    if after.sha != commit.sha:
        raise ConflictError(
            f"HEAD moved from {commit.sha[:12]} to {after.sha[:12]} while training ran; nothing "
            "was recorded",
            hint="do not commit in the training code, nor while it runs; then train again",
        )
    _refuse_changed_checks(pipeline, {*after.changes} - {*commit.changes}, opened)
    now = pipeline.trainer.inputs()
    changed = inputs.changed(now, opened)
    own = [name for name in changed if Path(name).as_posix() in {*opened.written, *opened.left}]
    if own:
        raise ConflictError(
            f"training itself changed {named(own)}, which it depends on; nothing was recorded",
            hint="write to another file, and restore this one: git restore, or dvc checkout",
        )
    if changed:
        raise ConflictError(
            f"{named(changed)} changed while training ran; nothing was recorded",
            hint="train again while nothing else writes into the project or its data",
        )
    return inputs.beside(now, opened)


def _refuse_changed_checks(pipeline: Pipeline, changed: set[str], opened: Opened) -> None:
    """Refuse a training that rewrote what it will be tested by.

    Raises:
        ConflictError: it changed a setting or the code of a test.
    """
    checks = check_files(pipeline.config)
    own = [path for path in opened.written if path in changed and checks.decides(path)]
    if own:
        raise ConflictError(
            f"training itself changed {named(own)}, which decides whether its release passes; "
            "nothing was recorded",
            hint="write to another file, and restore this one: git restore",
        )


def _keep(folder: Path, place: Path) -> None:
    """Move a bundle to its place; replace an older copy there, which may be damaged."""
    shutil.rmtree(place, ignore_errors=True)
    folder.rename(place)


def _run(
    pipeline: Pipeline,
    release: Release,
    commit: Commit,
    bundle: bundles.Bundle,
    kept: Mapping[str, Path],
    attached: Attachments,
) -> Run:
    folder = pipeline.attachments(release)
    own = {f"{attachments.FOLDER}/{file.place}": folder / file.place for file in attached.files}
    return Run(
        release=release,
        params=_flat(pipeline.config.model.params),
        metrics=finite(bundle.metrics),
        tags={"branch": commit.branch, "author": commit.author, "format": bundle.model.format},
        bundle=pipeline.bundle_folder(release.bundle),
        data=data_sets(pipeline, release),
        files={f"{FOLDER}/{name}": path for name, path in kept.items()} | own,
    )


def data_sets(pipeline: Pipeline, release: Release) -> tuple[DataSet, ...]:
    """Return the data sets of a release, as the configuration names them."""
    config = pipeline.config.data
    training = DataSet(name=shown(config.train), digest=release.data, use="training")
    if config.test is None:
        return (training,)
    return training, DataSet(name=shown(config.test), digest=release.data, use="testing")


def _flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def finite(metrics: Mapping[str, float | str]) -> dict[str, float]:
    """Return the metrics that are finite numbers; a store accepts no others."""
    return {
        name: value
        for name, value in metrics.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
