"""The target's route in the cluster: read, changed by compare-and-set, and awaited."""

import time

import httpx

from mlship.adapters.http.clients import Reach, open_client
from mlship.adapters.targets.kubernetes import routing
from mlship.adapters.targets.kubernetes.api import Api, Manifest
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.routing import HEADER, Written
from mlship.config.targets import KubernetesConfig
from mlship.domain.deployment import Revision, Route, Slot, Split
from mlship.errors import ConfigError, ConflictError, NotFoundError, UnavailableError

_ACCEPT_SECONDS = 20.0
_POLL_SECONDS = 0.05
_TURNS = 20
_PORTS = {"HTTP": 80, "HTTPS": 443}


class Traffic:
    """The HTTPRoute of one target, and the Gateway that it belongs to."""

    def __init__(self, api: Api, scope: Scope, config: KubernetesConfig) -> None:
        self._api = api
        self._scope = scope
        self._config = config

    def read(self) -> Written:
        """Return the route as it is written; before the first, one without weights.

        Raises:
            IntegrityError: it is not a route that mlship wrote.
            UnavailableError: the cluster has no Gateway API.
        """
        return routing.read(self._scope, self._api.get("HTTPRoute", self._scope.name))

    def route(self) -> Route:
        """Return the split, its revision, and where requests go in."""
        found = self.read()
        return Route(split=found.split, revision=found.revision, endpoint=self.endpoint())

    def endpoint(self) -> str:
        """Return the address for clients: of the configured host, else of the Gateway.

        Raises:
            NotFoundError: there is no such Gateway.
            UnavailableError: it has no address yet; or the cluster has no Gateway API.
        """
        gateway = self._gateway()
        listener = gateway["spec"]["listeners"][0]
        addresses = gateway.get("status", {}).get("addresses") or ()
        host = self._config.host or next((one["value"] for one in addresses), None)
        if host is None:
            message = f"Gateway {self._config.gateway} of {self._api.cluster} has no address yet"
            hint = "see `kubectl describe gateway`; its controller may not run"
            raise UnavailableError(message, hint=hint)
        scheme, port = str(listener["protocol"]).lower(), int(listener["port"])
        shown = "" if port == _PORTS.get(listener["protocol"]) else f":{port}"
        return f"{scheme}://{host}{shown}{self._config.path.rstrip('/')}"

    def change(self, split: Split, expected: Revision, *, running: frozenset[Slot]) -> Revision:
        """Write a split if the route is at the expected revision; return when the gateway has it.

        Args:
            split: the new one.
            expected: the revision that it is to replace.
            running: the slots that there are; no other one stays parked.

        Raises:
            ConflictError: it is not; it stands as it was.
            ConfigError: the gateway refuses it; it stands as it was.
            UnavailableError: it is written, but the gateway does not take it.
        """
        before = self.read()
        unknown = split.slots - before.slots
        if before.manifest is not None and unknown:
            found = self._write(expected, before.split, before.parked | unknown)
            expected = self._accepted(found, before)
        found = self._write(expected, split, (before.slots | unknown) & running)
        return self._accepted(found, before)

    def planned(
        self, split: Split, *, running: frozenset[Slot]
    ) -> tuple[Manifest | None, Manifest]:
        """Return the route as it is, and as `change` would leave it, completed by the cluster.

        Nothing is written. The Gateway's controller is not asked: it looks at what is written.
        """
        before = self.read()
        parked = (before.slots | split.slots) & running
        manifest = routing.written(self._scope, self._config, before.manifest, split, parked)
        write = self._api.replace if before.manifest else self._api.create
        return before.manifest, write(manifest, dry_run=True)

    def forget(self, slot: Slot) -> None:
        """Take a slot that has no traffic out of the route.

        Raises:
            ConflictError: it has traffic, or a copy of it.
        """
        found = self.read()
        if found.split.share(slot) or found.split.shadow == slot:
            message = f"slot {slot} of {self._scope.target} still gets traffic"
            raise ConflictError(message, hint="give its traffic to another slot first")
        if slot not in found.slots:
            return
        weights = {name: share for name, share in found.split.weights.items() if name != slot}
        split = Split(weights=weights, shadow=found.split.shadow)
        self._accepted(self._write(found.revision, split, found.parked - {slot}), found)

    def _write(self, expected: Revision, split: Split, parked: frozenset[Slot]) -> Written:
        """Write the route by compare-and-set on its resourceVersion.

        The gateway's controller writes its status into the same object: a conflict with it is no
        conflict of revisions, and is tried again.
        """
        for _ in range(_TURNS):
            current = self.read()
            if current.revision != expected:
                raise self._conflict(current.revision, expected)
            manifest = routing.written(self._scope, self._config, current.manifest, split, parked)
            write = self._api.replace if current.manifest else self._api.create
            try:
                return routing.read(self._scope, write(manifest))
            except ConflictError:
                time.sleep(_POLL_SECONDS)
        raise self._conflict(self.read().revision, expected)

    def _accepted(self, found: Written, before: Written) -> Revision:
        """Wait until the gateway has taken the route; put the former back where it refuses."""
        deadline = time.monotonic() + _ACCEPT_SECONDS
        while True:
            manifest = self._api.get("HTTPRoute", self._scope.name)
            current = routing.read(self._scope, manifest)
            if manifest is None or current.revision != found.revision:
                raise self._conflict(current.revision, found.revision)
            taken = routing.verdict(manifest, self._config)
            if taken is True:
                _wait_until_applied(self.endpoint(), found.name)
                return found.revision
            if isinstance(taken, str):
                self._put_back(found, before)
                message = f"Gateway {self._config.gateway} refuses the route of"
                message = f"{message} {self._scope.target}: {taken}"
                hint = "correct the section `kubernetes` of the target"
                hint += "; this Gateway may not support a shadow" if found.split.shadow else ""
                raise ConfigError(message, hint=hint)
            if time.monotonic() >= deadline:
                message = f"the route of {self._scope.target} is written, but"
                message = f"{message} Gateway {self._config.gateway} does not accept it"
                hint = f"`kubectl describe httproute {self._scope.name}`, and its controller's log"
                raise UnavailableError(message, hint=hint)
            time.sleep(_POLL_SECONDS)

    def _put_back(self, found: Written, before: Written) -> None:
        if before.manifest is None:
            self._api.delete("HTTPRoute", self._scope.name)
        else:
            self._write(found.revision, before.split, before.parked)

    def _gateway(self) -> Manifest:
        namespace, _, name = self._config.gateway.partition("/")
        found = self._api.get("Gateway", name, namespace)
        if found is None:
            message = f"{self._api.cluster} has no Gateway {self._config.gateway}"
            hint = "`kubectl get gateway -A` lists them; correct kubernetes.gateway"
            raise NotFoundError(message, hint=hint)
        return found

    def _conflict(self, current: Revision, expected: Revision) -> ConflictError:
        message = f"the route of {self._scope.target} is at revision {current}, not {expected}"
        return ConflictError(message, hint="run `mlship status`, then decide again")


