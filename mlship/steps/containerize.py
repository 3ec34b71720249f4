"""containerize: the image of a release, made on this machine from its bundle."""

from typing import Any

from mlship import digests
from mlship.digests import Digest
from mlship.evidence import Record
from mlship.history import latest
from mlship.image import Image
from mlship.release import Release
from mlship.steps.pipeline import Pipeline

STEP = "containerize"


def containerize(pipeline: Pipeline, release: Release) -> Record:
    """Make the image of a release, or find that it was made.

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
    before = latest(pipeline.ledger.records(), STEP, release)
    named = pipeline.config.image.base
    base = _same_base(before, named)
    pipeline.progress.note("making the image")
    image = pipeline.images().build(release, folder, base=base)
    if before is not None and before.evidence.facts.get("digest") == image.digest:
        return before
    seconds = round((pipeline.clock() - started).total_seconds(), 3)
    learnt = facts(image) | {"base_name": named, "seconds": seconds}
    saw = {"bundle": release.bundle, "base": digests.parse(image.base.wanted)}
    return pipeline.learn(release, STEP, "passed", learnt, saw)


def facts(image: Image) -> dict[str, Any]:
    """Return what evidence tells of an image; sizes in bytes, as they travel."""
    return {
        "reference": f"{image.name}@{image.digest}",
        "digest": image.digest,
        "tag": image.tag,
        "base": str(image.base),
        "size": image.size,
        "platforms": [
            {
                "platform": one.platform,
                "digest": one.manifest,
                "config": one.config,
                "layers": [
                    {
                        "role": layer.role,
                        "digest": layer.digest,
                        "size": layer.size,
                        "reused": layer.reused,
                    }
                    for layer in one.layers
                ],
            }
            for one in image.platforms
        ],
    }


def recorded_base(made: Record) -> Digest:
    """Return the digest of the base that a recorded image was built on."""
    return digests.parse(made.evidence.saw["base"])


def _same_base(before: Record | None, named: str) -> Digest | None:
    """Return the base that the release was built on, if it is still the configured one."""
    if before is None or before.evidence.facts.get("base_name") != named:
        return None
    return recorded_base(before)
