"""A stream in a cluster on fakes: its objects, the route, and the pods that workers ask."""

import http.client
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.adapters.targets.kubernetes import routing, stream_manifests
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.adapters.targets.kubernetes.router_routing import written as written_by_router
from mlship.config.project import TargetConfig
from mlship.config.stream import StreamConfig
from mlship.config.targets import KubernetesConfig
from mlship.domain.deployment import Slot, Split
from mlship.domain.digests import Digest
from mlship.domain.stream import Plan, Settings, Side
from mlship.domain.stream_cluster import READY, Place
from mlship.errors import (
    ConfigError,
    CredentialsError,
    MlshipError,
    NotFoundError,
    TimedOutError,
    UnavailableError,
)
from mlship.runtime.stream.__main__ import opened
from mlship.runtime.stream.cluster_route import Follower, plan, shares
from mlship.runtime.stream.link import Values
from mlship.runtime.stream.served import Answer, Served

SCOPE = Scope(project="iris", target="production")
ONE, TWO, PARKED = Slot("rone"), Slot("rtwo"), Slot("rzero")
SPLIT = Split(weights={TWO: 90, ONE: 10})
SETTINGS = Settings(brokers="b:1", group="g", input="in", output="out", dead_letter="dead")
STREAM = StreamConfig(brokers="b:1", input="in", output="out", workers=2)
IMAGE = "localhost:5000/iris@sha256:" + "1" * 64


def target(**own: Any) -> TargetConfig:
    return TargetConfig(kind="kubernetes", kubernetes=KubernetesConfig(namespace="ml", **own))


def route(config: TargetConfig, split: Split) -> dict[str, Any]:
    """Return the object with the route as a target writes it."""
    if config.kubernetes.gateway is None:
        return written_by_router(SCOPE, config, None, split, frozenset({PARKED}))
    return routing.written(SCOPE, config.kubernetes, None, split, frozenset({PARKED}))


def identity(slot: str) -> tuple[Digest, Digest]:
    return Digest(f"sha256:{slot:0<64}"), Digest("sha256:0")


@pytest.mark.parametrize("gateway", [None, "gateway/gateway"])
def test_a_worker_reads_the_route_that_decides_about_requests(gateway: str | None) -> None:
    config = target(gateway=gateway)
    place = stream_manifests.place_of(SCOPE, config)
    found = shares(place, route(config, SPLIT))
    assert list(found.weights.items()) == [("rone", 10), ("rtwo", 90)], "parked ones are no sides"
    copied = shares(place, route(config, Split(weights={ONE: 100}, shadow=TWO)))
    assert (copied.weights, copied.shadow) == ({"rone": 100, "rtwo": 0}, "rtwo")
    made = plan(place, found, identity)
    assert [(side.name, side.weight) for side in made.sides] == [
        ("iris@rone00000000", 10),
        ("iris@rtwo00000000", 90),
    ]
    with pytest.raises(UnavailableError, match="gives no release traffic"):
        plan(place, shares(place, route(config, Split())), identity)


def test_a_route_that_cannot_be_read_or_followed_changes_nothing(tmp_path: Path) -> None:
    config = target()
    place = stream_manifests.place_of(SCOPE, config)
    objects: list[dict[str, Any]] = [{}]
    notes: list[str] = []
    ready = {"rone"}

    def asked(slot: str) -> tuple[Digest, Digest]:
        if slot not in ready:
            message = f"slot {slot} is not ready"
            raise UnavailableError(message)
        return identity(slot)

    file = tmp_path / "plan.json"
    follower = Follower(place, file, lambda: objects[-1], asked, notes.append)
    with pytest.raises(TimedOutError, match="there was no route within 0 s"):
        follower.begin(0)
    assert not file.exists()
    objects.append(route(config, Split(weights={ONE: 100})))
    assert follower.look()
    first = file.read_bytes()
    objects.append(route(config, SPLIT))
    assert not follower.look()
    assert file.read_bytes() == first
    assert notes[-1] == "the route stays as it was: slot rtwo is not ready"
    ready.add("rtwo")
    assert follower.look()
    assert len(msgspec.json.decode(file.read_bytes(), type=Plan).sides) == 2


def side(slot: str) -> Side:
    return Side(
        slot=slot,
        release=Digest("sha256:1"),
        name=f"iris@{slot}",
        bundle="",
        digest=Digest("sha256:2"),
        weight=100,
    )


class Pods:
    """Answers requests by the text of their row."""

    def __init__(self, *failures: Answer | Exception) -> None:
        self.asked: list[tuple[bytes, str, bool]] = []
        self._failures = list(failures)

    def ask(self, side: Side, body: bytes, request_id: str, is_copy: bool) -> Answer:
        self.asked.append((body, request_id, is_copy))
        if self._failures:
            failure = self._failures.pop(0)
            if isinstance(failure, Exception):
                raise failure
            return failure
        if b"wide" in body:
            told = {"message": "must be a number", "field": "rows[0].width"}
            return Answer(422, msgspec.json.encode(told))
        found = {"release": side.name, "predictions": [{"id": f"{request_id}.0", "species": "s"}]}
        return Answer(200, msgspec.json.encode(found))


