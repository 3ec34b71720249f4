"""The HTTPRoute of a target: the one source of truth for who gets its traffic.

A slot that lost its weight stays in the route with weight 0, *parked*, until it is removed, and a
new one is parked before it gets weight. A proxy learns of routes and of where they lead to apart
from each other: so neither is ever new or gone while traffic goes there.

The route of a target with several clusters remembers where each slot is. Besides, it has a rule for
each slot, by which requests with the header `mlship-slot` ask for the slot's readiness.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from mlship.adapters.targets.envoy.routes import SLOT
from mlship.adapters.targets.kubernetes.api import Kind, Manifest, new
from mlship.adapters.targets.kubernetes.applied import HEADER
from mlship.adapters.targets.kubernetes.manifests import HOME, PORT, Scope
from mlship.config.targets import KubernetesConfig
from mlship.domain import digests, home
from mlship.domain.deployment import Revision, Slot, Split
from mlship.errors import ConfigError, ConflictError, IntegrityError, fault_of

FIRST: Final = Revision("0")
PARKED: Final = "mlship.dev/parked"
CLUSTERS_OF: Final = "mlship.dev/clusters"
"""An annotation: where each slot is, for a target with several clusters."""
READY: Final = "/v2/health/ready"
ENTRY: tuple[Kind, ...] = ("Service", "EndpointSlice")
"""The kinds of what leads from a Gateway's cluster to a slot in another one."""
MISSING: Final = "BackendNotFound"
"""A gateway's reason to reject a route that names a Service of which it does not know."""
_GROUP: Final = "gateway.networking.k8s.io"


_Plain = Annotated[str, msgspec.Meta(pattern=r"^[!-~]*\Z")]
"""Whoever may edit the route must not write to the terminals of those who look at it."""


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """Where a slot of a target with several clusters is, and what runs there.

    Attributes:
        cluster: its name in mlship.yaml.
        address: where the parent sends its requests to, port 80.
        release: the id of its release.
        artifact: the digest of its image.
        server: the address of the cluster's API server; empty if a former version wrote it.
    """

    cluster: _Plain
    address: _Plain
    release: _Plain
    artifact: _Plain
    server: _Plain = ""

    def is_elsewhere(self, service: str) -> bool:
        """Return whether it is in another cluster than the parent, where it had that Service."""
        return self.address != service


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """The current route. Without a `manifest`, there is none yet.

    Attributes:
        parked: slots that are in the route without belonging to the split.
        name: what answers name it by.
        places: of the slots in this route, where a target has several clusters.
    """

    split: Split = Split()
    parked: frozenset[Slot] = frozenset()
    revision: Revision = FIRST
    name: str = ""
    manifest: Manifest | None = None
    places: dict[Slot, Placed] = {}

    @property
    def slots(self) -> frozenset[Slot]:
        """All slots in this route."""
        return self.parked | frozenset(self.split.weights)


def read(scope: Scope, manifest: Manifest | None) -> Written:
    """Return the contents of a route.

    Raises:
        IntegrityError: it is not as mlship writes it.
        ConflictError: it is of another project of this name.
    """
    if manifest is None:
        return Written()
    check_home(scope, manifest)
    try:
        parked = frozenset(
            Slot(name) for name in annotations_of(manifest).get(PARKED, "").split() if name
        )
        split = _split(scope, manifest["spec"]["rules"], parked)
        places = places_of(manifest)
    except (msgspec.DecodeError, LookupError, TypeError, ValueError, ConfigError) as error:
        message = f"HTTPRoute {scope.name} was edited and mlship cannot read it: {fault_of(error)}"
        hint = f"run `kubectl delete httproute {scope.name}`, then `mlship traffic` or deploy again"
        raise IntegrityError(message, hint=hint) from error
    metadata = manifest["metadata"]
    # Not the resourceVersion itself: the gateway's controller writes into the status.
    name = _name(split, parked, places)
    revision = Revision(f"{metadata['generation']}-{metadata['uid'][:8]}-{name[:6]}")
    return Written(
        split=split,
        parked=parked,
        revision=revision,
        name=name,
        manifest=manifest,
        places=places,
    )


def check_home(scope: Scope, manifest: Manifest) -> None:
    """Check that the object with a route is not another project's.

    Raises:
        ConflictError: it is.
    """
    metadata = manifest["metadata"]
    what = f"{manifest['kind']} {metadata['name']} in namespace {metadata.get('namespace')}"
    found = annotations_of(manifest).get(HOME, home.UNKNOWN)
    home.check(what, found, scope.home, scope.project)


def places_of(manifest: Manifest) -> dict[Slot, Placed]:
    """Return where the object with a route says that slots are."""
    text = annotations_of(manifest).get(CLUSTERS_OF, "{}")
    return msgspec.json.decode(text, type=dict[Slot, Placed])


