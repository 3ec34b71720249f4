"""Champion and challenger in two real clusters, behind one parent, from first to last release."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mlship.adapters.targets.kubernetes import review_all
from mlship.domain.deployment import slot_of
from tests.harness import clusters
from tests.harness.clusters import until
from tests.harness.load import load
from tests.harness.pair import Pair, pair, project_of
from tests.harness.samples import release
from tests.harness.twice import Shop, won

pytestmark = pytest.mark.service("two clusters")

ONE, TWO = release("one"), release("two")


@pytest.fixture
def place() -> Iterator[Pair]:
    blue = clusters.kubeconfig(is_plain=True)
    green: Path = clusters.kubeconfig("TEST_KUBECONFIG_PRODUCTION", is_plain=True)
    with pair(blue, green) as found:
        yield found


def slots_of(place: Pair, *users: str) -> list[str]:
    """Return the slot that answers each user; no request may fail."""
    found = []
    with httpx.Client(timeout=10) as client:
        for user in users:
            answer = client.post(place.url, json={}, headers={"x-user": user})
            assert answer.status_code == 200, answer.text
            found.append(str(answer.json()["slot"]))
    return found


def rest(place: Pair) -> set[str]:
    """Return what is left of the project in both clusters."""
    left = set()
    for cluster in (place.blue, place.green):
        with cluster.api() as api:
            for kind in ("ConfigMap", "Deployment", "PodDisruptionBudget", "Service"):
                found = api.list(kind, {"app.kubernetes.io/managed-by": "mlship"})
                left |= {f"{kind} {each['metadata']['name']}" for each in found}
    return left


def test_a_challenger_comes_goes_to_champion_and_back_in_a_cluster_of_its_own(place: Pair) -> None:
    one, two = slot_of(ONE), slot_of(TWO)
    users = [str(number) for number in range(60)]
    place.deploy(ONE)
    place.route((ONE, 100))
    with load(place.url, 40) as sent:
        assert place.deploy(TWO).cluster == "green"
        place.route((ONE, 80), (TWO, 20))
        assert place.target.reached() == {one: True, two: True}
        first = slots_of(place, *users)
        assert set(first) == {one, two}
        assert slots_of(place, *users) == first, "a user stays with a release"
        place.route((TWO, 100))
        assert set(slots_of(place, *users)) == {two}
        place.route((ONE, 100))
        assert set(slots_of(place, *users)) == {one}
        place.route((TWO, 100))
        place.target.remove(one)
    assert not sent.failed
    assert {each.cluster for each in place.target.inspect().values()} == {"green"}
    assert place.deploy(ONE).cluster == "blue", "the next challenger goes where the champion is not"
    place.route()
    place.target.remove(one)
    place.target.remove(two)
    assert rest(place) == set()


def test_a_killed_promotion_and_a_killed_rollback_are_completed_by_the_next_run(
    place: Pair, tmp_path: Path
) -> None:
    project, champion, challenger = project_of((place.blue, place.green), tmp_path)
    project.plain("deploy-production", str(champion))
    project.plain("deploy-production", str(challenger))
    won(Shop(tmp_path, {}), champion, challenger)
    for command, after in ((("promote", "challenger"), "route"), (("rollback",), "deploy")):
        before = project.steps()
        calls = project.run(*command)
        expected, gained = project.observed(), project.steps() - before
        project.plain(*(("rollback",) if command[0] == "promote" else ("promote", "challenger")))
        before = project.steps()
        project.run(*command, point=("after", calls.index(f"target.{after}") + 1))
        project.plain(*command)
        assert project.differences(expected) == []
        assert project.steps() - before == gained
        assert set(gained.values()) == {1}


def test_the_champion_answers_for_a_challenger_whose_cluster_loses_its_entry(place: Pair) -> None:
    one, two = slot_of(ONE), slot_of(TWO)
    users = [str(number) for number in range(60)]
    place.deploy(ONE)
    place.route((ONE, 100))
    place.deploy(TWO)
    place.route((ONE, 50), (TWO, 50))
    assert set(slots_of(place, *users)) == {one, two}
    with place.green.api() as api, load(place.url, 40) as sent:
        api.delete("Service", place.scope.object(two))
        until(lambda: set(slots_of(place, *users)) == {one})
    assert not sent.failed
    assert place.target.reached() == {one: True, two: False}
    place.route((ONE, 100))
    checked = review_all(place.scope, place.members(), "blue")
    assert checked.count("allows deployments") == 2
    assert checked.count("2 of 2 replicas ready") == 1
