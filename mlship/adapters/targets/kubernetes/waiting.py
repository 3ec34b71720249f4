"""Wait until a slot is rolled out; report progress, and why it is not ready."""

import time
from collections.abc import Iterator
from typing import Final

import msgspec

from mlship.adapters.targets.kubernetes.api import Api, Manifest
from mlship.adapters.targets.kubernetes.manifests import INSTANCE, NEG, SLOT, Scope
from mlship.adapters.targets.kubernetes.pauses import growing
from mlship.adapters.targets.kubernetes.pod_status import (
    Before,
    Fault,
    Trouble,
    is_ready,
    is_rolled_out,
    of_deployment,
    staying,
)
from mlship.adapters.targets.kubernetes.router_manifests import ROUTER
from mlship.adapters.targets.replica import Answer
from mlship.config.project import TargetConfig
from mlship.domain.deployment import Slot
from mlship.domain.ports import Progress
from mlship.errors import (
    ConfigError,
    ConflictError,
    CredentialsError,
    MlshipError,
    NotFoundError,
    ProjectError,
    TimedOutError,
    UnavailableError,
)

_NEG_STATUS: Final = "cloud.google.com/neg-status"
_EXPOSED: Final = "exposed_ports"
_PAUSE = 0.2
"""Before the second look."""
_REFUSALS = 10
"""So many looks in a row may be refused: a server that starts may not know a credential yet."""
_ADDRESS_SECONDS = 180.0
"""Clouds take one or two minutes to give a Service an address."""
_FINAL: Final[dict[Fault, type[MlshipError]]] = {
    "image": NotFoundError,
    "pull": UnavailableError,
    "settings": ConfigError,
    "crash": ProjectError,
    "memory": ProjectError,
    "quota": UnavailableError,
    "policy": UnavailableError,
    "namespace": UnavailableError,
    "creation": UnavailableError,
    "probe": ProjectError,
}
HINTS: dict[Fault, str] = {
    "image": "push the image to the registry, or correct image.repository",
    "pull": "set kubernetes.image_pull_secret to a Secret with credentials of the registry",
    "fetch": "check that the nodes of this cluster reach the registry, and that it has the image",
    "settings": "correct kubernetes.env_from_secret, or create what is missing",
    "crash": "run the image locally: `docker run --read-only IMAGE`; its last lines are above",
    "memory": "raise kubernetes.memory of the target, or make the model smaller",
    "place": "lower kubernetes.cpu or kubernetes.memory, add nodes, or `kubectl uncordon` one",
    "quota": "ask the cluster's administrator for more quota, or request less",
    "policy": "ask the cluster's administrator to allow these pods, or use another namespace",
    "namespace": "wait until it is gone, create it with its Role, then run the command again",
    "creation": "see `kubectl describe replicaset`; ask the cluster's administrator",
    "probe": "raise ready_seconds if it only needs more time",
}
_ROUTER_HINTS: Final[dict[Fault, str]] = {
    **HINTS,
    "memory": "run the command again; if it recurs, set kubernetes.gateway to a Gateway",
    "place": "add nodes, or `kubectl uncordon` one",
    "quota": "ask the cluster's administrator for more quota",
}
"""Of mlship's own load balancer: the target's amounts are not those of its pods."""


class _NegStatus(msgspec.Struct, frozen=True):
    """The network endpoint groups of a Service: their names by port, and their zones."""

    network_endpoint_groups: dict[str, str] = {}
    zones: list[str] = []


