"""Values of a target: slots, deployments, and the route with its traffic split."""

from typing import Literal, NewType

import msgspec

from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.release import Release
from mlship.errors import ConfigError

Slot = NewType("Slot", str)
"""Where one release runs in a target. A slot is named after its release and never gets another
one. Champion and challenger are roles, which come from the ledger and the route."""

TargetName = Literal["staging", "production"]
"""The targets that the pipeline deploys to; a project may configure more."""

Role = Literal["champion", "challenger", "former champion", "standby", "retired", ""]
"""The role of a release in production; empty if it has none."""

Revision = NewType("Revision", str)
"""A version of a route. It is opaque: it can only be compared."""


def slot_of(release: Release) -> Slot:
    """Return the slot of a release: `r` and the first 12 digits of its id."""
    return Slot("r" + digests.short(release.id))


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """What a target runs: the folder of a bundle, or an image by digest.

    Attributes:
        router: the image by digest of the load balancer that mlship brings to a cluster; empty
            if none was pushed.
    """

    kind: Literal["bundle", "image"]
    digest: Digest
    location: str
    router: str = ""


class Restarts(msgspec.Struct, frozen=True, kw_only=True):
    """What was started again in the replicas of a slot, since each of them started.

    Attributes:
        workers: worker processes that had ended; `None` if that is not known.
        hung: how many of them were ended because they did not answer; `None` likewise.
        replicas: containers that had ended; `None` if that is not known.
        reasons: of the last restart in each replica, for people.
        unknown: what is not known, and where it is to be seen, for people.
    """

    workers: int | None = None
    hung: int | None = None
    replicas: int | None = None
    reasons: tuple[str, ...] = ()
    unknown: str = ""


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """The observed state of a slot.

    Attributes:
        release: the id of the release, as reported by the replicas.
        artifact: the digest of the artifact that they run.
        ready: replicas that pass their readiness probe.
        wanted: desired replicas.
        detail: why fewer replicas are ready than desired, for people.
        cluster: where it runs, if the target has several clusters.
        observed: false if that cluster does not answer; then `ready` and `wanted` say nothing.
        restarts: what was started again in its replicas; `None` if nothing of it is known.
        supervised: false if nothing starts its processes again when they end.
    """

    slot: Slot
    release: Digest
    artifact: Digest
    ready: int
    wanted: int
    detail: str = ""
    cluster: str = ""
    observed: bool = True
    restarts: Restarts | None = None
    supervised: bool = True


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """The traffic split in whole percent, and the slot that gets a copy of all requests."""

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
            message = f"weights must be between 0 and 100 and add up to 100: {self.weights}"
            raise ConfigError(message, hint="give each weight in whole percent")

    @property
    def slots(self) -> frozenset[Slot]:
        """All slots of the split, including those with weight 0."""
        return frozenset(self.weights) | self._copied

    @property
    def asked(self) -> frozenset[Slot]:
        """The slots that receive requests or copies of them; these must be ready."""
        return frozenset(slot for slot, weight in self.weights.items() if weight) | self._copied

    @property
    def _copied(self) -> frozenset[Slot]:
        return frozenset() if self.shadow is None else frozenset({self.shadow})

    def share(self, slot: Slot) -> int:
        """Return the percentage of a slot, 0 if it is not in the split."""
        return self.weights.get(slot, 0)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The desired result of a deployment.

    Attributes:
        split: the route afterwards; `None` leaves it unchanged.
        removed: slots that are removed afterwards.
    """

    release: Release
    artifact: Artifact
    slot: Slot
    replicas: int
    split: Split | None = None
    removed: tuple[Slot, ...] = ()


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """How one object of a target would change.

    Attributes:
        object: its kind and name, such as `HTTPRoute iris-production`.
        diff: a unified diff of its text; each line ends with a newline.
    """

    object: str
    action: Literal["create", "change", "delete"]
    diff: str


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """The source of truth for traffic: the split, its revision, and the endpoint for requests."""

    split: Split
    revision: Revision
    endpoint: str
