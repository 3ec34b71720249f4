"""What leads from the parent's Gateway to slots in other clusters.

An HTTPRoute sends requests to Services of its own cluster. So a slot in another cluster has two
objects beside the route: a Service without selector, named like the slot's own there, and an
EndpointSlice with the address of that one. A Service of type ExternalName is no alternative:
implementations should not support it in routes. Nor is an EndpointSlice with a host name, for which
no meaning is defined.
Sources: https://gateway-api.sigs.k8s.io/reference/spec/#backendobjectreference,
https://kubernetes.io/docs/concepts/services-networking/service/#services-without-selectors
"""

import ipaddress
from collections.abc import Mapping
from typing import Final

from mlship.adapters.targets.kubernetes import difference
from mlship.adapters.targets.kubernetes.api import PLACES, Api, Kind, Manifest, new
from mlship.adapters.targets.kubernetes.manifests import PORT, SLOT, Scope
from mlship.adapters.targets.kubernetes.routing import ENTRY, Placed
from mlship.domain.deployment import Change, Slot
from mlship.errors import UnavailableError

RIGHTS: Final[dict[Kind, tuple[str, ...]]] = {"EndpointSlice": ("get", "create", "patch", "delete")}
"""The additional rights in the parent's cluster: no role of Kubernetes itself has them."""
_NAMED_PORT: Final = {"name": "http", "port": PORT, "protocol": "TCP"}


class Entries:
    """The entries of a target in the parent's cluster. Errors as in `Api`."""

    def __init__(self, api: Api, scope: Scope) -> None:
        """Store what is needed; nothing is requested."""
        self._api = api
        self._scope = scope

    def write(self, places: Mapping[Slot, Placed]) -> None:
        """Make entries lead to where slots are; what leads there already is not written.

        A slot in the parent's own cluster has none. One that was left there would get requests.

        Raises:
            UnavailableError: the address of a slot is no IP address. Nothing was written.
        """
        objects = {
            slot: self._objects(slot, place.address)
            for slot, place in sorted(places.items())
            if place.is_elsewhere(self._scope.object(slot))
        }
        for slot in places:
            if slot not in objects:
                self._delete("EndpointSlice", self._scope.object(slot))
        for service, addresses in objects.values():
            before = self._api.get("EndpointSlice", addresses["metadata"]["name"])
            if before is not None and before["addressType"] != addresses["addressType"]:
                # It cannot be changed.
                self._delete("EndpointSlice", addresses["metadata"]["name"])
            current = self._api.get("Service", service["metadata"]["name"])
            if current is not None and _selects(current):
                # It was left by a removal of the slot from this cluster that was killed.
                self._api.delete("Service", service["metadata"]["name"])
                current = None
            if current is None:
                self._api.apply(service)
            if before is None or before["endpoints"] != addresses["endpoints"]:
                self._api.apply(addresses)

    def remove(self, slot: Slot) -> None:
        """Remove the entry of a slot that is not in the route any more."""
        name = self._scope.object(slot)
        self._delete("EndpointSlice", name)
        service = self._api.get("Service", name)
        if service is not None and not _selects(service):
            self._delete("Service", name)

    def planned(self, places: Mapping[Slot, Placed], removed: frozenset[Slot]) -> list[Change]:
        """Return what `write` and `remove` would change; an address may be unknown yet."""
        changes = []
        for slot, place in sorted(places.items()):
            if place.is_elsewhere(self._scope.object(slot)):
                for manifest in self._objects(slot, place.address):
                    changes += difference.applied(self._api, manifest)
        for slot in sorted(removed):
            for kind in reversed(ENTRY):
                before = self._api.get(kind, self._scope.object(slot))
                if before is not None and not _selects(before):
                    changes += difference.of(self._api.cluster, before, None)
        return changes

    def _objects(self, slot: Slot, address: str) -> tuple[Manifest, Manifest]:
        """Return the Service and the EndpointSlice of an entry; without an address, it is empty."""
        name = self._scope.object(slot)
        labels = {**self._scope.labels, SLOT: slot}
        metadata: Manifest = {"name": name, "namespace": self._api.namespace, "labels": labels}
        service = {"type": "ClusterIP", "ports": [{**_NAMED_PORT, "targetPort": PORT}]}
        listed = {"addresses": [address], "conditions": {"ready": True}}
        own = {
            "kubernetes.io/service-name": name,
            "endpointslice.kubernetes.io/managed-by": "mlship",
        }
        addresses = {
            "apiVersion": PLACES["EndpointSlice"].version,
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {**labels, **own}},
            "addressType": self._family(slot, address),
            "ports": [_NAMED_PORT],
            "endpoints": [listed] if address else [],
        }
        return new("Service", metadata, service), addresses

    def _family(self, slot: Slot, address: str) -> str:
        if not address:
            return "IPv4"
        try:
            return f"IPv{ipaddress.ip_address(address).version}"
        except ValueError:
            message = f"{slot} of {self._scope.target} has the host name {address}, and a Gateway "
            hint = "set service_annotations of its cluster so that the load balancer has an IP "
            hint += "address; or remove kubernetes.gateway: mlship's own load balancer takes names"
            raise UnavailableError(f"{message}sends requests to IP addresses", hint=hint) from None

    def _delete(self, kind: Kind, name: str) -> None:
        if self._api.get(kind, name) is not None:
            self._api.delete(kind, name)


def _selects(manifest: Manifest) -> bool:
    """Return whether an object is the Service of pods."""
    return "selector" in (manifest.get("spec") or {})
