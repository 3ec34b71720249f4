"""Where the API keeps objects of each kind that the target uses: a table, and the paths from it."""

from typing import Any, Literal, NamedTuple

Kind = Literal[
    "Deployment",
    "Event",
    "Gateway",
    "HealthCheckPolicy",
    "HorizontalPodAutoscaler",
    "HTTPRoute",
    "Lease",
    "Pod",
    "PodDisruptionBudget",
    "Service",
]
Manifest = dict[str, Any]
"""An object of the API, as JSON has it."""


class Place(NamedTuple):
    """The API version of a kind and its plural, as they stand in paths."""

    version: str
    plural: str


PLACES: dict[Kind, Place] = {
    "Deployment": Place("apps/v1", "deployments"),
    "Event": Place("v1", "events"),
    "Gateway": Place("gateway.networking.k8s.io/v1", "gateways"),
    "HealthCheckPolicy": Place("networking.gke.io/v1", "healthcheckpolicies"),
    "HorizontalPodAutoscaler": Place("autoscaling/v2", "horizontalpodautoscalers"),
    "HTTPRoute": Place("gateway.networking.k8s.io/v1", "httproutes"),
    "Lease": Place("coordination.k8s.io/v1", "leases"),
    "Pod": Place("v1", "pods"),
    "PodDisruptionBudget": Place("policy/v1", "poddisruptionbudgets"),
    "Service": Place("v1", "services"),
}


def path(kind: Kind, namespace: str, name: str = "", part: str = "") -> str:
    """Return the path of a kind's objects in a namespace, of one object, or of a part of it."""
    place = PLACES[kind]
    root = "apis" if "/" in place.version else "api"
    parts = [root, place.version, "namespaces", namespace, place.plural, name, part]
    return "/" + "/".join(one for one in parts if one)


def new(kind: Kind, metadata: Manifest, spec: Manifest) -> Manifest:
    """Return an object of a kind, with the version that the table gives."""
    return {
        "apiVersion": PLACES[kind].version,
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }
