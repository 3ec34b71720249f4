"""KubernetesTarget: applies the desired state, waits, and observes."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from mlship.adapters.targets.kubernetes import (
    difference,
    fencing,
    gateway,
    manifests,
    observation,
    router,
    router_manifests,
    router_routing,
    routing,
)
from mlship.adapters.targets.kubernetes.access import Access
from mlship.adapters.targets.kubernetes.api import Api, Kind, Manifest
from mlship.adapters.targets.kubernetes.manifests import INSTANCE, SLOT, Scope
from mlship.adapters.targets.kubernetes.pod_status import is_leaving
from mlship.adapters.targets.kubernetes.waiting import Rollout
from mlship.config.project import TargetConfig
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
from mlship.domain.fence import KERNEL, Fence
from mlship.domain.ports import Progress
from mlship.domain.release import Release
from mlship.errors import ConflictError, MlshipError, NotFoundError, TimedOutError

_SCALED: tuple[Kind, ...] = ("HorizontalPodAutoscaler", "Deployment")
_PAUSE = 0.2
_END_SECONDS = 30.0


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
        rendered = self._objects(plan)
        with self._open() as api:
            traffic = self._traffic(api)
            traffic.check()
            before = self._before(api, slot)
            self._fit(rendered, plan, before.get("Deployment"))
            former = traffic.running()
            try:
                traffic.prepare(artifact, is_new="Deployment" not in before)
                for manifest in rendered:
                    api.apply(manifest)
                Rollout(api, self._scope, self._config, slot, self._progress).wait()
                traffic.wait(self._progress)
            except MlshipError:
                # The first error is the cause; an error while undoing must not hide it.
                with suppress(MlshipError):
                    traffic.restore(former)
                with suppress(MlshipError):
                    self._restore(api, slot, before)
                raise
            return observation.deployments(api, self._scope)[slot]

    def inspect(self) -> Mapping[Slot, Deployment]:
        """Return the observed state of each slot, from its pods. Starts nothing."""
        with self._open() as api:
            return observation.deployments(api, self._scope)

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
            deployments = observation.deployments(api, self._scope)
            if traffic.read().revision == expected:
                self._check_ready(deployments, split.asked)
            return traffic.change(split, expected, running=frozenset(deployments))

    def routes(self) -> Route:
        """Return the split in the cluster, and the Gateway's address."""
        with self._open() as api:
            return self._traffic(api).route()

    def remove(self, slot: Slot) -> None:
        """Drain and stop a slot: remove it from the route, then its pods finish and end.

        Raises:
            ConflictError: the route still gives it traffic, or a copy of it.
            TimedOutError: its pods do not end.
        """
        with self._open() as api:
            traffic = self._traffic(api)
            traffic.forget(slot)
            self._delete(api, slot)
            self._close(api, traffic)

    def render(self, plan: Plan) -> Mapping[str, str]:
        """Return the objects of a slot, then the route without other parked slots, as YAML.

        Where the target names no Gateway, those of its router come first.

        Raises:
            ConfigError: the artifact is no image by digest, or there is no replica.
        """
        objects = self._objects(plan)
        scope, config, split = self._scope, self._config, plan.split
        is_plain = config.kubernetes.gateway is None
        if is_plain:
            objects = [*router_manifests.render(scope, config, plan.artifact), *objects]
        if split is not None and is_plain:
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
        rendered = self._objects(plan)
        with self._open() as api:
            traffic = self._traffic(api)
            traffic.check()
            current = api.get("Deployment", self._scope.object(plan.slot))
            self._fit(rendered, plan, current)
            rendered = [*traffic.objects(plan.artifact, is_new=current is None), *rendered]
            pairs = [
                (api.get(each["kind"], each["metadata"]["name"]), api.apply(each, dry_run=True))
                for each in rendered
            ]
            changes = [change for pair in pairs for change in difference.of(api.cluster, *pair)]
            if plan.split is not None:
                observed = observation.deployments(api, self._scope)
                self._check_ready(observed, plan.split.asked - {plan.slot})
                running = (frozenset(observed) | {plan.slot}) - set(plan.removed)
                changes += difference.of(api.cluster, *traffic.planned(plan.split, running=running))
            for slot in plan.removed:
                for kind in reversed(manifests.kinds(self._config)):
                    before = api.get(kind, self._scope.object(slot))
                    changes += difference.of(api.cluster, before, None)
            return changes

    def _objects(self, plan: Plan) -> list[Manifest]:
        return manifests.render(
            self._scope,
            self._config,
            plan.release,
            plan.artifact,
            plan.slot,
            plan.replicas,
            spool_mb=self._spool_mb,
        )

    def _fit(self, rendered: list[Manifest], plan: Plan, current: Manifest | None) -> None:
        """Check that a slot may become this; keep the replicas of an autoscaler."""
        self._check_artifact(plan.slot, current, plan.artifact)
        deployment = next(each for each in rendered if each["kind"] == "Deployment")
        deployment["spec"]["replicas"] = self._count(current, plan.replicas)

    def _traffic(self, api: Api) -> gateway.Traffic | router.Traffic:
        if self._config.kubernetes.gateway is None:
            return router.Traffic(api, self._scope, self._config)
        return gateway.Traffic(api, self._scope, self._config.kubernetes)

    def _close(self, api: Api, traffic: gateway.Traffic | router.Traffic) -> None:
        """Remove the router with the last slot."""
        if not observation.deployments(api, self._scope):
            traffic.close()

    def _before(self, api: Api, slot: Slot) -> dict[Kind, Manifest]:
        """Return the slot's current objects; finish a removal that was started."""
        name = self._scope.object(slot)
        deployment = api.get("Deployment", name)
        if deployment is not None and is_leaving(deployment):
            self._delete(api, slot)
        before = {kind: api.get(kind, name) for kind in _SCALED}
        return {kind: manifest for kind, manifest in before.items() if manifest is not None}

    def _check_artifact(self, slot: Slot, current: Manifest | None, artifact: Artifact) -> None:
        wanted = manifests.digest_of(artifact.location)
        if current is not None and observation.image_of(current) != wanted:
            held = observation.image_of(current)
            message = f"slot {slot} of {self._scope.target} holds {held}, not {wanted}"
            raise ConflictError(message, hint="a slot runs one artifact: remove it first")

    def _count(self, current: Manifest | None, replicas: int) -> int:
        most = self._config.kubernetes.max_replicas
        if current is None or most is None:
            return replicas
        return min(max(replicas, int(current["spec"]["replicas"])), max(most, replicas))

    def _check_ready(self, deployments: Mapping[Slot, Deployment], needed: frozenset[Slot]) -> None:
        for slot in sorted(needed):
            if slot not in deployments or not deployments[slot].ready:
                message = f"slot {slot} of {self._scope.target} has no ready replica"
                raise NotFoundError(message, hint="deploy its release there, then route to it")

    def _restore(self, api: Api, slot: Slot, before: dict[Kind, Manifest]) -> None:
        """Undo a failed deploy: remove a new slot, restore an existing one."""
        if "Deployment" not in before:
            self._delete(api, slot, grace=0)
            self._close(api, self._traffic(api))
            return
        for kind, old in before.items():
            current = api.get(kind, old["metadata"]["name"])
            if current is not None:
                api.replace({**current, "spec": old["spec"]})

    def _delete(self, api: Api, slot: Slot, *, grace: int | None = None) -> None:
        """Delete a slot's objects; wait until its pods and its Deployment are gone."""
        name = self._scope.object(slot)
        for kind in reversed(manifests.kinds(self._config)):
            api.delete(kind, name)
        labels = {INSTANCE: self._scope.name, SLOT: slot}
        patience = 0.0
        deadline = time.monotonic() + _END_SECONDS
        while (pods := api.list("Pod", labels)) or api.get("Deployment", name):
            for pod in pods:
                patience = max(patience, pod["spec"]["terminationGracePeriodSeconds"])
                if grace is not None and pod["metadata"].get("deletionGracePeriodSeconds") != grace:
                    api.delete("Pod", pod["metadata"]["name"], grace=grace)
            if time.monotonic() >= deadline + patience:
                raise self._not_deleted(slot, pods)
            time.sleep(_PAUSE)

    def _not_deleted(self, slot: Slot, pods: list[Manifest]) -> TimedOutError:
        where = f"slot {slot} of {self._scope.target}"
        if not pods:
            message = f"{where} still has its Deployment, without pods"
            return TimedOutError(message, hint="see `kubectl describe deployment`")
        names = ", ".join(pod["metadata"]["name"] for pod in pods)
        message = f"{where} still has pods: {names}"
        return TimedOutError(message, hint="see `kubectl describe pod`; its node may be gone")
