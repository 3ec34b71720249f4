"""doctor's looks at what is real: an engine, a registry, a cluster, and what we may do there."""

import dataclasses
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import httpx
import msgspec
import pytest

from mlship.adapters.images.engine.engine import look
from mlship.adapters.images.registry.registries import Registries
from mlship.adapters.targets.kubernetes import review
from mlship.adapters.targets.kubernetes.api import Kind
from mlship.config.project import ImageConfig, TargetConfig
from mlship.errors import ConfigError, NotFoundError, UnavailableError
from tests.harness import asking, clusters
from tests.harness.clusters import Cluster
from tests.harness.services import require


class Nobody(httpx.Auth):
    """Asks as an account without rights; the tests' own may say that it is another."""

    def __init__(self, own: httpx.Auth | None) -> None:
        self._own = own or httpx.Auth()

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Impersonate-User"] = "nobody"
        yield from self._own.auth_flow(request)


@pytest.mark.service("cluster")
def test_a_cluster_that_has_all_is_told_with_its_gateway_and_stays_as_it_was() -> None:
    with clusters.cluster() as place:
        before = objects(place)
        config = TargetConfig(kind="kubernetes", kubernetes=place.kubernetes)
        said = review(place.scope, config, place.access)
        assert f"deployments to namespace {place.namespace}; Gateway http" in said
        assert objects(place) == before == []


@pytest.mark.service("cluster")
def test_a_namespace_that_is_missing_is_named() -> None:
    with clusters.cluster() as place:
        settings = msgspec.structs.replace(place.kubernetes, namespace="nowhere")
        config = TargetConfig(kind="kubernetes", kubernetes=settings)
        with pytest.raises(NotFoundError, match="no namespace nowhere") as caught:
            review(place.scope, config, place.access)
        assert "kubectl create namespace nowhere" in caught.value.hint


@pytest.mark.service("cluster")
def test_an_account_without_rights_hears_of_each() -> None:
    with clusters.cluster() as place:
        found = place.access()
        nobody = dataclasses.replace(found, auth=Nobody(found.auth))
        config = TargetConfig(kind="kubernetes", kubernetes=place.kubernetes)
        with pytest.raises(UnavailableError, match="get, list, create, patch, update, delete depl"):
            review(place.scope, config, lambda: nobody)


def objects(place: Cluster) -> list[str]:
    """Return what a namespace has of the kinds that a review looks at."""
    with place.api() as api:
        kinds: tuple[Kind, ...] = ("Deployment", "Service", "HTTPRoute", "Lease")
        return [one["metadata"]["name"] for kind in kinds for one in api.list(kind, {})]


@pytest.mark.service("docker")
def test_the_engine_that_answers_is_named_and_one_that_does_not_is_told() -> None:
    require("docker", Path("/var/run/docker.sock").exists(), "start the Docker engine")
    assert look({}).startswith("Docker ")
    with pytest.raises(UnavailableError, match="cannot connect to the Docker engine"):
        look({"DOCKER_HOST": "tcp://127.0.0.1:9"})
    with pytest.raises(ConfigError, match="is not on this machine"):
        look({"DOCKER_HOST": "tcp://192.0.2.1:2375"})


@pytest.mark.service("registry")
def test_a_registry_is_reached_and_gets_no_repository_by_that() -> None:
    try:
        there = asking.get("http://localhost:5000/v2/", timeout=5).is_success
    except httpx.HTTPError:
        there = False
    require("registry at localhost:5000", there, "run a registry there")
    config = ImageConfig(repository="localhost:5000/mlship-tests/nothing-was-pushed")
    with closing(Registries(config, {})) as registries:
        assert registries.reach().endswith("has nothing yet")
    tags = "http://localhost:5000/v2/mlship-tests/nothing-was-pushed/tags/list"
    assert asking.get(tags, timeout=30).status_code == 404


def test_a_registry_that_is_down_is_told() -> None:
    with pytest.raises(UnavailableError, match="does not answer at http://127"):
        Registries(ImageConfig(repository="127.0.0.1:9/iris"), {}).reach()
