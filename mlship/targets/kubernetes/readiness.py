"""When a pod and a Deployment count as ready: said once, for waiting and for observing."""

from collections.abc import Iterable, Mapping
from typing import Any

from mlship.targets.kubernetes.kinds import Manifest


def condition(found: Manifest, kind: str) -> Mapping[str, Any]:
    """Return a condition of an object's status; empty where it has none of that kind."""
    conditions = found.get("status", {}).get("conditions") or ()
    return next((one for one in conditions if one.get("type") == kind), {})


def is_leaving(found: Manifest) -> bool:
    """Tell whether an object is being deleted; a pod still answers for its grace period."""
    return "deletionTimestamp" in found["metadata"]


def staying(pods: Iterable[Manifest]) -> list[Manifest]:
    """Return the pods that are to stay: not deleted, evicted or completed."""
    ended = ("Failed", "Succeeded")
    return [
        pod
        for pod in pods
        if not is_leaving(pod) and pod.get("status", {}).get("phase") not in ended
    ]


def is_ready(pod: Manifest) -> bool:
    """Tell whether a pod gets requests: its readiness probe succeeds and it is not leaving."""
    return not is_leaving(pod) and condition(pod, "Ready").get("status") == "True"


def is_rolled_out(deployment: Manifest) -> bool:
    """Tell whether all replicas are of the Deployment as it is written, and ready.

    A status from before the last change says nothing: observedGeneration must have caught up.
    """
    status, wanted = deployment.get("status", {}), deployment["spec"]["replicas"]
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    is_current = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    return is_current and counts == [wanted, wanted, wanted]
