"""The cluster target as its users meet it: mistakes, repeats, splits, locks, a silent server."""

import base64
import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import yaml

from mlship.adapters.targets.kubernetes import KubernetesTarget, LeaseLocks, Scope, find
from mlship.adapters.targets.kubernetes.api import Kind, path
from mlship.adapters.targets.kubernetes.manifests import KINDS
from mlship.config.project import TargetConfig
from mlship.config.targets import AutoscaleConfig, KubernetesConfig
from mlship.domain.deployment import Artifact, Plan, Slot, Split, slot_of
from mlship.domain.digests import Digest
from mlship.errors import (
    ConfigError,
    ConflictError,
    MlshipError,
    NotFoundError,
    ProjectError,
    TimedOutError,
    UnavailableError,
)
from tests.harness import asking, clusters
from tests.harness.clusters import Cluster, artifact
from tests.harness.places import Notes
from tests.harness.samples import release

pytestmark = pytest.mark.service("cluster")

ONE = release("one")
TWO = release("two")
MISSING = Digest("sha256:" + "0" * 64)


@pytest.fixture
def place() -> Iterator[Cluster]:
    with clusters.cluster() as found:
        yield found


def ask(place: Cluster, **headers: str) -> httpx.Response:
    return asking.post(place.target.routes().endpoint + "/predict", json={}, headers=headers)


def state(place: Cluster) -> dict[str, str]:
    """Return the generation of every object that the target wrote."""
    kinds: tuple[Kind, ...] = (*KINDS, "HTTPRoute")
    with place.api() as api:
        return {
            f"{kind} {one['metadata']['name']}": str(one["metadata"].get("generation", 0))
            for kind in kinds
            for one in api.list(kind, place.scope.labels)
        }


def missing_image() -> Artifact:
    location = f"{clusters.REGISTRY}/mlship-tests/stand-in@{MISSING}"
    return Artifact(kind="image", digest=MISSING, location=location)


FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], type[MlshipError], str]] = {
    "crashes": ({"fail": "no such column: petal_colour"}, {}, ProjectError, "petal_colour"),
    "never ready": (
        {"never_ready": True},
        {"ready_seconds": 6},
        TimedOutError,
        "it is starting; 0 of 1 replicas ready after 6 s",
    ),
    "refuses": (
        {"refuses": "golden example 3 differs"},
        {},
        ProjectError,
        "golden example 3 differs",
    ),
    "takes too much memory": (
        {"megabytes": 200},
        {"kubernetes_memory": "64Mi"},
        ProjectError,
        "more memory than its limit",
    ),
    "asks for too much memory": (
        {},
        {"kubernetes_memory": "900Gi", "ready_seconds": 4},
        TimedOutError,
        "Insufficient memory",
    ),
    "has no Secret": (
        {},
        {"kubernetes_env_from_secret": "database"},
        ConfigError,
        'secret "database" not found',
    ),
    "has no image": ({}, {}, NotFoundError, "cannot pull image.*not found"),
}


@pytest.fixture(scope="module")
def champion() -> Iterator[Cluster]:
    """A namespace where a champion runs and has all traffic; other tests use it, too."""
    with clusters.cluster() as found:
        found.route({found.deploy(ONE): 100})
        yield found


@pytest.fixture(scope="module")
def _pair() -> Iterator[Cluster]:
    with clusters.cluster() as found:
        yield found


@pytest.fixture
def pair(_pair: Cluster) -> Cluster:
    """A namespace where two releases run, and that has no route; other tests use it, too."""
    with _pair.api() as api:
        api.delete("HTTPRoute", _pair.scope.name)
    for each in (ONE, TWO):
        _pair.deploy(each)
    return _pair


@pytest.mark.parametrize("fault", FAULTS)
def test_a_challenger_that_fails_is_taken_away_with_the_reason(
    champion: Cluster, fault: str
) -> None:
    behaviour, settings, kind, reason = FAULTS[fault]
    broken = missing_image() if fault == "has no image" else artifact("broken", **behaviour)
    observed, written = champion.target.inspect(), state(champion)
    slot = slot_of(TWO)
    with pytest.raises(kind, match=f"(?s){slot} of staging, pod .*{reason}") as caught:
        champion.again(**settings).deploy(TWO, broken, slot, replicas=1)
    assert caught.value.hint
    assert champion.target.inspect() == observed
    assert state(champion) == written
    assert champion.pods(slot) == []
    assert ask(champion).status_code == 200


