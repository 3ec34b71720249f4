"""push-to-registry: push the image of a release to the registry, by digest."""

from pathlib import Path
from typing import Final

from mlship.domain import retention, shapes
from mlship.domain.evidence import Record, Saw, Step
from mlship.domain.facts import Containerized, PushedImage
from mlship.domain.image import Image, reference
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import ConflictError, NotFoundError
from mlship.steps.attest import attach, attach_router, attach_statement
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
    """Push the image that `containerize` built.

    On another machine the same image is built again. An image that Docker built cannot be built
    again with the same digest, so it must come as a file.

    Args:
        pipeline: the project.
        release: the release of the image.
        archive: the file that `containerize` wrote on the machine that built the image.
        records: the records that the command has read; by default the ledger is read.

    Returns:
        The evidence `push-to-registry`, with the reference by digest, the number of bytes sent and
        what is attached to the image: SBOM and provenance. Then the release statement is attached,
        which has the record, too. An image that is in the registry already is not pushed twice,
        nor is it recorded twice unless there is more to attach than before.

    Raises:
        NotFoundError: the release has no image yet, or Docker built it on another machine.
        ConflictError: the image built now is not the one that was tested.
        ConfigError: no repository is configured.
        UnavailableError: the registry does not respond or denies access; no tag was written.
        IntegrityError: the registry returns another digest, or the file holds another image.
    """
    started = pipeline.clock()
    records = pipeline.read(records)
    image = proven(pipeline, release, records.latest(CONTAINERIZE, release), archive)
    pipeline.progress.note(f"pushing {image.name}:{image.tag}")
    pushed = pipeline.images().push(image)
    router = _pushed_router(pipeline, image)
    attached = attach(pipeline, release, image, reference(pushed.reference), records)
    before = records.latest(STEP, release)
    if before is not None and not retention.is_removed(records, before):
        known = shapes.of(before, PushedImage)
        is_same = (known.reference, known.router) == (pushed.reference, router)
        if is_same and attached.items() <= known.attached.items():
            attach_statement(pipeline, release, records)
            return before
    facts = PushedImage(
        reference=pushed.reference,
        digest=pushed.digest,
        tag=image.tag,
        size=image.size,
        sent=pushed.sent,
        there=pushed.there,
        mounted=pushed.mounted,
        router=router,
        attached=attached,
        seconds=round((pipeline.clock() - started).total_seconds(), 3),
    )
    saw = Saw(image=pushed.digest)
    record = pipeline.learn(release, STEP, "passed", facts, saw, after=records)
    attach_statement(pipeline, release, records.plus(record))
    return record


def _pushed_router(pipeline: Pipeline, image: Image) -> str:
    """Push the image of the load balancer on the base of the release's image.

    Returns:
        Its reference by digest; empty if no target needs it.
    """
    base = image.base.digest
    if not pipeline.needs_router or base is None:
        return ""
    pipeline.progress.note("pushing the image of the load balancer, for targets without a Gateway")
    images = pipeline.images()
    router = images.router(base=base)
    pushed = images.push(router).reference
    attach_router(pipeline, router, reference(pushed))
    return pushed


def proven(
    pipeline: Pipeline, release: Release, record: Record | None, archive: Path | None = None
) -> Image:
    """Return the image that `containerize` recorded.

    It is loaded from the file, if there is one. Otherwise an image that mlship built is built
    again from the same bytes; an image that Docker built is not.

    Raises:
        NotFoundError: no image was recorded, or there is no such file.
        ConflictError: the image built now has another digest.
        IntegrityError: the file does not hold that image.
    """
    if record is None:
        message = f"{release} has no image yet"
        raise NotFoundError(message, hint=f"run `mlship containerize {release}`")
    facts = shapes.of(record, Containerized)
    digest = facts.digest
    name = pipeline.config.image.repository or release.name
    again = f"run `mlship containerize {release}` again"
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
    base = recorded_base(record)
    image = pipeline.images().build(release, pipeline.bundle(release), base=base)
    if image.digest != digest:
        message = f"a rebuild of {release} gives image {image.digest}, but {digest} was tested"
        raise ConflictError(message, hint=f"mlship or image.* in mlship.yaml changed: {again}")
    return image
