"""A broken slot is repaired by another deployment: what was there before is no verdict on it."""

from typing import Any, cast

import pytest

from mlship.adapters.targets.kubernetes import pod_status, router, router_manifests, waiting
from mlship.adapters.targets.kubernetes.api import Api
from mlship.adapters.targets.kubernetes.gateway import Traffic
from mlship.adapters.targets.kubernetes.slots import Slots
from mlship.config.project import TargetConfig
from mlship.config.targets import KubernetesConfig
from mlship.domain import digests
from mlship.domain.deployment import Deployment, Plan, slot_of
from mlship.errors import (
    ConflictError,
    CredentialsError,
    MlshipError,
    ProjectError,
    TimedOutError,
    UnavailableError,
)
from tests.fakes.cluster import IMAGE, SCOPE, FakeApiServer
from tests.harness.places import Notes
from tests.harness.samples import release

SLOT = slot_of(release("one"))
NAME = SCOPE.object(SLOT)
KILLED = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
STARTING = {"waiting": {"reason": "ContainerCreating"}}
QUOTA = {
    "type": "ReplicaFailure",
    "status": "True",
    "reason": "FailedCreate",
    "message": "pods is forbidden: exceeded quota: small",
    "lastTransitionTime": "2026-11-27T12:00:00Z",
}


