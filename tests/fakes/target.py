"""A small honest target in memory: the contract of the port, without processes."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from mlship.domain import digests
from mlship.domain.deployment import (
    Artifact,
    Change,
    Deployment,
    Plan,
    Restarts,
    Revision,
    Route,
    Slot,
    Split,
)
from mlship.domain.digests import Digest
from mlship.domain.release import Release
from mlship.errors import ConfigError, ConflictError, NotFoundError, TimedOutError


class FakeTarget:
    """Runs nothing. Artifacts named in `broken` never get ready; `kill` makes replicas unready."""

    def __init__(self, endpoint: str = "http://127.0.0.1:9") -> None:
        self.broken: set[Digest] = set()
        self._slots: dict[Slot, Deployment] = {}
        self._route = Route(split=Split(), revision=Revision("0"), endpoint=endpoint)

    def deploy(
        self, release: Release, artifact: Artifact, slot: Slot, *, replicas: int
    ) -> Deployment:
        found = self._slots.get(slot)
        if found and found.artifact != artifact.digest:
            raise ConflictError(f"slot {slot} holds {found.artifact}", hint="remove it first")
        if artifact.digest in self.broken:
            raise TimedOutError(f"slot {slot}: not {replicas} replicas ready", hint="see its log")
        self._slots[slot] = Deployment(
            slot=slot,
            release=release.id,
            artifact=artifact.digest,
            ready=replicas,
            wanted=replicas,
        )
        return self._slots[slot]

    def kill(self, slot: Slot) -> None:
        """Make no replica of a slot ready."""
        self._slots[slot] = msgspec.structs.replace(self._slots[slot], ready=0, detail="killed")

    def unsupervise(self) -> None:
        """Say that nothing starts again what ends."""
        for slot, found in self._slots.items():
            self._slots[slot] = msgspec.structs.replace(found, supervised=False)

    def restart(self, slot: Slot, restarts: Restarts) -> None:
        """Say what was started again in a slot."""
        self._slots[slot] = msgspec.structs.replace(self._slots[slot], restarts=restarts)

    def inspect(self) -> Mapping[Slot, Deployment]:
        return dict(self._slots)

    def route(self, split: Split, *, expected: Revision) -> Revision:
        if expected != self._route.revision:
            message = f"the route is at revision {self._route.revision}, not {expected}"
            raise ConflictError(message, hint="look again")
        if split.shadow is not None and not split.weights:
            raise ConfigError("no traffic to copy", hint="give a slot weight")
        for slot in sorted({slot for slot, weight in split.weights.items() if weight}):
            self._check_ready(slot)
        if split.shadow is not None:
            self._check_ready(split.shadow)
        if split != self._route.split:
            number = Revision(str(int(expected) + 1))
            self._route = msgspec.structs.replace(self._route, split=split, revision=number)
        return self._route.revision

    def routes(self) -> Route:
        return self._route

    def remove(self, slot: Slot) -> None:
        if self._route.split.share(slot) or self._route.split.shadow == slot:
            raise ConflictError(f"slot {slot} still gets traffic", hint="route it away first")
        self._slots.pop(slot, None)

    def _check_ready(self, slot: Slot) -> None:
        if slot not in self._slots or not self._slots[slot].ready:
            raise NotFoundError(f"slot {slot} has no ready replica", hint="deploy it first")


class FakeCluster(FakeTarget):
    """A target whose objects can be shown: a slot each, and the route."""

    def render(self, plan: Plan) -> Mapping[str, str]:
        files = {f"1-slot-{plan.slot}.yaml": self._slot(plan)}
        return files if plan.split is None else {**files, "2-route.yaml": text_of(plan.split)}

    def changes(self, plan: Plan) -> Sequence[Change]:
        found = self._slots.get(plan.slot)
        changes = []
        if found is None or found.wanted != plan.replicas:
            action: Literal["create", "change"] = "change" if found else "create"
            diff = f"+{self._slot(plan)}"
            changes.append(Change(object=f"Slot {plan.slot}", action=action, diff=diff))
        if plan.split is not None and plan.split != self._route.split:
            diff = f"-{text_of(self._route.split)}+{text_of(plan.split)}"
            changes.append(Change(object="Route", action="change", diff=diff))
        changes += [
            Change(object=f"Slot {slot}", action="delete", diff=f"-{slot}\n")
            for slot in plan.removed
        ]
        return changes

    def _slot(self, plan: Plan) -> str:
        return f"{plan.artifact.location} times {plan.replicas}\n"


def text_of(split: Split) -> str:
    """Return a split as the fake's text."""
    return f"{digests.canonical_json(split).decode()}\n"
