"""A target with several clusters behind a Gateway: what leads to slots in other clusters."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest import mock

import httpx
import pytest

from mlship.adapters.targets.kubernetes import fencing, gateway, reach, review_all, routing
from mlship.domain.deployment import Plan, Split, slot_of
from mlship.errors import ConfigError, UnavailableError
from tests.fakes.cluster import IMAGE, SCOPE, World, at_once, contested, kill_at_every_write
from tests.harness.samples import release

ONE, TWO, THREE = release("one"), release("two"), release("three")
REACHES = gateway.Traffic.reaches
NAME = {made: f"iris-production-{slot_of(made)}" for made in (ONE, TWO, THREE)}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(monkeypatch)


def new_world(*names: str, **settings: Any) -> World:
    return World(*names, gateway="iris/gateway", **settings)


@pytest.fixture
def world(filled: bytes) -> World:
    """Give champion ONE in blue, challenger TWO in green with 10 %."""
    return new_world().restored(filled)


@pytest.fixture(scope="module")
def filled() -> bytes:
    return contested(new_world(), ONE, TWO)


def addresses(world: World) -> dict[str, list[str]]:
    """Return where the entries in the parent's cluster lead to, by name."""
    server = world.servers[world.target._parent.name]
    return {
        name: [address for each in found["endpoints"] for address in each["addresses"]]
        for (plural, name), found in server.objects.items()
        if plural == "endpointslices"
    }


def entry_of(world: World, made: Any) -> str:
    """Return the address of a slot's Service in green."""
    service = world.servers["green"].objects["services", NAME[made]]
    return str(service["status"]["loadBalancer"]["ingress"][0]["ip"])


def test_the_weights_are_those_of_one_route_in_the_parents_cluster(world: World) -> None:
    blue, green = world.servers["blue"], world.servers["green"]
    rule = blue.objects["httproutes", "iris-production"]["spec"]["rules"][-1]
    assert {each["name"]: each["weight"] for each in rule["backendRefs"]} == {
        NAME[ONE]: 90,
        NAME[TWO]: 10,
    }
    assert not green.names("httproutes")
    assert not blue.names("configmaps") | green.names("configmaps"), "there is no router"
    assert blue.names("deployments") == {NAME[ONE]}


def test_a_slot_in_another_cluster_has_an_entry_that_leads_to_its_address(world: World) -> None:
    assert addresses(world) == {NAME[TWO]: [entry_of(world, TWO)]}
    service = world.servers["blue"].objects["services", NAME[TWO]]
    assert "selector" not in service["spec"]
    labels = world.servers["blue"].objects["endpointslices", NAME[TWO]]["metadata"]["labels"]
    assert labels["kubernetes.io/service-name"] == NAME[TWO]
    ports = world.servers["blue"].objects["endpointslices", NAME[TWO]]["ports"]
    assert {port["name"] for port in ports} == {each["name"] for each in service["spec"]["ports"]}


def test_the_entry_goes_with_the_slot(world: World) -> None:
    world.route((ONE, 100))
    world.target.remove(slot_of(TWO))
    blue = world.servers["blue"]
    assert not blue.names("endpointslices")
    assert blue.names("services") == {NAME[ONE]}


def test_a_slot_of_the_parents_cluster_keeps_its_own_service(world: World) -> None:
    world.route((TWO, 100))
    world.target.remove(slot_of(ONE))
    assert world.servers["blue"].names("services") == {NAME[TWO]}
    world.deploy(THREE)
    world.route((TWO, 90), (THREE, 10))
    assert "selector" in world.servers["blue"].objects["services", NAME[THREE]]["spec"]


def test_what_an_interrupted_removal_left_gets_no_requests(world: World) -> None:
    blue = world.servers["blue"]
    left = {key: each for key, each in blue.objects.items() if key[1] == NAME[TWO]}
    world.route((ONE, 100))
    world.target.remove(slot_of(TWO))
    blue.objects |= left
    world.target = world.again(challenger="blue")
    assert world.deploy(TWO).cluster == "blue"
    world.route((ONE, 90), (TWO, 10))
    assert addresses(world) == {}


def test_deploying_again_follows_an_address_that_has_changed(world: World) -> None:
    before = entry_of(world, TWO)
    del world.servers["green"].objects["services", NAME[TWO]]
    world.deploy(TWO)
    assert entry_of(world, TWO) != before
    assert addresses(world) == {NAME[TWO]: [entry_of(world, TWO)]}


def test_an_entry_that_was_deleted_comes_back_with_the_same_route(world: World) -> None:
    before = addresses(world)
    for plural in ("endpointslices", "services"):
        del world.servers["blue"].objects[plural, NAME[TWO]]
        world.route((ONE, 90), (TWO, 10))
        assert addresses(world) == before
        assert NAME[TWO] in world.servers["blue"].names("services")


def test_writing_the_same_again_writes_nothing(world: World) -> None:
    before = [len(server.writes) for server in world.servers.values()]
    world.route((ONE, 90), (TWO, 10))
    assert [len(server.writes) for server in world.servers.values()] == before