def entries(scope: Scope, manifest: Manifest) -> list[tuple[Kind, str]]:
    """Return the objects by which a Gateway's cluster reaches slots in others; see `Entries`."""
    names = [
        scope.object(slot)
        for slot, place in places_of(manifest).items()
        if place.is_elsewhere(scope.object(slot))
    ]
    return [(kind, name) for name in names for kind in ENTRY]


def known_places(
    slots: frozenset[Slot], before: Manifest | None, observed: Mapping[Slot, Placed] | None
) -> dict[Slot, Placed]:
    """Return where slots are: as observed, else as the object with the route says."""
    known = {**(places_of(before) if before else {}), **(observed or {})}
    return {slot: known[slot] for slot in sorted(slots) if slot in known}


def marked(places: Mapping[Slot, Placed]) -> dict[str, str]:
    """Return the annotation that remembers where slots are."""
    return {CLUSTERS_OF: msgspec.json.encode(places, order="deterministic").decode()}


def written(
    scope: Scope,
    config: KubernetesConfig,
    before: Manifest | None,
    split: Split,
    parked: frozenset[Slot],
    observed: Mapping[Slot, Placed] | None = None,
) -> Manifest:
    """Return the route for a split; other fields of `before` are kept.

    Args:
        scope: of the target.
        config: of the Gateway's cluster.
        before: the current route; it is returned if nothing changes.
        split: the new split.
        parked: slots that are kept beside it.
        observed: where slots are, if the target has several clusters. Of others, `before` says it;
            what neither says is in the Gateway's own cluster.

    Raises:
        ConfigError: there is a shadow and no traffic that it could get a copy of.
    """
    if split.shadow is not None and not split.weights:
        message = f"slot {split.shadow} cannot shadow: no slot has traffic to copy"
        raise ConfigError(message, hint="give a slot weight in the same split")
    parked -= set(split.weights)
    several = observed is not None
    places = known_places(parked | split.slots, before, observed) if several else {}
    marks = own_annotations(scope, parked) | (marked(places) if several else {})
    first = {"name": scope.name, "namespace": config.namespace}
    metadata: Manifest = before["metadata"] if before else first
    metadata = {
        **{key: value for key, value in metadata.items() if key != "managedFields"},
        "labels": {**metadata.get("labels", {}), **scope.labels},
        "annotations": {**metadata.get("annotations", {}), **marks},
    }
    if not several:
        metadata["annotations"].pop(CLUSTERS_OF, None)
    # Sorted, so that writing the same split again changes nothing.
    weights = {**dict(sorted(split.weights.items())), **dict.fromkeys(sorted(parked), 0)}
    everything = _rule(scope, config, weights, split.shadow, _name(split, parked, places))
    looks = [_look(scope, config, slot) for slot in sorted(weights) if several]
    route = new("HTTPRoute", metadata, _spec(config, [*looks, everything]))
    if before is None:
        return route
    kept = {key: value for key, value in before["metadata"].items() if key != "managedFields"}
    whole = {**before, **route}
    return before if whole == {**before, "metadata": kept} else whole


def forgotten(scope: Scope, current: Written, slot: Slot) -> tuple[Split, frozenset[Slot]] | None:
    """Return split and parked slots without a slot; `None` if the route does not have it.

    Raises:
        ConflictError: it has traffic, or a copy of it.
    """
    if current.split.share(slot) or current.split.shadow == slot:
        message = f"slot {slot} of {scope.target} still gets traffic"
        raise ConflictError(message, hint="give its traffic to another slot first")
    if slot not in current.slots:
        return None
    weights = {name: share for name, share in current.split.weights.items() if name != slot}
    return Split(weights=weights, shadow=current.split.shadow), current.parked - {slot}


def takes(manifest: Manifest, config: KubernetesConfig) -> bool:
    """Return whether a route has the address of a target: its Gateway, host and path."""
    spec = manifest["spec"]
    namespace, _, gateway = gateway_of(config).partition("/")
    own = manifest["metadata"].get("namespace", config.namespace)
    parents = {
        (parent.get("namespace", own), parent["name"]) for parent in spec.get("parentRefs") or ()
    }
    hosts = spec.get("hostnames") or ()
    paths = {
        match.get("path", {}).get("value", "/")
        for rule in spec.get("rules") or ()
        for match in rule.get("matches") or [{"path": {"value": "/"}}]
    }
    is_host = config.host in hosts if config.host else not hosts
    return (namespace, gateway) in parents and is_host and config.path in paths


def gateway_of(config: KubernetesConfig) -> str:
    """Return the configured Gateway, `namespace/name`; only such targets have an HTTPRoute."""
    if config.gateway is None:
        message = "a target that names no Gateway has no HTTPRoute"
        raise ValueError(message)
    return config.gateway


