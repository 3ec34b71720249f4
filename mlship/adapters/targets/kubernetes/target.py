"""KubernetesTarget: applies the desired state, waits, and observes."""

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from mlship.adapters.targets.kubernetes import (
    by_hand,
    fencing,
    gateway,
    manifests,
    router,
    router_manifests,
    router_routing,
    router_tls,
    routing,
)
from mlship.adapters.targets.kubernetes.access import Access
from mlship.adapters.targets.kubernetes.api import Api
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.parents import Prepared
from mlship.adapters.targets.kubernetes.slots import Slots, check_ready
from mlship.config.project import TargetConfig
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
from mlship.domain.fence import KERNEL, Fence
from mlship.domain.ports import Progress
from mlship.domain.release import Release


class KubernetesTarget:
    """Runs images as pods of a cluster, behind a Gateway: the ports Target and Declarative."""

    def __init__(
        self,
        scope: Scope,
        config: TargetConfig,
        access: Callable[[], Access],
        progress: Progress,
        *,
        spool_mb: int | None = None,
        fence: Fence = KERNEL,
    ) -> None:
        """Store the settings; no request is sent.

        Args:
            scope: the names and labels of its objects.
            config: the target's section of mlship.yaml.
            access: how to reach the cluster, called once, when it is needed.
            progress: hears how many replicas are ready.
            spool_mb: the size of a pod's spool for predictions; `None` if pods have none.
            fence: of the lock that is held; its number is carried by every write.
        """
        self._spool_mb = spool_mb
        self._scope = scope
        self._config = config
        self._access = functools.cache(access)
        self._progress = progress
        namespace = config.kubernetes.namespace
        self._open = functools.partial(fencing.connected, self._access, namespace, fence)

    def deploy(
        self, release: Release, artifact: Artifact, slot: Slot, *, replicas: int
    ) -> Deployment:
        """Run replicas in a slot, and return when all are ready.

        Where `max_replicas` lets a slot grow, one that has grown keeps what it has.

        Raises:
            ConflictError: the slot holds another artifact.
            TimedOutError: they were not ready within `ready_seconds`, with the reason.
            NotFoundError: the image, the namespace or the Gateway does not exist.
            ProjectError: a replica keeps exiting or cannot become ready; with its last log lines.
            UnavailableError: the cluster does not answer, or denies access.
        """
        plan = Plan(release=release, artifact=artifact, slot=slot, replicas=replicas)
        with self._open() as api:
            slots, traffic = self._slots(api), self._traffic(api)
            return slots.deploy(plan, traffic, lambda: self._close(slots, traffic))

    def inspect(self) -> Mapping[Slot, Deployment]:
        """Return the observed state of each slot, from its pods. Starts nothing."""
        with self._open() as api:
            return self._slots(api).deployments()

    def route(self, split: Split, *, expected: Revision) -> Revision:
        """Set the split by compare-and-set; return when the gateway applies it.

        Raises:
            ConflictError: the route is not at the expected revision; it stands as it was.
            NotFoundError: the split names a slot with no ready replica.
            ConfigError: the Gateway refuses the route, as one that knows no shadow does.
            UnavailableError: the route is written but the Gateway does not take it.
        """
        with self._open() as api:
            traffic = self._traffic(api)
            deployments = self._slots(api).deployments()
            if traffic.read().revision == expected:
                check_ready(self._scope, deployments, split.asked)
            return traffic.change(split, expected, running=frozenset(deployments))

    def routes(self) -> Route:
        """Return the split in the cluster, and the Gateway's address."""
        with self._open() as api:
            return self._traffic(api).route()

    def counts(self) -> Look:
        """Return what the router has counted of requests: the port Counted."""
        with self._open() as api:
            return self._traffic(api).counts()

    def certificate(self) -> bytes | None:
        """Return the certificate of mlship's own load balancer: the port Certified."""
        secret = self._config.kubernetes.tls_secret
        if secret is None:
            return None
        with self._open() as api:
            return router_tls.read(api, secret).certificate

    def check_certificate(self) -> datetime | None:
        """Check it, and return when it expires: the port Certified."""
        secret = self._config.kubernetes.tls_secret
        if secret is None:
            return None
        with self._open() as api:
            return router_tls.expiry(api, secret)

    def remove(self, slot: Slot) -> None:
        """Drain and stop a slot: remove it from the route, then its pods finish and end.

        Raises:
            ConflictError: the route still gives it traffic, or a copy of it.
            TimedOutError: its pods do not end.
        """
        with self._open() as api:
            traffic = self._traffic(api)
            slots = self._slots(api)
            traffic.forget(slot)
            slots.delete(slot)
            self._close(slots, traffic)

    def render(self, plan: Plan) -> Mapping[str, str]:
        """Return the objects of a slot, then the route without other parked slots, as YAML.

        Where the target names no Gateway, those of its router come first.

        Raises:
            ConfigError: the artifact is no image by digest, or there is no replica.
        """
        objects = manifests.render(
            self._scope,
            self._config,
            plan.release,
            plan.artifact,
            plan.slot,
            plan.replicas,
            spool_mb=self._spool_mb,
        )
        scope, config, split = self._scope, self._config, plan.split
        if self._is_plain:
            objects = [*router_manifests.render(scope, config, plan.artifact), *objects]
        if split is not None and self._is_plain:
            objects.append(router_routing.written(scope, config, None, split, frozenset()))
        elif split is not None:
            objects.append(routing.written(scope, config.kubernetes, None, split, frozenset()))
        return manifests.files(objects)

    def changes(self, plan: Plan) -> Sequence[Change]:
        """Return what would be written: the slot's objects, the route, and what is removed.

        The cluster computes it, defaults and webhooks included, and keeps nothing.

        Raises:
            ConflictError: the slot holds another artifact.
            NotFoundError: the split names a slot with no ready replica; or there is no Gateway.
        """
        with self._open() as api:
            slots, traffic = self._slots(api), self._traffic(api)
            traffic.check()
            of_slot, is_new = slots.planned(plan)
            changes = [*traffic.changes(plan.artifact, is_new=is_new), *of_slot]
            if plan.split is not None:
                observed = slots.deployments()
                check_ready(self._scope, observed, plan.split.asked - {plan.slot})
                running = (frozenset(observed) | {plan.slot}) - set(plan.removed)
                changes += traffic.planned(plan.split, running=running)
            return changes + [each for slot in plan.removed for each in slots.removal(slot)]

    def altered(self) -> Sequence[Altered]:
        """Return what somebody changed of the slots' objects and, without a Gateway, the router's.

        A route at a Gateway is compared with the ledger only, by its split.
        """
        with self._open() as api:
            route = by_hand.route_of(self._traffic(api).read)
            slots = set(self._slots(api).deployments()) | route.slots
            found = by_hand.of_slots(api, self._scope, self._config, slots)
            return found + self._traffic(api).altered("")

    def adopt(self) -> None:
        """Take objects as they are for what was written; the route is not among them."""
        with self._open() as api:
            for slot in self._slots(api).deployments():
                by_hand.adopt(api, manifests.kinds(self._config), self._scope.object(slot))
            self._traffic(api).adopt()

    def rewrite(self, split: Split) -> None:
        """Write the route anew, also if what is there cannot be read; see `Guarded`."""
        with self._open() as api:
            check_ready(self._scope, self._slots(api).deployments(), split.asked)
            self._traffic(api).rewrite(split)

    @property
    def _is_plain(self) -> bool:
        return self._config.kubernetes.gateway is None

    def _slots(self, api: Api) -> Slots:
        return Slots(api, self._scope, self._config, self._progress, spool_mb=self._spool_mb)

    def _traffic(self, api: Api) -> gateway.Traffic | router.Traffic:
        if self._is_plain:
            return router.Traffic(api, self._scope, self._config)
        return gateway.Traffic(api, self._scope, self._config.kubernetes)

    def _close(self, slots: Slots, traffic: Prepared) -> None:
        """Remove the router with the last slot."""
        if not slots.deployments():
            traffic.close()
