"""No request is lost while slots and pods change in a cluster; without draining, requests are."""

import time
from typing import Any

import pytest

from mlship.adapters.targets.kubernetes.api import path
from mlship.adapters.targets.kubernetes.pod_status import is_ready
from mlship.adapters.targets.kubernetes.router_manifests import ROUTER
from mlship.domain.deployment import Slot, slot_of
from tests.harness import clusters
from tests.harness.clusters import Cluster
from tests.harness.load import load
from tests.harness.samples import release

pytestmark = pytest.mark.service("cluster")

ONE = release("one")
TWO = release("two")
# Told to end, it ends in the middle of a request: only what keeps it from being told too early
# protects requests here.
BEHAVIOUR: dict[str, Any] = {"answer_seconds": 0.2, "abrupt": True}


@pytest.mark.parametrize("is_guarded", [True, False])
def test_changes_under_load_fail_no_request_but_without_draining(is_guarded: bool) -> None:
    with clusters.cluster() as place:
        if not is_guarded:
            place.target = place.again(drain_seconds=0, kubernetes_prestop_seconds=0)
        place.route({place.deploy(ONE, replicas=2, **BEHAVIOUR): 100})
        with load(place.target.routes().endpoint + "/predict", 100) as requests:
            time.sleep(1)
            change(place)
            time.sleep(1)
    assert sum(requests.answers.values()) > 1500
    assert (requests.failed == {}) == is_guarded, requests.answers


@pytest.mark.parametrize("is_guarded", [True, False])
def test_a_plain_cluster_fails_no_request_but_without_draining(is_guarded: bool) -> None:
    with clusters.cluster(is_plain=True) as place:
        if not is_guarded:
            place.target = place.again(drain_seconds=0, kubernetes_prestop_seconds=0)
        place.route({place.deploy(ONE, replicas=2, **BEHAVIOUR): 100})
        with load(place.target.routes().endpoint + "/predict", 100) as requests:
            time.sleep(1)
            replace_router(place)
            if is_guarded:
                take_turns(place)
            time.sleep(1)
    assert sum(requests.answers.values()) > 300
    assert (requests.failed == {}) == is_guarded, requests.answers


def change(place: Cluster) -> None:
    """Challenge, promote, roll back, promote, retire; then a rolling update and two evictions."""
    two = take_turns(place)
    for pod in place.pods(two):
        evict(place, pod["metadata"]["name"])
        clusters.until(lambda: place.target.inspect()[two].detail == "", seconds=40)
    place.target.deploy(TWO, place.artifact(two, **BEHAVIOUR), two, replicas=1)
    place.route({place.deploy(ONE, **BEHAVIOUR): 100})


def take_turns(place: Cluster) -> Slot:
    """Challenge, promote, roll back, promote, retire, and update; return the slot that is left."""
    one, two = slot_of(ONE), place.deploy(TWO, replicas=2, **BEHAVIOUR)
    for weights in ({one: 90, two: 10}, {two: 100}, {one: 100}, {two: 100}):
        place.route(weights)
        time.sleep(0.5)
    place.target.remove(one)
    restart(place, two)
    return two


def replace_router(place: Cluster) -> None:
    """Delete a pod of the router, evict one, and restart all; wait each time for two others."""
    delete(place, router(place)[0])
    clusters.until(lambda: len(router(place)) == 2, seconds=40)
    evict(place, router(place)[0])
    clusters.until(lambda: len(router(place)) == 2, seconds=40)
    restart(place, ROUTER)
    clusters.until(lambda: len(router(place)) == 2, seconds=40)


def router(place: Cluster) -> list[str]:
    """Return the names of the router's ready pods."""
    return [pod["metadata"]["name"] for pod in place.pods(ROUTER) if is_ready(pod)]


def delete(place: Cluster, pod: str) -> None:
    place.kubectl("DELETE", path("Pod", place.namespace, pod))


def restart(place: Cluster, slot: Slot) -> None:
    """Do what `kubectl rollout restart` does, and wait for it."""
    where = path("Deployment", place.namespace, place.scope.object(slot))
    annotation = {"kubectl.kubernetes.io/restartedAt": str(time.time())}
    change = {"spec": {"template": {"metadata": {"annotations": annotation}}}}
    headers = {"content-type": "application/merge-patch+json"}
    before = {pod["metadata"]["name"] for pod in place.pods(slot)}
    place.kubectl("PATCH", where, json=change, headers=headers)
    clusters.until(
        lambda: not before & {pod["metadata"]["name"] for pod in place.pods(slot)}, seconds=60
    )


def evict(place: Cluster, pod: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    place.kubectl("POST", path("Pod", place.namespace, pod, "eviction"), json=body)


def test_the_budget_lets_one_pod_at_a_time_be_evicted() -> None:
    with clusters.cluster() as place:
        slot = place.deploy(ONE, replicas=2)
        first, second = (pod["metadata"]["name"] for pod in place.pods(slot))
        evict(place, first)
        with pytest.raises(AssertionError, match="disruption budget"):
            evict(place, second)