class Rollout:
    """Waits for one slot."""

    def __init__(
        self,
        api: Api,
        scope: Scope,
        config: TargetConfig,
        slot: Slot,
        progress: Progress,
        *,
        before: Before | None = None,
        instance: str = "",
        cluster: str = "",
    ) -> None:
        """Store what to wait for.

        Args:
            api: of the namespace.
            scope: of the target.
            config: of the target, in this cluster.
            slot: that is rolled out.
            progress: hears how many replicas are ready.
            before: what the slot had before it was written, if it existed.
            instance: the label of its pods, if not the target's.
            cluster: its name in mlship.yaml, if the target has several.
        """
        self._labels = {INSTANCE: instance or scope.name, SLOT: slot}
        self._api = api
        self._scope = scope
        self._slot = slot
        self._before = before
        self._hints = _ROUTER_HINTS if slot == ROUTER else HINTS
        where = f" in cluster {cluster}" if cluster else ""
        self._name = f"{slot} of {scope.target}{where}"
        self._seconds = config.ready_seconds
        self._progress = progress
        self._noted = ""

    def wait(self) -> None:
        """Wait until all replicas of the slot are as they are written, and ready.

        Trouble from before the slot was written is an error only at the end of the time.

        Raises:
            TimedOutError: not within the target's `ready_seconds`; the message says why.
            NotFoundError: the image does not exist.
            ProjectError: a replica keeps exiting, exceeds its memory limit, or reports that it
                cannot become ready.
            ConfigError: the settings name a Secret that does not exist, or no image.
            UnavailableError: pods cannot be created, the nodes may not pull the image, or the
                cluster stopped answering.
            CredentialsError: the cluster does not accept the credentials any more.
            ConflictError: the slot was removed meanwhile.
        """
        deadline = time.monotonic() + self._seconds
        pauses, refusals = growing(_PAUSE), 0
        while True:
            is_over = time.monotonic() >= deadline
            try:
                deployment, pods = self._look()
                if self._is_done(deployment, pods):
                    return
                trouble = self._trouble(deployment, pods, is_over=is_over)
            except UnavailableError as error:
                # An API server may restart, for example during an upgrade.
                refusals = refusals + 1 if isinstance(error, CredentialsError) else 0
                if is_over or refusals >= _REFUSALS:
                    raise
                _sleep(pauses, deadline)
                continue
            refusals = 0
            if trouble and trouble.is_final:
                raise _FINAL[trouble.fault](self._text(trouble), hint=self._hints[trouble.fault])
            if is_over:
                raise self._timed_out(deployment, pods, trouble)
            _sleep(pauses, deadline)

    def _look(self) -> tuple[Manifest, list[Manifest]]:
        deployment = self._api.get("Deployment", self._scope.object(self._slot))
        if deployment is None:
            message = f"another command removed slot {self._slot} of {self._scope.target}"
            raise ConflictError(message, hint="run `mlship status`, then decide again")
        return deployment, staying(self._api.list("Pod", self._labels))

    def _is_done(self, deployment: Manifest, pods: list[Manifest]) -> bool:
        wanted = deployment["spec"]["replicas"]
        ready = sum(is_ready(pod) for pod in pods)
        trouble = of_deployment(deployment, pods, self._before)
        why = f" ({_line(trouble.text)})" if trouble and trouble.fault != "probe" else ""
        note = f"{self._slot}: {ready} of {wanted} replicas ready{why}"
        if note != self._noted:
            self._progress.note(note)
            self._noted = note
        return is_rolled_out(deployment) and ready == len(pods) == wanted

    def _trouble(
        self, deployment: Manifest, pods: list[Manifest], *, is_over: bool
    ) -> Trouble | None:
        """Return what is wrong, with details from the pod itself where the API has none."""
        trouble = of_deployment(deployment, pods, self._before)
        if trouble is None:
            name = next((pod["metadata"]["name"] for pod in pods if not is_ready(pod)), "")
            text = self._last_warning(name) if is_over and name else ""
            return Trouble(pod=name, fault="probe", text=text) if text else None
        if trouble.fault == "probe":
            return self._asked(trouble, is_over=is_over)
        return trouble

    def _asked(self, trouble: Trouble, *, is_over: bool) -> Trouble:
        """Return the trouble with the pod's own response; a new pod's failure is final."""
        try:
            body = self._api.text(trouble.pod, "proxy/v2/health/ready")
            answer = msgspec.json.decode(body, type=Answer)
        except (UnavailableError, msgspec.DecodeError):
            # Without permission to ask the pod, or without an answer, use the kubelet's events.
            text = self._last_warning(trouble.pod) if is_over else ""
            return msgspec.structs.replace(trouble, text=text or trouble.text)
        has_failed = answer.state == "failed"
        text = f"it is {answer.state}: {answer.problem}" if has_failed else f"it is {answer.state}"
        is_final = has_failed and not trouble.is_former
        return msgspec.structs.replace(trouble, text=text, is_final=is_final)

    def _last_warning(self, pod: str) -> str:
        try:
            events = self._api.list(
                "Event", {}, fieldSelector=f"involvedObject.name={pod},type=Warning"
            )
        except MlshipError:
            return ""
        events.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime")))
        return str(events[-1].get("message", "")) if events else ""

    def _text(self, trouble: Trouble) -> str:
        who = f", pod {trouble.pod}" if trouble.pod else ""
        since = " (from before this command)" if trouble.is_former else ""
        return f"{self._name}{who}{since}: {trouble.text}"

    def _timed_out(
        self, deployment: Manifest, pods: list[Manifest], trouble: Trouble | None
    ) -> TimedOutError:
        wanted, ready = deployment["spec"]["replicas"], sum(is_ready(pod) for pod in pods)
        text = f"{ready} of {wanted} replicas ready after {self._seconds:g} s"
        if trouble is None:
            message = f"{self._name}: {text}"
            return TimedOutError(message, hint=self._hints["probe"])
        return TimedOutError(f"{self._text(trouble)}; {text}", hint=self._hints[trouble.fault])