class Surging(FakeApiServer):
    """Keeps the former pods of a Deployment until the new ones are ready, as maxUnavailable 0 does.

    New pods get `fate` when time passes: the state of a container, or none if they get ready.
    """

    def __init__(self, name: str) -> None:
        super().__init__("a")
        self.deployment = name
        self.install_gateway()
        self.fate: dict[str, Any] | None = None
        self.former: dict[tuple[str, str], dict[str, Any]] = {}
        self.condition: dict[str, Any] | None = None
        self.now = 0.0

    def _pods(self, name: str, deployment: dict[str, Any]) -> None:
        former = self._of_deployment()
        super()._pods(name, deployment)
        for pod in self._of_deployment().values():
            label = {"pod-template-hash": short(deployment)}
            pod["metadata"]["labels"] = pod["metadata"]["labels"] | label
        if former and name == self.deployment:
            for key in self._of_deployment():
                self.objects["pods", f"{key[1]}-new"] = new = self.objects.pop(key)
                new["metadata"]["name"] += "-new"
                state(new, STARTING)
            self.objects |= former
            self.former = former
            deployment["status"]["updatedReplicas"] = 0
            deployment["status"]["observedGeneration"] -= 1
            deployment["status"]["conditions"] = [self.condition] if self.condition else []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass: the controller sees the change, then the new pods meet their fate."""
        self.now += seconds
        deployment = self.objects["deployments", self.deployment]
        deployment["status"]["observedGeneration"] = deployment["metadata"]["generation"]
        if self.now < 5:
            return
        for key, pod in self._of_deployment().items():
            if key not in self.former:
                state(pod, self.fate)
            elif self.fate is None:
                del self.objects[key]
        if self.fate is None:
            updated = deployment["spec"]["replicas"]
            deployment["status"] |= {"updatedReplicas": updated, "conditions": []}

    def breaks(self, found: dict[str, Any]) -> None:
        """Let the containers of the running pods be in this state."""
        for pod in self._of_deployment().values():
            state(pod, found)

    def _of_deployment(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {
            key: each
            for key, each in self.objects.items()
            if key[0] == "pods" and key[1].startswith(self.deployment)
        }


def short(deployment: dict[str, Any]) -> str:
    """Return what tells the pods of one template from those of another."""
    return digests.short(digests.of_bytes(digests.canonical_json(deployment["spec"]["template"])))


def state(pod: dict[str, Any], found: dict[str, Any] | None) -> None:
    ready = {"type": "Ready", "status": str(found is None)}
    container = {"restartCount": 0, "state": found or {"running": {}}}
    known = pod["status"]["containerStatuses"][0]
    known.pop("lastState", None)
    pod["status"] |= {"conditions": [ready], "containerStatuses": [{**known, **container}]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Surging:
    server = Surging(NAME)
    monkeypatch.setattr(waiting, "time", server)
    deploy(server, memory="1Gi")
    return server


def deploy(
    server: Surging, *, memory: str = "2Gi", gateway: str | None = "iris/gateway"
) -> Deployment:
    own = KubernetesConfig(namespace="iris", gateway=gateway, memory=memory)
    config = TargetConfig(kind="kubernetes", kubernetes=own, ready_seconds=20)
    plan = Plan(release=release("one"), artifact=IMAGE, slot=SLOT, replicas=1)

    def act(api: Api) -> Deployment:
        slots = Slots(api, SCOPE, config, Notes())
        traffic = Traffic(api, SCOPE, own) if gateway else router.Traffic(api, SCOPE, config)
        return slots.deploy(plan, traffic, lambda: None)

    with server.connected() as api:
        return act(api)


def memory_of(server: Surging) -> str:
    (container,) = server.objects["deployments", NAME]["spec"]["template"]["spec"]["containers"]
    found: str = container["resources"]["limits"]["memory"]
    return found


@pytest.mark.parametrize(
    "found",
    [
        KILLED,
        {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "a" not found'}},
        {"waiting": {"reason": "ImagePullBackOff", "message": "401 Unauthorized"}},
    ],
)
def test_a_broken_slot_is_repaired_by_a_deployment(server: Surging, found: dict[str, Any]) -> None:
    server.breaks(found)
    assert deploy(server).ready == 1
    assert memory_of(server) == "2Gi"


def test_a_broken_router_is_repaired_by_a_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Surging(router_manifests.name_of(SCOPE))
    monkeypatch.setattr(waiting, "time", server)
    deploy(server, gateway=None)
    server.breaks(KILLED)
    assert deploy(server, gateway=None).ready == 1


def test_a_router_without_enough_memory_has_a_next_step_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Surging(router_manifests.name_of(SCOPE))
    monkeypatch.setattr(waiting, "time", server)
    deploy(server, gateway=None)
    server.fate = KILLED
    with pytest.raises(ProjectError, match=r"router of production, pod .*: it used more") as caught:
        deploy(server, gateway=None)
    assert "model" not in caught.value.hint
    assert "kubernetes.gateway" in caught.value.hint


def test_a_new_pod_that_fails_is_told_at_once_though_the_former_one_fails_too(
    server: Surging,
) -> None:
    server.breaks(KILLED)
    server.fate = KILLED
    with pytest.raises(ProjectError, match=rf"pod {NAME}-0-new: it used more memory") as caught:
        deploy(server)
    assert not isinstance(caught.value, TimedOutError)
    assert memory_of(server) == "1Gi", "what was there before is restored"


def test_pods_that_are_added_with_the_former_template_decide_nothing() -> None:
    def made(uid: str, template: str) -> dict[str, Any]:
        labels = {"pod-template-hash": template}
        pod = {"metadata": {"name": uid, "uid": uid, "labels": labels}}
        return pod | {"status": {"containerStatuses": [{"state": KILLED}]}}

    old: dict[str, Any] = {"metadata": {}, "spec": {"template": {"memory": "1Gi"}}}
    new = old | {"spec": {"template": {"memory": "2Gi"}}}
    known = pod_status.before(old, [made("1", "a")])

    def is_final(deployment: dict[str, Any], *pods: dict[str, Any]) -> bool:
        trouble = pod_status.of_deployment(deployment, pods, known)
        assert trouble is not None
        return trouble.is_final

    assert not is_final(new, made("1", "a"), made("2", "a"))
    assert is_final(new, made("1", "a"), made("2", "a"), made("3", "b"))
    assert is_final(old, made("1", "a"), made("2", "a")), "more replicas of the same template"


def test_former_trouble_that_stays_is_told_at_the_end_of_the_time(server: Surging) -> None:
    server.breaks(KILLED)
    server.fate = STARTING
    with pytest.raises(TimedOutError, match=r"0 \(from before this command\): it used more memory"):
        deploy(server)


def test_a_quota_that_was_raised_does_not_refuse_the_next_deployment(server: Surging) -> None:
    server.condition = QUOTA
    server.objects["deployments", NAME]["status"]["conditions"] = [QUOTA]
    assert deploy(server).ready == 1


def test_a_quota_that_is_exceeded_now_is_told_at_once(server: Surging) -> None:
    server.objects["deployments", NAME]["status"]["conditions"] = [QUOTA]
    server.condition = {**QUOTA, "lastTransitionTime": "2026-11-27T13:00:00Z"}
    with pytest.raises(UnavailableError, match="exceeded quota"):
        deploy(server)


def test_a_status_from_before_the_change_has_no_final_trouble() -> None:
    deployment: dict[str, Any] = {"metadata": {"generation": 2}, "status": {"conditions": [QUOTA]}}
    trouble = pod_status.of_deployment(deployment, [])
    assert trouble is not None
    assert not trouble.is_final
    deployment["status"]["observedGeneration"] = 2
    trouble = pod_status.of_deployment(deployment, [])
    assert trouble is not None
    assert trouble.is_final


class Guarded:
    """An API server that refuses so many looks in turn; then the slot is not there any more."""

    def __init__(self, refusals: int, error: type[UnavailableError]) -> None:
        self.looks = 0
        self.refusals = refusals
        self.error = error

    def get(self, kind: str, name: str) -> None:
        self.looks += 1
        if self.looks <= self.refusals:
            raise self.error("context a refuses", hint="log in again")


def test_an_address_that_is_waited_for_is_noted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Service:
        cluster = "cluster here"
        asked = 0

        def get(self, kind: str, name: str) -> dict[str, Any]:
            assert (kind, name) == ("Service", "iris")
            self.asked += 1
            ingress = [{"ip": "10.0.0.7"}] if self.asked > 3 else []
            return {
                "spec": {"type": "LoadBalancer"},
                "status": {"loadBalancer": {"ingress": ingress}},
            }

    monkeypatch.setattr(waiting, "_PAUSE", 0.0)
    notes = Notes()
    waiting.wait_for_address(cast("Api", Service()), "iris", 60, "", notes)
    (line,) = notes.lines
    assert "Service iris of cluster here has no address yet" in line
    notes.lines.clear()
    there = Service()
    there.asked = 3
    waiting.wait_for_address(cast("Api", there), "iris", 60, "", notes)
    assert notes.lines == []


@pytest.mark.parametrize(
    ("refusals", "error", "told"),
    [
        (30, CredentialsError, CredentialsError),
        (3, CredentialsError, ConflictError),
        (15, UnavailableError, ConflictError),
    ],
)
def test_credentials_that_end_during_a_rollout_are_told_before_its_time_is_over(
    server: Surging,
    refusals: int,
    error: type[UnavailableError],
    told: type[MlshipError],
) -> None:
    guarded = Guarded(refusals, error)
    config = TargetConfig(ready_seconds=20)
    rollout = waiting.Rollout(cast("Api", guarded), SCOPE, config, SLOT, Notes())
    with pytest.raises(told):
        rollout.wait()
    assert guarded.looks <= refusals + 1
