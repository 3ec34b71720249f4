"""The load balancer that mlship runs where a target names no Gateway: its objects and its route."""

import json
import ssl
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from mlship.adapters.targets.kubernetes import (
    gateway,
    manifests,
    router,
    router_drain,
    router_manifests,
    router_routing,
)
from mlship.adapters.targets.kubernetes.access import Access
from mlship.adapters.targets.kubernetes.api import Api
from mlship.adapters.targets.kubernetes.manifests import Scope
from mlship.config.project import TargetConfig
from mlship.config.targets import KubernetesConfig
from mlship.domain.counts import Counts
from mlship.domain.deployment import Artifact, Revision, Slot, Split, slot_of
from mlship.domain.digests import Digest
from mlship.errors import (
    ConfigError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    UnavailableError,
)
from tests.harness.samples import release
from tests.unit.test_kubernetes import answer, door_to, thing

TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Nobody connects: to read all certificates of the system takes longer than a test."""

ONE, TWO, OLD = slot_of(release("one")), slot_of(release("two")), slot_of(release("old"))
SCOPE = Scope(project="iris", target="staging")
DIGEST = Digest("sha256:" + "a" * 64)
ROUTER = f"registry.example/iris@sha256:{'b' * 64}"
IMAGE = Artifact(
    kind="image", digest=DIGEST, location=f"registry.example/iris@{DIGEST}", router=ROUTER
)
SPLITS = [
    Split(),
    Split(weights={ONE: 100}),
    Split(weights={ONE: 90, TWO: 10}),
    Split(weights={ONE: 100, TWO: 0}),
    Split(weights={ONE: 100}, shadow=TWO),
]


def settings(sticky_header: str | None = None, **own: Any) -> TargetConfig:
    kubernetes = KubernetesConfig(**own)
    return TargetConfig(kind="kubernetes", kubernetes=kubernetes, sticky_header=sticky_header)


def rendered(**own: Any) -> dict[str, dict[str, Any]]:
    made = router_manifests.render(SCOPE, settings(**own), IMAGE)
    return {each["kind"]: each for each in made}


def container(**own: Any) -> dict[str, Any]:
    pod = rendered(**own)["Deployment"]["spec"]["template"]["spec"]
    found: dict[str, Any] = pod["containers"][0]
    return found


def written(
    split: Split,
    parked: frozenset[Slot] = frozenset(),
    before: Any = None,
    config: TargetConfig | None = None,
) -> Any:
    made = router_routing.written(SCOPE, config or settings(), before, split, parked)
    return {**made, "metadata": {"uid": "0123456789", **made["metadata"]}}


def table(manifest: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(manifest["data"]["routes.json"])["resources"][0]
    return found


def test_its_pods_are_two_nobodies_without_an_account() -> None:
    deployment = rendered()["Deployment"]["spec"]
    pod = deployment["template"]["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    secured = pod["containers"][0]["securityContext"]
    assert secured["readOnlyRootFilesystem"] is True
    assert secured["capabilities"] == {"drop": ["ALL"]}
    assert pod["containers"][0]["image"] == ROUTER
    assert [mount["name"] for mount in pod["containers"][0]["volumeMounts"]] == ["tmp", "route"]


@pytest.mark.parametrize("service", ["LoadBalancer", "ClusterIP"])
def test_its_service_is_of_the_configured_type(service: str) -> None:
    assert rendered(service=service)["Service"]["spec"]["type"] == service


def test_no_listing_of_slots_finds_its_objects() -> None:
    neighbour = Scope(project="iris", target="staging-router")
    for made in rendered().values():
        instance = made["metadata"]["labels"][manifests.INSTANCE]
        assert instance not in (SCOPE.name, neighbour.name)
        assert made["metadata"]["name"] == "iris-staging-router"


def test_a_pod_of_it_drains_before_it_ends() -> None:
    command = container(prestop_seconds=7)["lifecycle"]["preStop"]["exec"]["command"]
    assert command[-2:] == ["7", "10"]
    assert "lifecycle" not in router_manifests._container(
        msgspec.structs.replace(settings(prestop_seconds=0), drain_seconds=0), ROUTER
    )


def test_a_release_without_a_routers_image_is_refused_with_the_next_step() -> None:
    old = msgspec.structs.replace(IMAGE, router="")
    with pytest.raises(NotFoundError, match="no router image") as caught:
        router_manifests.render(SCOPE, settings(), old)
    assert "mlship push-to-registry" in caught.value.hint


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_is_read_back_as_it_was_written(split: Split) -> None:
    config = settings(path="/iris", host="iris.example", sticky_header="x-user")
    made = written(split, frozenset({TWO, OLD}), config=config)
    found = router_routing.read(SCOPE, made)
    assert found.split == split
    assert found.slots == {TWO, OLD} | split.slots
    assert router_routing.written(SCOPE, config, made, split, frozenset({TWO, OLD})) is made


def test_each_change_has_a_revision_and_a_name_of_its_own() -> None:
    known, before = set(), written(Split())
    for split in (*SPLITS[1:], SPLITS[1]):
        before = written(split, frozenset(), before)
        found = router_routing.read(SCOPE, before)
        known |= {found.revision, found.name}
        headers = {each["header"]["value"] for each in table(before)["response_headers_to_add"]}
        assert headers == {found.name}
    assert len(known) == 2 * len(SPLITS)


def test_the_first_route_of_a_deployment_is_none_yet() -> None:
    assert router_routing.read(SCOPE, written(Split())).revision == Revision("0")
    assert router_routing.read(SCOPE, written(SPLITS[1])).revision != Revision("0")


def test_a_weight_that_was_edited_by_hand_is_another_revision() -> None:
    before = written(Split(weights={ONE: 90, TWO: 10}))
    text = before["data"]["routes.json"].replace('"weight": 90', '"weight": 80')
    edited = {**before, "data": {**before["data"], "routes.json": text.replace(": 10", ": 20")}}
    first, second = (router_routing.read(SCOPE, each) for each in (before, edited))
    assert second.split.weights == {ONE: 80, TWO: 20}
    assert first.revision != second.revision


def test_every_slot_of_the_route_is_a_cluster_by_its_services_name() -> None:
    made = written(Split(weights={ONE: 100}, shadow=TWO), frozenset({TWO, OLD}))
    clusters = json.loads(made["data"]["clusters.json"])["resources"]
    own = {f"{slot}.own" for slot in (ONE, TWO, OLD)}
    assert {each["name"] for each in clusters} == {ONE, TWO, OLD} | own
    (lookup,) = clusters[0]["load_assignment"]["endpoints"][0]["lb_endpoints"]
    address = lookup["endpoint"]["address"]["socket_address"]
    assert address == {"address": SCOPE.object(clusters[0]["name"]), "port_value": 80}


def test_a_policy_lets_the_routers_pods_reach_those_of_releases_and_nobody_else() -> None:
    assert "NetworkPolicy" not in rendered()
    made = rendered(network_policy=True)
    spec = made["NetworkPolicy"]["spec"]
    pod = made["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    closed = spec["podSelector"]["matchLabels"].items()
    rule, metrics = spec["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["http"]
    assert [port["port"] for port in metrics["ports"]] == ["metrics"]
    assert metrics["from"] == [{"namespaceSelector": {}}], "pods of this cluster only"
    (source,) = rule["from"]
    assert source["podSelector"]["matchLabels"].items() <= pod
    assert not closed <= pod, "clients of the router come from anywhere"
    assert closed <= {"app.kubernetes.io/instance": SCOPE.name, "mlship.dev/slot": ONE}.items()


def hosts(cluster: dict[str, Any]) -> dict[int, str]:
    """Return the addresses of one of Envoy's clusters by their priorities."""
    return {
        group.get("priority", 0): group["lb_endpoints"][0]["endpoint"]["address"]["socket_address"][
            "address"
        ]
        for group in cluster["load_assignment"]["endpoints"]
    }


