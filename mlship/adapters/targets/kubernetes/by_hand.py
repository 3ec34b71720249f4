"""What somebody else changed of the objects of a target, and how that becomes their reference."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from mlship.adapters.targets.kubernetes import (
    manifests,
    reference,
    router_manifests,
    router_routing,
    routing,
)
from mlship.adapters.targets.kubernetes.api import Api, Kind, Manifest
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.pod_status import is_leaving
from mlship.adapters.targets.kubernetes.reference import REFERENCE
from mlship.adapters.targets.kubernetes.routing import Placed, Written
from mlship.adapters.targets.kubernetes.waiting import address_of
from mlship.config.project import TargetConfig
from mlship.domain.deployment import Slot
from mlship.domain.drift import Altered
from mlship.errors import IntegrityError

_UNREADABLE: Final = "was edited, and mlship cannot read it"
_GOING: Final = ("is missing", "is being deleted")
_FIRST: Kind = "Deployment"
"""Without it, nothing else of a slot needs to be told."""


def of_slots(
    api: Api, scope: Scope, config: TargetConfig, slots: Iterable[Slot], cluster: str = ""
) -> list[Altered]:
    """Return what was changed of slots in one cluster.

    Args:
        api: of the cluster.
        scope: of the target.
        config: of the target, in this cluster.
        slots: that are expected there.
        cluster: its name, if the target has several.
    """
    kinds = manifests.kinds(config)
    # An autoscaler with a range changes the replicas, as it should.
    free = frozenset({reference.REPLICAS}) if config.kubernetes.max_replicas else frozenset()
    found = []
    for slot in sorted(slots):
        found += _of_objects(api, kinds, scope.object(slot), slot, cluster, free)
    return _of_namespace(api, cluster, found) + found


def of_router(api: Api, scope: Scope, kinds: Iterable[Kind], cluster: str = "") -> list[Altered]:
    """Return what was changed of a target's own load balancer, of these kinds, and of its route."""
    manifest = api.get("ConfigMap", router_manifests.name_of(scope))
    if manifest is None:
        return []
    name, slot = router_manifests.name_of(scope), router_manifests.ROUTER
    return [
        *_of_objects(api, kinds, name, slot, cluster),
        *_of_route(scope, manifest, cluster),
    ]


def of_places(api: Api, scope: Scope, places: Mapping[Slot, Placed], parent: str) -> list[Altered]:
    """Return the slots of a cluster that the route sends elsewhere than to their Services.

    Args:
        api: of that cluster.
        scope: of the target.
        places: what the route remembers of these slots.
        parent: the name of what has the route.
    """
    found = []
    for slot, place in sorted(places.items()):
        service = api.get("Service", scope.object(slot))
        address = address_of(service) if service else ""
        if address and address != place.address:
            text = f"is at {address}, and the load balancer in {parent} sends requests to "
            text += place.address
            name = scope.object(slot)
            found.append(_altered("Service", name, slot, place.cluster, text, is_adoptable=True))
    return found


def of_gateway(api: Api, scope: Scope, cluster: str = "") -> list[Altered]:
    """Return whether a route at a Gateway can be read, and what was changed of its entries.

    Its split is compared elsewhere.
    """
    try:
        written = routing.read(scope, api.get("HTTPRoute", scope.name))
    except IntegrityError:
        return [_altered("HTTPRoute", scope.name, None, cluster, _UNREADABLE)]
    found = []
    for slot, place in sorted(written.places.items()):
        if place.is_elsewhere(scope.object(slot)):
            found += _of_entry(api, scope, slot, place, cluster)
    return found


def route_of(read: Callable[[], Written]) -> Written:
    """Return a route; one without slots if it cannot be read."""
    try:
        return read()
    except IntegrityError:
        return Written()


def adopt(api: Api, kinds: Iterable[Kind], name: str) -> None:
    """Make objects of a name their own reference, as they are now.

    Raises:
        ConflictError: one is written to at this moment.
    """
    for kind in kinds:
        manifest = api.get(kind, name)
        if manifest is not None and reference.differences(manifest):
            version = manifest["metadata"]["resourceVersion"]
            text = reference.adopted(manifest)
            api.annotate(kind, name, {REFERENCE: text}, version=version)


def _of_namespace(api: Api, cluster: str, found: Iterable[Altered]) -> list[Altered]:
    """Return that the namespace is being deleted, if objects are going or gone."""
    if not any(each.text in _GOING for each in found) or not api.is_ending():
        return []
    text = "is being deleted, with all that runs in it: wait until it is gone, create it with its "
    text += "Role, then deploy the releases again"
    return [Altered(object=f"Namespace {api.namespace}", text=text, cluster=cluster)]


def _of_entry(api: Api, scope: Scope, slot: Slot, place: Placed, cluster: str) -> list[Altered]:
    """Return what was changed of what leads from a Gateway to a slot in another cluster."""
    name = scope.object(slot)
    objects = {kind: api.get(kind, name) for kind in routing.ENTRY}
    found = [
        _altered(kind, name, slot, cluster, "is missing")
        for kind, manifest in objects.items()
        if manifest is None
    ]
    entry = objects["EndpointSlice"]
    addresses = [
        address
        for endpoint in (entry or {}).get("endpoints") or ()
        for address in endpoint["addresses"]
    ]
    if entry is not None and addresses != [place.address]:
        text = f"leads to {', '.join(addresses) or 'nothing'}, not to {place.address}"
        found.append(_altered("EndpointSlice", name, slot, cluster, text))
    return found


def _of_objects(
    api: Api,
    kinds: Iterable[Kind],
    name: str,
    slot: Slot,
    cluster: str,
    free: frozenset[reference.Path] = frozenset(),
) -> list[Altered]:
    objects = {kind: api.get(kind, name) for kind in kinds}
    first = objects[_FIRST]
    if first is None:
        return [_altered(_FIRST, name, slot, cluster, _GOING[0])]
    if is_leaving(first):
        return [_altered(_FIRST, name, slot, cluster, _GOING[1])]
    found = []
    for kind, manifest in objects.items():
        if manifest is None:
            found.append(_altered(kind, name, slot, cluster, _GOING[0]))
            continue
        found += [
            _altered(kind, name, slot, cluster, each.text, is_adoptable=each.is_adoptable)
            for each in reference.differences(manifest)
            if each.path not in free
        ]
    return found


def _of_route(scope: Scope, manifest: Manifest, cluster: str) -> list[Altered]:
    name = router_manifests.name_of(scope)
    try:
        router_routing.read(scope, manifest)
    except IntegrityError:
        return [_altered("ConfigMap", name, None, cluster, _UNREADABLE)]
    return [
        _altered("ConfigMap", name, None, cluster, text, is_adoptable=True)
        for text in router_routing.edited(manifest)
    ]


def _altered(
    kind: Kind,
    name: str,
    slot: Slot | None,
    cluster: str,
    text: str,
    *,
    is_adoptable: bool = False,
) -> Altered:
    return Altered(
        object=f"{kind} {name}",
        text=text,
        cluster=cluster,
        slot=slot,
        is_adoptable=is_adoptable,
    )
