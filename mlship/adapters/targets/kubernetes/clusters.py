"""ClustersTarget: a target with several clusters, and one load balancer above them.

A slot is in exactly one cluster. The route of the parent remembers in which, so that a command asks
the clusters only that it concerns: one that is gone does not keep the others from working.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime

import msgspec

from mlship.adapters.targets.kubernetes import by_hand, difference, manifests, router_tls
from mlship.adapters.targets.kubernetes.directory import Directory
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.members import Member
from mlship.adapters.targets.kubernetes.parents import Opened, Parent, Traffic
from mlship.adapters.targets.kubernetes.routing import Placed, Written
from mlship.adapters.targets.kubernetes.slots import Slots, check_ready
from mlship.config.project import TargetConfig
from mlship.domain.clusters import Cluster
from mlship.domain.counts import Look
from mlship.domain.deployment import (
    Artifact,
    Change,
    Deployment,
    Plan,
    Revision,
    Route,
    Slot,
    Split,
)
from mlship.domain.drift import Altered
from mlship.domain.ports import Progress
from mlship.domain.release import Release
from mlship.errors import MlshipError


class ClustersTarget:
    """Runs slots in several clusters: the ports Target, Declarative and Clustered."""

    def __init__(
        self,
        scope: Scope,
        config: TargetConfig,
        members: Sequence[Member],
        progress: Progress,
        *,
        spool_mb: int | None = None,
        parent: Parent | None = None,
    ) -> None:
        """Store the settings; no request is sent.

        Args:
            scope: the names and labels of its objects, the same in each cluster.
            config: the target's section of mlship.yaml.
            members: its clusters, in the order of the settings.
            progress: hears how many replicas are ready.
            spool_mb: the size of a pod's spool for predictions; `None` if pods have none.
            parent: what stands above the clusters; by default mlship's router in one of them.
        """
        self._spool_mb = spool_mb
        self._scope = scope
        self._config = config
        self._members = {member.name: member for member in members}
        self._parent: Parent = parent or self._members[config.parent_cluster]
        self._progress = progress
        self._directory = Directory(scope, config, self._members, progress)

    def deploy(
        self, release: Release, artifact: Artifact, slot: Slot, *, replicas: int
    ) -> Deployment:
        """Run replicas in a slot, in the cluster where it is, else where the settings place it.

        Raises:
            UnavailableError: that cluster does not answer; or any, if the slot is new: it might be
                there. Nothing was written.
            ConfigError: two names are of the same cluster.
            and as `KubernetesTarget.deploy`.
        """
        plan = Plan(release=release, artifact=artifact, slot=slot, replicas=replicas)
        with self._open() as (opened, written):
            member = self._directory.place(slot, written)
            with self._slots(member, opened) as slots:
                traffic = self._traffic(opened, {})
                deployment = slots.deploy(plan, traffic, functools.partial(self._close, opened))
                place = self._placed(
                    member, slot, deployment.release, deployment.artifact, slots.address(slot)
                )
            if slot not in written.places and self._parent.limits and member is not self._parent:
                self._progress.note(f"{slot} is in another cluster: {self._parent.limits}")
            if written.places.get(slot, place) != place:
                # Its Service was made anew, and has another address.
                traffic = self._traffic(opened, {slot: place})
                traffic.change(written.split, written.revision, running=written.slots)
            return msgspec.structs.replace(deployment, cluster=member.name)

    def inspect(self) -> Mapping[Slot, Deployment]:
        """Return the observed state of each slot in all clusters. Starts nothing.

        Of a cluster that does not answer, these are the slots that the route remembers there, with
        no ready replica and the reason.
        """
        with self._open() as (_, written):
            return self._directory.deployments(written)

    def route(self, split: Split, *, expected: Revision) -> Revision:
        """Set the split by compare-and-set at the parent; return when it is applied.

        Only clusters of slots that get requests are asked.

        Raises:
            as `KubernetesTarget.route`; UnavailableError: a cluster of these slots does not answer,
                or the parent does not reach one of them: the route is as before.
        """
        with self._open() as (opened, written):
            # Of a slot that is new to the route, the address is needed.
            needed = split.asked | (split.slots - frozenset(written.places))
            observed, places = self._observed(opened, split.slots, written, needed=needed)
            if written.revision == expected:
                check_ready(self._scope, observed, split.asked)
            running = frozenset(written.slots) | frozenset(observed)
            traffic = self._traffic(opened, places)
            return traffic.change(split, expected, running=running)

    def routes(self) -> Route:
        """Return the split at the parent, and its address."""
        with self._parent.opened(self._scope) as opened:
            return self._traffic(opened, {}).route()

    def counts(self) -> Look:
        """Return what the parent has counted of requests: the port Counted."""
        with self._parent.opened(self._scope) as opened:
            return self._traffic(opened, {}).counts()

    def certificate(self) -> bytes | None:
        """Return the certificate of mlship's own load balancer: the port Certified."""
        secret = self._config.kubernetes.tls_secret
        if secret is None:
            return None
        with self._members[self._config.parent_cluster].connected() as api:
            return router_tls.read(api, secret).certificate

    def check_certificate(self) -> datetime | None:
        """Check it, and return when it expires: the port Certified."""
        secret = self._config.kubernetes.tls_secret
        if secret is None:
            return None
        with self._members[self._config.parent_cluster].connected() as api:
            return router_tls.expiry(api, secret)

    def remove(self, slot: Slot) -> None:
        """Drain and stop a slot: remove it from the route, then its pods finish and end.

        A slot in a cluster that the settings do not name any more is removed from the route only.

        Raises:
            as `KubernetesTarget.remove`; UnavailableError: its cluster does not answer; nothing was
                changed.
        """
        with self._open() as (opened, written):
            found = self._directory.find(slot, written)
            # What is left of a slot after a removal that was killed may be anywhere.
            homes = () if slot in written.places else self._config.homes
            holders = [found] if found else [self._members[name] for name in homes]
            for member in holders:
                self._check_answers(member, opened)
            self._traffic(opened, {}).forget(slot)
            for member in holders:
                with self._slots(member, opened) as slots:
                    slots.delete(slot)
            self._close(opened)

    def clusters(self) -> Sequence[Cluster]:
        """Return the state of each cluster, also of one that does not answer."""
        with self._open() as (_, written):
            states = self._directory.looks()
        found = []
        for name, member in self._members.items():
            state = states.get(name, {})
            fault = state.message if isinstance(state, MlshipError) else ""
            known = (slot for slot, place in written.places.items() if place.cluster == name)
            found.append(
                Cluster(
                    name=name,
                    place=member.place,
                    is_parent=member is self._parent,
                    fault=fault,
                    slots=tuple(sorted(known if isinstance(state, MlshipError) else state)),
                    command=member.command,
                )
            )
        return found

    def reached(self) -> Mapping[Slot, bool]:
        """Return which slots of the route the parent reaches; empty if it cannot be asked."""
        with self._open() as (opened, written):
            traffic = self._traffic(opened, {})
            found = {slot: traffic.reaches(slot) for slot in sorted(written.slots)}
        return {slot: answer for slot, answer in found.items() if answer is not None}

    def render(self, plan: Plan) -> Mapping[str, str]:
        """Return the objects for an empty target: the router's, the slot's, and the route.

        The slot of a first release is in the first cluster. At a Gateway there is no router.
        """
        first = self._members[self._config.homes[0]]
        objects = manifests.render(
            self._scope,
            first.config,
            plan.release,
            plan.artifact,
            plan.slot,
            plan.replicas,
            entry=None if first is self._parent else first.entry,
            spool_mb=self._spool_mb,
        )
        objects = manifests.in_cluster(objects, first.name)
        # Elsewhere, the address of the slot comes with its Service.
        routed = plan if first is self._parent else msgspec.structs.replace(plan, split=None)
        before, after = self._parent.rendered(self._scope, routed)
        return manifests.files([*before, *objects, *after])

    def changes(self, plan: Plan) -> Sequence[Change]:
        """Return what would be written in each cluster, as `KubernetesTarget.changes`.

        Raises:
            UnavailableError: as `deploy`.
            NotFoundError, ConfigError: there is no such Gateway, or it serves its own cluster only.
        """
        with self._open() as (opened, written):
            member, traffic = self._directory.place(plan.slot, written), self._traffic(opened, {})
            traffic.check()
            with self._slots(member, opened) as slots:
                of_slot, is_new = slots.planned(plan)
            of_parent = traffic.changes(plan.artifact, is_new=is_new)
            changes = [
                *difference.within(self._parent.name, of_parent),
                *difference.within(member.name, of_slot),
            ]
            if plan.split is not None:
                others = plan.split.asked - {plan.slot}
                observed, places = self._observed(opened, plan.split.slots, written, needed=others)
                check_ready(self._scope, observed, others)
                running = (written.slots | set(observed) | {plan.slot}) - set(plan.removed)
                # The address of a new slot comes with its Service.
                unknown = self._placed(member, plan.slot, plan.release.id, plan.artifact.digest, "")
                known = {plan.slot: written.places.get(plan.slot, unknown), **places}
                traffic = self._traffic(opened, known)
                of_route = traffic.planned(plan.split, running=running)
                changes += difference.within(self._parent.name, of_route)
            for slot in plan.removed:
                holder = self._directory.find(slot, written)
                if holder is not None:
                    with self._slots(holder, opened) as slots:
                        changes += difference.within(holder.name, slots.removal(slot))
            return changes

    def altered(self) -> Sequence[Altered]:
        """Return what somebody changed, in each cluster that answers."""
        with self._parent.opened(self._scope) as opened:
            traffic = self._traffic(opened, {})
            written, found = by_hand.route_of(traffic.read), traffic.altered(self._parent.name)
        for name, state in self._directory.looks().items():
            if isinstance(state, MlshipError):
                continue
            member = self._members[name]
            known = {slot for slot, place in written.places.items() if place.cluster == name}
            with member.connected(quickly=True) as api:
                slots = known | set(state)
                found += by_hand.of_slots(api, self._scope, member.config, slots, name)
                if member is not self._parent:
                    places = {slot: written.places[slot] for slot in known}
                    found += by_hand.of_places(api, self._scope, places, self._parent.name)
        return found

    def adopt(self) -> None:
        """Take objects as they are for what was written; the route is not among them.

        Raises:
            UnavailableError: a cluster does not answer; nothing was changed there.
        """
        with self._open() as (opened, written):
            self._traffic(opened, {}).adopt()
        for slot in self._directory.deployments(written):
            member = self._directory.find(slot, written)
            if member is not None:
                with member.connected() as api:
                    by_hand.adopt(api, manifests.kinds(member.config), self._scope.object(slot))

    def rewrite(self, split: Split) -> None:
        """Write the route anew, also if what is there cannot be read; see `Guarded`.

        Raises:
            UnavailableError: a cluster of a slot that gets requests does not answer.
        """
        with self._parent.opened(self._scope) as opened:
            observed, places = self._observed(opened, split.slots, Written(), needed=split.slots)
            check_ready(self._scope, observed, split.asked)
            self._traffic(opened, places).rewrite(split)

    @contextmanager
    def _open(self) -> Iterator[tuple[Opened, Written]]:
        """Connect to the parent, and read the route.

        Raises:
            ConfigError: another cluster has the route: see `Directory.check_first`.
        """
        with self._parent.opened(self._scope) as opened:
            written = self._traffic(opened, {}).read()
            if not written.slots:
                self._directory.check_first(self._parent)
            yield opened, written

    @contextmanager
    def _slots(self, member: Member, opened: Opened) -> Iterator[Slots]:
        with ExitStack() as held:
            is_parent = member is self._parent
            own = opened.api if is_parent else None
            api = own or held.enter_context(member.connected())
            entry = None if is_parent else member.entry
            yield Slots(
                api,
                self._scope,
                member.config,
                self._progress,
                entry,
                spool_mb=self._spool_mb,
                cluster=member.name,
            )

    def _check_answers(self, member: Member, parent: Opened) -> None:
        """Check that a cluster answers, before anything is changed."""
        with self._slots(member, parent) as slots:
            try:
                slots.deployments()
            except MlshipError as error:
                raise self._directory.unanswered(member, error) from error

    def _traffic(self, opened: Opened, places: Mapping[Slot, Placed]) -> Traffic:
        return opened.traffic(places)

    def _observed(
        self, parent: Opened, slots: frozenset[Slot], written: Written, *, needed: frozenset[Slot]
    ) -> tuple[dict[Slot, Deployment], dict[Slot, Placed]]:
        """Return slots as they run, and where, from the clusters that have a needed one.

        Raises:
            UnavailableError: one of these does not answer.
        """
        holders = {
            slot: (self._directory.known if slot in needed else self._directory.find)(slot, written)
            for slot in sorted(slots)
        }
        wanted = {holder.name for slot, holder in holders.items() if holder and slot in needed}
        observed: dict[Slot, Deployment] = {}
        places: dict[Slot, Placed] = {}
        for name in sorted(wanted):
            member = self._members[name]
            with self._slots(member, parent) as each:
                for slot, deployment in each.deployments().items():
                    observed[slot] = msgspec.structs.replace(deployment, cluster=name)
                    if slot in slots:
                        known = written.places.get(slot)
                        # Without its Service: as it was, the others answer for it.
                        address = each.address(slot) or (known.address if known else "")
                        release, artifact = deployment.release, deployment.artifact
                        places[slot] = self._placed(member, slot, release, artifact, address)
        return observed, places

    def _placed(
        self, member: Member, slot: Slot, release: str, artifact: str, address: str
    ) -> Placed:
        """Return what the route remembers of a slot; in the parent's cluster its Service's name."""
        own = self._scope.object(slot)
        return Placed(
            cluster=member.name,
            address=own if member is self._parent else address,
            release=release,
            artifact=artifact,
            server=member.api_server,
        )

    def _close(self, opened: Opened) -> None:
        """Remove the router with the last slot; while a cluster does not answer, keep it."""
        traffic = self._traffic(opened, {})
        states = self._directory.looks()
        if not any(isinstance(state, MlshipError) or state for state in states.values()):
            traffic.close()
