"""The clusters of a target that has several: how each is reached, and what people call it."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from mlship.adapters.http.retries import Patience
from mlship.adapters.targets.kubernetes import (
    fencing,
    gateway,
    router,
    router_manifests,
    router_routing,
    routing,
)
from mlship.adapters.targets.kubernetes.access import Access
from mlship.adapters.targets.kubernetes.api import Api, Manifest, connected
from mlship.adapters.targets.kubernetes.manifests import NEG, Scope
from mlship.adapters.targets.kubernetes.parents import Opened, Traffic
from mlship.adapters.targets.kubernetes.routing import Placed
from mlship.config.project import TargetConfig
from mlship.domain.deployment import Plan, Slot
from mlship.domain.fence import KERNEL, Fence
from mlship.errors import ConfigError, MlshipError

_QUICKLY: Final = Patience(deadline=3, attempts=1)
_QUICK_SECONDS: Final = 2.0
INTERNAL: Final = {
    "networking.gke.io/load-balancer-type": "Internal",
    "networking.gke.io/internal-load-balancer-allow-global-access": "true",
}
"""On GKE: an address inside the network, which its other regions reach too.

Source: https://cloud.google.com/kubernetes-engine/docs/how-to/internal-load-balancing
"""


GROUPS: Final = {NEG: '{"exposed_ports":{"80":{}}}'}
"""On GKE: network endpoint groups, which Google's load balancer sends requests to."""


class Member:
    """One cluster of a target, which may have the load balancer above all: the port `Parent`."""

    def __init__(
        self,
        name: str,
        target: TargetConfig,
        access: Callable[[], Access],
        fence: Fence = KERNEL,
    ) -> None:
        """Store the settings; no request is sent.

        Args:
            name: of the cluster in mlship.yaml.
            target: the target with all its clusters.
            access: how to reach this one, called once, when it is needed.
            fence: of the lock that is held; its number is carried by every write.
        """
        self._fence = fence
        cluster = target.clusters[name]
        self.name = name
        self.config = target.in_cluster(name)
        annotations = cluster.service_annotations
        if target.load_balancer is not None:
            self.entry: Mapping[str, str] = {**(annotations or {}), **GROUPS}
        elif annotations is not None:
            self.entry = annotations
        else:
            self.entry = INTERNAL if cluster.gke is not None else {}
        self.access = functools.cache(functools.partial(_accessed, name, access))

    @contextmanager
    def connected(self, *, quickly: bool = False) -> Iterator[Api]:
        """Open a client of its API server; nothing is requested yet.

        Args:
            quickly: give up after the first failure, for what is only shown.

        Raises:
            ConfigError: the settings give no access.
        """
        namespace = self.config.kubernetes.namespace
        if quickly:
            with connected(self.access, namespace, _QUICKLY, _QUICK_SECONDS) as api:
                yield api
        else:
            with fencing.connected(self.access, namespace, self._fence, self.name) as api:
                yield api

    @property
    def limits(self) -> str:
        """What a Gateway here does not do for slots in other clusters; empty without a Gateway."""
        return "" if self.config.kubernetes.gateway is None else gateway.LIMITS

    @contextmanager
    def opened(self, scope: Scope) -> Iterator[Opened]:
        """Open a client, for the route of mlship's own router, or at a Gateway."""
        with self.connected() as api:
            traffic = functools.partial(self._traffic, api, scope)
            yield Opened(api=api, cluster=api.cluster, traffic=traffic)

    def has_route(self, scope: Scope) -> bool:
        """Return whether a route here sends requests to slots; not if it cannot be read."""
        with suppress(MlshipError), self.connected(quickly=True) as api:
            return bool(self._traffic(api, scope, {}).read().slots)
        return False

    def rendered(self, scope: Scope, plan: Plan) -> tuple[list[Manifest], list[Manifest]]:
        """Return the router's objects in an empty target, if there is no Gateway, and the route."""
        own, split = self.config.kubernetes, plan.split
        if own.gateway is not None:
            route = split and routing.written(scope, own, None, split, frozenset(), {})
            return [], [route] if route else []
        route = split and router_routing.written(scope, self.config, None, split, frozenset(), {})
        before = router_manifests.render(scope, self.config, plan.artifact)
        return before, [route] if route else []

    @property
    def api_server(self) -> str:
        """The address of its API server."""
        return self.access().server.rstrip("/")

    @property
    def place(self) -> str:
        """Which cluster it is, for people."""
        if self.config.gke is not None:
            return f"cluster {self.config.gke.cluster} of {self.config.gke.project}"
        return f"context {self.config.kubernetes.context}"

    @property
    def command(self) -> str:
        """How a person scales down a cluster of Google; else what shows the rest of it."""
        gke, own = self.config.gke, self.config.kubernetes
        if gke is None:
            return f"kubectl --context {own.context} --namespace {own.namespace} get all"
        where = f"{gke.cluster} --location {gke.location} --project {gke.project}"
        return f"gcloud container clusters resize {where} --num-nodes 0"

    def _traffic(self, api: Api, scope: Scope, places: Mapping[Slot, Placed]) -> Traffic:
        if self.config.kubernetes.gateway is None:
            return router.Traffic(api, scope, self.config, places, cluster=self.name)
        return gateway.Traffic(api, scope, self.config.kubernetes, places)


def _accessed(name: str, access: Callable[[], Access]) -> Access:
    """Return how a cluster is reached.

    Raises:
        ConfigError: the settings give no access; the hint names those of this cluster.
    """
    try:
        return access()
    except ConfigError as error:
        hint = error.hint.replace("kubernetes.", f"clusters.{name}.")
        raise ConfigError(error.message, hint=hint) from error


def check_different(members: Sequence[Member]) -> None:
    """Check that no two names are of the same cluster.

    Raises:
        ConfigError: two have one API server.
    """
    known: dict[str, str] = {}
    for member in members:
        server = member.api_server
        if server in known:
            message = f"clusters {known[server]} and {member.name} are the same one: {server}"
            hint = "correct the contexts in mlship.yaml; or, for one cluster, remove `clusters`"
            raise ConfigError(message, hint=hint)
        known[server] = member.name
