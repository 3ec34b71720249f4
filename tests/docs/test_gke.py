"""The permissions that the page on GKE gives are those that the target needs, and hold."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.blocks import ROOT, Reader, blocks
from tests.docs.test_manifests import shown
from tests.harness import clusters
from tests.harness.clusters import Cluster
from tests.harness.workflows import SOURCE

PAGE = ROOT / "docs" / "guide" / "gke.md"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
# Keeps what it is given to apply.
KUBECTL = """
import sys
with open("applied.yaml", "a") as file:
    if sys.argv[1:] == ["apply", "--filename", "-"]:
        file.write(f"---\\n{sys.stdin.read()}")
    elif sys.argv[1:3] == ["create", "namespace"]:
        file.write(f"---\\n{{kind: Namespace, metadata: {{name: {sys.argv[3]}}}}}\\n")
"""


@pytest.fixture
def applied(tmp_path: Path) -> list[dict[str, Any]]:
    """The objects that the page's reader gives to kubectl."""
    reader = Reader(tmp_path)
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.write_text(f"#!{sys.executable}\n{KUBECTL}")
    kubectl.chmod(0o755)
    [project] = [block for block in blocks(PAGE, "bash") if "cat > google.env" in block.text]
    plain, gateway = (block for block in blocks(PAGE, "bash") if "kind: Role\n" in block.text)
    reader.run(project.text.partition("\n. ./google.env")[0])
    for block in (plain, gateway):
        reader.run(block.text)
    return [one for one in yaml.safe_load_all((reader.folder / "applied.yaml").read_text()) if one]


def test_the_roles_are_those_of_any_kubernetes(applied: list[dict[str, Any]]) -> None:
    wanted = {
        one["metadata"]["name"]: one["rules"]
        for one in shown("kubernetes.md")
        if one["kind"] == "Role"
    }
    for name in ("staging", "production"):
        rules = {
            (one["metadata"]["namespace"], one["metadata"]["name"]): one["rules"]
            for one in applied
            if one["kind"] == "Role"
        }
        assert rules[f"iris-{name}", "mlship"] == wanted["mlship"]
        assert rules[f"iris-{name}", "mlship-routes"] == wanted["mlship-routes"]
        assert rules["gateway", f"iris-{name}"] == wanted["mlship-iris"]
    assert [one["metadata"]["name"] for one in applied if one["kind"] == "Namespace"] == [
        "iris-staging",
        "iris-production",
    ]


def test_the_shortest_path_needs_no_gateway() -> None:
    path = PAGE.read_text().partition("## With a Gateway")[0]
    assert "gateway/gateway" not in path
    assert "projectcontour" not in path
    assert "httproutes" not in path
    assert "The first release" in path


def test_the_settings_are_accepted_and_give_all_workflows(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    reader.environment["MLSHIP_WORKFLOWS__MLSHIP"] = SOURCE
    (reader.folder / "google.env").write_text(
        "PROJECT=iris-4711\nREGION=europe-west1\nZONE=europe-west1-b\nDATABASE=203.0.113.7\n"
    )
    [block] = [block for block in blocks(PAGE, "bash") if ">> mlship.yaml" in block.text]
    told = reader.run(block.text)
    assert "wrote .github/workflows/promote.yml" in told
    assert "GCP_WORKLOAD_IDENTITY_PROVIDER" in told
    settings = yaml.safe_load((reader.folder / "mlship.yaml").read_text())
    assert settings["targets"]["production"]["gke"]["location"] == "europe-west1-b"


@pytest.fixture
def place() -> Iterator[Cluster]:
    with clusters.cluster() as cluster:
        yield cluster


@pytest.mark.service("cluster")
def test_an_account_has_its_permissions_in_its_own_namespace_alone(
    applied: list[dict[str, Any]], place: Cluster
) -> None:
    ours, others = "production", "staging"
    for one in applied:
        if one["metadata"].get("namespace") == f"iris-{ours}":
            one["metadata"]["namespace"] = place.namespace
            plural = f"{one['kind'].lower()}s"
            place.kubectl("POST", f"{RBAC}/namespaces/{place.namespace}/{plural}", json=one)
    assert may(place, ours, "create", "apps", "deployments")
    assert may(place, ours, "update", "gateway.networking.k8s.io", "httproutes")
    assert not may(place, ours, "get", "", "secrets")
    assert not may(place, others, "create", "apps", "deployments")


def may(place: Cluster, account: str, verb: str, group: str, resource: str) -> bool:
    """Return whether a Google account may do something in the namespace."""
    attributes = {"verb": verb, "group": group, "resource": resource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"{account}@iris-4711.iam.gserviceaccount.com",
            "resourceAttributes": {"namespace": place.namespace, **attributes},
        },
    }
    answer = place.kubectl("POST", REVIEWS, json=review)
    return bool(answer["status"]["allowed"])
