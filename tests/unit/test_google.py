"""A target of clusters behind Google's load balancer: its route, its services, and their faults."""

import copy
import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NoReturn

import httpx
import pytest
from google.auth.exceptions import DefaultCredentialsError

from mlship import wire
from mlship.adapters.targets import gke
from mlship.adapters.targets.google import GoogleParent, url_map
from mlship.adapters.targets.kubernetes import ClustersTarget, waiting
from mlship.adapters.targets.kubernetes.manifests import NEG, Scope
from mlship.adapters.targets.kubernetes.waiting import address_of
from mlship.config.targets import KubernetesConfig, LoadBalancerConfig
from mlship.domain.clusters import Clustered
from mlship.domain.deployment import Plan, Split, slot_of
from mlship.domain.ports import Declarative
from mlship.errors import (
    ConfigError,
    ConflictError,
    IntegrityError,
    MlshipError,
    NotFoundError,
    TimedOutError,
    UnavailableError,
)
from mlship.wire import doctor
from mlship.wire.backends import cluster_target
from tests.fakes.cluster import IMAGE, SCOPE, FakeMember, kill_at_every_write
from tests.fakes.google import ADDRESS, HOST, GoogleWorld, without_pauses
from tests.harness.places import Notes
from tests.harness.samples import release
from tests.stand_ins.google_compute import link
from tests.unit.test_clusters import story
from tests.unit.test_placement import GKE, LOAD_BALANCER
from tests.unit.test_settings import LEAST, read

ONE, TWO, THREE = release("one"), release("two"), release("three")
NAME = SCOPE.name


@pytest.fixture
def empty() -> Iterator[GoogleWorld]:
    """Give a target in which nothing runs."""
    made = GoogleWorld()
    with without_pauses(made):
        yield made


@pytest.fixture
def world(empty: GoogleWorld) -> GoogleWorld:
    """Give champion ONE in blue, challenger TWO in green with 10 %."""
    empty.deploy(ONE, replicas=2)
    empty.route((ONE, 100))
    empty.deploy(TWO)
    empty.route((ONE, 90), (TWO, 10))
    return empty


def test_champion_and_challenger_are_in_clusters_of_their_own(world: GoogleWorld) -> None:
    found = world.target.inspect()
    assert {slot: each.cluster for slot, each in found.items()} == {
        slot_of(ONE): "blue",
        slot_of(TWO): "green",
    }
    assert isinstance(world.target, Declarative)
    assert isinstance(world.target, Clustered)
    assert not any(cluster.is_parent for cluster in world.target.clusters())


def test_no_cluster_has_a_load_balancer(world: GoogleWorld) -> None:
    for server in world.servers.values():
        assert not server.names("configmaps")
        kinds = {
            each["spec"]["type"] for key, each in server.objects.items() if key[0] == "services"
        }
        assert kinds == {"ClusterIP"}


def test_each_release_gets_its_share_of_the_requests(world: GoogleWorld) -> None:
    counts = world.answers(10_000)
    assert set(counts) == {"blue", "green"}
    assert abs(counts["green"] - 1000) < 3 * (10_000 * 0.1 * 0.9) ** 0.5
    assert world.target.routes().endpoint == ADDRESS


def test_a_header_with_a_number_keeps_its_release(empty: GoogleWorld) -> None:
    empty.target = empty.again(sticky_header="x-bucket")
    empty.deploy(ONE)
    empty.route((ONE, 100))
    empty.deploy(TWO)
    empty.route((ONE, 75), (TWO, 25))
    clusters = {bucket: set(empty.answers(8, x_bucket=str(bucket))) for bucket in range(100)}
    assert all(len(found) == 1 for found in clusters.values())
    assert sum(found == {"green"} for found in clusters.values()) == 25
    # Others are split at random.
    assert set(empty.answers(200, x_bucket="ada")) == {"blue", "green"}
    before = clusters
    empty.route((ONE, 60), (TWO, 40))
    after = {bucket: set(empty.answers(1, x_bucket=str(bucket))) for bucket in range(100)}
    assert sum(before[bucket] != after[bucket] for bucket in range(100)) == 15