_APPLIED_SECONDS = 90.0
_UNNAMED_SECONDS = 5.0
_SETTLE_SECONDS = 0.5
_ASK_SECONDS = 2.0
_ASK_AGAIN_SECONDS = 0.02
_AGREEING = 5


def _wait_until_applied(endpoint: str, name: str) -> bool:
    """Wait until responses name the route; return whether one did.

    Where the endpoint cannot be asked from here, or something in front of it takes the header
    away, half a second passes instead.

    Args:
        endpoint: where requests go in.
        name: the value of the header `mlship-route`.

    Raises:
        UnavailableError: after 90 s answers still name another route.
    """
    started = time.monotonic()
    agreeing = 0
    # A connection each: another one may be another proxy's.
    headers = {"Connection": "close"}
    with open_client(Reach(), timeout=httpx.Timeout(_ASK_SECONDS)) as client:
        while time.monotonic() - started < _APPLIED_SECONDS:
            try:
                answer = client.get(f"{endpoint}/v2/health/live", headers=headers)
            except httpx.HTTPError:
                return _settled()
            named = answer.headers.get(HEADER)
            agreeing = agreeing + 1 if named == name else 0
            if agreeing == _AGREEING:
                return True
            if named is None and time.monotonic() - started > _UNNAMED_SECONDS:
                return _settled()
            if not agreeing:
                time.sleep(_ASK_AGAIN_SECONDS)
    message = f"the gateway has accepted the route, but {endpoint} still answers by another one"
    raise UnavailableError(
        message, hint="look at the gateway's proxies, then run the command again"
    )


def _settled() -> bool:
    time.sleep(_SETTLE_SECONDS)
    return False
