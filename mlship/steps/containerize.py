"""containerize: the image of a release, made on this machine from its bundle."""

from pathlib import Path
from typing import Final

from mlship.domain import digests, shapes
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, Saw, Step
from mlship.domain.facts import Containerized, PushedImage
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import IntegrityError
from mlship.steps.pipeline import Pipeline

STEP: Final[Step] = "containerize"


def containerize(pipeline: Pipeline, release: Release, records: Records | None = None) -> Record:
    """Build the image of a release, or return the record of the one that was built.

    A release that has an image keeps its base: what a tag means may change, and the release's
    image must not.

    Returns:
        The evidence `containerize`, with the image's digest, its size in bytes and its layers.

    Raises:
        ConfigError: the base image does not exist, or is for another platform or Python.
        ProjectError: a requirement of the model has no build for the platform.
        UnavailableError: a registry, the package index or the disk cannot be used.
    """
    started = pipeline.clock()
    folder = pipeline.bundle(release)
    records = pipeline.read(records)
    before = records.latest(STEP, release)
    named = pipeline.config.image.base
    base = _same_base(before, named)
    extension = _extension(pipeline)
    pushed = records.latest("push-to-registry", release)
    if before and base and _is_settled(before, pushed, extension):
        pipeline.progress.note("the image is in the registry; it is not built again")
        return before
    pipeline.progress.note("making the image")
    image = pipeline.images().build(release, folder, base=base)
    if before is not None and shapes.of(before, Containerized).digest == image.digest:
        return before
    seconds = round((pipeline.clock() - started).total_seconds(), 3)
    facts = Containerized.of(image, base_name=named, seconds=seconds)
    base = digests.parse(image.base.wanted)
    saw = Saw(bundle=release.bundle, base=base, extension=extension)
    return pipeline.learn(release, STEP, "passed", facts, saw, after=records)


def hand_over(pipeline: Pipeline, made: Record, into: Path) -> None:
    """Write the image that evidence tells of to a file, for a machine that is to push it.

    Raises:
        NotFoundError: the image was built on another machine.
        UnavailableError: the file cannot be written.
    """
    name = pipeline.config.image.repository or made.evidence.release.name
    pipeline.progress.note(f"writing the image to {into}")
    pipeline.images().save(shapes.of(made, Containerized).image(name), into)


def recorded_base(made: Record) -> Digest:
    """Return the digest of the base that a recorded image was built on.

    Raises:
        IntegrityError: the evidence does not tell it.
    """
    base = made.evidence.saw.base
    if base is None:
        message = f"record {digests.short(made.digest)} ({STEP}) does not tell its base image"
        raise IntegrityError(message, hint="restore the ledger from a backup")
    return base


def _extension(pipeline: Pipeline) -> Digest | None:
    """Return the digest of the user's part of the Dockerfile, if there is one."""
    name = pipeline.config.image.extend
    path = pipeline.root / (name or "")
    return digests.of_file(path) if name and path.is_file() else None


def _is_settled(before: Record, pushed: Record | None, extension: Digest | None) -> bool:
    """Return whether the image that Docker built from these instructions was pushed."""
    facts = shapes.of(before, Containerized)
    if facts.builder != "docker" or pushed is None:
        return False
    is_pushed = shapes.of(pushed, PushedImage).digest == facts.digest
    return is_pushed and before.evidence.saw.extension == extension


def _same_base(before: Record | None, named: str) -> Digest | None:
    """Return the base that the release was built on, if it is still the configured one."""
    if before is None or shapes.of(before, Containerized).base_name != named:
        return None
    return recorded_base(before)
