"""The route of a target that names no Gateway, and the load balancer that mlship runs for it.

The same methods as `gateway.Traffic`. The pods of the router read the route from a ConfigMap, so
they need no right in the cluster and no agent: the kubelet writes it to their volumes, and Envoy
watches these.
"""

import time
from collections.abc import Mapping

import msgspec

from mlship.adapters.targets.kubernetes import (
    applied,
    by_hand,
    difference,
    network_policy,
    pod_status,
    reach,
    reference,
    revisions,
    router_counts,
    router_manifests,
    router_pods,
    router_routing,
    router_tls,
    routing,
)
from mlship.adapters.targets.kubernetes.api import Api, Manifest
from mlship.adapters.targets.kubernetes.applied import Asked
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.pauses import growing
from mlship.adapters.targets.kubernetes.router_manifests import (
    REPLICAS,
    ROUTER,
    instance_of,
    name_of,
)
from mlship.adapters.targets.kubernetes.routing import Placed, Written
from mlship.adapters.targets.kubernetes.waiting import Rollout, address_of, wait_for_address
from mlship.config.project import TargetConfig
from mlship.domain.counts import Look
from mlship.domain.deployment import Artifact, Change, Revision, Route, Slot, Split
from mlship.domain.drift import Altered
from mlship.domain.ports import Progress
from mlship.errors import ConflictError, TimedOutError, UnavailableError

_AGREEING = 14
"""Answers of two pods, chosen at random: one that lags is missed once in 2**14 times."""
_SETTLE_SECONDS = 3.0
_WARM_SECONDS = 1.0
_PAUSE = 0.2
_END_SECONDS = 30.0


