"""Values of a target: slots, what runs in them, and the route's split of traffic."""

from typing import Literal, NewType

import msgspec

from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.release import Release
from mlship.errors import ConfigError

Slot = NewType("Slot", str)
"""Where one release runs in a target. Its name comes from the release and never changes hands:
who is champion is a role, told by the ledger and the route."""

Revision = NewType("Revision", str)
"""A version of a route. It is opaque: compare it, nothing else."""


def slot_of(release: Release) -> Slot:
    """Return the slot of a release: `r` and the first 12 digits of its id."""
    return Slot("r" + digests.short(release.id))


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """What a target is to run: a bundle's folder or an image's reference, by digest."""

    kind: Literal["bundle", "image"]
    digest: Digest
    location: str


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What is observed in a slot.

    Attributes:
        release: the id of the release that the replicas themselves name.
        artifact: the digest of what they run.
        ready: replicas that answer their readiness probe.
        wanted: replicas that were asked for.
        detail: why fewer are ready than wanted, for people.
    """

    slot: Slot
    release: Digest
    artifact: Digest
    ready: int
    wanted: int
    detail: str = ""


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Who gets which share of the traffic, in whole percent, and who gets a copy of all of it."""

    weights: dict[Slot, int] = {}
    shadow: Slot | None = None

    def __post_init__(self) -> None:
        """Check the sum.

        Raises:
            ConfigError: a weight is negative, or they do not add up to 100.
        """
        if any(weight < 0 for weight in self.weights.values()) or (
            self.weights and sum(self.weights.values()) != 100
        ):
            message = f"weights must be 0 to 100 and add up to 100: {self.weights}"
            raise ConfigError(message, hint="give shares in whole percent")

    @property
    def slots(self) -> frozenset[Slot]:
        """The slots that it names, also those with no weight."""
        return frozenset(self.weights) | self._copied

    @property
    def asked(self) -> frozenset[Slot]:
        """The slots that get requests by it, or a copy of them: these must be ready."""
        return frozenset(slot for slot, weight in self.weights.items() if weight) | self._copied

    @property
    def _copied(self) -> frozenset[Slot]:
        return frozenset() if self.shadow is None else frozenset({self.shadow})

    def share(self, slot: Slot) -> int:
        """Return the percentage of a slot, 0 for one that the route does not name."""
        return self.weights.get(slot, 0)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment is to bring about in a target.

    Attributes:
        split: the route afterwards; `None` leaves it as it is.
        removed: slots that are taken away afterwards.
    """

    release: Release
    artifact: Artifact
    slot: Slot
    replicas: int
    split: Split | None = None
    removed: tuple[Slot, ...] = ()


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """How one object of a target would become another.

    Attributes:
        object: its kind and name, `HTTPRoute iris-production`.
        diff: a unified diff of its text, lines that end with newlines.
    """

    object: str
    action: Literal["create", "change", "delete"]
    diff: str


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """The one source of truth for traffic: the split, its revision, and where requests go in."""

    split: Split
    revision: Revision
    endpoint: str