def test_deploying_and_routing_twice_writes_nothing(champion: Cluster) -> None:
    slot = champion.deploy(ONE, replicas=2)
    champion.route({slot: 100})
    before, pods = state(champion), {pod["metadata"]["name"] for pod in champion.pods(slot)}
    assert len(before) == 5
    champion.deploy(ONE, replicas=2)
    champion.route({slot: 100})
    assert state(champion) == before
    assert {pod["metadata"]["name"] for pod in champion.pods(slot)} == pods


def test_every_object_says_which_release_it_belongs_to(champion: Cluster) -> None:
    slot = champion.deploy(ONE)
    with champion.api() as api:
        found = [api.get(kind, champion.scope.object(slot)) for kind in KINDS] + api.list("Pod", {})
    for one in found:
        assert one is not None
        assert one["metadata"]["annotations"]["mlship.dev/release"] == ONE.id
        assert one["metadata"]["labels"]["mlship.dev/release"] == slot.removeprefix("r")
        assert one["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "mlship"


def test_a_change_of_settings_that_does_not_work_leaves_the_running_pods(champion: Cluster) -> None:
    slot = champion.deploy(ONE)
    champion.route({slot: 100})
    changed = champion.again(kubernetes_env_from_secret="database")
    with pytest.raises(ConfigError, match="database"):
        changed.deploy(ONE, artifact(slot), slot, replicas=2)
    clusters.until(lambda: champion.target.inspect()[slot].detail == "")
    found = champion.target.inspect()[slot]
    assert (found.ready, found.wanted) == (1, 1)
    assert ask(champion).status_code == 200


def test_the_gateway_splits_by_weight(pair: Cluster) -> None:
    one, two = slot_of(ONE), slot_of(TWO)
    pair.route({one: 80, two: 20})
    url = pair.target.routes().endpoint + "/predict"
    with httpx.Client(verify=asking.TRUST) as client:
        seen = Counter(client.post(url, json={}).json()["slot"] for _ in range(1000))
    assert 150 <= seen[two] <= 250
    assert seen[one] + seen[two] == 1000


def test_a_split_holds_for_every_request_after_route_returned(pair: Cluster) -> None:
    one, two = slot_of(ONE), slot_of(TWO)
    url = pair.target.routes().endpoint + "/predict"
    with httpx.Client(verify=asking.TRUST) as client:
        for slot in (one, two, one, two, one):
            started = time.monotonic()
            pair.route({slot: 100})
            assert time.monotonic() - started < 2
            seen = {client.post(url, json={}).json()["slot"] for _ in range(20)}
            assert seen == {slot}


def test_a_shadow_gets_a_copy_and_answers_nobody(pair: Cluster) -> None:
    one, two = slot_of(ONE), slot_of(TWO)
    (pod,) = pair.pods(two)
    where = path("Pod", pair.namespace, pod["metadata"]["name"], "proxy/asked")
    before = pair.kubectl("GET", where)["asked"]
    pair.route({one: 100}, shadow=two)
    assert {ask(pair).json()["slot"] for _ in range(20)} == {one}
    asked = pair.kubectl("GET", where)["asked"] - before
    assert 15 <= asked <= 20


def planned(*, replicas: int = 1, **more: Any) -> Plan:
    """Return the plan to give ONE all traffic."""
    slot = slot_of(ONE)
    made = {"split": Split(weights={slot: 100}), **more}
    return Plan(release=ONE, artifact=artifact(slot), slot=slot, replicas=replicas, **made)


def test_the_diff_shows_what_deploying_would_change_and_changes_nothing(place: Cluster) -> None:
    new = place.target.changes(planned())
    assert [one.object.partition(" ")[0] for one in new] == [*KINDS, "HTTPRoute"]
    assert {one.action for one in new} == {"create"}
    assert "+kind: Deployment" in "".join(one.diff for one in new)
    assert state(place) == {}
    slot = place.deploy(ONE)
    (route,) = place.target.changes(planned())
    assert (route.object, route.action) == ("HTTPRoute iris-staging", "create")
    assert f"+    - group: ''\n+      kind: Service\n+      name: iris-staging-{slot}" in route.diff
    place.route({slot: 100})
    before = state(place)
    assert place.target.changes(planned()) == []
    more = place.target.changes(planned(replicas=3))
    changed = "".join(one.diff for one in more)
    assert "-  replicas: 1" in changed
    assert "+  replicas: 3" in changed
    assert {one.action for one in more} == {"change"}
    assert state(place) == before
    assert place.target.inspect()[slot].wanted == 1


def test_the_diff_of_a_split_and_a_removal_is_what_comes_of_them(pair: Cluster) -> None:
    one, two = slot_of(ONE), slot_of(TWO)
    pair.route({two: 100})
    before = state(pair)
    found = pair.target.changes(planned(removed=(two,)))
    route, *gone = found
    assert (route.object, route.action) == ("HTTPRoute iris-staging", "change")
    assert {each.object for each in gone} == {f"{kind} iris-staging-{two}" for kind in KINDS}
    assert {each.action for each in gone} == {"delete"}
    assert state(pair) == before
    pair.route({one: 100})
    pair.target.remove(two)
    assert pair.target.changes(planned()) == []
    with pytest.raises(NotFoundError, match=f"slot {two} of staging has no ready replica"):
        pair.target.changes(planned(split=Split(weights={one: 90, two: 10})))
    other = missing_image()
    with pytest.raises(ConflictError, match="holds"):
        pair.target.changes(msgspec.structs.replace(planned(), artifact=other))


def test_the_rendered_files_are_taken_by_the_server_and_are_what_a_deployment_writes(
    place: Cluster,
) -> None:
    files = place.target.render(planned())
    assert place.target.render(planned()) == files
    assert len(files) == 5
    with place.api() as api:
        for text in files.values():
            one = yaml.safe_load(text)
            where = path(one["kind"], place.namespace, one["metadata"]["name"])
            asked = {"fieldManager": "kubectl", "dryRun": "All", "fieldValidation": "Strict"}
            kind = {"Content-Type": "application/apply-patch+yaml"}
            place.kubectl("PATCH", where, params=asked, headers=kind, content=text)
            assert api.get(one["kind"], one["metadata"]["name"]) is None
        place.route({place.deploy(ONE): 100})
        for text in files.values():
            one = yaml.safe_load(text)
            found = api.get(one["kind"], one["metadata"]["name"])
            assert found is not None
            assert found["metadata"]["labels"] == one["metadata"]["labels"]
            assert one["kind"] != "HTTPRoute" or found["spec"] == one["spec"]


@pytest.mark.parametrize(
    ("autoscale", "measure"),
    [
        (AutoscaleConfig(), "Resource"),
        (AutoscaleConfig(metric="requests_in_flight", in_flight=4), "Pods"),
    ],
)
def test_a_slot_that_has_grown_keeps_its_replicas(
    place: Cluster, autoscale: AutoscaleConfig, measure: str
) -> None:
    slot = slot_of(ONE)
    target = place.again(kubernetes_max_replicas=3, kubernetes_autoscale=autoscale)
    target.deploy(ONE, artifact(slot), slot, replicas=1)
    where = path("Deployment", place.namespace, place.scope.object(slot), "scale")
    scale = place.kubectl("GET", where)
    scale["spec"]["replicas"] = 2
    place.kubectl("PUT", where, json=scale)
    assert target.deploy(ONE, artifact(slot), slot, replicas=1).wanted == 2
    with place.api() as api:
        scaler = api.get("HorizontalPodAutoscaler", place.scope.object(slot))
    assert scaler is not None
    assert [each["type"] for each in scaler["spec"]["metrics"]] == [measure]
    target.route(Split(weights={slot: 100}), expected=target.routes().revision)
    assert target.altered() == []
    assert target.deploy(ONE, artifact(slot), slot, replicas=3).wanted == 3


def test_a_route_that_somebody_else_writes_is_a_conflict(pair: Cluster) -> None:
    one, two = slot_of(ONE), slot_of(TWO)
    pair.route({one: 90, two: 10})
    seen = pair.target.routes().revision
    with pair.api() as api:
        found = api.get("HTTPRoute", pair.scope.name)
        assert found is not None
        for reference, weight in zip(
            found["spec"]["rules"][0]["backendRefs"], (50, 50), strict=True
        ):
            reference["weight"] = weight
        api.replace(found)
    with pytest.raises(ConflictError):
        pair.target.route(Split(weights={two: 100}), expected=seen)
    assert pair.target.routes().split.weights == {one: 50, two: 50}


def holding(config: bytes, namespace: str, ready: Any) -> None:
    """Hold the lock in a process of its own until it is killed."""
    settings = msgspec.json.decode(config, type=KubernetesConfig)
    locks = LeaseLocks("iris", namespace, lambda: find(settings, {}), "ada at laptop, process 7")
    with locks.exclusive("staging"):
        ready.set()
        time.sleep(120)


def test_a_lock_is_one_processs_and_a_killed_one_loses_it(champion: Cluster) -> None:
    with champion.locks("bob").exclusive("staging"):
        pass
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    settings = msgspec.json.encode(champion.kubernetes)
    holder = context.Process(target=holding, args=(settings, champion.namespace, ready))
    holder.start()
    assert ready.wait(30)
    started = time.monotonic()
    with (
        pytest.raises(ConflictError, match="ada at laptop, process 7"),
        champion.locks("bob").exclusive("staging"),
    ):
        pass
    assert time.monotonic() - started < 5
    with champion.locks("bob").exclusive("production"):
        pass
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    started = time.monotonic()
    with champion.locks("bob").exclusive("staging"):
        taken = time.monotonic() - started
    assert 5 < taken <= 15
    started = time.monotonic()
    with champion.locks("carol").exclusive("staging"):
        assert time.monotonic() - started < 2


def test_of_many_that_want_a_lock_one_gets_it(champion: Cluster) -> None:
    won: list[str] = []

    def want(who: str) -> None:
        try:
            with champion.locks(who).exclusive("staging"):
                won.append(who)
                time.sleep(6)
        except ConflictError:
            pass

    threads = [threading.Thread(target=want, args=(f"process {n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def refusal(place: Cluster, **changes: Any) -> MlshipError:
    """Return why a first look, then a deploy, fails with other settings."""
    target = place.again(**changes)
    slot = slot_of(ONE)
    with pytest.raises(MlshipError) as caught:
        target.deploy(ONE, artifact(slot), slot, replicas=1)
    assert caught.value.hint
    return caught.value


def test_what_does_not_exist_is_named(champion: Cluster) -> None:
    error = refusal(champion, kubernetes_context="prod")
    assert isinstance(error, ConfigError)
    assert "no context prod" in error.message
    error = refusal(champion, kubernetes_namespace="nowhere")
    assert isinstance(error, NotFoundError)
    assert "no namespace nowhere" in error.message
    error = refusal(champion, kubernetes_gateway="gateway/other")
    assert isinstance(error, NotFoundError)
    assert "no Gateway gateway/other" in error.message
    error = refusal(champion, kubernetes_kubeconfig="/nowhere")
    assert isinstance(error, ConfigError)


def test_who_may_not_is_told_what_he_may_not(champion: Cluster, tmp_path: Path) -> None:
    where = f"/api/v1/namespaces/{champion.namespace}/serviceaccounts"
    champion.kubectl("POST", where, json={"metadata": {"name": "nobody"}})
    token = champion.kubectl("POST", f"{where}/nobody/token", json={"spec": {}})["status"]["token"]
    document = json.loads(champion.path.read_text())
    document["users"][0]["user"] = {"token": token}
    limited = tmp_path / "kubeconfig"
    limited.write_text(json.dumps(document))
    error = refusal(champion, kubernetes_kubeconfig=str(limited))
    assert isinstance(error, UnavailableError)
    assert "nobody to get gateways.gateway.networking.k8s.io" in error.message
    target = champion.again(kubernetes_kubeconfig=str(limited))
    with pytest.raises(UnavailableError, match=r"nobody to list pods in namespace"):
        target.inspect()
    document["users"][0]["user"] = {"token": "expired"}
    limited.write_text(json.dumps(document))
    assert (
        "does not accept the credentials"
        in refusal(champion, kubernetes_kubeconfig=str(limited)).message
    )


def test_a_silent_server_is_given_up_in_seconds(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
        port = silent.getsockname()[1]
        document = {
            "clusters": [{"name": "a", "cluster": {"server": f"https://127.0.0.1:{port}"}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "users": [{"name": "a", "user": {"token": base64.b64encode(b"a").decode()}}],
        }
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(json.dumps(document))
        settings = KubernetesConfig(kubeconfig=str(kubeconfig))
        target = KubernetesTarget(
            Scope(project="iris", target="staging"),
            TargetConfig(kind="kubernetes", kubernetes=settings),
            lambda: find(settings, {}),
            Notes(),
        )
        started = time.monotonic()
        with pytest.raises(UnavailableError, match=f"context a: .*{port} does not answer"):
            target.inspect()
        assert time.monotonic() - started < 5.5


def test_a_slot_whose_removal_was_begun_can_be_deployed_again(pair: Cluster) -> None:
    slot = slot_of(ONE)
    with pair.api() as api:
        api.delete("Deployment", pair.scope.object(slot))
    assert pair.deploy(ONE) == slot
    assert pair.target.inspect()[slot].ready == 1


def test_a_deployment_that_vanished_is_a_slot_that_is_gone(pair: Cluster) -> None:
    one, two = slot_of(ONE), slot_of(TWO)
    pair.route({one: 90, two: 10})
    pair.route({one: 100})
    with pair.api() as api:
        for kind in reversed(KINDS):
            api.delete(kind, pair.scope.object(two))
    clusters.until(lambda: Slot(two) not in pair.target.inspect())
    pair.route({one: 100}, None)
    pair.target.remove(two)
    assert set(pair.target.inspect()) == {one}
