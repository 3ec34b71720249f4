"""The target's route in the cluster: read, changed by compare-and-set, and awaited."""

import time
from collections.abc import Mapping
from typing import Final

from mlship.adapters.targets.envoy.routes import SLOT
from mlship.adapters.targets.kubernetes import (
    applied,
    by_hand,
    difference,
    reach,
    revisions,
    router_manifests,
    routing,
)
from mlship.adapters.targets.kubernetes.api import Api, Manifest
from mlship.adapters.targets.kubernetes.applied import Asked
from mlship.adapters.targets.kubernetes.entries import Entries
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.parents import MadeByOthers
from mlship.adapters.targets.kubernetes.revisions import POLL_SECONDS
from mlship.adapters.targets.kubernetes.routing import Placed, Written
from mlship.config.targets import KubernetesConfig
from mlship.domain.deployment import Change, Revision, Route, Slot, Split
from mlship.domain.drift import Altered
from mlship.errors import ConfigError, ConflictError, NotFoundError, UnavailableError

_ACCEPT_SECONDS = 20.0
_AGREEING = 5
_SETTLE_SECONDS = 0.5
_RESOLVE_SECONDS = 5.0
"""A controller may hear of a route before it hears of the Services that the route names."""
_PORTS = {"HTTP": 80, "HTTPS": 443}
_OF_GOOGLE = "gke-l7-"
LIMITS: Final = (
    "no share falls back: if a cluster is out of reach, its share fails until a rollback"
)
"""What the parent of several clusters does not do at a Gateway, for people."""


