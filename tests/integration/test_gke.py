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
import pytest
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import container_v1
from google.oauth2.credentials import Credentials

from mlship.clusters import GkeConfig
from mlship.config import TargetConfig
from mlship.deployment import slot_of
from mlship.errors import ConfigError, NotFoundError, UnavailableError
from mlship.targets import gke
from mlship.targets.kubernetes import KubernetesTarget
from tests import clusters
from tests.clusters import artifact
from tests.places import Notes
from tests.samples import release

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


@pytest.mark.service("cluster")
def test_a_release_runs_in_a_cluster_that_google_names() -> None:
    with clusters.cluster() as place:
        document = json.loads(place.path.read_text())
        reached, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        production = container_v1.Cluster(
            endpoint=reached["server"].removeprefix("https://"),
            master_auth={"cluster_ca_certificate": reached["certificate-authority-data"]},
        )
        config = TargetConfig(kind="gke", gke=CONFIG, kubernetes=place.kubernetes)
        with google(production=production) as (handler, client):
            target = KubernetesTarget(
                "production",
                "iris",
                config,
                lambda: gke.find(CONFIG, credentials=lambda: static(user["token"]), client=client),
                Notes(),
            )
            slot = slot_of(ONE)
            target.deploy(ONE, artifact(slot), slot, replicas=1)
            assert target.inspect()[slot].ready == 1
            target.remove(slot)
            assert handler.asked == [NAME]


def test_a_cluster_that_google_does_not_know_is_named() -> None:
    with (
        google() as (_, client),
        pytest.raises(NotFoundError, match=f"no cluster {NAME}") as caught,
    ):
        gke.find(CONFIG, credentials=AnonymousCredentials, client=client)
    assert "gcloud container clusters list" in caught.value.hint


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "forbids to look at"),
        (grpc.StatusCode.UNAUTHENTICATED, "forbids to look at"),
        (grpc.StatusCode.INTERNAL, "does not answer"),
    ],
)
def test_a_refusal_of_googles_is_told(code: grpc.StatusCode, words: str) -> None:
    with google() as (handler, client):
        handler.refuses = (code, "Required container.clusters.get permission")
        with pytest.raises(UnavailableError, match=f"{words} .*container.clusters.get") as caught:
            gke.find(CONFIG, credentials=AnonymousCredentials, client=client)
    assert caught.value.hint


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
