"""A target with a cluster for each side: where slots are, and what works while one is gone."""

from collections.abc import Callable

import pytest

from mlship.adapters.targets.kubernetes import router, waiting
from mlship.domain.clusters import Clustered
from mlship.domain.deployment import Plan, Split, slot_of
from mlship.domain.ports import Declarative
from mlship.domain.release import Release
from mlship.errors import (
    ConfigError,
    ConflictError,
    NotFoundError,
    ProjectError,
    UnavailableError,
)
from tests.fakes.cluster import (
    IMAGE,
    SCOPE,
    FakeApiServer,
    World,
    at_once,
    contested,
    kill_at_every_write,
)
from tests.harness.places import Notes
from tests.harness.samples import release

ONE, TWO, THREE = release("one"), release("two"), release("three")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(monkeypatch)


@pytest.fixture
def world(filled: bytes) -> World:
    """Give champion ONE in blue, challenger TWO in green with 10 %."""
    return World().restored(filled)


@pytest.fixture(scope="module")
def filled() -> bytes:
    return contested(World(), ONE, TWO)


def test_the_first_release_is_in_the_first_cluster_and_the_challenger_in_the_other(
    world: World,
) -> None:
    found = world.target.inspect()
    assert {slot: each.cluster for slot, each in found.items()} == {
        slot_of(ONE): "blue",
        slot_of(TWO): "green",
    }
    assert [each.ready for each in found.values()] == [2, 1]
    assert isinstance(world.target, Declarative)
    assert isinstance(world.target, Clustered)


def test_a_slot_stays_where_it_is(world: World) -> None:
    world.route((TWO, 100))
    assert world.deploy(TWO, replicas=3).cluster == "green"
    assert world.deploy(ONE).cluster == "blue"


def test_after_a_promotion_the_next_challenger_goes_to_the_first_cluster(world: World) -> None:
    world.route((TWO, 100))
    world.target.remove(slot_of(ONE))
    assert world.deploy(THREE).cluster == "blue"


def test_a_challenger_may_be_placed_by_name() -> None:
    world = World("blue", "green", "teal", challenger="teal")
    assert world.deploy(ONE).cluster == "blue"
    world.route((ONE, 100))
    assert world.deploy(TWO).cluster == "teal"


def test_of_several_other_clusters_the_emptiest_is_taken() -> None:
    world = World("blue", "green", "teal")
    world.deploy(ONE)
    world.route((ONE, 100))
    world.deploy(TWO)
    world.route((ONE, 90), (TWO, 10))
    assert world.deploy(THREE).cluster == "teal"


def test_the_load_balancer_is_in_the_parents_cluster_alone(world: World) -> None:
    blue, green = world.servers["blue"], world.servers["green"]
    assert "iris-production-router" in blue.names("deployments")
    assert "iris-production-router" not in green.names("deployments")
    assert not green.names("configmaps")


def test_a_slot_in_another_cluster_is_reached_by_an_address_of_its_own(world: World) -> None:
    one, two = (f"iris-production-{slot_of(made)}" for made in (ONE, TWO))
    services = {
        name: world.servers[name].objects["services", service]["spec"]["type"]
        for name, service in (("blue", one), ("green", two))
    }
    assert services == {"blue": "ClusterIP", "green": "LoadBalancer"}
    assert world.addresses(ONE)[0] == one
    assert world.addresses(TWO)[0].startswith("10.0.0.")


def test_a_share_falls_back_to_the_other_slots_with_traffic(world: World) -> None:
    assert world.addresses(TWO)[1:] == world.addresses(ONE)[:1]
    assert world.addresses(ONE)[1:] == world.addresses(TWO)[:1]
    world.route((TWO, 100))
    assert len(world.addresses(TWO)) == 1, "a former champion gets nothing back silently"


def test_a_slot_that_loses_its_traffic_still_falls_back(world: World) -> None:
    """The parent may read the clusters of the new route while it has the old one."""
    both = world.addresses(TWO)
    world.route((ONE, 100))
    assert world.addresses(TWO) == both
    assert len(world.addresses(ONE)) == 1