@pytest.mark.parametrize(("gone", "other"), [("green", "blue"), ("blue", "green")])
def test_a_share_falls_back_to_the_other_release(world: GoogleWorld, gone: str, other: str) -> None:
    world.fail(gone)
    assert world.answers(500) == {other: 500}


def test_without_a_fallback_a_share_fails(world: GoogleWorld) -> None:
    for service in world.compute.objects.values():
        backends = service.get("backends") or []
        service["backends"] = [each for each in backends if each["preference"] == "PREFERRED"]
    world.fail("green")
    assert world.answers(500)[""] > 20


def test_a_former_champion_gets_nothing_back(world: GoogleWorld) -> None:
    assert world.routes(TWO) == [("green", "PREFERRED"), ("blue", "DEFAULT")]
    world.route((TWO, 100))
    assert world.routes(TWO) == [("green", "PREFERRED")]
    assert world.routes(ONE) == [("blue", "PREFERRED")]
    world.fail("green")
    assert world.answers(20) == {"": 20}


def test_a_copy_of_a_request_does_not_fall_back(world: GoogleWorld) -> None:
    world.route((ONE, 100), shadow=slot_of(TWO))
    assert world.split() == Split(weights={slot_of(ONE): 100}, shadow=slot_of(TWO))
    copied = world.proxies.ask(HOST, "/v2/models/iris/infer").copied
    assert copied == link("backendServices", SCOPE.object(slot_of(TWO)))
    assert world.routes(TWO) == [("green", "PREFERRED")]
    world.route((ONE, 100))
    assert world.proxies.ask(HOST, "/v2/models/iris/infer").copied == ""


def test_only_what_no_pod_has_got_is_retried_and_an_unreachable_pod_is_ejected(
    world: GoogleWorld,
) -> None:
    (matcher,) = world.compute.objects["urlMaps", "iris"]["pathMatchers"]
    retries = matcher["routeRules"][-1]["routeAction"]["retryPolicy"]["retryConditions"]
    assert retries == ["connect-failure", "refused-stream"]
    service = world.compute.objects["backendServices", SCOPE.object(slot_of(ONE))]
    assert service["outlierDetection"]["enforcingConsecutiveErrors"] == 0
    assert service["outlierDetection"]["consecutiveGatewayFailure"] == 3


def test_a_path_is_removed_before_a_pod_sees_it(empty: GoogleWorld) -> None:
    own = KubernetesConfig(namespace="iris", path="/iris")
    empty.target = empty.again(kubernetes=own)
    empty.deploy(ONE)
    empty.route((ONE, 100))
    assert empty.proxies.ask(HOST, "/iris/v2/health/live").path == "/v2/health/live"
    assert empty.proxies.ask(HOST, "/other").group == ""
    assert empty.target.routes().endpoint == f"{ADDRESS}/iris"


def test_writing_the_same_again_writes_nothing(world: GoogleWorld) -> None:
    before = len(world.compute.writes)
    world.route((ONE, 90), (TWO, 10))
    world.deploy(TWO)
    assert len(world.compute.writes) == before


def test_parts_of_others_in_the_url_map_are_kept(world: GoogleWorld) -> None:
    theirs = {"name": "shop", "defaultService": link("backendServices", "nobody")}
    found = world.compute.objects["urlMaps", "iris"]
    found["pathMatchers"].append(theirs)
    found["hostRules"].append({"hosts": ["shop.example.com"], "pathMatcher": "shop"})
    world.route((ONE, 80), (TWO, 20))
    assert theirs in world.compute.objects["urlMaps", "iris"]["pathMatchers"]
    assert world.split().share(slot_of(TWO)) == 20


def test_a_host_that_another_part_of_the_url_map_has_is_refused(empty: GoogleWorld) -> None:
    found = empty.compute.objects["urlMaps", "iris"]
    found["hostRules"] = [{"hosts": [HOST], "pathMatcher": "shop"}]
    empty.deploy(ONE)
    with pytest.raises(ConflictError, match="shop has the host iris"):
        empty.route((ONE, 100))


