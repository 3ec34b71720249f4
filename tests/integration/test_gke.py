"""A cluster of Google's: its API is stood in for by a gRPC server made of the client's own types.

It shows that calls are well-formed and their answers understood, not that Google accepts them. The
cluster that it hands out is a real one.
"""

import json
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import msgspec
import pytest
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import container_v1
from google.oauth2.credentials import Credentials

from mlship.adapters.targets import gke
from mlship.adapters.targets.kubernetes import KubernetesTarget, health
from mlship.adapters.targets.kubernetes.api import PLACES, Place
from mlship.adapters.targets.kubernetes.manifests import TARGET, Scope
from mlship.config.project import TargetConfig
from mlship.config.targets import GkeConfig
from mlship.domain.deployment import Plan, slot_of
from mlship.errors import ConfigError, NotFoundError, UnavailableError
from tests.harness import clusters
from tests.harness.clusters import Cluster, artifact
from tests.harness.places import Notes
from tests.harness.samples import release

ONE = release("one")
CONFIG = GkeConfig(project="iris-1", location="europe-west1", cluster="production")
NAME = "projects/iris-1/locations/europe-west1/clusters/production"
Answer = Callable[[Any, grpc.ServicerContext], Any]


class Google(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Knows clusters by their full names; everything else is unimplemented."""

    def __init__(self, known: dict[str, container_v1.Cluster]) -> None:
        self.known = known
        self.asked: list[str] = []
        self.refuses: tuple[grpc.StatusCode, str] | None = None

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        if handler_call_details.method != "/google.container.v1.ClusterManager/GetCluster":
            return None
        return grpc.unary_unary_rpc_method_handler(
            self.get_cluster,
            request_deserializer=container_v1.GetClusterRequest.deserialize,
            response_serializer=container_v1.Cluster.serialize,
        )

    def get_cluster(
        self, request: container_v1.GetClusterRequest, context: grpc.ServicerContext
    ) -> container_v1.Cluster:
        self.asked.append(request.name)
        if self.refuses:
            context.abort(*self.refuses)
        if request.name not in self.known:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Not found: {request.name}.")
        return self.known[request.name]


def static(token: str) -> Credentials:
    return Credentials(token)  # type: ignore[no-untyped-call]


@contextmanager
def google(**known: container_v1.Cluster) -> Iterator[tuple[Google, Callable[[Any], Any]]]:
    """Run the server; give it, and what makes a client of it."""
    handler = Google({NAME: known["production"]} if known else {})
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    transport = container_v1.ClusterManagerClient.get_transport_class("grpc")
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield (
                handler,
                lambda _: container_v1.ClusterManagerClient(transport=transport(channel=channel)),
            )
    finally:
        server.stop(0).wait()


def spec(**fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields}


TEXT = {"type": "string"}
PORTS = {"type": "string", "enum": ["USE_FIXED_PORT", "USE_NAMED_PORT", "USE_SERVING_PORT"]}
PATH = {"type": "string", "maxLength": 2048, "pattern": r"\/[A-Za-z0-9\/\-._~%!?$&'()*+,;=:]*$"}
# What a policy may say, as far as ours says it: the cluster drops what is not in its schema.
# https://github.com/GoogleCloudPlatform/gke-gateway-api, apis/networking/v1
POLICY = spec(
    spec={
        **spec(
            default=spec(
                config={
                    **spec(
                        type={**TEXT, "enum": ["TCP", "HTTP", "HTTPS", "HTTP2", "GRPC"]},
                        httpHealthCheck=spec(portSpecification=PORTS, requestPath=PATH),
                    ),
                    "minProperties": 2,
                    "maxProperties": 2,
                }
            ),
            targetRef={
                **spec(group=TEXT, kind=TEXT, name=TEXT),
                "required": ["group", "kind", "name"],
            },
        ),
        "required": ["targetRef"],
    }
)
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "healthcheckpolicies.networking.gke.io"},
    "spec": {
        "group": "networking.gke.io",
        "names": {"kind": "HealthCheckPolicy", "plural": "healthcheckpolicies"},
        "scope": "Namespaced",
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": POLICY}}
        ],
    },
}


def learn_policies(place: Cluster) -> None:
    """Let the cluster know policies, as Google's do. It stays so: the kind is the cluster's."""
    if not knows_policies(place):
        place.kubectl("POST", DEFINITIONS, json=DEFINITION)
    clusters.until(lambda: knows_policies(place))


def knows_policies(place: Cluster) -> bool:
    try:
        with place.api() as api:
            api.list("HealthCheckPolicy", {})
    except UnavailableError:
        return False
    return True


@pytest.fixture
def place() -> Iterator[Cluster]:
    with clusters.cluster() as found:
        yield found


@contextmanager
def target(place: Cluster, **gke_settings: Any) -> Iterator[tuple[KubernetesTarget, Google]]:
    """Give a target whose cluster is named by Google."""
    document = json.loads(place.path.read_text())
    reached, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    production = container_v1.Cluster(
        endpoint=reached["server"].removeprefix("https://"),
        master_auth={"cluster_ca_certificate": reached["certificate-authority-data"]},
    )
    own = msgspec.structs.replace(CONFIG, **gke_settings)
    config = TargetConfig(kind="gke", gke=own, kubernetes=place.kubernetes)
    with google(production=production) as (handler, client):
        yield (
            KubernetesTarget(
                Scope(project="iris", target="production"),
                config,
                lambda: gke.find(own, credentials=lambda: static(user["token"]), client=client),
                Notes(),
            ),
            handler,
        )


@pytest.mark.service("cluster")
def test_a_release_runs_in_a_cluster_that_google_names(place: Cluster) -> None:
    with target(place, health_check_policy=False) as (found, handler):
        slot = slot_of(ONE)
        found.deploy(ONE, artifact(slot), slot, replicas=1)
        assert found.inspect()[slot].ready == 1
        found.remove(slot)
        assert handler.asked == [NAME]


@pytest.mark.service("cluster")
def test_googles_load_balancer_is_told_what_to_ask_the_pods_of_a_slot(place: Cluster) -> None:
    slot = slot_of(ONE)
    plan = Plan(release=ONE, artifact=artifact(slot), slot=slot, replicas=1)
    learn_policies(place)
    with target(place) as (found, _), place.api() as api:
        name = Scope(project="iris", target="production").object(slot)
        assert f"HealthCheckPolicy {name}" in [one.object for one in found.changes(plan)]
        found.deploy(ONE, plan.artifact, slot, replicas=1)
        made = api.get("HealthCheckPolicy", name)
        service = api.get("Service", name)
        assert made is not None
        assert service is not None
        # Nothing was dropped: each field is one that Google's schema has.
        assert made["spec"] == health.policy(name)
        assert made["spec"]["targetRef"]["name"] == service["metadata"]["name"]
        (pod,) = place.pods(slot)
        probe = pod["spec"]["containers"][0]["readinessProbe"]["httpGet"]
        assert made["spec"]["default"]["config"]["httpHealthCheck"]["requestPath"] == probe["path"]
        found.deploy(ONE, plan.artifact, slot, replicas=1)
        assert found.changes(plan) == []
        again = api.get("HealthCheckPolicy", name)
        assert again is not None
        assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        found.remove(slot)
        assert api.get("HealthCheckPolicy", name) is None
        assert api.get("Service", name) is None


@pytest.mark.service("cluster")
def test_a_cluster_that_knows_no_health_checks_says_how_it_learns_them(
    place: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tests' cluster may have learnt them; this group of kinds it never has.
    unknown = Place("networking.gke.example/v1", "healthcheckpolicies")
    monkeypatch.setitem(PLACES, "HealthCheckPolicy", unknown)
    slot = slot_of(ONE)
    with target(place) as (found, _):
        with pytest.raises(UnavailableError, match="has no HealthCheckPolicy") as caught:
            found.deploy(ONE, artifact(slot), slot, replicas=1)
        assert "--gateway-api=standard" in caught.value.hint
        assert "health_check_policy: false" in caught.value.hint
        assert found.inspect() == {}
    with place.api() as api:
        assert api.list("Service", {TARGET: "production"}) == []


def test_a_cluster_that_google_does_not_know_is_named() -> None:
    with (
        google() as (_, client),
        pytest.raises(NotFoundError, match=f"no cluster {NAME}") as caught,
    ):
        gke.find(CONFIG, credentials=AnonymousCredentials, client=client)
    assert "gcloud container clusters list" in caught.value.hint


@pytest.mark.parametrize(
    ("code", "words", "hint"),
    [
        (
            grpc.StatusCode.PERMISSION_DENIED,
            "no permission to read",
            "roles/container.clusterViewer",
        ),
        (grpc.StatusCode.UNAUTHENTICATED, "no permission to read", "roles/container.clusterViewer"),
        (grpc.StatusCode.INTERNAL, "does not answer", "again"),
    ],
)
def test_a_refusal_of_googles_is_told(code: grpc.StatusCode, words: str, hint: str) -> None:
    with google() as (handler, client):
        handler.refuses = (code, "Required container.clusters.get permission")
        with pytest.raises(UnavailableError, match=f"{words} .*container.clusters.get") as caught:
            gke.find(CONFIG, credentials=AnonymousCredentials, client=client)
    assert hint in caught.value.hint


def test_a_cluster_that_is_still_being_made_has_no_address() -> None:
    with (
        google(production=container_v1.Cluster()) as (_, client),
        pytest.raises(UnavailableError, match="no address yet"),
    ):
        gke.find(CONFIG, credentials=AnonymousCredentials, client=client)


def test_without_credentials_the_way_to_get_them_is_told() -> None:
    def none() -> Any:
        words = "Your default credentials were not found."
        raise DefaultCredentialsError(words)  # type: ignore[no-untyped-call]

    with pytest.raises(ConfigError, match="no credentials") as caught:
        gke.find(CONFIG, credentials=none)
    assert "gcloud auth application-default login" in caught.value.hint


def test_an_api_that_is_down_is_given_up() -> None:
    transport = container_v1.ClusterManagerClient.get_transport_class("grpc")
    started = time.monotonic()
    with (
        grpc.insecure_channel("127.0.0.1:9") as channel,
        pytest.raises(UnavailableError, match="does not answer"),
    ):
        gke.find(
            CONFIG,
            credentials=AnonymousCredentials,
            client=lambda _: container_v1.ClusterManagerClient(
                transport=transport(channel=channel)
            ),
        )
    assert time.monotonic() - started < 25
