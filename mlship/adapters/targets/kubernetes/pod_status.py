"""When a pod and a Deployment count as ready, and why they are not. Pure functions."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from mlship.adapters.targets.kubernetes.api import Manifest
from mlship.domain.notation import quoted


def condition(manifest: Manifest, kind: str) -> Mapping[str, Any]:
    """Return a condition of an object's status; empty if it has none of that kind."""
    conditions = manifest.get("status", {}).get("conditions") or ()
    return next((each for each in conditions if each.get("type") == kind), {})


def is_leaving(manifest: Manifest) -> bool:
    """Return whether an object is being deleted; a pod still answers in its grace period."""
    return "deletionTimestamp" in manifest["metadata"]


def staying(pods: Iterable[Manifest]) -> list[Manifest]:
    """Return the pods that stay: not deleted, evicted or completed."""
    ended = ("Failed", "Succeeded")
    return [
        pod
        for pod in pods
        if not is_leaving(pod) and pod.get("status", {}).get("phase") not in ended
    ]


def is_ready(pod: Manifest) -> bool:
    """Return whether a pod gets requests: its readiness probe succeeds, and it is not deleted."""
    return not is_leaving(pod) and condition(pod, "Ready").get("status") == "True"


def is_rolled_out(deployment: Manifest) -> bool:
    """Return whether all replicas have the current spec of the Deployment, and are ready.

    A status from before the last change says nothing: observedGeneration must have caught up.
    """
    status, wanted = deployment.get("status", {}), deployment["spec"]["replicas"]
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return _is_observed(deployment) and counts == [wanted, wanted, wanted]


def _is_observed(deployment: Manifest) -> bool:
    """Return whether the status is about the current spec."""
    observed: int = deployment.get("status", {}).get("observedGeneration", 0)
    generation: int = deployment["metadata"].get("generation", 0)
    return observed >= generation


def restarts(pod: Manifest) -> int:
    """Return how often containers of a pod were started again."""
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return sum(status.get("restartCount", 0) for status in statuses)


def last_ends(pods: Iterable[Manifest]) -> Iterator[str]:
    """Return why the last container of each pod that was started again had ended, for people."""
    for pod in pods:
        for status in pod.get("status", {}).get("containerStatuses") or ():
            ended = (status.get("lastState") or {}).get("terminated")
            if ended:
                reason = ended.get("reason") or "Error"
                name = pod["metadata"]["name"]
                yield f"pod {name} ended with code {ended.get('exitCode')} ({reason})"


_CRASHES = 3
_LINES = 15
_NO_IMAGE = ("not found", "manifest unknown", "name unknown", "NAME_UNKNOWN", "MANIFEST_UNKNOWN")
_NO_RIGHT = ("unauthorized", "no basic auth", "authorization", "access denied", "forbidden")
_NAMES: Final = r'https?://\S+|"[^"\s]*"'
"""URLs, and what is quoted and has no space."""
_UNUSABLE = ("CreateContainerConfigError", "InvalidImageName", "ErrImageNeverPull")

_LATE = "failed to sync"
"""The start of a busy node's message that it has not read a Secret yet; it retries."""

_ENDING = "because it is being terminated"
_DENIED = ("violates PodSecurity", "denied the request", "denied request")
_LIMITED = ("exceeded quota", "failed quota", " usage per ", " limit to request ratio per ")
_UNKNOWN_ACCOUNT = "error looking up service account"
"""In the message of a namespace that was just made: the cluster still adds the account."""

