"""A target with several clusters: their state, and the port that shows it."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from mlship.domain.deployment import Slot


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """The observed state of one cluster of a target that has several.

    Attributes:
        name: in mlship.yaml.
        place: which cluster it is, for people, such as `context green`.
        is_parent: whether the load balancer above all clusters is there.
        fault: why it cannot be inspected; empty if it can.
        slots: that run there; if it cannot be inspected, those that the route remembers.
        command: how a person scales it down, or sees what else is there.
    """

    name: str
    place: str
    is_parent: bool
    fault: str
    slots: tuple[Slot, ...]
    command: str


@runtime_checkable
class Clustered(Protocol):
    """A target with several clusters behind one parent. Errors as in `Target`."""

    def clusters(self) -> Sequence[Cluster]:
        """Return the state of each cluster, also of one that does not answer. Starts nothing."""

    def reached(self) -> Mapping[Slot, bool]:
        """Return which slots of the route the parent reaches; empty if it cannot be asked."""
