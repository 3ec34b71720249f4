"""containerize: the image of a release, made on this machine from its bundle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record
from mlship.domain.history import latest
from mlship.domain.image import Image, reference
from mlship.domain.release import Release
from mlship.errors import NotFoundError
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
    records = pipeline.ledger.records()
    before = latest(records, STEP, release)
    named = pipeline.config.image.base
    base = _same_base(before, named)
    extension = _extension(pipeline)
    pushed = latest(records, "push-to-registry", release)
    if before and base and _is_settled(before, pushed, extension):
        pipeline.progress.note("its image was pushed; Docker builds it no second time")
        return before
    pipeline.progress.note("making the image")
    image = pipeline.images().build(release, folder, base=base)
    if before is not None and before.evidence.facts.get("digest") == image.digest:
        return before
    seconds = round((pipeline.clock() - started).total_seconds(), 3)
    learnt = facts(image) | {"base_name": named, "seconds": seconds}
    saw = {"bundle": release.bundle, "base": digests.parse(image.base.wanted)} | extension
    return pipeline.learn(release, STEP, "passed", learnt, saw)


def hand_over(pipeline: Pipeline, made: Record, into: Path) -> None:
    """Write the image that evidence tells of to a file, for a machine that is to push it.

    Raises:
        NotFoundError: the image was built on another machine.
        UnavailableError: the file cannot be written.
    """
    name = pipeline.config.image.repository or made.evidence.release.name
    pipeline.progress.note(f"writing the image to {into}")
    pipeline.images().save(recorded(made, name), into)


def facts(image: Image) -> dict[str, Any]:
    """Return what evidence tells of an image; sizes in bytes, as they travel."""
    return {
        "reference": f"{image.name}@{image.digest}",
        "digest": image.digest,
        "builder": image.builder,
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
                        "media_type": layer.media_type,
                        "digest": layer.digest,
                        "diff_id": layer.diff_id,
                        "size": layer.size,
                        "reused": layer.reused,
                    }
                    for layer in one.layers
                ],
            }
            for one in image.platforms
        ],
    }


def recorded(made: Record, name: str) -> Image:
    """Return the image that evidence tells of, to be moved to a repository.

    Raises:
        NotFoundError: the evidence is of an older mlship, and does not tell all of its layers.
    """
    facts = made.evidence.facts
    platforms = [one | {"manifest": one["digest"]} for one in facts["platforms"]]
    told = {
        "name": name,
        "tag": facts["tag"],
        "digest": facts["digest"],
        "base": reference(facts["base"]),
        "builder": facts.get("builder", "oci"),
        "platforms": platforms,
    }
    try:
        return msgspec.convert(told, Image)
    except msgspec.ValidationError as error:
        message = f"the evidence of image {facts['digest']} tells too little of it: {error}"
        raise NotFoundError(message, hint="push it from its bundle: leave --from out") from error


def recorded_base(made: Record) -> Digest:
    """Return the digest of the base that a recorded image was built on."""
    return digests.parse(made.evidence.saw["base"])


def _extension(pipeline: Pipeline) -> dict[str, Digest]:
    """Return the digest of the user's instructions to Docker, where there are any to be read."""
    name = pipeline.config.image.extend
    path = pipeline.root / (name or "")
    return {"extension": digests.of_file(path)} if name and path.is_file() else {}


def _is_settled(before: Record, pushed: Record | None, extension: Mapping[str, Digest]) -> bool:
    """Tell whether Docker's image of these instructions is in a registry: others depend on it."""
    facts = before.evidence.facts
    if facts.get("builder") != "docker" or pushed is None:
        return False
    seen = {name: digest for name, digest in before.evidence.saw.items() if name == "extension"}
    return pushed.evidence.facts["digest"] == facts["digest"] and seen == extension


def _same_base(before: Record | None, named: str) -> Digest | None:
    """Return the base that the release was built on, if it is still the configured one."""
    if before is None or before.evidence.facts.get("base_name") != named:
        return None
    return recorded_base(before)
