"""containerize: build the image of a release on this machine from its bundle."""

from pathlib import Path
from typing import Final

from mlship.domain import digests, shapes
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, Saw, Step
from mlship.domain.facts import Containerized, PushedImage
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import IntegrityError
from mlship.steps.attest import write_sbom
from mlship.steps.pipeline import Pipeline

STEP: Final[Step] = "containerize"


def containerize(pipeline: Pipeline, release: Release, records: Records | None = None) -> Record:
    """Build the image of a release, or return the record of the one that was built before.

    A release that has an image keeps the digest of its base, because a tag can move.

    Returns:
        The evidence `containerize`, with the image's digest, its size in bytes and its layers.

    Raises:
        ConfigError: the base image does not exist, or is for another platform or Python.
        ProjectError: a requirement of the model has no build for the platform.
        UnavailableError: a registry, the package index or the disk is not available.
    """
    started = pipeline.clock()
    folder = pipeline.bundle(release)
    records = pipeline.read(records)
    before = records.latest(STEP, release)
    base_name = pipeline.config.image.base
    base = _same_base(before, base_name)
    extension = _extension(pipeline)
    pushed = records.latest("push-to-registry", release)
    if before and base and _is_settled(before, pushed, extension):
        pipeline.progress.note("the image is already in the registry")
        return before
    pipeline.progress.note("building the image")
    image = pipeline.images().build(release, folder, base=base)
    write_sbom(pipeline, release, image, records)
    if before is not None and shapes.of(before, Containerized).digest == image.digest:
        return before
    seconds = round((pipeline.clock() - started).total_seconds(), 3)
    facts = Containerized.of(image, base_name=base_name, seconds=seconds)
    base = digests.parse(image.base.wanted)
    saw = Saw(bundle=release.bundle, base=base, extension=extension)
    return pipeline.learn(release, STEP, "passed", facts, saw, after=records)


def hand_over(pipeline: Pipeline, record: Record, into: Path) -> None:
    """Write a recorded image to a file, for the machine that pushes it.

    Raises:
        NotFoundError: the image was built on another machine.
        UnavailableError: the file cannot be written.
    """
    name = pipeline.config.image.repository or record.evidence.release.name
    pipeline.progress.note(f"writing the image to {into}")
    pipeline.images().save(shapes.of(record, Containerized).image(name), into)


def recorded_base(record: Record) -> Digest:
    """Return the digest of the base of a recorded image.

    Raises:
        IntegrityError: the record does not have it.
    """
    base = record.evidence.saw.base
    if base is None:
        message = f"record {digests.short(record.digest)} ({STEP}) has no base image"
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


def _same_base(before: Record | None, base_name: str) -> Digest | None:
    """Return the base of the recorded image, if it is still the configured one."""
    if before is None or shapes.of(before, Containerized).base_name != base_name:
        return None
    return recorded_base(before)
