"""The backend services of a target's slots, and the health check of all.

A slot's service leads to its own pods first, by the network endpoint groups (NEGs) that GKE makes
for the slot's Service, and to those of the other slots with traffic where its own are unhealthy.

Source of the fields: https://docs.cloud.google.com/compute/docs/reference/rest/v1/backendServices
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from mlship.adapters.targets.google import url_map
from mlship.adapters.targets.google.compute import Compute, Resource
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.routing import Placed
from mlship.config.project import TargetConfig
from mlship.domain import home
from mlship.domain.deployment import Slot, Split
from mlship.errors import NotFoundError

_SECONDS: Final = 60
_NO_LIMIT: Final = 100_000
"""Requests a second of one pod: a slot's own pods are never full, only unhealthy."""
_EJECTION: Final = {
    "consecutiveGatewayFailure": 3,
    "enforcingConsecutiveGatewayFailure": 100,
    "enforcingConsecutiveErrors": 0,
    "enforcingSuccessRate": 0,
    "interval": {"seconds": "1"},
    "baseEjectionTime": {"seconds": "5"},
    "maxEjectionPercent": 100,
}
"""Of pods that are out of reach. Statuses of the model itself, such as 500, do not count."""
_CHECK: Final = {
    "type": "HTTP",
    "checkIntervalSec": 2,
    "timeoutSec": 2,
    "healthyThreshold": 1,
    "unhealthyThreshold": 2,
    "httpHealthCheck": {
        "portSpecification": "USE_SERVING_PORT",
        "requestPath": "/v2/health/ready",
    },
}


class _Notes(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a backend service."""

    home: str = ""
    target: str = ""


class Services:
    """The backend services and the health check of one target."""

    def __init__(self, compute: Compute, scope: Scope, config: TargetConfig) -> None:
        """Store what is needed; nothing is requested."""
        self._compute = compute
        self._scope = scope
        self._config = config

    def link(self, slot: Slot) -> str:
        """Return the name of a slot's service in the URL map."""
        return self._compute.link("backendServices", self._scope.object(slot))

    def prepare(self) -> None:
        """Make the health check, or correct it."""
        wanted = {"name": self._scope.name, **_CHECK}
        found = self._compute.get("healthChecks", self._scope.name)
        if found is None:
            self._compute.insert("healthChecks", wanted)
        elif not url_map.covers(found, wanted):
            self._compute.update("healthChecks", {**found, **wanted})

    def settle(self, slot: Slot, place: Placed, others: Sequence[Placed] = ()) -> None:
        """Make the service of a slot, or correct it; write nothing if it is as it should be.

        Args:
            slot: whose service it is.
            place: where the slot is.
            others: where its share goes while its own pods are out of reach.

        Raises:
            ConflictError: it is of another project of this name; or was changed meanwhile.
            NotFoundError: GKE has made no NEG for the slot.
        """
        name = self._scope.object(slot)
        found = self._compute.get("backendServices", name)
        wanted = self._wanted(name, slot, place, others)
        if found is None:
            self._compute.insert("backendServices", wanted)
            return
        home.check(
            f"backend service {name}", _home_of(found), self._scope.home, self._scope.project
        )
        if not url_map.covers(_sorted(found), _sorted(wanted)):
            self._compute.update("backendServices", {**found, **wanted})

    def settle_all(
        self, split: Split, slots: frozenset[Slot], places: Mapping[Slot, Placed]
    ) -> None:
        """Let the share of each slot fall back to the others with traffic, largest share first.

        A slot without a share gets nothing back, and a copy of a request stays a copy.
        """
        asked = [slot for slot, weight in split.weights.items() if weight and slot in places]
        asked.sort(key=lambda slot: (-split.share(slot), slot))
        for slot in sorted(slots & frozenset(places)):
            falls_back = slot in asked and slot != split.shadow
            others = [places[other] for other in asked if falls_back and other != slot]
            self.settle(slot, places[slot], others)

    def remove(self, slot: Slot) -> None:
        """Delete a slot's service; GKE deletes its NEG with the Service, once nothing names it."""
        self._compute.delete("backendServices", self._scope.object(slot))

    def close(self) -> None:
        """Delete the health check, after the last service."""
        self._compute.delete("healthChecks", self._scope.name)

    def is_healthy(self, slot: Slot, place: Placed) -> bool | None:
        """Return whether Google finds a pod of a slot healthy; `None` if it knows none yet."""
        name = self._scope.object(slot)
        states = [
            state
            for group in self._groups(slot, place)
            for state in self._compute.health(name, group)
        ]
        return any(state == "HEALTHY" for state in states) if states else None

    def _wanted(self, name: str, slot: Slot, place: Placed, others: Sequence[Placed]) -> Resource:
        own = self._groups(slot, place)
        rest = [group for other in others for group in self._groups(slot, other)]
        notes = _Notes(home=self._scope.home, target=self._scope.target)
        draining = math.ceil(self._config.drain_seconds)
        return {
            "name": name,
            "description": msgspec.json.encode(notes).decode(),
            "loadBalancingScheme": "EXTERNAL_MANAGED",
            "protocol": "HTTP",
            "timeoutSec": _SECONDS,
            "healthChecks": [self._compute.link("healthChecks", self._scope.name)],
            "connectionDraining": {"drainingTimeoutSec": draining},
            "outlierDetection": _EJECTION,
            "backends": [
                *(_backend(group, "PREFERRED") for group in own),
                *(_backend(group, "DEFAULT") for group in rest),
            ],
        }

    def _groups(self, slot: Slot, place: Placed) -> list[str]:
        """Return the full names of the NEGs in an address, `NAME@zone,zone`."""
        name, _, zones = place.address.partition("@")
        if not zones:
            message = f"slot {slot} of {self._scope.target} has no network endpoint group in "
            message += f"cluster {place.cluster}"
            hint = f"deploy it again; `kubectl describe service {self._scope.object(slot)}` there "
            raise NotFoundError(message, hint=f"{hint}shows why GKE has made none")
        return [url_map.group(self._compute.project, zone, name) for zone in zones.split(",")]


def _backend(group: str, preference: str) -> Resource:
    return {
        "group": group,
        "balancingMode": "RATE",
        "maxRatePerEndpoint": _NO_LIMIT,
        "preference": preference,
    }


def _sorted(service: Resource) -> Resource:
    """Return a service with its backends in one order: theirs has no meaning."""
    backends = service.get("backends") or []
    ordered = sorted(backends, key=lambda backend: url_map.partial(str(backend["group"])))
    return {**service, "backends": ordered}


def _home_of(service: Resource) -> str:
    try:
        return msgspec.json.decode(service.get("description") or "{}", type=_Notes).home
    except msgspec.DecodeError:
        return home.UNKNOWN
