"""Clusters whose names in mlship.yaml were changed while releases run: nothing goes astray."""

import json
from collections.abc import Callable

import pytest

from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.domain.deployment import Split, slot_of
from mlship.errors import ConfigError, IntegrityError, MlshipError, NotFoundError
from tests.fakes.cluster import SCOPE, FakeApiServer, FakeMember, World, at_once, contested
from tests.harness.samples import release

ONE, TWO, THREE = release("one"), release("two"), release("three")
ROUTER = "iris-production-router"
STEPS: dict[str, Callable[[World], object]] = {
    "inspect": lambda world: world.target.inspect(),
    "deploy": lambda world: world.deploy(THREE),
    "route": lambda world: world.route((ONE, 100)),
    "remove": lambda world: world.target.remove(slot_of(THREE)),
}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(monkeypatch)


@pytest.fixture
def world(filled: bytes) -> World:
    """Give champion ONE in blue, challenger TWO in green with 10 %."""
    return World().restored(filled)


@pytest.fixture(scope="module")
def filled() -> bytes:
    return contested(World(), ONE, TWO, replicas=1)


def writes(world: World) -> list[int]:
    return [len(server.writes) for server in world.servers.values()]


def exchange(world: World) -> None:
    """Let the name of each cluster be that of the other one."""
    blue, green = world.servers["blue"], world.servers["green"]
    blue.name, green.name = "green", "blue"
    world.servers = {"blue": green, "green": blue}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("change", ["another parent", "exchanged names"])
def test_a_parent_without_the_route_of_the_target_is_refused(
    step: str, change: str, world: World
) -> None:
    if change == "another parent":
        world.target = world.again(parent="green")
    else:
        exchange(world)
        world.target = world.again()
    before = writes(world)
    holder = "blue" if change == "another parent" else "green"
    with pytest.raises(ConfigError, match=f"come to cluster {holder}, and its parent") as caught:
        STEPS[step](world)
    assert f"set `parent: {holder}`" in caught.value.hint
    assert writes(world) == before


@pytest.mark.parametrize("step", ["deploy", "route", "remove"])
def test_exchanged_names_are_seen_by_what_runs_there(step: str, world: World) -> None:
    exchange(world)
    world.target = world.again(parent="green")
    before = writes(world)
    with pytest.raises(ConfigError, match="which was put into cluster"):
        STEPS[step](world)
    assert writes(world) == before
    details = [each.detail for each in world.target.inspect().values()]
    assert all("which was put into cluster" in detail for detail in details)


def test_one_cluster_under_two_addresses_is_not_two() -> None:
    world = World()
    world.deploy(ONE)
    world.route((ONE, 100))
    world.servers["green"].objects = world.servers["blue"].objects
    world.target = world.again()
    before = writes(world)
    with pytest.raises(ConfigError, match=r"has slot .* put into cluster blue") as caught:
        world.deploy(TWO)
    assert "two names are of one cluster" in caught.value.hint
    assert writes(world) == before


def replaced(world: World) -> FakeApiServer:
    """Give the name green to another cluster, in which nothing runs."""
    former = world.servers["green"]
    world.servers["green"] = FakeApiServer("green", "red.example")
    world.target = world.again()
    return former


def test_a_slot_is_not_deployed_again_because_its_cluster_is_another_one_now(world: World) -> None:
    replaced(world)
    detail = world.target.inspect()[slot_of(TWO)].detail
    assert "and is https://red.example now" in detail
    before = writes(world)
    with pytest.raises(NotFoundError, match=r"it was https://.*, and is https://red") as caught:
        world.deploy(TWO)
    assert f"retire {slot_of(TWO)}" in caught.value.hint
    assert writes(world) == before
    world.route((ONE, 100))
    world.target.remove(slot_of(TWO))
    assert slot_of(TWO) not in world.target.inspect()


def test_a_cluster_may_get_another_address(world: World) -> None:
    former = replaced(world)
    world.servers["green"].objects = former.objects
    assert world.deploy(TWO).cluster == "green"


def test_a_share_for_a_cluster_that_has_no_name_names_it() -> None:
    world = World("blue", "green", "teal")
    world.deploy(ONE)
    world.route((ONE, 100))
    world.deploy(TWO)
    world.route((ONE, 90), (TWO, 10))
    world.target = world.again(names=["blue", "teal"])
    with pytest.raises(NotFoundError, match="cluster green, which is not in mlship"):
        world.target.route(
            Split(weights={slot_of(ONE): 50, slot_of(TWO): 50}),
            expected=world.target.routes().revision,
        )


@pytest.mark.parametrize("field", ["cluster", "address", "release"])
def test_a_route_that_would_write_to_the_terminal_is_refused(field: str, world: World) -> None:
    metadata = world.servers["blue"].objects["configmaps", ROUTER]["metadata"]
    places = json.loads(metadata["annotations"]["mlship.dev/clusters"])
    places[slot_of(TWO)][field] = "\x1b]0;owned\x07"
    metadata["annotations"]["mlship.dev/clusters"] = json.dumps(places)
    with pytest.raises(IntegrityError) as caught:
        world.target.inspect()
    assert isinstance(caught.value, MlshipError)
    assert "\x1b" not in caught.value.message


def test_the_name_of_the_cluster_is_no_part_of_the_pods(world: World) -> None:
    name = SCOPE.object(slot_of(TWO))
    marks = world.servers["green"].objects["deployments", name]["metadata"]["annotations"]
    assert marks["mlship.dev/cluster"] == "green"
    template = world.servers["green"].objects["deployments", name]["spec"]["template"]
    assert "mlship.dev/cluster" not in template["metadata"]["annotations"]


def test_an_empty_target_asks_each_other_cluster_for_a_route_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    has_route = FakeMember.has_route

    def counted(member: FakeMember, scope: Scope) -> bool:
        asked.append(member.name)
        return has_route(member, scope)

    monkeypatch.setattr(FakeMember, "has_route", counted)
    target = World().target
    for _ in range(2):
        target.inspect()
        target.clusters()
        target.reached()
    assert asked == ["green"]
