"""A cluster without a Gateway: with the rights of the guide, mlship brings the load balancer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import yaml

from mlship.adapters.targets.kubernetes import review
from mlship.adapters.targets.kubernetes.router_manifests import ROUTER
from mlship.domain.counts import grown
from mlship.domain.deployment import Plan, Split, slot_of
from mlship.errors import NotFoundError, ProjectError
from tests.docs.blocks import ROOT, blocks
from tests.harness import clusters
from tests.harness.clusters import Cluster
from tests.harness.samples import release

pytestmark = pytest.mark.service("cluster")

ONE, TWO = release("one"), release("two")


@pytest.fixture
def place() -> Iterator[Cluster]:
    with clusters.cluster(is_plain=True) as found:
        yield found


def limited(place: Cluster, folder: Path) -> Path:
    """Return a kubeconfig of an account with the Role of the guide, and no other right."""
    core = f"/api/v1/namespaces/{place.namespace}/serviceaccounts"
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{place.namespace}"
    page = ROOT / "docs" / "guide" / "kubernetes.md"
    role, binding = yaml.safe_load_all(blocks(page, "yml")[0].text)
    (account,) = binding["subjects"]
    account["namespace"] = place.namespace
    place.kubectl("POST", core, json={"metadata": {"name": account["name"]}})
    place.kubectl("POST", f"{roles}/roles", json=role)
    place.kubectl("POST", f"{roles}/rolebindings", json=binding)
    token = place.kubectl("POST", f"{core}/{account['name']}/token", json={"spec": {}})
    document = json.loads(place.path.read_text())
    document["users"][0]["user"] = {"token": token["status"]["token"]}
    path = folder / "kubeconfig"
    path.write_text(json.dumps(document))
    return path


def test_the_guides_role_is_enough_for_a_life_of_two_releases(
    place: Cluster, tmp_path: Path
) -> None:
    least = Cluster(limited(place, tmp_path), place.namespace, is_plain=True)
    least.target = least.again(sticky_header="x-user", kubernetes_network_policy=True)
    assert "comes with the first deployment" in review(least.scope, least.config, least.access)
    one, two = least.deploy(ONE), slot_of(TWO)
    least.route({one: 100})
    split = Split(weights={one: 50, two: 50})
    plan = Plan(release=TWO, artifact=least.artifact(two), slot=two, replicas=1, split=split)
    changed = {change.object for change in least.target.changes(plan)}
    assert f"ConfigMap {least.scope.object(ROUTER)}" in changed
    assert f"Deployment {least.scope.object(two)}" in changed
    assert f"Deployment {least.scope.object(ROUTER)}" not in changed
    least.deploy(TWO)
    least.route(dict(split.weights))
    assert slots_of(least, "same") in ({one}, {two})
    before = least.target.counts()
    assert slots_of(least, *map(str, range(40))) == {one, two}
    after = least.target.counts()
    counted = [grown(before, after, slot) for slot in (one, two)]
    assert all(growth.answered for growth in counted)
    assert sum(growth.requests for growth in counted) == 200
    least.route({two: 100})
    least.target.remove(one)
    least.route({})
    least.target.remove(two)
    assert objects(place) == set()


def slots_of(place: Cluster, *users: str) -> set[str]:
    """Return the slots that answer five requests of each user."""
    url = f"{place.target.routes().endpoint}/predict"
    with httpx.Client() as client:
        return {
            client.post(url, json={}, headers={"x-user": user}).json()["slot"]
            for user in users
            for _ in range(5)
        }


def objects(place: Cluster) -> set[str]:
    """Return what is left of the project in its namespace."""
    kinds: tuple[Any, ...] = (
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
    )
    with place.api() as api:
        return {
            f"{kind} {each['metadata']['name']}"
            for kind in kinds
            for each in api.list(kind, {"app.kubernetes.io/managed-by": "mlship"})
        }


def test_a_first_deployment_that_fails_leaves_no_load_balancer(place: Cluster) -> None:
    target = place.again(ready_seconds=15)
    broken = place.artifact("broken", refuses="no such column: petal_colour")
    with pytest.raises(ProjectError, match="petal_colour"):
        target.deploy(ONE, broken, slot_of(ONE), replicas=1)
    assert objects(place) == set()


def test_a_router_that_does_not_start_leaves_the_former_one(place: Cluster) -> None:
    one = place.deploy(ONE)
    missing = f"{clusters.REGISTRY}/mlship-tests/router@sha256:{'0' * 64}"
    artifact = msgspec.structs.replace(place.artifact(slot_of(TWO)), router=missing)
    with pytest.raises(NotFoundError, match="router of staging"):
        place.target.deploy(TWO, artifact, slot_of(TWO), replicas=1)
    assert set(place.target.inspect()) == {one}
    with place.api() as api:
        deployment = api.get("Deployment", place.scope.object(ROUTER))
    assert deployment is not None
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == clusters.router_image()


def test_the_endpoint_in_the_cluster_is_the_name_of_the_service(place: Cluster) -> None:
    place.target = place.again(kubernetes_service="ClusterIP", kubernetes_path="/")
    place.deploy(ONE)
    assert "2 of 2 replicas ready" in review(place.scope, place.config, place.access)
    assert (
        place.target.routes().endpoint
        == f"http://{place.scope.object(ROUTER)}.{place.namespace}.svc"
    )