def test_the_slots_with_traffic_answer_for_one_that_is_away_but_get_no_copies_of_it() -> None:
    made = written(Split(weights={ONE: 80, TWO: 20}), frozenset({OLD}))
    clusters = {
        each["name"]: each for each in json.loads(made["data"]["clusters.json"])["resources"]
    }
    one, two, old = (SCOPE.object(slot) for slot in (ONE, TWO, OLD))
    assert hosts(clusters[ONE]) == {0: one, 1: two}
    assert hosts(clusters[TWO]) == {0: two, 1: one}
    assert hosts(clusters[OLD]) == {0: old, 1: one, 2: two}
    assert hosts(clusters[f"{TWO}.own"]) == {0: two}


def test_an_address_that_falls_silent_does_not_hold_requests_in_any_cluster() -> None:
    made = written(Split(weights={ONE: 100}, shadow=TWO))
    for cluster in json.loads(made["data"]["clusters.json"])["resources"]:
        assert "tcp_keepalive" in cluster["upstream_connection_options"]
        assert cluster["upstream_bind_config"]["socket_options"]


def test_what_a_model_answers_takes_no_share_from_its_slot() -> None:
    made = written(Split(weights={ONE: 80, TWO: 20}))
    for cluster in json.loads(made["data"]["clusters.json"])["resources"]:
        ejection = cluster.get("outlier_detection", {})
        enforcing = {name: value for name, value in ejection.items() if "enforcing" in name}
        assert set(enforcing.values()) <= {0}