def test_a_copy_of_a_request_does_not_fall_back(world: World) -> None:
    world.route((ONE, 90), (TWO, 10), shadow=slot_of(TWO))
    assert world.target.routes().split.shadow == slot_of(TWO)
    own = [each for each in world.parents_clusters() if each["name"] == f"{slot_of(TWO)}.own"]
    assert [len(each["load_assignment"]["endpoints"]) for each in own] == [1]


def test_a_third_cluster_may_have_the_parent(world: World) -> None:
    world = World("blue", "green", "edge", parent="edge")
    assert world.deploy(ONE).cluster == "blue"
    world.route((ONE, 100))
    assert world.servers["edge"].names("deployments") == {"iris-production-router"}
    assert world.addresses(ONE)[0].startswith("10.0.0.")


def test_writing_the_same_again_writes_nothing(world: World) -> None:
    before = [len(server.writes) for server in world.servers.values()]
    world.route((ONE, 90), (TWO, 10))
    assert [len(server.writes) for server in world.servers.values()] == before


def test_a_rollback_asks_nothing_of_a_cluster_that_is_gone(world: World) -> None:
    world.route((TWO, 100))
    world.servers["green"].answers = False
    assert world.deploy(ONE, replicas=2).ready == 2
    world.route((ONE, 100))
    split = world.target.routes().split
    assert split.weights == {slot_of(ONE): 100}
    found = world.target.inspect()[slot_of(TWO)]
    assert (found.release, found.ready, found.cluster) == (TWO.id, 0, "green")
    assert "does not answer" in found.detail


def test_a_share_is_taken_from_a_cluster_that_is_gone(world: World) -> None:
    world.servers["green"].answers = False
    world.route((ONE, 100))
    assert world.target.routes().split.share(slot_of(TWO)) == 0


@pytest.mark.parametrize("step", ["deploy", "route", "remove"])
def test_a_step_that_needs_a_cluster_which_is_gone_changes_nothing(world: World, step: str) -> None:
    green = world.servers["green"]
    green.answers = False
    writes = len(world.servers["blue"].writes)
    steps: dict[str, Callable[[], object]] = {
        "deploy": lambda: world.deploy(THREE),
        "route": lambda: world.route((ONE, 80), (TWO, 20)),
        "remove": lambda: world.target.remove(slot_of(TWO)),
    }
    with pytest.raises(UnavailableError, match="does not answer"):
        steps[step]()
    assert len(world.servers["blue"].writes) == writes


def test_a_new_release_is_not_deployed_twice_where_a_cluster_does_not_answer(
    world: World,
) -> None:
    world.servers["green"].answers = False
    with pytest.raises(UnavailableError, match="cluster green of production") as caught:
        world.deploy(THREE)
    assert "remove it from mlship.yaml" in caught.value.hint


def test_a_namespace_that_is_being_deleted_is_named(world: World) -> None:
    green = world.servers["green"]
    assert world.target.altered() == []
    green.objects.clear()
    writes = list(green.writes)
    missing = [f"{each.object}: {each.text}" for each in world.target.altered()]
    assert missing == [f"Deployment {SCOPE.object(slot_of(TWO))}: is missing"]
    green.is_ending = True
    told = str(world.target.altered()[0])
    assert told.startswith("Namespace iris in green: is being deleted, with all that runs in it: ")
    assert green.writes == writes


def test_a_route_of_which_pods_cannot_be_told_is_not_written(world: World) -> None:
    blue, green = world.servers["blue"], world.servers["green"]
    blue.forbidden.add("patch pods")
    before, writes = world.target.routes(), [*blue.writes, *green.writes]
    world.route((ONE, 90), (TWO, 10))
    for step in (
        lambda: world.route((ONE, 80), (TWO, 20)),
        lambda: world.deploy(THREE),
        lambda: world.target.rewrite(before.split),
    ):
        with pytest.raises(UnavailableError, match="forbids: patch pods in iris") as caught:
            step()
        assert "mlship guide kubernetes" in caught.value.hint
    assert (world.target.routes(), [*blue.writes, *green.writes]) == (before, writes)