def test_two_writers_at_once_have_one_winner(world: GoogleWorld) -> None:
    before = world.target.routes().revision
    world.route((ONE, 80), (TWO, 20))
    with pytest.raises(ConflictError, match="is at revision"):
        world.target.route(Split(weights={slot_of(ONE): 100}), expected=before)
    assert world.split().share(slot_of(TWO)) == 20


def test_a_write_between_read_and_write_is_not_lost(world: GoogleWorld) -> None:
    other = GoogleWorld.again(world)
    raced: list[str] = []

    def race(request: httpx.Request) -> None:
        if request.method == "PUT" and "urlMaps" in request.url.path and not raced:
            raced.append("once")
            expected = other.routes().revision
            other.route(Split(weights={slot_of(ONE): 70, slot_of(TWO): 30}), expected=expected)

    world.compute.before = race
    with pytest.raises(ConflictError, match="is at revision"):
        world.route((ONE, 50), (TWO, 50))
    assert world.split().share(slot_of(TWO)) == 30


def test_a_write_of_others_into_the_url_map_is_no_conflict_of_ours(world: GoogleWorld) -> None:
    raced: list[str] = []

    def race(request: httpx.Request) -> None:
        if request.method == "PUT" and "urlMaps" in request.url.path and not raced:
            raced.append("once")
            world.compute.objects["urlMaps", "iris"]["fingerprint"] = "changed="

    world.compute.before = race
    world.route((ONE, 50), (TWO, 50))
    assert world.split().share(slot_of(TWO)) == 50


def test_a_former_holder_of_the_lock_writes_no_more(world: GoogleWorld) -> None:
    class Held:
        def __init__(self, number: int) -> None:
            self.number = number

        def check(self) -> None: ...

        def confirm(self) -> None: ...

    world.target = world.again(fence=Held(5))
    world.route((ONE, 80), (TWO, 20))
    world.target = world.again(fence=Held(4))
    with pytest.raises(ConflictError, match="later holder"):
        world.route((ONE, 50), (TWO, 50))
    assert world.split().share(slot_of(TWO)) == 20
    # A lock that is moved to another cluster goes on from there.
    assert world.parent(world.config(parent="green")).highest(SCOPE) == 5


def test_a_lock_that_has_run_out_stops_every_write(world: GoogleWorld) -> None:
    class Lost:
        number = 9

        def check(self) -> None:
            raise ConflictError("the lock was lost", hint="")

        def confirm(self) -> None: ...

    world.target = world.again(fence=Lost())
    writes = len(world.compute.writes)
    with pytest.raises(ConflictError, match="was lost"):
        world.route((ONE, 80), (TWO, 20))
    assert len(world.compute.writes) == writes


def test_weights_that_somebody_changed_are_seen(world: GoogleWorld) -> None:
    before = world.target.routes().revision
    rules = world.compute.objects["urlMaps", "iris"]["pathMatchers"][0]["routeRules"]
    rules[-1]["routeAction"]["weightedBackendServices"][0]["weight"] = 50
    rules[-1]["routeAction"]["weightedBackendServices"][1]["weight"] = 50
    assert world.split().share(slot_of(TWO)) == 50
    assert world.target.routes().revision != before


def test_a_route_that_cannot_be_read_says_how_to_go_on(world: GoogleWorld) -> None:
    world.compute.objects["urlMaps", "iris"]["pathMatchers"][0]["routeRules"][0].pop("description")
    with pytest.raises(IntegrityError, match="was edited") as caught:
        world.target.routes()
    assert "remove-path-matcher iris --path-matcher-name iris-production" in caught.value.hint


def test_a_new_slot_gets_its_share_only_when_google_finds_it_healthy(
    empty: GoogleWorld,
) -> None:
    empty.deploy(ONE)
    empty.route((ONE, 100))
    empty.deploy(TWO)
    empty.fail("green")
    with pytest.raises(UnavailableError, match=r"no pod of .* in cluster green healthy") as caught:
        empty.route((ONE, 90), (TWO, 10))
    assert "firewall" in caught.value.hint
    assert empty.split() == Split(weights={slot_of(ONE): 100})
    assert empty.answers(50) == {"blue": 50}