def test_a_host_and_a_path_are_the_targets_own_and_the_path_is_removed() -> None:
    config = settings(host="iris.example", path="/v1.0/iris/")
    (host,) = table(written(SPLITS[1], config=config))["virtual_hosts"]
    assert host["domains"] == ["iris.example", "iris.example:*"]
    route = host["routes"][-1]
    assert route["match"] == {"path_separated_prefix": "/v1.0/iris"}
    rewrite = route["route"]["regex_rewrite"]
    assert rewrite == {"pattern": {"regex": r"^/v1\.0/iris/?"}, "substitution": "/"}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("{", "Input data was truncated"),
        ('{"resources": []}', "version_info is missing"),
        ('{"version_info": "1-a", "resources": []}', "a part is missing"),
        ('{"version_info": "1-a", "resources": 7}', "has another form"),
        ('{"version_info": "a", "resources": [{}]}', "virtual_hosts is missing"),
    ],
)
def test_a_route_that_cannot_be_read_is_refused(damage: str, reason: str) -> None:
    made = written(SPLITS[1])
    made["data"]["routes.json"] = damage
    with pytest.raises(IntegrityError, match="ConfigMap iris-staging-router") as caught:
        router_routing.read(SCOPE, made)
    assert reason in caught.value.message
    assert "Error(" not in caught.value.message


def test_the_route_of_another_project_is_refused() -> None:
    ada = msgspec.structs.replace(SCOPE, home="github.com/ada/iris")
    bob = msgspec.structs.replace(SCOPE, home="github.com/bob/iris")
    made = router_routing.written(ada, settings(), None, SPLITS[1], frozenset())
    made["metadata"]["uid"] = "0123456789"
    assert router_routing.read(ada, made).split == SPLITS[1]
    with pytest.raises(ConflictError, match=r"ConfigMap iris-staging-router.*ada/iris.*bob/iris"):
        router_routing.read(bob, made)


def test_a_shadow_needs_traffic_to_copy() -> None:
    with pytest.raises(ConfigError, match="no slot has traffic"):
        written(Split(shadow=ONE))


def api(objects: dict[str, Any], *, has_gateways: bool = True) -> Api:
    """Return a namespace that has these objects, by the last part of their paths."""

    def server(request: httpx.Request) -> httpx.Response:
        kind, _, name = request.url.path.rpartition("/")
        if kind.endswith("httproutes") and not has_gateways:
            return httpx.Response(404, text="404 page not found")
        found = objects.get(f"{kind.rpartition('/')[2]}/{name}")
        return httpx.Response(200, json=found) if found else answer(404, "no", "NotFound")

    reached = Access(name="context a", server="https://a", trust=TRUST)
    return Api(door_to(server, lambda _: None), reached, "iris")


def test_a_target_whose_traffic_a_gateway_has_is_not_moved_silently() -> None:
    parents = {"parentRefs": [{"namespace": "edge", "name": "shared"}]}
    routes = {"httproutes/iris-staging": thing("HTTPRoute", spec=parents)}
    with pytest.raises(ConflictError, match="HTTPRoute iris-staging has the traffic") as caught:
        router.Traffic(api(routes), SCOPE, settings()).check()
    assert "targets.staging.kubernetes.gateway: edge/shared" in caught.value.hint


def test_a_target_whose_traffic_a_router_has_is_not_moved_silently() -> None:
    running = {"deployments/iris-staging-router": thing("Deployment")}
    own = KubernetesConfig(gateway="edge/shared")
    with pytest.raises(ConflictError, match="Deployment iris-staging-router has the traffic"):
        gateway.Traffic(api(running), SCOPE, own).read()


def test_a_cluster_without_the_gateway_api_is_enough() -> None:
    traffic = router.Traffic(api({}, has_gateways=False), SCOPE, settings())
    assert traffic.route().split == Split()
    assert traffic.endpoint() == ""


