"""push-to-registry: bring the image of a release to the registry, by digest."""

from pathlib import Path
from typing import Final

from mlship.domain import shapes
from mlship.domain.evidence import Record, Saw, Step
from mlship.domain.facts import Containerized, PushedImage
from mlship.domain.image import Image
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import ConflictError, NotFoundError
from mlship.steps.containerize import STEP as CONTAINERIZE
from mlship.steps.containerize import recorded_base
from mlship.steps.pipeline import Pipeline

STEP: Final[Step] = "push-to-registry"


def push(
    pipeline: Pipeline,
    release: Release,
    archive: Path | None = None,
    records: Records | None = None,
) -> Record:
    """Push the image that `containerize` made.

    On another machine it is made again, the same; but what Docker built is not: it comes as a file.

    Args:
        pipeline: the project.
        release: whose image it is.
        archive: the file that `containerize` wrote where it made the image.
        records: what the command has read; by default the ledger is read.

    Returns:
        The evidence `push-to-registry`, with the reference by digest and the bytes that were
        sent; an image that is there already is not pushed, and not recorded, twice.

    Raises:
        NotFoundError: the release has no image yet, or Docker built it on another machine.
        ConflictError: what is made now is not the image that was proven.
        ConfigError: no repository is configured.
        UnavailableError: the registry does not answer, or denies it; no tag was written.
        IntegrityError: the registry gives back another digest, or the file holds another image.
    """
    started = pipeline.clock()
    records = pipeline.read(records)
    image = proven(pipeline, release, records.latest(CONTAINERIZE, release), archive)
    pipeline.progress.note(f"pushing {image.name}:{image.tag}")
    pushed = pipeline.images().push(image)
    before = records.latest(STEP, release)
    if before is not None and shapes.of(before, PushedImage).reference == pushed.reference:
        return before
    facts = PushedImage(
        reference=pushed.reference,
        digest=pushed.digest,
        tag=image.tag,
        size=image.size,
        sent=pushed.sent,
        there=pushed.there,
        mounted=pushed.mounted,
        seconds=round((pipeline.clock() - started).total_seconds(), 3),
    )
    return pipeline.learn(release, STEP, "passed", facts, Saw(image=pushed.digest), after=records)


def proven(
    pipeline: Pipeline, release: Release, made: Record | None, archive: Path | None = None
) -> Image:
    """Return the image that `containerize` recorded.

    It comes out of the file, where there is one; what mlship built is made again from the same
    bytes; what Docker built never is.

    Raises:
        NotFoundError: it recorded none, or there is no such file.
        ConflictError: what is made now is another one.
        IntegrityError: the file does not hold that image.
    """
    if made is None:
        message = f"{release} has no image yet"
        raise NotFoundError(message, hint=f"`mlship containerize {release}` makes it")
    facts = shapes.of(made, Containerized)
    digest = facts.digest
    name = pipeline.config.image.repository or release.name
    again = f"`mlship containerize {release}` again"
    if archive is not None:
        image = facts.image(name)
        pipeline.images().load(image, archive)
        return image
    if facts.builder == "docker":
        return facts.image(name)
    if pipeline.config.image.builder == "docker":
        message = (
            f"the image {digest} of {release} was built without Docker, and image.builder is docker"
        )
        raise ConflictError(message, hint=f"image.builder in mlship.yaml changed: {again}")
    base = recorded_base(made)
    image = pipeline.images().build(release, pipeline.bundle(release), base=base)
    if image.digest != digest:
        rebuilt = f"building the image of {release} again gives {image.digest}"
        message = f"{rebuilt}, not {digest}, which was tested"
        raise ConflictError(message, hint=f"mlship or image.* in mlship.yaml changed: {again}")
    return image
