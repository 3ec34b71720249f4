"""Which releases are still needed, and what is removed of the others."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from mlship.domain import shapes
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, Step
from mlship.domain.facts import PushedImage
from mlship.domain.history import latest
from mlship.domain.image import Reference, reference
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.removal import Item, PrunedImages
from mlship.errors import NotFoundError

_OF_REMOVAL: frozenset[Step] = frozenset({"erase", "prune", "prune-images"})
"""Steps that do not show that their release is in use."""

_DEPLOYMENTS: tuple[Step, ...] = ("deploy-staging", "deploy-production", "promote", "rollback")
"""Steps whose last release may have brought the load balancer that runs now."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A release, or another name, that is needed, and by what."""

    name: str
    reason: str


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """What a prune removed, or would remove, and what is needed."""

    removed: Sequence[Item] = ()
    kept: Sequence[Kept] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest in a repository: of an image, or of an index of images.

    Attributes:
        layers: of all its images.
        images: the digests of the images of an index.
    """

    digest: Digest
    layers: frozenset[Digest] = frozenset()
    images: tuple[Digest, ...] = ()


class ImageRepository(Protocol):
    """A repository of images from which some are removed."""

    @property
    def name(self) -> str:
        """Registry and repository."""

    def tags(self) -> Sequence[str]:
        """Return all tags."""

    def find(self, wanted: str) -> Manifest | None:
        """Return the manifest of a tag or a digest; `None` if it does not exist."""

    def remove(self, digest: Digest, tags: Collection[str] = ()) -> None:
        """Remove a manifest, its tags, and what is attached to it. It may be gone already.

        Args:
            digest: of the manifest.
            tags: of the repository that name it.

        Raises:
            RefusedError: the registry does not allow that anything is removed.
            UnavailableError: the registry does not answer, or denies access.
        """


def needed(
    records: Records, running: Mapping[Digest, str], now: datetime, keep_days: int
) -> dict[Digest, str]:
    """Return the ids of the releases, and the images, that are needed, each with the reason.

    Args:
        records: of the project.
        running: the releases and the images that have a slot, each with the name of its target.
        now: the current time.
        keep_days: a release with evidence from the last so many days is needed.
    """
    reasons: dict[Digest, str] = {}
    last: dict[Digest, datetime] = {}
    # Whoever signed a record: it is a reason to keep something.
    for record in (*records, *(each.record for each in records.untrusted)):
        if record.evidence.step not in _OF_REMOVAL:
            release = record.evidence.release.id
            last[release] = max(record.evidence.time, last.get(release, record.evidence.time))
    for release, time in last.items():
        if now - time < timedelta(days=keep_days):
            reasons[release] = f"has evidence from {time:%Y-%m-%d}"
    for release in _unfinished(records):
        reasons[release] = "a transition of it has not ended"
    for step in _DEPLOYMENTS:
        latest = records.latest(step)
        if latest is not None:
            reasons[latest.evidence.release.id] = f"the last {step}"
    history = records.history
    reasons |= {release.id: "waits for production" for release in history.waiting}
    reasons |= {release: f"runs in {target}" for release, target in running.items()}
    reasons |= {release: role for release, role in history.roles.items() if role != "retired"}
    return reasons


def _unfinished(records: Records) -> set[Digest]:
    """Return the releases whose transition began after the last one that ended."""
    last = records.history.last
    began = last is None
    releases = set()
    for record in records:
        if began and shapes.operation(record):
            releases.add(record.evidence.release.id)
        began = began or (last is not None and record.digest == last.digest)
    return releases


def is_in(name: str, place: Reference) -> bool:
    """Return whether the reference of an image is in a repository."""
    image = reference(name)
    return (image.registry, image.repository) == (place.registry, place.repository)


def begun(records: Iterable[Record], repository: str) -> Sequence[Item]:
    """Return what a removal that did not end was about to remove from a repository."""
    items: Sequence[Item] = ()
    for record in records:
        if record.evidence.step == "prune-images":
            facts = shapes.of(record, PrunedImages)
            if facts.repository == repository:
                items = facts.removed if record.evidence.verdict == "undecided" else ()
    return items


def pushed_image(records: Sequence[Record], release: Release, needed: str = "") -> PushedImage:
    """Return the image of a release, which is in its registry as far as the ledger knows.

    Args:
        records: of the ledger.
        release: that has an image.
        needed: why it is needed, for the error.

    Raises:
        NotFoundError: it was never pushed, or removed since.
    """
    push = latest(records, "push-to-registry", release)
    if push is None:
        raise NotFoundError(
            f"{release} has no image in a registry{needed}",
            hint=f"run `mlship containerize {release}` and `mlship push-to-registry {release}`",
        )
    if is_removed(records, push):
        raise NotFoundError(
            f"`mlship images prune` removed the image of {release} from the registry",
            hint=f"run `mlship push-to-registry {release}`, which builds the same one again",
        )
    return shapes.of(push, PushedImage)


def is_removed(records: Iterable[Record], push: Record) -> bool:
    """Return whether the image of a push was removed from its registry since, or its router."""
    pushed = shapes.of(push, PushedImage)
    digests = {name.rpartition("@")[2] for name in (pushed.reference, pushed.router)}
    was_pushed = False
    removed: set[Digest] = set()
    open_: set[Digest] = set()
    for record in records:
        was_pushed = was_pushed or record.digest == push.digest
        if was_pushed and record.evidence.step == "prune-images":
            items = {item.digest for item in shapes.of(record, PrunedImages).removed}
            is_open = record.evidence.verdict == "undecided"
            removed, open_ = (removed, items) if is_open else (removed | items, set())
    return bool(digests & (removed | open_))