@pytest.mark.parametrize(
    ("status", "own", "expected"),
    [
        ({}, {}, ""),
        ({"loadBalancer": {"ingress": [{"ip": "10.0.0.9"}]}}, {}, "http://10.0.0.9"),
        ({"loadBalancer": {"ingress": [{"hostname": "lb.a"}]}}, {"path": "/b"}, "http://lb.a/b"),
        ({"loadBalancer": {"ingress": [{"ip": "10.0.0.9"}]}}, {"host": "c.d"}, "http://c.d"),
    ],
)
def test_its_endpoint_is_the_address_of_its_service(
    status: dict[str, Any], own: dict[str, Any], expected: str
) -> None:
    service = thing("Service", spec={"type": "LoadBalancer"}, status=status)
    objects = {"services/iris-staging-router": service}
    assert router.Traffic(api(objects), SCOPE, settings(**own)).endpoint() == expected


def test_the_hook_imports_nothing_that_the_image_lacks() -> None:
    text = Path(router_drain.__file__).read_text()
    assert "import mlship" not in text
    assert "from mlship" not in text


def test_a_router_without_a_ready_replica_is_told() -> None:
    found = {"deployments/iris-staging-router": thing("Deployment")}
    found["iris/pods"] = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}
    with pytest.raises(UnavailableError, match="load balancer of staging, has no ready replica"):
        router.Traffic(api(found), SCOPE, settings()).state()


ADDRESSES = '{"cluster_statuses": [{"name": "r1", "host_statuses": []}]}'
TIMES = '{"stats": []}'


def pod(name: str, restarts: int, *, ready: bool = True) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    states = [{"restartCount": restarts}]
    return {
        "metadata": {"name": name},
        "status": {"conditions": conditions, "containerStatuses": states},
    }


def counting(*pods: dict[str, Any], pages: dict[str, httpx.Response]) -> router.Traffic:
    """Return the traffic of a router whose pods answer with these pages, by path."""

    def server(request: httpx.Request) -> httpx.Response:
        where = request.url.path.removeprefix("/api/v1/namespaces/iris/pods")
        if where:
            return pages[where]
        listed = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(pods)}
        return httpx.Response(200, json=listed)

    reached = Access(name="context a", server="https://a", trust=TRUST)
    opened = Api(door_to(server, lambda _: None), reached, "iris")
    return router.Traffic(opened, SCOPE, settings())


def pages(*pods: str) -> dict[str, httpx.Response]:
    texts = {"clusters": ADDRESSES, "stats": TIMES}
    return {
        f"/{name}:8081/proxy/{page}": httpx.Response(200, text=text)
        for name in pods
        for page, text in texts.items()
    }


def test_what_each_ready_pod_counted_has_a_name_that_changes_when_it_starts_again() -> None:
    pods = pod("a", 0), pod("b", 2), pod("c", 0, ready=False)
    assert counting(*pods, pages=pages("a", "b")).counts() == {
        "a/0": {"r1": Counts()},
        "b/2": {"r1": Counts()},
    }


@pytest.mark.parametrize(
    "answered",
    [
        httpx.Response(200, text=""),
        httpx.Response(200, text="{}"),
        httpx.Response(503, text="upstream connect error"),
        answer(403, "no", "Forbidden"),
        answer(404, "no", "NotFound"),
    ],
    ids=["an earlier version", "no counts", "Envoy is away", "no right", "no pod"],
)
def test_a_pod_that_does_not_say_what_it_counted_makes_all_unknown(
    answered: httpx.Response,
) -> None:
    given = {**pages("a", "b"), "/b:8081/proxy/clusters": answered}
    traffic = counting(pod("a", 0), pod("b", 0), pages=given)
    with pytest.raises(UnavailableError, match="pod b, the load balancer of staging") as caught:
        traffic.counts()
    assert "pods/proxy" in caught.value.hint


def test_a_router_without_a_ready_pod_has_counted_nothing_that_is_known() -> None:
    with pytest.raises(UnavailableError, match="has no ready replica"):
        counting(pod("a", 0, ready=False), pages={}).counts()


def test_a_gateway_does_not_say_what_it_counts() -> None:
    own = KubernetesConfig(gateway="edge/shared")
    with pytest.raises(ConfigError, match="is not mlship's"):
        gateway.Traffic(api({}), SCOPE, own).counts()
