"""push-to-registry: bring the image of a release to the registry, by digest."""

from mlship.errors import ConflictError, NotFoundError
from mlship.evidence import Record
from mlship.history import latest
from mlship.image import Image
from mlship.release import Release
from mlship.steps.containerize import STEP as CONTAINERIZE
from mlship.steps.containerize import recorded_base
from mlship.steps.pipeline import Pipeline

STEP = "push-to-registry"


def push(pipeline: Pipeline, release: Release) -> Record:
    """Push the image that `containerize` made. On another machine it is made again, the same.

    Returns:
        The evidence `push-to-registry`, with the reference by digest and the bytes that were
        sent; an image that is there already is not pushed, and not recorded, twice.

    Raises:
        NotFoundError: the release has no image yet.
        ConflictError: what is made now is not the image that was proven.
        ConfigError: no repository is configured.
        UnavailableError: the registry does not answer, or denies it; no tag was written.
        IntegrityError: the registry gives back another digest.
    """
    started = pipeline.clock()
    records = pipeline.ledger.records()
    image = proven(pipeline, release, latest(records, CONTAINERIZE, release))
    pipeline.progress.note(f"pushing {image.name}:{image.tag}")
    pushed = pipeline.images().push(image)
    before = latest(records, STEP, release)
    if before is not None and before.evidence.facts.get("reference") == pushed.reference:
        return before
    facts = {
        "reference": pushed.reference,
        "digest": pushed.digest,
        "tag": image.tag,
        "size": image.size,
        "sent": pushed.sent,
        "there": pushed.there,
        "mounted": pushed.mounted,
        "seconds": round((pipeline.clock() - started).total_seconds(), 3),
    }
    return pipeline.learn(release, STEP, "passed", facts, {"image": pushed.digest})


def proven(pipeline: Pipeline, release: Release, made: Record | None) -> Image:
    """Return the image that `containerize` recorded, made again from the same bytes.

    Raises:
        NotFoundError: it recorded none.
        ConflictError: what is made now is another one.
    """
    if made is None:
        message = f"{release} has no image yet"
        raise NotFoundError(message, hint=f"`mlship containerize {release}` makes it")
    base = recorded_base(made)
    image = pipeline.images().build(release, pipeline.bundle(release), base=base)
    recorded = made.evidence.facts["digest"]
    if image.digest != recorded:
        message = (
            f"the image of {release} comes out as {image.digest} now, and {recorded} was proven"
        )
        hint = f"mlship or image.* in mlship.yaml changed: `mlship containerize {release}` again"
        raise ConflictError(message, hint=hint)
    return image