def test_a_slot_of_a_cluster_that_was_deleted_can_be_removed() -> None:
    world = World("blue", "green", "teal")
    world.deploy(ONE)
    world.route((ONE, 100))
    world.deploy(TWO)
    world.route((ONE, 90), (TWO, 10))
    world.target = world.again(names=["blue", "teal"])
    world.route((ONE, 100))
    found = world.target.inspect()[slot_of(TWO)]
    assert "not in mlship.yaml" in found.detail
    with pytest.raises(NotFoundError, match="runs in cluster green"):
        world.deploy(TWO)
    world.target.remove(slot_of(TWO))
    assert set(world.target.inspect()) == {slot_of(ONE)}


def test_the_load_balancer_goes_with_the_last_slot_of_all_clusters(world: World) -> None:
    world.route((TWO, 100))
    world.target.remove(slot_of(ONE))
    assert "iris-production-router" in world.servers["blue"].names("deployments")
    world.route()
    world.target.remove(slot_of(TWO))
    assert world.target.inspect() == {}
    for server in world.servers.values():
        assert not server.names("deployments") | server.names("services"), server.name


def test_deploying_again_follows_an_address_that_has_changed(world: World) -> None:
    green, before = world.servers["green"], world.addresses(TWO)[0]
    del green.objects["services", f"iris-production-{slot_of(TWO)}"]
    world.deploy(TWO)
    assert world.addresses(TWO)[0] != before
    assert world.addresses(ONE)[1] == world.addresses(TWO)[0]
    assert world.target.routes().split.share(slot_of(TWO)) == 10


def test_a_slot_with_traffic_is_not_removed(world: World) -> None:
    with pytest.raises(ConflictError, match="still gets traffic"):
        world.target.remove(slot_of(TWO))
    assert slot_of(TWO) in world.target.inspect()


class Cloud:
    """A clock which sleep alone moves, and addresses that come after two minutes of it."""

    def __init__(self, server: FakeApiServer) -> None:
        self._server = server
        self._now = 0.0
        server.gives_addresses = False

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        if self._now >= 120:
            for (plural, _), each in self._server.objects.items():
                if plural == "services" and each["spec"]["type"] == "LoadBalancer":
                    each["status"] = {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}


@pytest.mark.parametrize("slow", ["blue", "green"])
def test_an_address_may_come_after_two_minutes(monkeypatch: pytest.MonkeyPatch, slow: str) -> None:
    world = World(service="LoadBalancer")
    monkeypatch.setattr(waiting, "time", Cloud(world.servers[slow]))
    world.deploy(ONE)
    world.route((ONE, 100))
    assert world.deploy(TWO).ready == 1


@pytest.mark.parametrize(("made", "cluster"), [(ONE, "blue"), (TWO, "green")])
def test_a_replica_that_does_not_start_is_told_with_its_cluster(
    world: World, made: Release, cluster: str
) -> None:
    world.servers[cluster].broken.add(IMAGE.location)
    with pytest.raises(ProjectError, match=f"of production in cluster {cluster}, pod .* exiting"):
        world.deploy(made, replicas=3)


def test_a_load_balancer_that_does_not_start_is_told_with_its_cluster(world: World) -> None:
    world.servers["blue"].broken.add(str(IMAGE.router))
    with pytest.raises(ProjectError, match=r"router of production in cluster blue, pod .* exiting"):
        world.deploy(ONE)


def test_a_route_at_another_revision_is_not_changed(world: World) -> None:
    before = world.target.routes().revision
    world.route((ONE, 80), (TWO, 20))
    with pytest.raises(ConflictError, match="is at revision"):
        world.target.route(Split(weights={slot_of(ONE): 100}), expected=before)
    assert world.target.routes().split.share(slot_of(TWO)) == 20


def test_a_slot_that_the_parent_does_not_reach_gets_no_traffic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    world.deploy(ONE)
    world.route((ONE, 100))
    world.deploy(TWO)
    monkeypatch.setattr(router.Traffic, "reaches", lambda _, slot: slot == slot_of(ONE))
    with pytest.raises(UnavailableError, match=r"does not reach .* in cluster green at 10\."):
        world.route((ONE, 90), (TWO, 10))
    assert world.target.routes().split.weights == {slot_of(ONE): 100}