def verdict(manifest: Manifest, config: KubernetesConfig) -> bool | str:
    """Return whether the gateway accepts the current route, or why it rejects it."""
    namespace, _, name = gateway_of(config).partition("/")
    generation = manifest["metadata"]["generation"]
    for parent in manifest.get("status", {}).get("parents") or ():
        reference = parent["parentRef"]
        if (reference.get("namespace", namespace), reference["name"]) != (namespace, name):
            continue
        conditions = {condition["type"]: condition for condition in parent.get("conditions") or ()}
        relevant = [conditions.get(kind, {}) for kind in ("Accepted", "ResolvedRefs")]
        if any(condition.get("observedGeneration", 0) < generation for condition in relevant):
            return False
        refusals = [condition for condition in relevant if condition["status"] == "False"]
        if refusals:
            return "; ".join(
                f"{condition['reason']}: {condition['message']}" for condition in refusals
            )
        return all(condition["status"] == "True" for condition in relevant)
    return False


def own_annotations(scope: Scope, parked: frozenset[Slot]) -> dict[str, str]:
    """Return the annotations that mlship writes to a route."""
    kept = {PARKED: " ".join(sorted(parked))}
    return {**kept, HOME: scope.home} if scope.home else kept


def annotations_of(manifest: Manifest) -> dict[str, str]:
    """Return the annotations of an object."""
    annotations: dict[str, str] = manifest["metadata"].get("annotations") or {}
    return annotations


def _split(scope: Scope, rules: list[Any], parked: frozenset[Slot]) -> Split:
    *looks, rule = rules
    if not all("headers" in match for look in looks for match in look["matches"]):
        message = "it has a rule that is not mlship's"
        raise ValueError(message)
    weights = {
        _slot(scope, entry): int(entry.get("weight", 1)) for entry in rule.get("backendRefs", ())
    }
    mirrors = [
        _slot(scope, entry["requestMirror"]["backendRef"])
        for entry in rule.get("filters", ())
        if entry["type"] == "RequestMirror"
    ]
    if any(weights[slot] for slot in parked):
        message = "a parked slot has traffic"
        raise ValueError(message)
    return Split(
        weights={slot: weight for slot, weight in weights.items() if slot not in parked},
        shadow=mirrors[0] if mirrors else None,
    )


def _slot(scope: Scope, reference: Manifest) -> Slot:
    name, prefix = str(reference["name"]), f"{scope.name}-"
    if not name.startswith(prefix):
        message = f"Service {name} is no slot's"
        raise ValueError(message)
    return Slot(name.removeprefix(prefix))


def _name(split: Split, parked: frozenset[Slot], places: Mapping[Slot, Placed]) -> str:
    """Return the name of a route in responses: the same split has the same name."""
    whole = [split, sorted(parked), places] if places else [split, sorted(parked)]
    return digests.short(digests.of_value(whole))


def _spec(config: KubernetesConfig, rules: list[Manifest]) -> Manifest:
    """Return a spec with all defaults, so that writing it again changes nothing."""
    namespace, _, gateway = gateway_of(config).partition("/")
    parent = {"group": _GROUP, "kind": "Gateway", "namespace": namespace, "name": gateway}
    spec: Manifest = {"parentRefs": [parent], "rules": rules}
    return {**spec, "hostnames": [config.host]} if config.host else spec


def _look(scope: Scope, config: KubernetesConfig, slot: Slot) -> Manifest:
    """Return the rule for the question whether a slot is ready; the answer names the slot."""
    header = {"type": "Exact", "name": SLOT, "value": slot}
    path = f"{config.path.rstrip('/')}{READY}"
    named = {"set": [{"name": SLOT, "value": slot}]}
    filters: list[Manifest] = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": named}]
    if config.path != "/":
        filters.append(_rewritten(READY))
    return {
        "matches": [{"path": {"type": "PathPrefix", "value": path}, "headers": [header]}],
        "filters": filters,
        "backendRefs": [{**_backend(scope, slot), "weight": 1}],
    }


def _rewritten(prefix: str) -> Manifest:
    path = {"type": "ReplacePrefixMatch", "replacePrefixMatch": prefix}
    return {"type": "URLRewrite", "urlRewrite": {"path": path}}


def _rule(
    scope: Scope,
    config: KubernetesConfig,
    weights: dict[Slot, int],
    shadow: Slot | None,
    name: str,
) -> Manifest:
    """Return the rule for the target's requests."""
    header = {"set": [{"name": HEADER, "value": name}]}
    filters: list[Manifest] = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": header}]
    if config.path != "/":
        filters.append(_rewritten("/"))
    if shadow is not None:
        mirror = {"backendRef": _backend(scope, shadow)}
        filters.append({"type": "RequestMirror", "requestMirror": mirror})
    return {
        "matches": [{"path": {"type": "PathPrefix", "value": config.path}}],
        "filters": filters,
        "backendRefs": [
            {**_backend(scope, slot), "weight": weight} for slot, weight in weights.items()
        ],
    }


def _backend(scope: Scope, slot: Slot) -> Manifest:
    return {"group": "", "kind": "Service", "name": scope.object(slot), "port": PORT}