class Traffic:
    """The ConfigMap with the route of one target, and the router that reads it."""

    def __init__(
        self,
        api: Api,
        scope: Scope,
        config: TargetConfig,
        places: Mapping[Slot, Placed] | None = None,
        *,
        cluster: str = "",
    ) -> None:
        """Store what is needed; nothing is requested.

        Args:
            api: of the router's cluster.
            scope: of the target.
            config: of the target, in that cluster.
            places: where slots were observed, if the target has several clusters.
            cluster: its name in mlship.yaml, if the target has several.
        """
        self._api = api
        self._scope = scope
        self._config = config
        self._places = places
        self._cluster = cluster
        self._before: pod_status.Before | None = None
        self._name = name_of(scope)
        self._secret = config.kubernetes.tls_secret
        self._kinds = router_manifests.kinds(config)

    def objects(self, artifact: Artifact, *, is_new: bool) -> list[Manifest]:
        """Return what a deployment of an artifact applies besides its slot.

        Only a new slot brings a new image: a rollback must not wait for another router.

        Raises:
            NotFoundError: the registry has no image of a router.
        """
        running = self.running()
        if running is not None and not (is_new and artifact.router):
            written = reference.of(running) or running
            (container,) = written["spec"]["template"]["spec"]["containers"]
            artifact = msgspec.structs.replace(artifact, router=container["image"])
        return router_manifests.render(self._scope, self._config, artifact)

    def changes(self, artifact: Artifact, *, is_new: bool) -> list[Change]:
        """Return what `prepare` would change. Nothing is written."""
        objects = self.objects(artifact, is_new=is_new)
        return [change for each in objects for change in difference.applied(self._api, each)]

    def counts(self) -> Look:
        """Return what the pods have counted of requests; see `router_counts.read`."""
        return router_counts.read(self._api, self._scope)

    def check(self) -> None:
        """Check that the route may be changed, before a deployment.

        Raises:
            ConflictError: it is another project's, or an HTTPRoute has the traffic.
            IntegrityError: it is not a route that mlship wrote.
            NotFoundError, ConfigError: clients would refuse its certificate; see `router_tls`.
        """
        self.read()
        router_pods.check_rights(self._api)
        router_tls.check(self._api, self._secret, self.running)

    def prepare(self, artifact: Artifact, *, is_new: bool) -> None:
        """Apply the router; its first route has no slot. The arguments are those of `objects`.

        Raises:
            NotFoundError: the registry has no image of a router.
        """
        rendered = self.objects(artifact, is_new=is_new)
        if self.read().manifest is None:
            first = self._written(None, Split(), frozenset())
            try:
                self._api.create(first)
            except ConflictError:
                self.read()
        if (running := self.running()) is not None:
            pods = self._api.list("Pod", router_manifests.selector_of(self._scope))
            self._before = pod_status.before(running, pods)
        service, *others = rendered
        for manifest in (router_tls.open_during(self._api, service), *others):
            self._api.apply(reference.kept(self._api, manifest))
        network_policy.retract(self._api, self._config, self._name)

    def wait(self, progress: Progress) -> None:
        """Wait until the router is rolled out and has an address.

        Raises:
            as `Rollout.wait`; TimedOutError: its Service got no address; see `wait_for_address`.
        """
        Rollout(
            self._api,
            self._scope,
            self._config,
            ROUTER,
            progress,
            before=self._before,
            instance=instance_of(self._scope),
            cluster=self._cluster,
        ).wait()
        hint = "see `kubectl describe service`: the cluster may have no load balancers; "
        hint += "then set kubernetes.service: ClusterIP, or kubernetes.gateway"
        wait_for_address(self._api, self._name, self._config.ready_seconds, hint, progress)
        router_tls.close_former(self._api, router_manifests.service(self._scope, self._config))
        router_tls.tell(self._api, self._secret, progress)

    def running(self) -> Manifest | None:
        """Return the Deployment of the router, to restore it after a failure."""
        return self._api.get("Deployment", self._name)

    def restore(self, former: Manifest | None) -> None:
        """Give the router the spec of a former one again, if there was one."""
        current = self.running()
        if former is not None and current is not None and former["spec"] != current["spec"]:
            self._api.replace(reference.restored(current, former))

    def close(self) -> None:
        """Remove the router of a target in which nothing runs.

        Raises:
            TimedOutError: its pods do not end.
        """
        for kind in reversed(self._kinds):
            self._api.delete(kind, self._name)
        network_policy.retract(self._api, self._config, self._name)
        labels = router_manifests.selector_of(self._scope)
        patience, pauses = 0.0, growing(_PAUSE)
        deadline = time.monotonic() + _END_SECONDS
        while (pods := self._api.list("Pod", labels)) or self.running():
            for pod in pods:
                patience = max(patience, pod["spec"]["terminationGracePeriodSeconds"])
            if time.monotonic() >= deadline + patience:
                message = f"the router of {self._scope.target} still has pods"
                raise TimedOutError(message, hint="see `kubectl describe pod`")
            time.sleep(next(pauses))
        self._api.delete("ConfigMap", self._name)

    def read(self) -> Written:
        """Return the route as it is written; before the first, one without weights.

        Raises:
            IntegrityError: it is not a route that mlship wrote.
            ConflictError: it is another project's, or an HTTPRoute has the traffic.
        """
        manifest = self._api.get("ConfigMap", self._name)
        if manifest is None:
            self._check_no_gateway()
        return router_routing.read(self._scope, manifest)

    def route(self) -> Route:
        """Return the split, its revision, and the endpoint for requests."""
        written = self.read()
        return Route(split=written.split, revision=written.revision, endpoint=self.endpoint())

    def endpoint(self) -> str:
        """Return the address for clients: of the configured host, else of the Service.

        It is empty before the first deployment, and as long as the Service has no address.
        """
        return self._url(self._config.kubernetes.host)

    def state(self) -> str:
        """Return the endpoint and how many replicas are ready, for people.

        Raises:
            UnavailableError: the router runs, and no replica of it is ready.
            ConflictError, IntegrityError: see `read`.
        """
        self.read()
        if self.running() is None:
            return "comes with the first deployment"
        count = router_pods.check_ready(self._api, self._scope)
        return f"{self.endpoint() or 'without an address'}, {count} of {REPLICAS} replicas ready"

    def change(self, split: Split, expected: Revision, *, running: frozenset[Slot]) -> Revision:
        """Write a split if the route is at the expected revision; return when it is applied.

        Args:
            split: the new split.
            expected: the revision that it replaces.
            running: the existing slots; no other one stays parked.

        Raises:
            ConflictError: the route is at another revision and unchanged.
            UnavailableError: the route is written, but the router does not apply it, or does not
                run.
        """
        before = self.read()
        unknown = split.slots - before.slots
        if unknown:
            written = self._write(expected, before.split, before.parked | unknown)
            self._apply(written)
            # The router looks up the addresses of the new Services.
            time.sleep(_WARM_SECONDS)
            expected = self._reached(written, unknown, before)
        written = self._write(expected, split, (before.slots | unknown) & running)
        if not self._apply(written, is_new=written.revision != before.revision):
            self._check_runs()
        return written.revision

    def reaches(self, slot: Slot) -> bool | None:
        """Return whether the router reaches a slot; `None` if the router cannot be asked."""
        if not (url := self._url()):
            return None
        trust = router_tls.trust(self._api, self.running)
        answer = reach.answer_of(url, slot, self._config.kubernetes.host, trust)
        return None if answer is None else answer.is_success

    def planned(self, split: Split, *, running: frozenset[Slot]) -> list[Change]:
        """Return what `change` would write to the ConfigMap. Nothing is written.

        The arguments are those of `change`.
        """
        before = self.read()
        parked = (before.slots | split.slots) & running
        manifest = self._written(before.manifest, split, parked)
        write = self._api.replace if before.manifest else self._api.create
        return difference.of(self._api.cluster, before.manifest, write(manifest, dry_run=True))

    def altered(self, cluster: str) -> list[Altered]:
        """Return what somebody changed of the router, and of its ConfigMap."""
        return by_hand.of_router(self._api, self._scope, self._kinds, cluster)

    def adopt(self) -> None:
        """Take the router as it is for what was written."""
        by_hand.adopt(self._api, self._kinds, self._name)

    def rewrite(self, split: Split) -> None:
        """Write a split over whatever is there; return when it is applied.

        Raises:
            ConflictError: it is another project's, or is written to at this moment.
        """
        router_pods.check_rights(self._api)
        before = self._api.get("ConfigMap", self._name)
        fresh = self._written(None, split, frozenset())
        written = revisions.overwrite(self._api, self._scope, before, fresh)
        self._apply(router_routing.read(self._scope, written))

    def forget(self, slot: Slot) -> None:
        """Remove a slot without traffic from the route.

        Raises:
            ConflictError: it has traffic, or a copy of it.
        """
        current = self.read()
        rest = routing.forgotten(self._scope, current, slot)
        if rest is not None:
            self._apply(self._write(current.revision, *rest))

    def _reached(self, written: Written, slots: frozenset[Slot], before: Written) -> Revision:
        """Check that the router reaches new slots in other clusters, before they get traffic.

        Raises:
            UnavailableError: it does not; the route is as before.
        """
        for slot in sorted(slots & set(self._places or ())):
            if not reach.arrives(self.reaches, slot):
                self._apply(self._write(written.revision, before.split, before.parked))
                place = written.places[slot]
                raise reach.unreached(self._api.cluster, self._scope, slot, place)
        return written.revision

    def _written(self, before: Manifest | None, split: Split, parked: frozenset[Slot]) -> Manifest:
        return router_routing.written(
            self._scope, self._config, before, split, parked, self._places
        )

    def _write(self, expected: Revision, split: Split, parked: frozenset[Slot]) -> Written:
        """Write the route by compare-and-set, unless it stays as it is."""

        def put(current: Written) -> Written:
            manifest = self._written(current.manifest, split, parked)
            if manifest is current.manifest:
                return current
            router_pods.check_rights(self._api)
            write = self._api.replace if current.manifest else self._api.create
            return router_routing.read(self._scope, write(manifest))

        return revisions.compare_and_set(self._scope, expected, self.read, put)

    def _check_runs(self) -> None:
        """Check that a router runs whose answers do not come here.

        Raises:
            UnavailableError: the route is written, and nobody applies it.
        """
        if self._api.get("Service", self._name) is None:
            raise router_pods.unavailable(f"{self._api.cluster} has no Service {self._name}")
        router_pods.check_ready(self._api, self._scope)

    def _apply(self, written: Written, *, is_new: bool = True) -> bool:
        """Wait until the answers of the router name the route; return whether they did.

        Pods are not written to where the route was there before and all answers name it.
        """
        if not (url := self._url()):
            return False
        hint = "see `kubectl describe pod --selector app.kubernetes.io/instance="
        hint += f"{instance_of(self._scope)}`, then run it again"
        nudges = router_pods.Nudges(self._api, self._scope, written.name, is_new=is_new)
        asked = Asked(
            url=url,
            host=self._config.kubernetes.host,
            trust=router_tls.trust(self._api, self.running),
            agreeing=_AGREEING,
            settle_seconds=_SETTLE_SECONDS,
            hint=hint,
            nudge=nudges.step,
        )
        is_heard = applied.wait(asked, written.name)
        nudges.finish()
        return is_heard

    def _url(self, host: str | None = None) -> str:
        """Return the URL of requests; empty as long as the Service has no address."""
        service = self._api.get("Service", self._name)
        if service is None or not (address := address_of(service)):
            return ""
        scheme = router_tls.scheme(service, self.running)
        return f"{scheme}://{host or address}{self._config.kubernetes.path.rstrip('/')}"

    def _check_no_gateway(self) -> None:
        """Refuse a target whose traffic a Gateway has: it would be moved silently.

        Raises:
            ConflictError: there is such a route.
        """
        try:
            route = self._api.get("HTTPRoute", self._scope.name)
        except UnavailableError:
            # The cluster has no Gateway API, or we have no right there: neither had a route.
            return
        if route is not None:
            parent = route["spec"]["parentRefs"][0]
            gateway = f"{parent.get('namespace', self._api.namespace)}/{parent['name']}"
            message = f"HTTPRoute {self._scope.name} has the traffic of target "
            message += f"{self._scope.target}, which names no Gateway"
            hint = f"set targets.{self._scope.target}.kubernetes.gateway: {gateway}; or retire all "
            hint += f"releases there, then `kubectl delete httproute {self._scope.name}`"
            raise ConflictError(message, hint=hint)