def test_a_rollback_asks_nothing_of_a_cluster_that_is_gone(world: World) -> None:
    world.route((TWO, 100))
    world.servers["green"].answers = False
    assert world.deploy(ONE, replicas=2).ready == 2
    world.route((ONE, 100))
    assert world.target.routes().split.weights == {slot_of(ONE): 100}
    found = world.target.inspect()[slot_of(TWO)]
    assert (found.release, found.ready, found.cluster) == (TWO.id, 0, "green")


@pytest.mark.parametrize("is_first", [True, False])
def test_a_slot_that_the_gateway_does_not_reach_gets_no_traffic(
    monkeypatch: pytest.MonkeyPatch, *, is_first: bool
) -> None:
    world = new_world("blue", "green", "edge", parent="edge") if is_first else new_world()
    if not is_first:
        world.deploy(ONE)
        world.route((ONE, 100))
    before = world.target.routes().split
    world.deploy(TWO)
    monkeypatch.setattr(gateway.Traffic, "reaches", lambda _, slot: slot == slot_of(ONE))
    with pytest.raises(UnavailableError, match=r"does not reach .* in cluster \w+ at 10\."):
        world.route((TWO, 100))
    assert world.target.routes().split == before


@pytest.mark.parametrize(
    ("answer", "is_reached"),
    [
        (httpx.Response(200, headers={"mlship-slot": slot_of(TWO)}), True),
        (httpx.Response(503), False),
        (httpx.Response(200), None),
        (httpx.Response(404), None),
        (None, None),
    ],
    ids=["the slot", "no backend", "another rule", "another server", "nobody"],
)
def test_only_an_answer_that_names_the_slot_shows_that_it_is_reached(
    monkeypatch: pytest.MonkeyPatch,
    world: World,
    *,
    answer: httpx.Response | None,
    is_reached: bool | None,
) -> None:
    monkeypatch.setattr(gateway.Traffic, "reaches", REACHES)
    monkeypatch.setattr(reach, "answer_of", lambda *_: answer)
    expected = {} if is_reached is None else {slot_of(ONE): is_reached, slot_of(TWO): is_reached}
    if is_reached:
        expected.pop(slot_of(ONE))
    assert world.target.reached() == expected


@pytest.mark.parametrize("is_early", [True, False])
def test_a_controller_may_hear_of_a_service_after_the_route(
    monkeypatch: pytest.MonkeyPatch, world: World, *, is_early: bool
) -> None:
    verdicts = iter(["BackendNotFound: no such Service"])
    monkeypatch.setattr(routing, "verdict", lambda *_: next(verdicts, True))
    monkeypatch.setattr(gateway, "_RESOLVE_SECONDS", 5.0 if is_early else 0.0)
    refused = nullcontext() if is_early else pytest.raises(ConfigError, match="no such Service")
    with refused:
        world.route((ONE, 80), (TWO, 20))
    assert world.target.routes().split.share(slot_of(TWO)) == (20 if is_early else 10)


def test_a_host_name_is_refused_before_anything_is_written(world: World) -> None:
    service = world.servers["green"].objects["services", NAME[TWO]]
    service["status"] = {"loadBalancer": {"ingress": [{"hostname": "lb.example.com"}]}}
    writes = len(world.servers["blue"].writes)
    with pytest.raises(UnavailableError, match=r"has the host name lb\.example\.com") as caught:
        world.route((ONE, 80), (TWO, 20))
    assert "remove kubernetes.gateway" in caught.value.hint
    assert len(world.servers["blue"].writes) == writes


def test_an_address_of_another_family_takes_the_place_of_the_former(world: World) -> None:
    service = world.servers["green"].objects["services", NAME[TWO]]
    service["status"] = {"loadBalancer": {"ingress": [{"ip": "2001:db8::7"}]}}
    world.route((ONE, 80), (TWO, 20))
    found = world.servers["blue"].objects["endpointslices", NAME[TWO]]
    assert (found["addressType"], addresses(world)[NAME[TWO]]) == ("IPv6", ["2001:db8::7"])


def test_a_gateway_that_serves_its_own_cluster_only_is_refused() -> None:
    world = new_world()
    world.servers["blue"].install_gateway("gke-l7-rilb")
    with pytest.raises(ConfigError, match="pods of its own cluster only") as caught:
        world.deploy(ONE)
    assert "remove kubernetes.gateway" in caught.value.hint
    assert not world.servers["blue"].writes


def test_a_takeover_of_the_lock_raises_the_numbers_of_entries_too(world: World) -> None:
    blue = world.servers["blue"]
    with blue.connected() as api:
        fencing.raise_to(api, SCOPE, "HTTPRoute", 7)
    found = [blue.objects[kind, NAME[TWO]] for kind in ("services", "endpointslices")]
    assert [fencing.number_of(each) for each in found] == [7, 7]