def test_a_switch_is_done_when_all_answers_name_the_new_route(world: GoogleWorld) -> None:
    world.proxies.lag = 200
    world.route((TWO, 100))
    assert world.proxies._old[1] == 0


def test_a_rollback_asks_nothing_of_a_cluster_that_is_gone(world: GoogleWorld) -> None:
    world.route((TWO, 100))
    world.servers["green"].answers = False
    world.fail("green")
    assert world.deploy(ONE, replicas=2).ready == 2
    world.route((ONE, 100))
    assert world.answers(20) == {"blue": 20}
    found = world.target.inspect()[slot_of(TWO)]
    assert (found.ready, found.cluster, found.observed) == (0, "green", False)


@pytest.mark.parametrize("gone", ["blue", "green"])
def test_what_the_load_balancer_reaches_is_asked_of_google(world: GoogleWorld, gone: str) -> None:
    assert world.target.reached() == {slot_of(ONE): True, slot_of(TWO): True}
    world.servers[gone].answers = False
    world.fail(gone)
    assert world.target.reached() == {slot_of(ONE): gone != "blue", slot_of(TWO): gone != "green"}


def test_a_slot_is_removed_with_its_service_and_the_last_one_with_the_route(
    world: GoogleWorld,
) -> None:
    with pytest.raises(ConflictError, match="still gets traffic"):
        world.target.remove(slot_of(TWO))
    world.route((TWO, 100))
    world.target.remove(slot_of(ONE))
    world.target.remove(slot_of(ONE))
    kinds = {kind for kind, name in world.compute.objects if name.startswith(NAME)}
    assert kinds == {"backendServices", "healthChecks"}
    world.route()
    world.target.remove(slot_of(TWO))
    world.target.remove(slot_of(TWO))
    assert set(world.compute.objects) == {("backendServices", "nobody"), ("urlMaps", "iris")}
    assert "pathMatchers" not in world.compute.objects["urlMaps", "iris"]


def test_a_service_that_is_in_use_for_a_moment_is_deleted_later(world: GoogleWorld) -> None:
    world.route((TWO, 100))
    text = "The resource is already being used"
    world.compute.failing = [(400, "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE", text)] * 2
    world.route((TWO, 100))
    world.target.remove(slot_of(ONE))
    assert ("backendServices", SCOPE.object(slot_of(ONE))) not in world.compute.objects


def test_what_google_returns_in_another_form_is_not_written_again(world: GoogleWorld) -> None:
    name = SCOPE.object(slot_of(TWO))
    service = world.compute.objects["backendServices", name]
    service["backends"].reverse()
    service["healthChecks"] = [
        each.replace("www.googleapis.com", "compute.googleapis.com")
        for each in service["healthChecks"]
    ]
    del service["outlierDetection"]["enforcingSuccessRate"]
    writes = len(world.compute.writes)
    world.route((ONE, 90), (TWO, 10))
    assert len(world.compute.writes) == writes
    service["timeoutSec"] = 5
    world.route((ONE, 90), (TWO, 10))
    assert world.compute.objects["backendServices", name]["timeoutSec"] == 60


@pytest.mark.parametrize(
    ("annotations", "address"),
    [
        ({}, "iris.shop.svc"),
        ({NEG: '{"ingress":true}'}, "iris.shop.svc"),
        ({NEG: '{"exposed_ports":{"80":{}}}'}, ""),
        (
            {
                NEG: '{"exposed_ports":{"80":{}}}',
                f"{NEG}-status": '{"network_endpoint_groups":{"80":"k8s1"},"zones":["z-c","z-b"]}',
            },
            "k8s1@z-b,z-c",
        ),
        ({NEG: '{"exposed_ports":{"80":{}}}', f"{NEG}-status": "soon"}, ""),
    ],
)
def test_the_address_of_a_service_with_groups_is_their_name_and_zones(
    annotations: dict[str, str], address: str
) -> None:
    metadata = {"name": "iris", "namespace": "shop", "annotations": annotations}
    assert address_of({"metadata": metadata, "spec": {"type": "ClusterIP"}}) == address


