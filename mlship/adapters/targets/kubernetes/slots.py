"""The slots of a target in one cluster: deployed, observed and removed. The route is apart."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from mlship.adapters.targets.kubernetes import (
    difference,
    manifests,
    observation,
    pod_status,
    reference,
)
from mlship.adapters.targets.kubernetes.api import Api, Kind, Manifest
from mlship.adapters.targets.kubernetes.manifests import INSTANCE, NEG, SLOT, Scope
from mlship.adapters.targets.kubernetes.parents import Prepared
from mlship.adapters.targets.kubernetes.pauses import growing
from mlship.adapters.targets.kubernetes.pod_status import Before, is_leaving
from mlship.adapters.targets.kubernetes.waiting import Rollout, address_of, wait_for_address
from mlship.config.project import TargetConfig
from mlship.domain.deployment import Artifact, Change, Deployment, Plan, Slot
from mlship.domain.ports import Progress
from mlship.errors import ConflictError, MlshipError, NotFoundError, TimedOutError

_SCALED: tuple[Kind, ...] = ("HorizontalPodAutoscaler", "Deployment")
_PAUSE = 0.2
_END_SECONDS = 30.0


class Slots:
    """The slots in one namespace of one cluster."""

    def __init__(
        self,
        api: Api,
        scope: Scope,
        config: TargetConfig,
        progress: Progress,
        entry: Mapping[str, str] | None = None,
        *,
        spool_mb: int | None = None,
        cluster: str = "",
    ) -> None:
        """Store what is needed; nothing is requested.

        Args:
            api: of the namespace.
            scope: of the target.
            config: of the target, in this cluster.
            progress: hears how many replicas are ready.
            entry: annotations of the Services, if slots are reached from other clusters.
            spool_mb: the size of a pod's spool for predictions; `None` if pods have none.
            cluster: its name in mlship.yaml, if the target has several.
        """
        self._cluster = cluster
        self._api = api
        self._scope = scope
        self._config = config
        self._progress = progress
        self._entry = entry
        self._spool_mb = spool_mb

    def deployments(self) -> Mapping[Slot, Deployment]:
        """Return the observed state of each slot.

        Raises:
            ConfigError: a slot was put into a cluster of another name.
        """
        return observation.deployments(self._api, self._scope, self._cluster)

    def objects(self, plan: Plan) -> list[Manifest]:
        """Return the objects of a slot as they are written.

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
            entry=self._entry,
            spool_mb=self._spool_mb,
        )
        return manifests.in_cluster(objects, self._cluster)

    def deploy(self, plan: Plan, traffic: Prepared, close: Callable[[], None]) -> Deployment:
        """Run a plan's replicas in its slot, and return when all are ready; see the target.

        Args:
            plan: of the deployment.
            traffic: the route, which gets ready for requests but does not change.
            close: called after a failed first deployment: it removes the load balancer if nothing
                runs.
        """
        rendered = self.objects(plan)
        traffic.check()
        before = self._before(plan.slot)
        self._fit(rendered, plan, before.get("Deployment"))
        former, known = traffic.running(), self._known(plan.slot, before.get("Deployment"))
        try:
            traffic.prepare(plan.artifact, is_new="Deployment" not in before)
            for manifest in rendered:
                self._api.apply(reference.kept(self._api, manifest))
            self._roll_out(plan.slot, known)
            if self._entry is not None:
                self._wait_for_entry(plan.slot)
            traffic.wait(self._progress)
        except MlshipError:
            # The first error is the cause; an error while undoing must not hide it.
            with suppress(MlshipError):
                traffic.restore(former)
            with suppress(MlshipError):
                self._restore(plan.slot, before, close)
            raise
        return self.deployments()[plan.slot]

    def address(self, slot: Slot) -> str:
        """Return where the parent of other clusters sends a slot's requests; empty if nowhere."""
        service = self._api.get("Service", self._scope.object(slot))
        return address_of(service) if service else ""

    def planned(self, plan: Plan) -> tuple[list[Change], bool]:
        """Return how a plan would change the objects of its slot, and whether the slot is new.

        Raises:
            ConflictError: the slot holds another artifact.
        """
        rendered = self.objects(plan)
        current = self._api.get("Deployment", self._scope.object(plan.slot))
        self._fit(rendered, plan, current)
        changes = [change for each in rendered for change in difference.applied(self._api, each)]
        return changes, current is None

    def removal(self, slot: Slot) -> list[Change]:
        """Return the deletion of a slot's objects."""
        changes = []
        for kind in reversed(manifests.kinds(self._config)):
            before = self._api.get(kind, self._scope.object(slot))
            changes += difference.of(self._api.cluster, before, None)
        return changes

    def delete(self, slot: Slot, *, grace: int | None = None) -> None:
        """Delete a slot's objects; wait until its pods and its Deployment are gone.

        Raises:
            TimedOutError: its pods do not end.
        """
        name = self._scope.object(slot)
        for kind in reversed(manifests.kinds(self._config)):
            self._api.delete(kind, name)
        labels = self._labels(slot)
        patience, pauses = 0.0, growing(_PAUSE)
        deadline = time.monotonic() + _END_SECONDS
        while (pods := self._api.list("Pod", labels)) or self._api.get("Deployment", name):
            for pod in pods:
                patience = max(patience, pod["spec"]["terminationGracePeriodSeconds"])
                if grace is not None and pod["metadata"].get("deletionGracePeriodSeconds") != grace:
                    self._api.delete("Pod", pod["metadata"]["name"], grace=grace)
            if time.monotonic() >= deadline + patience:
                raise self._not_deleted(slot, pods)
            time.sleep(next(pauses))

    def _fit(self, rendered: list[Manifest], plan: Plan, current: Manifest | None) -> None:
        """Check that a slot may become this; keep the replicas of an autoscaler."""
        self._check_artifact(plan.slot, current, plan.artifact)
        deployment = next(each for each in rendered if each["kind"] == "Deployment")
        deployment["spec"]["replicas"] = self._count(current, plan.replicas)

    def _before(self, slot: Slot) -> dict[Kind, Manifest]:
        """Return the slot's current objects; finish a removal that was started."""
        name = self._scope.object(slot)
        deployment = self._api.get("Deployment", name)
        if deployment is not None and is_leaving(deployment):
            self.delete(slot)
        before = {kind: self._api.get(kind, name) for kind in _SCALED}
        return {kind: manifest for kind, manifest in before.items() if manifest is not None}

    def _check_artifact(self, slot: Slot, current: Manifest | None, artifact: Artifact) -> None:
        wanted = manifests.digest_of(artifact.location)
        # As mlship wrote it: an image that somebody else set is written over.
        held = observation.image_of(reference.of(current) or current) if current else wanted
        if held != wanted:
            message = f"slot {slot} of {self._scope.target} holds {held}, not {wanted}"
            raise ConflictError(message, hint="a slot runs one artifact: remove it first")

    def _count(self, current: Manifest | None, replicas: int) -> int:
        most = self._config.kubernetes.max_replicas
        if current is None or most is None:
            return replicas
        return min(max(replicas, int(current["spec"]["replicas"])), max(most, replicas))

    def _known(self, slot: Slot, deployment: Manifest | None) -> Before | None:
        """Return what is there before a slot is written: it may be what is to be repaired."""
        if deployment is None:
            return None
        return pod_status.before(deployment, self._api.list("Pod", self._labels(slot)))

    def _roll_out(self, slot: Slot, before: Before | None) -> None:
        Rollout(
            self._api,
            self._scope,
            self._config,
            slot,
            self._progress,
            before=before,
            cluster=self._cluster,
        ).wait()

    def _labels(self, slot: Slot) -> dict[str, str]:
        return {INSTANCE: self._scope.name, SLOT: slot}

    def _wait_for_entry(self, slot: Slot) -> None:
        hint = "see `kubectl describe service`: the cluster may have no load balancers, and the "
        hint += "parent in another cluster needs an address"
        if self._entry is not None and NEG in self._entry:
            hint = "see `kubectl describe service`: GKE makes network endpoint groups (NEGs) in "
            hint += "VPC-native clusters with the add-on HttpLoadBalancing"
        name, seconds = self._scope.object(slot), self._config.ready_seconds
        wait_for_address(self._api, name, seconds, hint, self._progress)

    def _restore(self, slot: Slot, before: dict[Kind, Manifest], close: Callable[[], None]) -> None:
        """Undo a failed deploy: remove a new slot, restore an existing one."""
        if "Deployment" not in before:
            self.delete(slot, grace=0)
            close()
            return
        for kind, old in before.items():
            current = self._api.get(kind, old["metadata"]["name"])
            if current is not None:
                self._api.replace(reference.restored(current, old))

    def _not_deleted(self, slot: Slot, pods: list[Manifest]) -> TimedOutError:
        where = f"slot {slot} of {self._scope.target}"
        if not pods:
            message = f"{where} still has its Deployment, without pods"
            return TimedOutError(message, hint="see `kubectl describe deployment`")
        names = ", ".join(pod["metadata"]["name"] for pod in pods)
        message = f"{where} still has pods: {names}"
        return TimedOutError(message, hint="see `kubectl describe pod`; its node may be gone")


def check_ready(
    scope: Scope, deployments: Mapping[Slot, Deployment], needed: frozenset[Slot]
) -> None:
    """Check that slots which get requests have a ready replica.

    Raises:
        NotFoundError: one has none.
    """
    for slot in sorted(needed):
        if slot not in deployments or not deployments[slot].ready:
            message = f"slot {slot} of {scope.target} has no ready replica"
            raise NotFoundError(message, hint="deploy its release there, then route to it")
