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
from mlship.domain.deployment import Plan, Split, slot_of
from mlship.errors import ProjectError
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
    path = str(limited(place, tmp_path))
    place.kubernetes = msgspec.structs.replace(place.kubernetes, kubeconfig=path)
    place.target = place.again(sticky_header="x-user")
    assert "comes with the first deployment" in review(place.scope, place.config, place.access)
    one, two = place.deploy(ONE), slot_of(TWO)
    place.route({one: 100})
    split = Split(weights={one: 50, two: 50})
    plan = Plan(release=TWO, artifact=place.artifact(two), slot=two, replicas=1, split=split)
    changed = {change.object for change in place.target.changes(plan)}
    assert f"ConfigMap {place.scope.object(ROUTER)}" in changed
    assert f"Deployment {place.scope.object(two)}" in changed
    assert f"Deployment {place.scope.object(ROUTER)}" not in changed
    place.deploy(TWO)
    place.route(dict(split.weights))
    assert slots_of(place, "same") in ({one}, {two})
    assert slots_of(place, *map(str, range(40))) == {one, two}
    place.route({two: 100})
    place.target.remove(one)
    place.route({})
    place.target.remove(two)
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
    kinds: tuple[Any, ...] = ("ConfigMap", "Deployment", "PodDisruptionBudget", "Service")
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


def test_the_endpoint_in_the_cluster_is_the_name_of_the_service(place: Cluster) -> None:
    place.target = place.again(kubernetes_service="ClusterIP", kubernetes_path="/")
    slot = place.deploy(ONE)
    assert "2 of 2 replicas ready" in review(place.scope, place.config, place.access)
    place.route({slot: 100})
    route = place.target.routes()
    assert route.split.weights == {slot: 100}
    assert route.endpoint == f"http://{place.scope.object(ROUTER)}.{place.namespace}.svc"
