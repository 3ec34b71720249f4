"""The real command line, twice: the second run leaves a cluster and the ledger as they are."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from mlship.adapters.targets.kubernetes.api import path
from mlship.domain.release import Release
from tests.harness import clusters
from tests.harness.pair import shop_of_two
from tests.harness.twice import Shop, proven, target, won

IN_ONE = pytest.mark.service("cluster")

CONFIG = {
    "name": "iris",
    "data": {"train": "train.csv", "test": "test.csv", "target": "species"},
    "model": {"train": "pipeline:train"},
    "gates": {"promote": {"min_labels": 50}},
    "store": {"kind": "directory"},
    # The images are stand-ins, of which nobody attests anything.
    "image": {"attach": "off"},
}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """Give a project whose targets are two namespaces of one cluster."""
    with ExitStack() as stack:
        places = {
            name: stack.enter_context(clusters.cluster()) for name in ("staging", "production")
        }
        targets = {name: target(place) for name, place in places.items()}
        text = yaml.safe_dump({**CONFIG, "targets": targets})
        (tmp_path / "mlship.yaml").write_text(text)
        yield Shop(tmp_path, places)


@IN_ONE
def test_a_command_run_twice_writes_nothing_the_second_time(shop: Shop) -> None:
    one, two = proven(shop, "one"), proven(shop, "two")
    won(shop, one, two)
    commands: list[tuple[str, ...]] = [
        ("deploy-staging", str(one)),
        ("deploy-production", str(one)),
        ("deploy-production", str(two)),
        ("traffic", "challenger=30"),
        ("promote", "challenger"),
        ("rollback",),
        ("retire", str(two)),
    ]
    for command in commands:
        found = shop.twice(*command)
        assert found.codes == (0, 0), found
        assert found.generations == found.writes == found.records == [], found
        assert (found.pods, found.versions) == (0, False), found
    assert shop.pipeline().read().history.role(two) == "retired"


@pytest.mark.service("two clusters")
def test_a_command_run_twice_writes_nothing_in_either_cluster(tmp_path: Path) -> None:
    with shop_of_two(tmp_path, CONFIG) as shop:
        router = clusters.router_image()
        one, two = (proven(shop, name, router=router) for name in ("one", "two"))
        won(shop, one, two)
        for command in story(one, two):
            found = shop.twice(*command)
            assert found.codes == (0, 0), found
            assert found.generations == found.writes == found.records == [], found
            assert (found.pods, found.versions) == (0, False), found
        assert shop.pipeline().read().history.role(one) == "retired"


def story(one: Release, two: Release) -> list[tuple[str, ...]]:
    """Return the commands from the first release to the retirement of its cluster."""
    return [
        ("deploy-production", str(one)),
        ("deploy-production", str(two)),
        ("traffic", "challenger=30"),
        ("promote", "challenger", "--reconcile"),
        ("rollback",),
        ("promote", str(two), "--adopt"),
        ("retire", "--early"),
    ]


def leases(shop: Shop) -> list[str]:
    found = []
    for place in shop.places.values():
        with place.api() as api:
            found += [one["metadata"]["name"] for one in api.list("Lease", {})]
    return found


@IN_ONE
def test_a_dry_run_says_what_the_deployment_does_and_leaves_nothing(shop: Shop) -> None:
    one = proven(shop, "one")
    before = shop.seen()
    diff = shop.done("deploy-staging", "--dry-run", str(one))
    assert "+kind: Deployment" in diff
    assert "+kind: HTTPRoute" in diff
    assert "\x1b" not in diff
    told = json.loads(shop.done("--json", "deploy-production", "--dry-run", str(one)))
    assert (told["release"], told["target"]) == (str(one), "production")
    assert [change["action"] for change in told["changes"]] == ["create"] * 5
    assert shop.seen() == before
    assert leases(shop) == []
    shop.done("deploy-staging", str(one))
    deployed = shop.seen()
    assert shop.done("deploy-staging", "--dry-run", str(one)) == ""
    assert shop.seen() == deployed
    assert shop.mlship("deploy-staging", "--dry-run", "--render", "out", str(one)).code == 2


@IN_ONE
def test_manifests_are_written_without_a_cluster_and_taken_by_one(shop: Shop) -> None:
    one = proven(shop, "one")
    nowhere = ("--set", "targets.production.kubernetes.kubeconfig=/nowhere")
    command = ("deploy-production", "--render", "out/manifests", str(one))
    names = shop.done(*nowhere, *command).splitlines()
    written = {name: (shop.folder / name).read_bytes() for name in names}
    assert len(written) == 5
    assert shop.done(*command).splitlines() == names
    assert {name: (shop.folder / name).read_bytes() for name in names} == written
    place = shop.places["production"]
    for text in written.values():
        one_object = yaml.safe_load(text)
        kind, name = one_object["kind"], one_object["metadata"]["name"]
        asked = {"fieldManager": "kubectl", "dryRun": "All", "fieldValidation": "Strict"}
        headers = {"Content-Type": "application/apply-patch+yaml"}
        where = path(kind, place.namespace, name)
        place.kubectl("PATCH", where, params=asked, headers=headers, content=text)
    (shop.folder / names[0]).write_text("kind: Service\n")
    refused = shop.mlship(*command)
    assert (refused.code, refused.stdout) == (8, "")
    assert f"{names[0]} was changed since mlship wrote it" in refused.stderr
