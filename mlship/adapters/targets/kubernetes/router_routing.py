"""The ConfigMap of a router: the one source of truth for who gets its target's traffic.

It has the two files that Envoy watches, the route and the clusters that it leads to. Slots without
weight are parked as in an HTTPRoute, see `routing`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from mlship.adapters.targets.envoy import limits, resources, routes
from mlship.adapters.targets.kubernetes.api import PLACES, Manifest
from mlship.adapters.targets.kubernetes.applied import HEADER
from mlship.adapters.targets.kubernetes.manifests import PORT, Scope
from mlship.adapters.targets.kubernetes.router_manifests import (
    CLUSTERS,
    ROUTES,
    labels_of,
    name_of,
)
from mlship.adapters.targets.kubernetes.routing import (
    FIRST,
    PARKED,
    Placed,
    Written,
    annotations_of,
    check_home,
    known_places,
    marked,
    own_annotations,
    places_of,
)
from mlship.config.project import TargetConfig
from mlship.domain import digests
from mlship.domain.deployment import Revision, Slot, Split
from mlship.errors import ConfigError, IntegrityError, fault_of

_NAMES: Final = "response_headers_to_add"
_CONNECTION_SECONDS: Final = 1
"""A connection stays with one pod: a new one may go to a new pod, and none is left at a pod that
ends."""
_ROUTE = "route.v3.RouteConfiguration"


def read(scope: Scope, manifest: Manifest | None) -> Written:
    """Return the contents of a router's ConfigMap.

    Raises:
        IntegrityError: it is not as mlship writes it.
        ConflictError: it is of another project of this name.
    """
    if manifest is None:
        return Written()
    name = name_of(scope)
    check_home(scope, manifest)
    found = annotations_of(manifest)
    try:
        parked = frozenset(Slot(slot) for slot in found.get(PARKED, "").split())
        version, table = _document(manifest)
        split = routes.split_of(table, parked)
        number = _number(version)
        places = places_of(manifest)
    except (msgspec.DecodeError, LookupError, TypeError, ValueError, ConfigError) as error:
        message = f"ConfigMap {name} was edited and mlship cannot read it: {fault_of(error)}"
        hint = "run `mlship promote champion --reconcile`, which writes it as recorded"
        raise IntegrityError(message, hint=hint) from error
    digest = digests.short(digests.of_value([table, sorted(parked)]))[:6]
    uid = manifest["metadata"]["uid"][:8]
    # The first one is that of a router without a route, which a deployment starts.
    revision = Revision(f"{number}-{uid}-{digest}") if number else FIRST
    return Written(
        split=split,
        parked=parked,
        revision=revision,
        name=version,
        manifest=manifest,
        places=places,
    )


def edited(manifest: Manifest) -> list[str]:
    """Return what of a ConfigMap that can be read is not as mlship wrote it.

    Both of its files have the digest of their contents in their names.
    """
    version, table = _document(manifest)
    parked = annotations_of(manifest).get(PARKED, "").split()
    own = {name: value for name, value in table.items() if name != _NAMES}
    is_own = version.partition("-")[2] == _digest(own, parked)
    found = [] if is_own and routes.named(own, {HEADER: version}) == table else [ROUTES]
    try:
        file = msgspec.json.decode(manifest["data"][CLUSTERS])
        untyped = [{k: v for k, v in each.items() if k != "@type"} for each in file["resources"]]
        is_own = file["version_info"] == digests.of_value(untyped)
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError, ValueError):
        is_own = False
    found += [] if is_own else [CLUSTERS]
    return [f"{name} was edited" for name in found]


def _digest(table: dict[str, Any], parked: Iterable[str]) -> str:
    return digests.short(digests.of_value([table, sorted(parked)]))


def written(
    scope: Scope,
    config: TargetConfig,
    before: Manifest | None,
    split: Split,
    parked: frozenset[Slot],
    observed: Mapping[Slot, Placed] | None = None,
) -> Manifest:
    """Return the ConfigMap for a split; it is `before` if nothing changes.

    Args:
        scope: of the target.
        config: of the router's own cluster.
        before: the current ConfigMap.
        split: the new split.
        parked: slots that are kept beside it.
        observed: where slots are, if the target has several clusters. Of others, `before` says it;
            what neither says is in the router's own cluster.

    Raises:
        ConfigError: there is a shadow and no traffic that it could get a copy of.
    """
    parked -= set(split.weights)
    own = config.kubernetes
    address = routes.Address(host=own.host, path=own.path)
    several = observed is not None
    table = routes.table(
        split, config.sticky_header, parked=parked, address=address, falls_back=True
    )
    slots = parked | split.slots
    places = known_places(slots, before, observed)
    clusters = _clusters(scope, slots, split, places)
    own_marks = own_annotations(scope, parked) | (marked(places) if several else {})
    current, before_table = _document(before) if before else ("", {})
    is_same = {name: value for name, value in before_table.items() if name != _NAMES} == table
    is_kept = before and is_same and _is_kept(before, own_marks, clusters) and _number(current)
    if before and is_kept and not edited(before):
        return before
    number = _number(current) + 1 if before else int(bool(split.slots or parked))
    version = f"{number}-{_digest(table, parked)}"
    named = routes.named(table, {HEADER: version})
    metadata: Manifest = before["metadata"] if before else {}
    metadata = {
        **{key: value for key, value in metadata.items() if key != "managedFields"},
        "name": name_of(scope),
        "namespace": own.namespace,
        "labels": {**metadata.get("labels", {}), **labels_of(scope)},
        "annotations": {**metadata.get("annotations", {}), **own_marks},
    }
    return {
        "apiVersion": PLACES["ConfigMap"].version,
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {ROUTES: resources.file(_ROUTE, version, [named]).decode(), CLUSTERS: clusters},
    }


def _document(manifest: Manifest) -> tuple[str, dict[str, Any]]:
    """Return the name of the route in a ConfigMap, and its table."""
    document = msgspec.json.decode(manifest["data"][ROUTES])
    return str(document["version_info"]), document["resources"][0]


def _number(version: str) -> int:
    return int(version.partition("-")[0])


def _is_kept(before: Manifest, own: dict[str, str], clusters: str) -> bool:
    marks = own.items() <= annotations_of(before).items()
    return marks and before["data"].get(CLUSTERS) == clusters


def _clusters(
    scope: Scope, slots: frozenset[Slot], split: Split, places: Mapping[Slot, Placed]
) -> str:
    """Return the clusters of slots: their Services, by name, or addresses in other clusters.

    A Service sends requests to pods that the kubelet finds ready, and knows a second after a change
    which these are. The addresses of pods are no alternative: they come by a DNS with caches, which
    in many clusters keep them for half a minute, longer than a pod that ends goes on serving.

    Each slot has two clusters. Requests for it go to the first, and if its address is out of reach
    to those of the other slots with traffic, the largest share first. The second has its own
    address only. A slot that loses its traffic falls back too: Envoy may read the clusters before
    the route, and goes on sending it requests in between.
    """
    addresses = {
        slot: places[slot].address if slot in places else scope.object(slot) for slot in slots
    }
    items = []
    for slot in sorted(slots):
        others = [addresses[other] for other in routes.others(split, slot)]
        own = f"{slot}{routes.OWN}"
        items += [
            resources.guarded(_cluster(slot, addresses[slot], *others)),
            resources.remote(_cluster(own, addresses[slot])),
        ]
    return resources.file("cluster.v3.Cluster", digests.of_value(items), items).decode()


def _cluster(name: str, *hosts: str) -> dict[str, Any]:
    return resources.cluster(
        name,
        _discovery(name, *hosts),
        checked=False,
        connection_seconds=_CONNECTION_SECONDS,
    )


def _discovery(name: str, *hosts: str) -> dict[str, Any]:
    """Return how the addresses of a cluster are found, those of the first host first."""
    # The bare name: the pod's own search path completes it, whatever the cluster's domain is.
    endpoints = [
        {
            "lb_endpoints": [{"endpoint": {"address": resources.address(host, PORT)}}],
            **({"priority": priority} if priority else {}),
        }
        for priority, host in enumerate(hosts)
    ]
    return {
        "cluster_type": {
            "name": "envoy.clusters.dns",
            "typed_config": {
                "@type": f"{limits.TYPES}.extensions.clusters.dns.v3.DnsCluster",
                "dns_refresh_rate": "1s",
                "dns_failure_refresh_rate": {"base_interval": "0.2s", "max_interval": "1s"},
                "dns_lookup_family": "V4_PREFERRED",
            },
        },
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }
