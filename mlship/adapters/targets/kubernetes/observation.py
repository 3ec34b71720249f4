"""The observed state of a cluster, from each pod."""

from collections.abc import Mapping, Sequence

from mlship.adapters.targets.kubernetes.api import Api, Manifest
from mlship.adapters.targets.kubernetes.manifests import (
    CLUSTER,
    INSTANCE,
    RELEASE,
    SLOT,
    Scope,
    digest_of,
)
from mlship.adapters.targets.kubernetes.pod_status import (
    is_leaving,
    is_ready,
    is_rolled_out,
    last_ends,
    of_deployment,
    restarts,
    staying,
)
from mlship.domain.deployment import Deployment, Restarts, Slot
from mlship.domain.digests import Digest
from mlship.domain.notation import visible
from mlship.errors import ConfigError

_WORKERS = "restarts of workers within pods; see mlship_worker_restarts_total at /metrics of a pod"


def deployments(api: Api, scope: Scope, cluster: str = "") -> Mapping[Slot, Deployment]:
    """Return the observed state of each slot of a target.

    Args:
        api: of the cluster.
        scope: of the target.
        cluster: its name in mlship.yaml, if the target has several.

    Raises:
        ConfigError: a slot was put into a cluster of another name: the names are mixed up.
    """
    labels = {INSTANCE: scope.name}
    pods, found = api.list("Pod", labels), api.list("Deployment", labels)
    for deployment in found:
        _check_cluster(deployment, scope, cluster)
    return {
        Slot(deployment["metadata"]["labels"][SLOT]): _deployment(deployment, _of(deployment, pods))
        for deployment in found
    }


def _check_cluster(deployment: Manifest, scope: Scope, cluster: str) -> None:
    metadata = deployment["metadata"]
    known = (metadata.get("annotations") or {}).get(CLUSTER)
    if cluster and known and known != cluster:
        message = f"cluster {cluster} of {scope.target} has slot {metadata['labels'][SLOT]}, which "
        message += f"was put into cluster {visible(known)}"
        hint = "correct `clusters` in mlship.yaml: two names are of one cluster, or were exchanged"
        raise ConfigError(message, hint=hint)


def image_of(deployment: Manifest) -> Digest:
    """Return the digest of the image in a Deployment."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return Digest(digest_of(container["image"]))


def _of(deployment: Manifest, pods: Sequence[Manifest]) -> list[Manifest]:
    slot = deployment["metadata"]["labels"][SLOT]
    return [pod for pod in pods if pod["metadata"]["labels"].get(SLOT) == slot]


def _deployment(deployment: Manifest, pods: Sequence[Manifest]) -> Deployment:
    wanted = deployment["spec"]["replicas"]
    pods = staying(pods)
    ready = [pod for pod in pods if is_ready(pod)]
    releases = [pod["metadata"].get("annotations", {}).get(RELEASE, "") for pod in ready]
    release = releases[0] if releases else deployment["metadata"]["annotations"][RELEASE]
    running = [_running(pod) for pod in ready]
    artifact = running[0] if running else image_of(deployment)
    count = sum(pair == (release, artifact) for pair in zip(releases, running, strict=True))
    return Deployment(
        slot=Slot(deployment["metadata"]["labels"][SLOT]),
        release=Digest(release),
        artifact=Digest(artifact),
        ready=count,
        wanted=wanted,
        detail=_detail(deployment, pods, count),
        restarts=Restarts(
            replicas=sum(map(restarts, pods)), reasons=tuple(last_ends(pods)), unknown=_WORKERS
        ),
    )


def _running(pod: Manifest) -> str:
    """Return the digest of the image that the kubelet reports."""
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    images = [digest_of(status.get("imageID", "")) for status in statuses]
    return images[0] if images else ""


def _detail(deployment: Manifest, pods: Sequence[Manifest], ready: int) -> str:
    if is_leaving(deployment):
        return "is being removed"
    if ready == deployment["spec"]["replicas"] and is_rolled_out(deployment):
        return ""
    trouble = of_deployment(deployment, pods)
    if trouble is None:
        return "is being rolled out"
    return f"{trouble.pod}: {trouble.text}" if trouble.pod else trouble.text
