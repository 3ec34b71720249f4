"""Champion and challenger in two real clusters behind a Gateway, from challenger to champion."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlship.adapters.targets.kubernetes import review_all
from mlship.domain.deployment import slot_of
from tests.harness import clusters
from tests.harness.load import load
from tests.harness.pair import Pair, pair
from tests.harness.samples import release

pytestmark = pytest.mark.service("two clusters")

ONE, TWO = release("one"), release("two")


@pytest.fixture
def place() -> Iterator[Pair]:
    blue = clusters.kubeconfig()
    green: Path = clusters.kubeconfig("TEST_KUBECONFIG_PRODUCTION", is_plain=True)
    with pair(blue, green, clusters.GATEWAY) as found:
        yield found


def entries(place: Pair) -> set[str]:
    """Return what leads to other clusters, in the parent's."""
    with place.blue.api() as api:
        found = api.list("EndpointSlice", {"endpointslice.kubernetes.io/managed-by": "mlship"})
    return {each["metadata"]["name"] for each in found}


def test_a_challenger_comes_and_goes_in_a_cluster_of_its_own(place: Pair) -> None:
    one, two = slot_of(ONE), slot_of(TWO)
    place.deploy(ONE)
    place.route((ONE, 100))
    with load(place.url, 40) as sent:
        assert place.deploy(TWO).cluster == "green"
        place.route((ONE, 50), (TWO, 50))
        assert place.target.reached() == {one: True, two: True}
        place.route((TWO, 100))
        place.route((ONE, 100))
        assert entries(place) == {place.scope.object(two)}
        place.target.remove(two)
    assert not sent.failed
    checked = review_all(place.scope, place.members(), "blue")
    assert checked.count("allows deployments") == 2
    assert "no share falls back" in checked
    assert entries(place) == set()
    assert set(place.target.inspect()) == {one}
