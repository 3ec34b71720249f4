"""What stands above the clusters of a target that has several, and gives each slot its share.

Two adapters: a cluster of the target, with mlship's own router in it (`members.Member`), and
Google's load balancer, which is in no cluster (`targets.google.GoogleParent`).
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from mlship.adapters.targets.kubernetes.api import Api, Manifest
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.routing import Placed, Written
from mlship.domain.counts import Look
from mlship.domain.deployment import Artifact, Change, Plan, Revision, Route, Slot, Split
from mlship.domain.drift import Altered
from mlship.domain.ports import Progress
from mlship.errors import ConfigError


class Prepared(Protocol):
    """What a deployment of a slot does with the route. `router.Traffic` says when each fails."""

    def check(self) -> None:
        """Check that the route may be changed, before a deployment."""

    def prepare(self, artifact: Artifact, *, is_new: bool) -> None:
        """Get the load balancer ready; `is_new` tells whether the slot is new."""

    def wait(self, progress: Progress) -> None:
        """Wait until it can be reached."""

    def running(self) -> Manifest | None:
        """Return what `restore` needs after a failure."""

    def restore(self, former: Manifest | None) -> None:
        """Undo what `prepare` did."""

    def close(self) -> None:
        """Remove what was made for a target in which nothing runs."""


class Traffic(Prepared, Protocol):
    """The route of a target: `router.Traffic`, and what says the same elsewhere."""

    def changes(self, artifact: Artifact, *, is_new: bool) -> list[Change]:
        """Return what `prepare` would change. Nothing is written."""

    def read(self) -> Written:
        """Return the route as it is written; before the first, one without weights."""

    def route(self) -> Route:
        """Return the split, its revision, and the endpoint for requests."""

    def change(self, split: Split, expected: Revision, *, running: frozenset[Slot]) -> Revision:
        """Write a split by compare-and-set; return when it is applied."""

    def counts(self) -> Look:
        """Return what the load balancer has counted of requests; see `domain.counts.Counted`."""

    def reaches(self, slot: Slot) -> bool | None:
        """Return whether a slot is reached; `None` if that is unknown."""

    def planned(self, split: Split, *, running: frozenset[Slot]) -> list[Change]:
        """Return what `change` would write. Nothing is written."""

    def forget(self, slot: Slot) -> None:
        """Remove a slot without traffic from the route."""

    def altered(self, cluster: str) -> list[Altered]:
        """Return what somebody changed of the load balancer and of the route, in this cluster."""

    def adopt(self) -> None:
        """Take the load balancer as it is for what was written."""

    def rewrite(self, split: Split) -> None:
        """Write a split over whatever is there; return when it is applied."""


class MadeByOthers:
    """The part of `Traffic` for a load balancer that no deployment makes or changes."""

    def changes(self, artifact: Artifact, *, is_new: bool) -> list[Change]:
        """Return what a deployment changes besides its slot: nothing."""
        del artifact, is_new
        return []

    def prepare(self, artifact: Artifact, *, is_new: bool) -> None:
        """Do nothing: people make the load balancer, before the first deployment."""

    def wait(self, progress: Progress) -> None:
        """Return at once, for the same reason."""

    def running(self) -> Manifest | None:
        """Return nothing: a deployment does not change it."""
        return None

    def restore(self, former: Manifest | None) -> None:
        """Do nothing, for the same reason."""

    def counts(self) -> Look:
        """Refuse: each kind of such a load balancer reports elsewhere what it counts.

        Raises:
            ConfigError: always.
        """
        message = "the load balancer of the target is not mlship's: what it counts of requests "
        hint = "see its own monitoring; `mlship traffic challenger=0` takes a challenger off"
        raise ConfigError(f"{message}cannot be read", hint=hint)


class Opened(NamedTuple):
    """A connection to a parent.

    Attributes:
        api: of the parent's cluster; `None` if it is in none.
        cluster: where it is, for people.
        traffic: returns the route, given where slots were observed.
    """

    api: Api | None
    cluster: str
    traffic: Callable[[Mapping[Slot, Placed]], Traffic]


class Parent(Protocol):
    """A load balancer above several clusters."""

    @property
    def name(self) -> str:
        """The name of its cluster in mlship.yaml, or of whom it belongs to, for people."""

    @property
    def limits(self) -> str:
        """What it does not do for slots in other clusters, for people; empty if nothing."""

    def opened(self, scope: Scope) -> AbstractContextManager[Opened]:
        """Open a connection; nothing is requested yet."""

    def rendered(self, scope: Scope, plan: Plan) -> tuple[list[Manifest], list[Manifest]]:
        """Return its objects in an empty target: what comes before those of a slot, and after."""