def computed(pods: Pods, *values: bytes | None, seconds: float = 30.0) -> Any:
    settings = msgspec.structs.replace(SETTINGS, compute_seconds=seconds)
    served = Served(settings, pods.ask, lambda _: None)
    ids = [f"id{number}.0" for number in range(len(values))]
    return served.compute({"rone": (side("rone"), Values(ids, list(values)))})["rone"]


def test_a_message_is_one_request_with_the_id_of_its_prediction() -> None:
    pods = Pods()
    results = computed(pods, b'{"rows": [1]}', b'{"width": "wide"}', None, b"no", b"[]")
    assert msgspec.json.decode(results.values[0] or b"") == {
        "prediction_id": "id0.0",
        "release": "iris@rone",
        "species": "s",
    }
    assert min(pods.asked) == (b'[{"rows": [1]}]', "id0", False)
    assert results.faults[1] == ("must be a number", "width")
    assert results.faults[2] == ("the message has no value", "")
    assert results.faults[3][0].startswith("the value is not JSON")
    assert results.faults[4][0].startswith("the value is JSON, but not an object")


def test_pods_that_are_busy_or_away_are_asked_again() -> None:
    busy = Answer(429, b'{"message": "busy"}')
    pods = Pods(busy, ConnectionRefusedError("refused"), http.client.BadStatusLine("x"))
    assert computed(pods, b"{}").values[0] is not None
    assert len(pods.asked) == 4
    with pytest.raises(UnavailableError, match="did not answer within 0 s: busy"):
        computed(Pods(busy), b"{}", seconds=0)
    with pytest.raises(CredentialsError, match="refuses requests of the stream: who"):
        computed(Pods(Answer(401, b'{"message": "who"}')), b"{}")


def test_a_message_on_which_the_model_fails_again_and_again_is_a_dead_letter() -> None:
    failed = Answer(500, b'{"message": "the worker ended"}')
    assert computed(Pods(failed, failed), b"{}").values[0] is not None
    assert computed(Pods(failed, failed, failed), b"{}").faults == {
        0: ("the model fails: the worker ended", "")
    }


def test_a_worker_in_a_pod_waits_for_brokers_that_do_not_answer() -> None:
    notes: list[str] = []
    faults: list[MlshipError] = [UnavailableError("no broker answered", hint="")] * 2

    def connect() -> None:
        if faults:
            raise faults.pop()

    opened(connect, notes.append, 60.0)
    assert notes == ["waits for the brokers: no broker answered"] * 2
    faults = [UnavailableError("no broker answered", hint="")]
    with pytest.raises(UnavailableError):
        opened(connect, notes.append, 0.0)
    # A pod keeps the variables that it was started with.
    for fault in (NotFoundError("no topic", hint=""), CredentialsError("no login", hint="")):
        faults = [fault]
        with pytest.raises(type(fault)):
            opened(connect, notes.append, 60.0)


def test_workers_may_read_the_route_and_nothing_else() -> None:
    made = stream_manifests.render(SCOPE, target(), STREAM, SETTINGS, IMAGE)
    kinds = [each["kind"] for each in made]
    assert kinds == ["ConfigMap", "ServiceAccount", "Role", "RoleBinding", "StatefulSet"]
    assert made[2]["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["iris-production-router"],
            "verbs": ["get"],
        }
    ]
    place = msgspec.json.decode(made[0]["data"]["place.json"], type=Place)
    assert place.path == "/api/v1/namespaces/ml/configmaps/iris-production-router"
    assert place.service("rone") == "iris-production-rone.ml.svc"
    pod = made[4]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == IMAGE
    assert READY in pod["containers"][0]["readinessProbe"]["exec"]["command"][-1]
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    told = msgspec.json.decode(made[0]["data"]["settings.json"], type=Settings)
    assert told == msgspec.structs.replace(SETTINGS, max_rows=200)


def test_workers_are_scaled_by_cpu_or_by_their_lag() -> None:
    by_cpu = msgspec.structs.replace(STREAM, max_workers=4)
    made = stream_manifests.render(SCOPE, target(), by_cpu, SETTINGS, IMAGE)[-1]
    assert (made["kind"], made["spec"]["maxReplicas"]) == ("HorizontalPodAutoscaler", 4)
    by_lag = msgspec.structs.replace(by_cpu, lag=5000)
    made = stream_manifests.render(SCOPE, target(), by_lag, SETTINGS, IMAGE)[-1]
    assert made["kind"] == "ScaledObject"
    assert made["spec"]["triggers"][0]["metadata"]["lagThreshold"] == "5000"
    assert made["spec"]["triggers"][0]["metadata"]["consumerGroup"] == "g"


@pytest.mark.parametrize(
    ("own", "stream", "expected"),
    [
        ({"network_policy": True}, {}, "network_policy keeps workers"),
        ({}, {"format": "avro"}, "stream.format is avro"),
        ({}, {"max_workers": 1}, "max_workers is 1, less than"),
    ],
)
def test_what_workers_cannot_do_is_said_when_they_are_rendered(
    own: dict[str, Any], stream: dict[str, Any], expected: str
) -> None:
    changed = msgspec.structs.replace(STREAM, **stream)
    with pytest.raises(ConfigError, match=expected):
        stream_manifests.render(SCOPE, target(**own), changed, SETTINGS, IMAGE)