def test_a_group_in_each_zone_of_a_cluster_is_a_backend(empty: GoogleWorld) -> None:
    blue = empty.servers["blue"]
    blue.zones = ["europe-blue-b", "europe-blue-c"]  # type: ignore[attr-defined]
    empty.deploy(ONE)
    empty.route((ONE, 100))
    assert empty.routes(ONE) == [("blue", "PREFERRED")] * 2


def test_deploying_again_follows_a_new_group(world: GoogleWorld) -> None:
    del world.servers["green"].objects["services", SCOPE.object(slot_of(TWO))]
    before = set(world.compute.groups)
    world.deploy(TWO)
    (new,) = set(world.compute.groups) - before
    service = world.compute.objects["backendServices", SCOPE.object(slot_of(TWO))]
    assert service["backends"][0]["group"] == new
    assert world.routes(TWO) == [("green", "PREFERRED"), ("blue", "DEFAULT")]
    assert world.split().share(slot_of(TWO)) == 10


def test_a_cluster_that_makes_no_groups_is_named(
    empty: GoogleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty.servers["blue"].makes_groups = False  # type: ignore[attr-defined]
    monkeypatch.setattr(waiting, "_ADDRESS_SECONDS", 0.0)
    empty.target = empty.again(ready_seconds=0.1)
    with pytest.raises(TimedOutError, match="has no address") as caught:
        empty.deploy(ONE)
    assert "HttpLoadBalancing" in caught.value.hint


def answer(status: int, reason: str, message: str) -> Callable[[httpx.Request], httpx.Response]:
    error = {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}
    return lambda _: httpx.Response(status, json={"error": error})


@pytest.mark.parametrize(
    ("response", "kind", "says", "hint"),
    [
        (
            answer(403, "accessNotConfigured", "Compute Engine API has not been used in project"),
            UnavailableError,
            "has not been used",
            "gcloud services enable compute.googleapis.com --project iris-4711",
        ),
        (
            answer(403, "forbidden", "Required 'compute.urlMaps.get' permission for 'x'"),
            UnavailableError,
            "URL map iris",
            "grant the permission compute.urlMaps.get in project iris-4711",
        ),
        (answer(401, "authError", "Invalid Credentials"), UnavailableError, "Invalid", "log in"),
        (answer(429, "rateLimitExceeded", "Rate Limit"), UnavailableError, "6 attempts", "wait"),
        (
            lambda _: httpx.Response(200, text="<html>"),
            UnavailableError,
            "not of the Compute Engine API",
            "proxy",
        ),
    ],
)
def test_a_refusal_names_the_object_and_the_next_step(
    empty: GoogleWorld,
    response: Callable[[httpx.Request], httpx.Response],
    kind: type[MlshipError],
    says: str,
    hint: str,
) -> None:
    empty.compute.before = response
    with pytest.raises(kind, match=says) as caught:
        empty.target.routes()
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("status", "reason"),
    [(429, "rateLimitExceeded"), (403, "rateLimitExceeded"), (503, "backendError")],
)
def test_what_google_puts_off_is_asked_again(world: GoogleWorld, status: int, reason: str) -> None:
    refuse, refusals = answer(status, reason, "later"), iter(range(2))
    world.compute.before = lambda request: None if next(refusals, None) is None else refuse(request)
    world.route((ONE, 80), (TWO, 20))
    assert world.split().share(slot_of(TWO)) == 20


def test_a_write_whose_answer_was_lost_is_not_made_twice(world: GoogleWorld) -> None:
    writes = len(world.compute.writes)
    lost: list[httpx.Request] = []

    def lose(request: httpx.Request) -> httpx.Response | None:
        if request.method != "PUT" or "urlMaps" not in request.url.path or lost:
            return None
        lost.append(request)
        world.compute(request)
        raise httpx.ReadError("reset", request=request)

    world.compute.before = lose
    world.route((ONE, 80), (TWO, 20))
    urls = [each for each in world.compute.writes[writes:] if "urlMaps" in each]
    assert urls == ["Update urlMaps/iris"]


