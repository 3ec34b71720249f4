"""Objects for a cluster that the guides show are objects, and the Role is what the target needs."""

from typing import Any

import pytest
import yaml

from mlship.adapters.targets.kubernetes.api import PLACES
from tests.docs.blocks import PAGES, ROOT, blocks


def shown(name: str) -> list[dict[str, Any]]:
    """Return every object in a page of the guide."""
    page = ROOT / "docs" / "guide" / name
    return [one for block in blocks(page, "yml") for one in yaml.safe_load_all(block.text)]


SHOWING = ["clusters.md", "gke.md", "kubernetes.md"]


@pytest.mark.parametrize("name", SHOWING)
def test_each_object_says_what_it_is(name: str) -> None:
    objects = shown(name)
    assert objects
    for one in objects:
        assert {"apiVersion", "kind", "metadata"} <= set(one)
        assert one["metadata"]["name"]


def test_only_the_pages_that_are_read_here_show_objects() -> None:
    pages = {page.name for page in PAGES if blocks(page, "yml")}
    assert pages == set(SHOWING)


def test_the_roles_cover_each_kind_that_the_target_uses_and_no_other() -> None:
    given = {
        (group, resource.partition("/")[0])
        for one in [one for name in SHOWING for one in shown(name)]
        if one["kind"] == "Role"
        for rule in one["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    used = {(place.version.rpartition("/")[0], place.plural) for place in PLACES.values()}
    # The core group, whose version is `v1`, has no name.
    assert given == used


@pytest.mark.parametrize("name", ["clusters.md", "kubernetes.md"])
def test_a_binding_names_a_role_that_is_shown(name: str) -> None:
    roles = {one["metadata"]["name"] for one in shown(name) if one["kind"] == "Role"}
    bindings = [one for one in shown(name) if one["kind"] == "RoleBinding"]
    assert {one["roleRef"]["name"] for one in bindings} == roles