Fault = Literal[
    "image",
    "pull",
    "fetch",
    "settings",
    "crash",
    "memory",
    "place",
    "quota",
    "policy",
    "namespace",
    "creation",
    "probe",
]


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps a pod from being ready.

    Attributes:
        pod: its name; empty if no pod was created.
        is_final: waiting longer does not help.
        is_former: it was there before the change that is waited for, and may end with it.
    """

    pod: str
    fault: Fault
    text: str
    is_final: bool = False
    is_former: bool = False


class Before(msgspec.Struct, frozen=True):
    """What a Deployment had before a change, which the change may repair.

    Its pods stay until others are ready, and a condition stays for minutes.

    Attributes:
        pods: the uids of its pods.
        hashes: the labels by which its ReplicaSets tell their pods.
        template: of its pods.
        failure: its condition ReplicaFailure; empty if it had none.
    """

    pods: frozenset[str] = frozenset()
    hashes: frozenset[str] = frozenset()
    template: Manifest = {}
    failure: Mapping[str, Any] = {}

    def has(self, pod: Manifest, deployment: Manifest) -> bool:
        """Return whether a pod was there, or has another template than the Deployment has now.

        A change of the template and of the number of replicas first adds pods of the former one.
        """
        if pod["metadata"].get("uid") in self.pods:
            return True
        return _hash(pod) in self.hashes and deployment["spec"]["template"] != self.template


def _hash(pod: Manifest) -> str:
    found: str = (pod["metadata"].get("labels") or {}).get("pod-template-hash", "")
    return found


def before(deployment: Manifest, pods: Sequence[Manifest]) -> Before:
    """Return what a Deployment has now, before a change."""
    return Before(
        pods=frozenset(pod["metadata"]["uid"] for pod in pods),
        hashes=frozenset(filter(None, map(_hash, pods))),
        template=deployment["spec"]["template"],
        failure=condition(deployment, "ReplicaFailure"),
    )


def of_deployment(
    deployment: Manifest, pods: Sequence[Manifest], known: Before | None = None
) -> Trouble | None:
    """Return the most serious trouble of a Deployment; `None` if nothing is wrong yet.

    Args:
        deployment: as the API gave it.
        pods: those of its pods that are to stay.
        known: what it had before a change; trouble of that is not final.
    """
    known = known or Before()
    is_observed = _is_observed(deployment)
    troubles = []
    failure = condition(deployment, "ReplicaFailure")
    if failure.get("status") == "True":
        trouble = _of_creation(failure.get("message", ""))
        is_new = is_observed and failure != known.failure
        troubles.append(trouble if is_new else _former(trouble))
    for pod in pods:
        if found := of_pod(pod):
            is_new = is_observed and not known.has(pod, deployment)
            troubles.append(found if is_new else _former(found))
    return min(troubles, key=lambda each: (not each.is_final, each.is_former), default=None)


def _former(trouble: Trouble) -> Trouble:
    return msgspec.structs.replace(trouble, is_final=False, is_former=True)


def _of_creation(message: str) -> Trouble:
    """Return why a cluster creates no pods."""
    fault: Fault = "creation"
    if _ENDING in message:
        fault = "namespace"
    elif any(words in message for words in _DENIED):
        fault = "policy"
    elif any(words in message for words in _LIMITED):
        fault = "quota"
    is_final = fault != "creation" or ("forbidden" in message and _UNKNOWN_ACCOUNT not in message)
    return Trouble(pod="", fault=fault, text=f"cannot create pods: {message}", is_final=is_final)


def of_pod(pod: Manifest) -> Trouble | None:
    """Return what keeps a pod from being ready; `None` if it is ready, or just starts."""
    if is_ready(pod):
        return None
    name = pod["metadata"]["name"]
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        text = f"it cannot be scheduled: {scheduled.get('message') or scheduled.get('reason')}"
        return Trouble(pod=name, fault="place", text=text)
    containers = pod.get("status", {}).get("containerStatuses") or ()
    for container in containers:
        trouble = _of_container(name, container)
        if trouble:
            return trouble
    return None


def _of_container(pod: str, container: Mapping[str, Any]) -> Trouble | None:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _UNUSABLE:
        text, is_late = f"{reason}: {message}", message.startswith(_LATE)
        return Trouble(pod=pod, fault="settings", text=text, is_final=not is_late)
    if "Image" in reason:
        return _of_pull(pod, container["image"], message or reason)
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    if ended:
        return _of_end(pod, container, ended)
    if "running" in state:
        return Trouble(pod=pod, fault="probe", text="it is running but not ready")
    return None


def _of_pull(pod: str, image: str, said: str) -> Trouble:
    """Return why a node does not have the image."""
    text, reason = f"cannot pull image {image}: {said}", _without_names(said, image)
    # Docker Hub's message is the same for a missing image and for one without access.
    if any(words in reason.lower() for words in _NO_RIGHT):
        return Trouble(pod=pod, fault="pull", text=text, is_final=True)
    if any(words in reason for words in _NO_IMAGE):
        return Trouble(pod=pod, fault="image", text=text, is_final=True)
    return Trouble(pod=pod, fault="fetch", text=text)


def _without_names(said: str, image: str) -> str:
    """Return a message without the names in it, which may have words that look like a reason."""
    repository = re.sub(r"(:[^:/@]*)?(@.*)?$", "", image)
    # Registries name a repository without their host.
    path = re.sub(r"^[^/]*[.:][^/]*/|^localhost/", "", repository)
    rest = re.sub(_NAMES, " ", said)
    for name in (image, repository, path):
        rest = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", " ", rest)
    return rest


def _last(text: str) -> str:
    return quoted("\n".join(text.rstrip().splitlines()[-_LINES:]))


def _of_end(pod: str, container: Mapping[str, Any], ended: Mapping[str, Any]) -> Trouble:
    if ended.get("reason") == "OOMKilled":
        text = "it used more memory than its limit and was killed (OOMKilled)"
        return Trouble(pod=pod, fault="memory", text=text, is_final=True)
    crashes = container.get("restartCount", 0) + ("running" not in container["state"])
    code, message = ended.get("exitCode"), ended.get("message", "")
    text = f"it keeps exiting, with exit code {code}" + (f":\n{_last(message)}" if message else "")
    # A pod that runs after a restart may still get ready.
    return Trouble(pod=pod, fault="crash", text=text, is_final=crashes >= _CRASHES)
