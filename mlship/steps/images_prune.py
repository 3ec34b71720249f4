"""images prune: remove images from the registry that nothing needs, and record it."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final

import msgspec

from mlship.domain import retention, shapes
from mlship.domain.digests import Digest
from mlship.domain.evidence import Step
from mlship.domain.facts import Containerized, PushedImage
from mlship.domain.image import Reference, reference
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.removal import Item, PrunedImages
from mlship.domain.retention import ImageRepository, Kept, Manifest, Retention
from mlship.errors import RefusedError, UnavailableError
from mlship.steps.pipeline import PRODUCTION, STAGING, Pipeline

STEP: Final[Step] = "prune-images"
_DEPENDENCIES: Final = "deps-"
_ROUTER: Final = "router-"
_ATTACHED: Final = "sha256-"
"""Tags by which registries without the Referrers API find what is attached to an image."""
_DOCUMENTS: Final = "mlship."
"""Tags of ledgers and stores in a registry."""


class _Built(msgspec.Struct, frozen=True, kw_only=True):
    """An image that the ledger has.

    Attributes:
        router: the image of the load balancer that was pushed with it.
        layers: the tags of its layers of dependencies.
        is_pushed: whether it was pushed to the repository.
    """

    release: Release
    digest: Digest
    tag: str
    size: int
    parts: tuple[Digest, ...]
    layers: frozenset[str]
    router: Digest | None = None
    is_pushed: bool = False


def prune_images(
    pipeline: Pipeline, repository: ImageRepository, *, keep_days: int, dry_run: bool
) -> Retention:
    """Remove the images of releases that nothing needs, and what only they used.

    Only what the project's own ledger has is looked at. The locks of all targets are held, so
    that no deployment begins meanwhile. The ledger gets a record before, with the verdict
    `undecided`, and one after it; the same command after a crash removes the rest.

    Args:
        pipeline: the project.
        repository: of its images.
        keep_days: releases with evidence from the last so many days are kept.
        dry_run: change nothing.

    Raises:
        RefusedError: the registry does not allow that anything is removed.
        UnavailableError: a target does not answer, and nothing was removed; or the registry does
            not, and the same command goes on with the rest.
        ConflictError: another command is changing a target.
    """
    if dry_run:
        return _Plan(pipeline, pipeline.read(), repository, keep_days).retention()
    with ExitStack() as stack:
        holder = pipeline
        for name in targets(pipeline):
            fence = stack.enter_context(pipeline.locks.exclusive(name))
            holder = holder.under(name, fence) if name == PRODUCTION else holder
        return _remove(holder, repository, keep_days)


def targets(pipeline: Pipeline) -> list[str]:
    """Return the names of all targets that may run releases."""
    return list(dict.fromkeys([STAGING, PRODUCTION, *pipeline.config.targets]))


def running(pipeline: Pipeline) -> dict[Digest, str]:
    """Return the releases and the artifacts that have a slot, each with the name of its target.

    Raises:
        UnavailableError: a target or one of its clusters does not answer.
    """
    slots: dict[Digest, str] = {}
    for name in targets(pipeline):
        for deployment in pipeline.target(name).inspect().values():
            if not deployment.observed:
                message = f"cluster {deployment.cluster} of target {name} does not answer, so "
                message += "what runs there is not known; nothing was removed"
                raise UnavailableError(message, hint="run the command again when it answers")
            slots[deployment.release] = slots[deployment.artifact] = name
    return slots


def _remove(pipeline: Pipeline, repository: ImageRepository, keep_days: int) -> Retention:
    records = pipeline.read()
    plan = _Plan(pipeline, records, repository, keep_days)
    result = plan.retention()
    if not result.removed:
        return result
    subject = plan.subject(result.removed)
    facts = PrunedImages(
        repository=repository.name, keep_days=keep_days, removed=tuple(result.removed)
    )
    records = records.plus(pipeline.learn(subject, STEP, "undecided", facts, after=records))
    count = 0
    try:
        for item in result.removed:
            pipeline.progress.note(f"removing {item.kind} {item.name}")
            for digest in (item.digest, *item.parts):
                repository.remove(digest, plan.tags_of(digest))
            count += 1
    except RefusedError:
        facts = msgspec.structs.replace(facts, removed=tuple(result.removed[:count]))
        pipeline.learn(subject, STEP, "failed", facts, after=records)
        raise
    pipeline.learn(subject, STEP, "passed", facts, after=records)
    return result


class _Plan:
    """What may be removed of a repository now, and what may not."""

    def __init__(
        self, pipeline: Pipeline, records: Records, repository: ImageRepository, keep_days: int
    ) -> None:
        self._repository = repository
        self._records = records
        place = reference(repository.name)
        self._built = _built(records, place)
        self._needed = retention.needed(records, running(pipeline), pipeline.clock(), keep_days)
        self._begun = {item.digest for item in retention.begun(records, repository.name)}
        self._tags = list(repository.tags())
        self._manifests: dict[str, Manifest | None] = {}

    def retention(self) -> Retention:
        """Return what is removed and what is kept."""
        others = self._others()
        kept: dict[str, Kept] = {}
        images: dict[Digest, Item] = {}
        for image in self._built:
            name = str(image.release)
            if reason := self._reason(image):
                kept[name] = Kept(name=name, reason=reason)
            elif tag := _naming(others, (image.digest, *image.parts)):
                kept[tag] = Kept(name=tag, reason=f"this tag names the image of {name}")
            elif image.is_pushed and self._is_there(image.digest):
                images[image.digest] = Item(
                    kind="image",
                    name=name,
                    digest=image.digest,
                    parts=image.parts,
                    size=image.size,
                )
        staying = [
            image
            for image in self._built
            if self._reason(image) or _naming(others, (image.digest, *image.parts))
        ]
        removed = [
            *images.values(),
            *self._routers(staying, others),
            *self._dependencies(staying, others),
        ]
        return Retention(removed=tuple(removed), kept=tuple(kept.values()))

    def tags_of(self, digest: Digest) -> list[str]:
        """Return the tags that mlship gave to a digest."""
        own = {image.tag for image in self._built}
        mlships = (_DEPENDENCIES, _ROUTER)
        tags = [tag for tag in self._tags if tag in own or tag.startswith(mlships)]
        return [tag for tag in tags if self._digest(tag) == digest]

    def subject(self, items: Sequence[Item]) -> Release:
        """Return the release under which the removal is recorded: the newest that it concerns."""
        names = {item.name for item in items}
        own = [release for release in self._records.releases if str(release) in names]
        return (own or list(self._records.releases))[-1]

    def _reason(self, image: _Built) -> str:
        return self._needed.get(image.release.id) or self._needed.get(image.digest, "")

    def _is_there(self, digest: Digest) -> bool:
        # After a crash, parts may be there without their index.
        return digest in self._begun or self._find(digest) is not None

    def _find(self, wanted: str) -> Manifest | None:
        if wanted not in self._manifests:
            self._manifests[wanted] = self._repository.find(wanted)
        return self._manifests[wanted]

    def _digest(self, wanted: str) -> Digest | None:
        manifest = self._find(wanted)
        return manifest.digest if manifest else None

    def _others(self) -> dict[str, Manifest]:
        """Return what has a tag that mlship did not give for this project."""
        own = {image.tag for image in self._built}
        mlships = (_DEPENDENCIES, _ROUTER, _ATTACHED, _DOCUMENTS)
        tags = [tag for tag in self._tags if tag not in own and not tag.startswith(mlships)]
        return {tag: manifest for tag in tags if (manifest := self._find(tag)) is not None}

    def _routers(self, staying: Sequence[_Built], others: Mapping[str, Manifest]) -> list[Item]:
        """Return the images of load balancers that no image needs.

        Other projects have the same ones, so all stay if the repository has images of others.
        """
        if others:
            return []
        routers = list(dict.fromkeys(image.router for image in self._built if image.router))
        # The load balancer in a cluster may be that of the last push, whatever was deployed.
        used = {image.router for image in staying} | set(routers[-1:])
        return [
            Item(
                kind="load balancer",
                name=manifest.digest[7:19],
                digest=router,
                parts=manifest.images,
            )
            for router in routers
            if router not in used and (manifest := self._find(router)) is not None
        ]

    def _dependencies(
        self, staying: Sequence[_Built], others: Mapping[str, Manifest]
    ) -> list[Item]:
        """Return the layers of dependencies that no image has any more."""
        tags = {tag for image in self._built for tag in image.layers}
        tags -= {tag for image in staying for tag in image.layers}
        layers = {layer for manifest in others.values() for layer in manifest.layers}
        items = []
        for tag in sorted(tags & set(self._tags)):
            manifest = self._find(tag)
            if manifest is not None and not manifest.layers & layers:
                items.append(Item(kind="dependencies", name=tag, digest=manifest.digest))
        return items


def _naming(others: Mapping[str, Manifest], wanted: Sequence[Digest]) -> str:
    """Return a tag that names one of some manifests, or an index with it; empty if none does."""
    for tag, manifest in others.items():
        if {manifest.digest, *manifest.images} & set(wanted):
            return tag
    return ""


def _built(records: Records, place: Reference) -> list[_Built]:
    """Return the images in the ledger, each once, in the order in which they were built."""
    images: dict[Digest, _Built] = {}
    for record in records:
        release = record.evidence.release
        if record.evidence.step == "containerize":
            built = shapes.of(record, Containerized)
            parts = (each.manifest for each in built.platforms if each.manifest != built.digest)
            tags = (layer.tag for each in built.platforms for layer in each.layers if layer.tag)
            images.setdefault(
                built.digest,
                _Built(
                    release=release,
                    digest=built.digest,
                    tag=built.tag,
                    size=built.size,
                    parts=tuple(parts),
                    layers=frozenset(tags),
                ),
            )
        elif record.evidence.step == "push-to-registry":
            pushed = shapes.of(record, PushedImage)
            image = images.get(pushed.digest)
            if image is not None and retention.is_in(pushed.reference, place):
                router = reference(pushed.router).digest if pushed.router else None
                images[pushed.digest] = msgspec.structs.replace(
                    image, router=router, is_pushed=True
                )
    return list(images.values())