def test_a_dry_run_needs_a_gateway_that_reaches_other_clusters() -> None:
    world = new_world()
    world.servers["blue"].install_gateway("gke-l7-global-external-managed")
    plan = Plan(release=ONE, artifact=IMAGE, slot=slot_of(ONE), replicas=1)
    with pytest.raises(ConfigError, match="pods of its own cluster only"):
        world.target.changes(plan)


def test_an_entry_that_was_edited_by_hand_is_told_and_written_anew(world: World) -> None:
    assert not world.target.altered()
    objects = world.servers["blue"].objects
    objects["endpointslices", NAME[TWO]]["endpoints"] = [{"addresses": ["10.9.9.9"]}]
    del objects["services", NAME[TWO]]
    told = {each.object: each.text for each in world.target.altered()}
    assert told == {
        f"EndpointSlice {NAME[TWO]}": f"leads to 10.9.9.9, not to {entry_of(world, TWO)}",
        f"Service {NAME[TWO]}": "is missing",
    }
    world.target.rewrite(world.target.routes().split)
    assert not world.target.altered()
    assert addresses(world) == {NAME[TWO]: [entry_of(world, TWO)]}


def test_only_the_parents_cluster_needs_a_gateway() -> None:
    world = new_world()
    world.servers["green"].install_gateway("gke-l7-rilb")
    del world.servers["green"].objects["gateways", "gateway"]
    world.deploy(ONE)
    world.route((ONE, 100))
    assert world.deploy(TWO).cluster == "green"
    world.route((TWO, 100))
    assert world.target.routes().endpoint == "http://10.0.1.1"


def test_a_person_is_told_that_no_share_falls_back(world: World) -> None:
    members = list(world.target._members.values())
    assert gateway.LIMITS in review_all(SCOPE, members, "blue")
    with mock.patch.object(world.target._progress, "note") as note:
        world.route((ONE, 100))
        world.target.remove(slot_of(TWO))
        world.deploy(THREE)
    assert gateway.LIMITS in note.call_args[0][0]


def test_a_dry_run_shows_the_entry_that_comes_and_the_one_that_goes(world: World) -> None:
    world.route((ONE, 100))
    writes = [len(server.writes) for server in world.servers.values()]
    split = Split(weights={slot_of(ONE): 90, slot_of(THREE): 10})
    plan = Plan(
        release=THREE,
        artifact=IMAGE,
        slot=slot_of(THREE),
        replicas=1,
        split=split,
        removed=(slot_of(TWO),),
    )
    changes = {change.object: change.action for change in world.target.changes(plan)}
    for kind in ("Service", "EndpointSlice"):
        assert changes[f"{kind} {NAME[THREE]} in blue"] == "create"
        assert changes[f"{kind} {NAME[TWO]} in blue"] == "delete"
    assert changes["HTTPRoute iris-production in blue"] == "change"
    assert [len(server.writes) for server in world.servers.values()] == writes


def test_the_objects_of_a_first_release_are_rendered_without_a_connection() -> None:
    world = new_world()
    for server in world.servers.values():
        server.answers = False
    split = Split(weights={slot_of(ONE): 100})
    plan = Plan(release=ONE, artifact=IMAGE, slot=slot_of(ONE), replicas=1, split=split)
    names = list(world.target.render(plan))
    assert any("httproute" in name for name in names)
    assert not any("router" in name for name in names)


def test_a_gateway_of_one_cluster_becomes_the_parent_of_several() -> None:
    from mlship.adapters.targets.kubernetes import KubernetesTarget
    from tests.harness.places import Notes

    world = new_world()
    blue = world.servers["blue"]
    single = KubernetesTarget(
        SCOPE, world.target._members["blue"].config, lambda: blue.access, Notes()
    )
    single._open = blue.connected  # type: ignore[assignment]
    single.deploy(ONE, IMAGE, slot_of(ONE), replicas=1)
    split = Split(weights={slot_of(ONE): 100})
    single.route(split, expected=single.routes().revision)
    assert world.target.routes().split == split
    assert world.deploy(TWO).cluster == "green"
    world.route((ONE, 90), (TWO, 10))
    assert addresses(world) == {NAME[TWO]: [entry_of(world, TWO)]}


def state(world: World) -> object:
    """Return what is in the clusters, without addresses and counters."""
    objects = {name: sorted(server.objects) for name, server in world.servers.items()}
    places = {slot: each.cluster for slot, each in world.target.inspect().items()}
    return objects, places, world.target.routes().split, sorted(addresses(world))


def test_a_challenger_that_comes_and_goes_is_completed_after_a_kill_at_any_write() -> None:
    world = new_world()
    world.deploy(ONE)
    world.route((ONE, 100))
    before = state(world)
    acts: list[Callable[[], object]] = [
        lambda: world.deploy(TWO),
        lambda: world.route((ONE, 90), (TWO, 10)),
        lambda: world.route((ONE, 100)),
        lambda: world.target.remove(slot_of(TWO)),
    ]
    assert sum(kill_at_every_write(world, act) for act in acts) > 20
    assert state(world) == before