def test_two_names_of_one_cluster_are_refused() -> None:
    world = World()
    world.servers["green"] = FakeApiServer("green", "blue")
    world.target = world.again()
    with pytest.raises(ConfigError, match="blue and green are the same one"):
        world.deploy(ONE)


def test_each_cluster_is_shown_with_what_runs_there(world: World) -> None:
    world.servers["green"].answers = False
    blue, green = world.target.clusters()
    assert (blue.name, blue.is_parent, blue.fault) == ("blue", True, "")
    assert blue.slots == (slot_of(ONE),)
    assert (green.place, green.is_parent) == ("context green", False)
    assert "does not answer" in green.fault
    assert green.slots == (slot_of(TWO),)


def test_a_dry_run_names_the_cluster_of_each_object_and_writes_nothing(world: World) -> None:
    world.route((ONE, 100))
    world.target.remove(slot_of(TWO))
    writes = [len(server.writes) for server in world.servers.values()]
    split = Split(weights={slot_of(ONE): 90, slot_of(THREE): 10})
    plan = Plan(release=THREE, artifact=IMAGE, slot=slot_of(THREE), replicas=1, split=split)
    changes = {change.object: change.action for change in world.target.changes(plan)}
    assert changes[f"Deployment iris-production-{slot_of(THREE)} in green"] == "create"
    assert changes["ConfigMap iris-production-router in blue"] == "change"
    assert [len(server.writes) for server in world.servers.values()] == writes


def test_the_objects_of_a_first_release_are_rendered_without_a_connection(world: World) -> None:
    for server in world.servers.values():
        server.answers = False
    split = Split(weights={slot_of(ONE): 100})
    plan = Plan(release=ONE, artifact=IMAGE, slot=slot_of(ONE), replicas=1, split=split)
    names = list(world.target.render(plan))
    assert any("configmap" in name for name in names)
    assert any(f"deployment-iris-production-{slot_of(ONE)}" in name for name in names)


def test_a_router_of_one_cluster_becomes_the_parent_of_several() -> None:
    from mlship.adapters.targets.kubernetes import KubernetesTarget

    world = World()
    single = KubernetesTarget(
        SCOPE,
        world.target._members["blue"].config,
        lambda: world.servers["blue"].access,
        Notes(),
    )
    single._open = world.servers["blue"].connected  # type: ignore[assignment]
    single.deploy(ONE, IMAGE, slot_of(ONE), replicas=1)
    split = Split(weights={slot_of(ONE): 100})
    single.route(split, expected=single.routes().revision)
    assert world.target.routes().split == split
    assert world.deploy(TWO).cluster == "green"
    world.route((ONE, 90), (TWO, 10))
    assert world.addresses(ONE)[0] == f"iris-production-{slot_of(ONE)}"


def story(world: World) -> list[Callable[[], object]]:
    """Return what the commands of a whole story do in the clusters, in order."""
    return [
        lambda: world.deploy(ONE, replicas=2),
        lambda: world.route((ONE, 100)),
        lambda: world.deploy(TWO),
        lambda: world.route((ONE, 90), (TWO, 10)),
        lambda: world.deploy(TWO, replicas=2),
        lambda: world.route((TWO, 100)),
        lambda: world.route((ONE, 100)),
        lambda: world.route((TWO, 100)),
        lambda: world.target.remove(slot_of(ONE)),
        lambda: world.deploy(THREE),
        lambda: world.route((TWO, 90), (THREE, 10)),
    ]


def state(world: World) -> object:
    """Return what is in the clusters, without the counters of the API servers."""
    objects = {name: sorted(server.objects) for name, server in world.servers.items()}
    places = {slot: each.cluster for slot, each in world.target.inspect().items()}
    return objects, places, world.target.routes().split, world.parents_clusters()


@pytest.mark.slow
def test_a_command_that_is_killed_at_any_write_is_completed_by_the_next_run() -> None:
    whole, killed = World(), World()
    for act in story(whole):
        act()
    kills = sum(kill_at_every_write(killed, act) for act in story(killed))
    assert kills > 60
    assert state(killed) == state(whole)
