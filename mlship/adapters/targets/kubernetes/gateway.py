"""The target's route in the cluster: read, changed by compare-and-set, and awaited."""

import time

from mlship.adapters.targets.kubernetes import (
    applied,
    difference,
    revisions,
    router_manifests,
    routing,
)
from mlship.adapters.targets.kubernetes.api import Api, Manifest
from mlship.adapters.targets.kubernetes.applied import Asked
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.revisions import POLL_SECONDS
from mlship.adapters.targets.kubernetes.routing import Written
from mlship.config.targets import KubernetesConfig
from mlship.domain.deployment import Artifact, Change, Revision, Route, Slot, Split
from mlship.domain.ports import Progress
from mlship.errors import ConfigError, ConflictError, NotFoundError, UnavailableError

_ACCEPT_SECONDS = 20.0
_AGREEING = 5
_SETTLE_SECONDS = 0.5
_PORTS = {"HTTP": 80, "HTTPS": 443}


class Traffic:
    """The HTTPRoute of one target, and the Gateway that it belongs to."""

    def __init__(self, api: Api, scope: Scope, config: KubernetesConfig) -> None:
        self._api = api
        self._scope = scope
        self._config = config

    def changes(self, artifact: Artifact, *, is_new: bool) -> list[Change]:
        """Return what a deployment changes besides its slot: nothing, the Gateway is there."""
        del artifact, is_new
        return []

    def check(self) -> None:
        """Check that the Gateway has an address and the route may be changed.

        Raises:
            NotFoundError: the Gateway does not exist.
            UnavailableError: it has no address yet; or the cluster has no Gateway API.
            ConflictError: the route is another project's, or a router has the traffic.
        """
        self.endpoint()
        self.read()

    def prepare(self, artifact: Artifact, *, is_new: bool) -> None:
        """Do nothing: the cluster's administrator makes the Gateway."""

    def wait(self, progress: Progress) -> None:
        """Return at once: `check` has found the Gateway."""

    def running(self) -> Manifest | None:
        """Return nothing: a deployment does not change the Gateway."""
        return None

    def restore(self, former: Manifest | None) -> None:
        """Do nothing, for the same reason."""

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
            UnavailableError: the route is written, but the gateway does not accept it.
        """
        before = self.read()
        if before.manifest is None:
            self._check_address()
        unknown = split.slots - before.slots
        if before.manifest is not None and unknown:
            written = self._write(expected, before.split, before.parked | unknown)
            expected = self._accepted(written, before)
        written = self._write(expected, split, (before.slots | unknown) & running)
        return self._accepted(written, before)

    def planned(self, split: Split, *, running: frozenset[Slot]) -> list[Change]:
        """Return what `change` would write, as completed by the cluster. Nothing is written.

        The Gateway's controller only sees routes that are written.
        """
        before = self.read()
        parked = (before.slots | split.slots) & running
        manifest = routing.written(self._scope, self._config, before.manifest, split, parked)
        write = self._api.replace if before.manifest else self._api.create
        return difference.of(self._api.cluster, before.manifest, write(manifest, dry_run=True))

    def forget(self, slot: Slot) -> None:
        """Remove a slot without traffic from the route.

        Raises:
            ConflictError: it has traffic, or a copy of it.
        """
        current = self.read()
        rest = routing.forgotten(self._scope, current, slot)
        if rest is not None:
            self._accepted(self._write(current.revision, *rest), current)

    def _write(self, expected: Revision, split: Split, parked: frozenset[Slot]) -> Written:
        """Write the route by compare-and-set."""

        def put(current: Written) -> Written:
            manifest = routing.written(self._scope, self._config, current.manifest, split, parked)
            write = self._api.replace if current.manifest else self._api.create
            return routing.read(self._scope, write(manifest))

        return revisions.compare_and_set(self._scope, expected, self.read, put)

    def _accepted(self, written: Written, before: Written) -> Revision:
        """Wait until the gateway accepts the route; restore the former one if it rejects it."""
        deadline = time.monotonic() + _ACCEPT_SECONDS
        while True:
            manifest = self._api.get("HTTPRoute", self._scope.name)
            current = routing.read(self._scope, manifest)
            if manifest is None or current.revision != written.revision:
                raise revisions.conflict(self._scope, current.revision, written.revision)
            verdict = routing.verdict(manifest, self._config)
            if verdict is True:
                applied.wait(_asked(self.endpoint()), written.name)
                return written.revision
            if isinstance(verdict, str):
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