class Traffic(MadeByOthers):
    """The HTTPRoute of one target, and the Gateway that it belongs to."""

    def __init__(
        self,
        api: Api,
        scope: Scope,
        config: KubernetesConfig,
        places: Mapping[Slot, Placed] | None = None,
    ) -> None:
        """Store what is needed; nothing is requested.

        Args:
            api: of the Gateway's cluster.
            scope: of the target.
            config: of that cluster.
            places: where slots were observed, if the target has several clusters.
        """
        self._api = api
        self._scope = scope
        self._config = config
        self._places = places
        self._entries = Entries(api, scope)

    def check(self) -> None:
        """Check that the Gateway has an address and the route may be changed.

        Raises:
            NotFoundError: the Gateway does not exist.
            UnavailableError: it has no address yet; or the cluster has no Gateway API.
            ConflictError: the route is another project's, or a router has the traffic.
            ConfigError: the target has several clusters, and the Gateway reaches only its own.
        """
        self.endpoint()
        self.read()
        self._check_class()

    def close(self) -> None:
        """Do nothing: the route of a target without slots stays."""

    def read(self) -> Written:
        """Return the route as it is written; before the first, one without weights.

        Raises:
            IntegrityError: it is not a route that mlship wrote.
            ConflictError: it is another project's, or a router of mlship has the traffic.
            UnavailableError: the cluster has no Gateway API.
        """
        manifest = self._api.get("HTTPRoute", self._scope.name)
        router = router_manifests.name_of(self._scope)
        if manifest is None and self._api.get("Deployment", router) is not None:
            message = f"Deployment {router} has the traffic of target {self._scope.target}, "
            message += f"which names Gateway {self._config.gateway}"
            hint = f"remove targets.{self._scope.target}.kubernetes.gateway; or retire all "
            raise ConflictError(
                message, hint=hint + "releases there, which removes it, then deploy"
            )
        return routing.read(self._scope, manifest)

    def route(self) -> Route:
        """Return the split, its revision, and the endpoint for requests."""
        written = self.read()
        return Route(split=written.split, revision=written.revision, endpoint=self.endpoint())

    def endpoint(self) -> str:
        """Return the address for clients: of the configured host, else of the Gateway.

        Raises:
            NotFoundError: the Gateway does not exist.
            UnavailableError: it has no address yet; or the cluster has no Gateway API.
        """
        gateway = self._gateway()
        listener = gateway["spec"]["listeners"][0]
        addresses = gateway.get("status", {}).get("addresses") or ()
        host = self._config.host or next((address["value"] for address in addresses), None)
        if host is None:
            message = f"Gateway {self._config.gateway} of {self._api.cluster} has no address yet"
            hint = "see `kubectl describe gateway`; its controller may not run"
            raise UnavailableError(message, hint=hint)
        scheme, port = str(listener["protocol"]).lower(), int(listener["port"])
        shown = "" if port == _PORTS.get(listener["protocol"]) else f":{port}"
        return f"{scheme}://{host}{shown}{self._config.path.rstrip('/')}"

    def change(self, split: Split, expected: Revision, *, running: frozenset[Slot]) -> Revision:
        """Write a split if the route is at the expected revision; return when it is applied.

        Args:
            split: the new split.
            expected: the revision that it replaces.
            running: the existing slots; no other one stays parked.

        Raises:
            ConflictError: the route is at another revision and unchanged; or it is the first one,
                and another route has its address.
            ConfigError: the gateway rejects the split; the route is unchanged.
            UnavailableError: the route is written, but the gateway does not accept it; or the
                gateway does not reach a new slot in another cluster: the route is as before.
        """
        before = self.read()
        if before.manifest is None:
            self._check_address()
        if self._places is not None and before.revision == expected:
            self._entries.write(self._places)
        unknown = split.slots - before.slots
        if before.manifest is not None and unknown:
            written = self._write(expected, before.split, before.parked | unknown)
            self._check_reached(written, unknown, before, is_heard=self._accept(written, before))
            expected = written.revision
        written = self._write(expected, split, (before.slots | unknown) & running)
        is_heard = self._accept(written, before)
        if before.manifest is None:
            self._check_reached(written, unknown, before, is_heard=is_heard)
        return written.revision

    def altered(self, cluster: str) -> list[Altered]:
        """Return whether the route can be read; its split is compared elsewhere."""
        return by_hand.of_gateway(self._api, self._scope, cluster)

    def adopt(self) -> None:
        """Do nothing: the cluster's administrator makes the Gateway."""

    def rewrite(self, split: Split) -> None:
        """Write a split over whatever is there; return when the gateway applies it.

        Raises:
            ConflictError: it is another project's, or is written to at this moment.
            ConfigError, UnavailableError: as `change`.
        """
        if self._places is not None:
            self._entries.write(self._places)
        before = self._api.get("HTTPRoute", self._scope.name)
        fresh = self._written(None, split, frozenset())
        written = revisions.overwrite(self._api, self._scope, before, fresh)
        self._accept(routing.read(self._scope, written), Written())

    def reaches(self, slot: Slot) -> bool | None:
        """Return whether the gateway reaches a slot; `None` if it cannot be asked."""
        answer = reach.answer_of(self.endpoint(), slot)
        if answer is None:
            return None
        if answer.is_server_error:
            return False
        # Without the name of the slot, another rule has answered, or another server.
        return True if answer.is_success and answer.headers.get(SLOT) == slot else None

    def planned(self, split: Split, *, running: frozenset[Slot]) -> list[Change]:
        """Return what `change` would write, as completed by the cluster. Nothing is written.

        The Gateway's controller only sees routes that are written.

        Args:
            split: the new split.
            running: the slots that exist then; what leads to others is removed.
        """
        before = self.read()
        parked = (before.slots | split.slots) & running
        manifest = self._written(before.manifest, split, parked)
        write = self._api.replace if before.manifest else self._api.create
        route = difference.of(self._api.cluster, before.manifest, write(manifest, dry_run=True))
        return [*self._entries.planned(self._places or {}, before.slots - running), *route]

    def forget(self, slot: Slot) -> None:
        """Remove a slot without traffic from the route.

        Raises:
            ConflictError: it has traffic, or a copy of it.
        """
        current = self.read()
        rest = routing.forgotten(self._scope, current, slot)
        if rest is not None:
            self._accept(self._write(current.revision, *rest), current)
        if self._places is not None:
            self._entries.remove(slot)

    def _check_reached(
        self, written: Written, slots: frozenset[Slot], before: Written, *, is_heard: bool
    ) -> None:
        """Check that the gateway reaches new slots in other clusters.

        Args:
            written: the current route.
            slots: that are new to it.
            before: the former route.
            is_heard: whether answers named the route, so that they must name a slot too.

        Raises:
            UnavailableError: it does not; the route is as before.
        """
        for slot in sorted(slots & set(self._places or ())):
            if not reach.arrives(self._answers if is_heard else self.reaches, slot):
                self._put_back(written, before)
                place = written.places[slot]
                raise reach.unreached(self._api.cluster, self._scope, slot, place)

    def _answers(self, slot: Slot) -> bool:
        return self.reaches(slot) is True

    def _check_class(self) -> None:
        """Refuse a Gateway that sends requests to pods of its own cluster only.

        Google's controller leaves out addresses of a Service that are no pod's:
        https://github.com/kubernetes/ingress-gce/blob/master/pkg/neg/syncers/utils.go

        Raises:
            ConfigError: it is one of Google's, and the target has several clusters.
        """
        if self._places is None:
            return
        name = str(self._gateway()["spec"].get("gatewayClassName", ""))
        if name.startswith(_OF_GOOGLE):
            message = f"Gateway {self._config.gateway} of {self._api.cluster} has class {name}, "
            message += "which sends requests to pods of its own cluster only"
            hint = "remove kubernetes.gateway: mlship's own load balancer reaches all clusters; or "
            hint += "name a Gateway of another class, as Envoy Gateway and Contour have"
            raise ConfigError(message, hint=hint)

    def _written(self, before: Manifest | None, split: Split, parked: frozenset[Slot]) -> Manifest:
        return routing.written(self._scope, self._config, before, split, parked, self._places)

    def _write(self, expected: Revision, split: Split, parked: frozenset[Slot]) -> Written:
        """Write the route by compare-and-set."""

        def put(current: Written) -> Written:
            manifest = self._written(current.manifest, split, parked)
            if manifest is current.manifest:
                return current
            write = self._api.replace if current.manifest else self._api.create
            return routing.read(self._scope, write(manifest))

        return revisions.compare_and_set(self._scope, expected, self.read, put)

    def _accept(self, written: Written, before: Written) -> bool:
        """Wait until the gateway accepts the route; restore the former one if it rejects it.

        Returns:
            Whether answers name the route.
        """
        started = time.monotonic()
        deadline = started + _ACCEPT_SECONDS
        while True:
            manifest = self._api.get("HTTPRoute", self._scope.name)
            current = routing.read(self._scope, manifest)
            if manifest is None or current.revision != written.revision:
                raise revisions.conflict(self._scope, current.revision, written.revision)
            verdict = routing.verdict(manifest, self._config)
            if verdict is True:
                return applied.wait(_asked(self.endpoint()), written.name)
            is_early = time.monotonic() < started + _RESOLVE_SECONDS
            if isinstance(verdict, str) and not (is_early and routing.MISSING in verdict):
                self._put_back(written, before)
                message = f"Gateway {self._config.gateway} rejects the route of"
                message = f"{message} {self._scope.target}: {verdict}"
                hint = "correct the section `kubernetes` of the target"
                hint += "; this Gateway may not support a shadow" if written.split.shadow else ""
                raise ConfigError(message, hint=hint)
            if time.monotonic() >= deadline:
                message = f"the route of {self._scope.target} is written, but"
                message = f"{message} Gateway {self._config.gateway} does not accept it"
                hint = f"`kubectl describe httproute {self._scope.name}`, and its controller's log"
                raise UnavailableError(message, hint=hint)
            time.sleep(POLL_SECONDS)

    def _check_address(self) -> None:
        """Refuse an address that another route of the namespace has: it would get the requests.

        Without the right to list routes nothing is compared here; answers show it in the end.

        Raises:
            ConflictError: there is such a route.
        """
        try:
            routes = self._api.list("HTTPRoute", {})
        except UnavailableError:
            return
        for route in routes:
            if route["metadata"]["name"] != self._scope.name and routing.takes(route, self._config):
                where = f"{self._config.host or 'any host'}, path {self._config.path}"
                message = f"HTTPRoute {route['metadata']['name']} has the address of target "
                message += f"{self._scope.target} already: {where}, of Gateway "
                message += routing.gateway_of(self._config)
                hint = f"set targets.{self._scope.target}.kubernetes.path to one of its own, such "
                hint += f"as /{self._scope.project}, or kubernetes.host"
                raise ConflictError(message, hint=hint)

    def _put_back(self, written: Written, before: Written) -> None:
        if before.manifest is None:
            self._api.delete("HTTPRoute", self._scope.name)
        else:
            self._write(written.revision, before.split, before.parked)

    def _gateway(self) -> Manifest:
        namespace, _, name = routing.gateway_of(self._config).partition("/")
        gateway = self._api.get("Gateway", name, namespace)
        if gateway is None:
            message = f"{self._api.cluster} has no Gateway {self._config.gateway}"
            hint = "`kubectl get gateway -A` lists them; correct kubernetes.gateway"
            raise NotFoundError(message, hint=hint)
        return gateway


def _asked(endpoint: str) -> Asked:
    hint = "`kubectl get httproute -A`: another one may have the same host and path; else look at "
    hint += "the gateway's proxies, then run it again"
    return Asked(url=endpoint, agreeing=_AGREEING, settle_seconds=_SETTLE_SECONDS, hint=hint)