def wait_for_address(api: Api, name: str, seconds: float, hint: str, progress: Progress) -> None:
    """Wait until a Service has an address, and note that it has none yet.

    Raises:
        TimedOutError: not within so many seconds, or three minutes if these are less; with the
            hint.
    """
    seconds = max(seconds, _ADDRESS_SECONDS)
    deadline = time.monotonic() + seconds
    pauses, is_noted = growing(_PAUSE), False
    while not ((service := api.get("Service", name)) and address_of(service)):
        if not is_noted:
            is_noted = True
            text = f"Service {name} of {api.cluster} has no address yet"
            progress.note(f"{text}; waiting for it, at most {seconds:g} s")
        if time.monotonic() >= deadline:
            message = f"Service {name} of {api.cluster} has no address after {seconds:g} s"
            raise TimedOutError(message, hint=hint)
        _sleep(pauses, deadline)


def address_of(service: Manifest) -> str:
    """Return the address of a Service; empty as long as it has none.

    Of one with network endpoint groups, it is their name and zones: `NAME@europe-west1-b`.
    """
    if service["spec"]["type"] == "ClusterIP":
        metadata = service["metadata"]
        annotations = metadata.get("annotations") or {}
        # GKE itself marks every Service, for its Ingress; that is no address.
        if _EXPOSED in annotations.get(NEG, ""):
            return _groups_of(annotations.get(_NEG_STATUS, "{}"))
        return f"{metadata['name']}.{metadata['namespace']}.svc"
    entries = service.get("status", {}).get("loadBalancer", {}).get("ingress") or ()
    return next((str(entry.get("ip") or entry["hostname"]) for entry in entries), "")


def _groups_of(text: str) -> str:
    """Return the name and the zones in what GKE writes to a Service with NEGs."""
    try:
        status = msgspec.json.decode(text, type=_NegStatus)
    except msgspec.DecodeError:
        return ""
    names = list(status.network_endpoint_groups.values())
    return f"{names[0]}@{','.join(sorted(status.zones))}" if names and status.zones else ""


def _sleep(pauses: Iterator[float], deadline: float) -> None:
    """Wait before the next look, which is not later than the deadline."""
    time.sleep(min(next(pauses), max(0.0, deadline - time.monotonic())))


def _line(text: str) -> str:
    return " ".join(text.split())[:160]