def test_no_credentials_are_an_error_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> NoReturn:
        raise DefaultCredentialsError("none were found")  # type: ignore[no-untyped-call]

    with pytest.raises(ConfigError, match="no credentials for Google Cloud") as caught:
        gke.token(none)
    assert "gcloud auth application-default login" in caught.value.hint


def test_settings_choose_the_load_balancer_and_nothing_is_connected() -> None:
    config = read(
        f"{LEAST}targets: {{production: {{kind: gke, {LOAD_BALANCER}, clusters: "
        f"{{blue: {{{GKE}x}}}}, green: {{{GKE}y}}}}}}}}}}"
    )
    target = cluster_target("production", config, "", Notes(), {})
    assert isinstance(target, ClustersTarget)
    assert isinstance(target._parent, GoogleParent)


def test_doctor_checks_each_cluster_and_the_load_balancer(
    world: GoogleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = world.config()
    members = [FakeMember(server, config) for server in world.servers.values()]
    monkeypatch.setattr(wire, "members", lambda *_: members)
    monkeypatch.setattr(wire, "parent", lambda _: world.parent(config))
    pipeline: Any = SimpleNamespace(
        target_config=lambda _: config, config=SimpleNamespace(name="iris")
    )
    said = doctor._clusters(pipeline, "production", {})
    assert said.count("allows deployments to namespace iris") == 2
    assert said.endswith(f"URL map iris answers at {ADDRESS}")


def test_a_url_map_that_does_not_exist_is_named(empty: GoogleWorld) -> None:
    balancer = LoadBalancerConfig(url_map="irsi", address=ADDRESS)
    empty.target = empty.again(load_balancer=balancer)
    with pytest.raises(NotFoundError, match="has no URL map irsi") as caught:
        empty.deploy(ONE)
    assert "targets.production.load_balancer.url_map" in caught.value.hint
    assert not empty.servers["blue"].writes


def test_a_quota_stops_a_new_slot_and_the_route_stays(world: GoogleWorld) -> None:
    world.deploy(THREE)
    world.compute.quota = 3
    with pytest.raises(UnavailableError, match="BACKEND_SERVICES") as caught:
        world.route((ONE, 80), (TWO, 10), (THREE, 10))
    assert "Quotas" in caught.value.hint
    assert world.split().share(slot_of(TWO)) == 10


def test_an_operation_that_fails_is_an_error_with_googles_words(world: GoogleWorld) -> None:
    world.compute.failing = [(400, "INVALID_USAGE", "The URL map is wrong")]
    with pytest.raises(MlshipError, match="URL map iris: The URL map is wrong"):
        world.route((ONE, 50), (TWO, 50))
    assert world.split().share(slot_of(TWO)) == 10


def test_an_operation_is_waited_for_and_one_without_an_end_is_named(world: GoogleWorld) -> None:
    world.compute.polls = 3
    world.route((ONE, 80), (TWO, 20))
    assert world.split().share(slot_of(TWO)) == 20
    world.compute.polls = 10_000
    with pytest.raises(TimedOutError, match="still runs after 300 s") as caught:
        world.route((ONE, 70), (TWO, 30))
    assert "gcloud compute operations describe" in caught.value.hint


def test_doctor_asks_for_the_permissions(world: GoogleWorld) -> None:
    parent = world.parent(world.config())
    assert parent.look(SCOPE) == f"URL map iris answers at {ADDRESS}"
    world.compute.denied = {"compute.urlMaps.update"}
    with pytest.raises(UnavailableError, match=r"no permission compute\.urlMaps\.update"):
        parent.look(SCOPE)


def test_another_project_of_the_name_is_refused(world: GoogleWorld) -> None:
    found = world.compute.objects["urlMaps", "iris"]
    notes = json.dumps({"number": 3, "home": "github.com/mallory/iris"})
    found["pathMatchers"][0]["description"] = notes
    scope = Scope(project="iris", target="production", home="github.com/ada/iris")
    with pytest.raises(ConflictError, match="mallory"):
        url_map.read(scope, found)


def test_a_dry_run_shows_the_route_and_writes_nothing(world: GoogleWorld) -> None:
    writes = len(world.compute.writes)
    split = Split(weights={slot_of(ONE): 90, slot_of(THREE): 10})
    plan = Plan(release=THREE, artifact=IMAGE, slot=slot_of(THREE), replicas=1, split=split)
    changes = {change.object: change for change in world.target.changes(plan)}
    assert changes[f"Deployment iris-production-{slot_of(THREE)} in green"].action == "create"
    assert slot_of(THREE) in changes["URL map iris in Google"].diff
    assert len(world.compute.writes) == writes


def test_the_objects_of_a_first_release_are_rendered_without_a_connection(
    empty: GoogleWorld,
) -> None:
    empty.compute.before = answer(500, "backendError", "away")
    plan = Plan(release=ONE, artifact=IMAGE, slot=slot_of(ONE), replicas=1)
    rendered = empty.target.render(plan)
    assert any("cloud.google.com/neg" in text for text in rendered.values())
    assert not any("router" in name for name in rendered)


def state(world: GoogleWorld) -> object:
    """Return what is in the clusters and at Google, without counters."""
    counted = {"id", "fingerprint", "creationTimestamp"}
    objects = {
        key: {name: value for name, value in each.items() if name not in counted}
        for key, each in world.compute.objects.items()
    }
    # The number of writes is in the description and the name of the route.
    objects = copy.deepcopy(objects)
    for matcher in objects["urlMaps", "iris"].get("pathMatchers", ()):
        matcher.pop("description")
        matcher.pop("headerAction")
    clusters = {name: sorted(server.objects) for name, server in world.servers.items()}
    return objects, clusters, world.split()


@pytest.mark.slow
def test_a_command_that_is_killed_at_any_write_is_completed_by_the_next_run() -> None:
    whole, killed = GoogleWorld(), GoogleWorld()
    with without_pauses(whole):
        for act in story(whole):
            act()
    with without_pauses(killed):
        kills = sum(kill_at_every_write(killed, act) for act in story(killed))
    assert kills > 60
    assert state(killed) == state(whole)


def shares_by_hand(world: GoogleWorld) -> None:
    rules = world.compute.objects["urlMaps", "iris"]["pathMatchers"][0]["routeRules"]
    for service in rules[-1]["routeAction"]["weightedBackendServices"]:
        service["weight"] = 50


def damage(world: GoogleWorld) -> None:
    world.compute.objects["urlMaps", "iris"]["pathMatchers"][0]["routeRules"][0].pop("description")


def test_a_route_that_was_damaged_is_told_and_another_one_is_not(world: GoogleWorld) -> None:
    assert world.target.altered() == []
    damage(world)
    (found,) = world.target.altered()
    assert (found.object, found.is_adoptable) == ("URL map iris", False)
    assert found.text == "was edited, and mlship cannot read it"


def test_adopting_leaves_the_load_balancer_to_those_who_made_it(world: GoogleWorld) -> None:
    shares_by_hand(world)
    before = len(world.compute.writes)
    world.target.adopt()
    assert len(world.compute.writes) == before


def test_a_split_is_written_over_one_that_somebody_edited(world: GoogleWorld) -> None:
    shares_by_hand(world)
    wanted = Split(weights={slot_of(ONE): 90, slot_of(TWO): 10})
    world.target.rewrite(wanted)
    assert world.split() == wanted


def test_a_url_map_that_cannot_be_read_is_not_written_over(world: GoogleWorld) -> None:
    damage(world)
    before = len(world.compute.writes)
    with pytest.raises(IntegrityError, match="description is missing") as caught:
        world.target.rewrite(Split(weights={slot_of(ONE): 100}))
    assert "remove-path-matcher" in caught.value.hint
    assert len(world.compute.writes) == before
