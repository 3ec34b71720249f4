"""API keys in a cluster: an image of a real release, a Secret, mlship's own load balancer."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from mlship import wire
from mlship.adapters.checkout import lock
from mlship.config.backends import StoreConfig
from mlship.config.project import Config, GatesConfig, ImageConfig
from mlship.domain import bundle as bundles
from mlship.domain.deployment import slot_of
from mlship.domain.evidence import Step
from mlship.domain.release import Release
from mlship.domain.versions import Run
from mlship.errors import MlshipError
from mlship.steps import api_keys
from mlship.steps.api_keys import KeyPlace
from mlship.steps.containerize import containerize
from mlship.steps.deploy import deploy_production
from mlship.steps.pipeline import Pipeline
from mlship.steps.push import push
from tests.fakes.ports import CONFIG
from tests.harness import asking, clusters
from tests.harness.base import compiled
from tests.harness.bundles import SETOSA, iris_bundle
from tests.harness.clusters import REGISTRY, Cluster, until
from tests.harness.places import Notes
from tests.harness.samples import NOON, nothing
from tests.harness.samples import release as sample

pytestmark = pytest.mark.service("cluster")

SECRET = "iris-api-keys"


@pytest.fixture
def place() -> Iterator[Cluster]:
    with clusters.cluster(is_plain=True) as found:
        yield found


def configured(place: Cluster) -> Config:
    own = msgspec.structs.replace(place.kubernetes, api_keys_secret=SECRET)
    production = msgspec.structs.replace(
        place.config, kubernetes=own, ready_seconds=100, api_keys="api-keys.json", replicas=2
    )
    return msgspec.structs.replace(
        CONFIG,
        gates=GatesConfig(container=False),
        image=ImageConfig(
            # Not one that is used again: a statement about the same release would be found there.
            repository=f"{REGISTRY}/mlship-tests/{place.namespace}",
            base=compiled(),
        ),
        targets={"production": production},
        store=StoreConfig(kind="directory"),
    )


def pushed(pipeline: Pipeline) -> Release:
    """Return a release whose bundle serves, and whose image is in the registry."""
    folder = pipeline.root / "bundle"
    iris_bundle(folder)
    pins = lock.closure(["msgspec", "numpy", "onnxruntime"])
    digest = bundles.seal(
        folder, msgspec.structs.replace(bundles.read(folder), requirements=pins, files={})
    )
    release = msgspec.structs.replace(sample("keyed"), bundle=digest)
    pipeline.store.record(Run(release=release, bundle=folder))
    steps: tuple[Step, ...] = ("train", "test", "verify-staging-workload")
    for step in steps:
        pipeline.learn(release, step, "passed", nothing(step))
    containerize(pipeline, release)
    push(pipeline, release)
    return release


def statuses(url: str, key: str = "") -> set[int]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return {asking.post(url, json=SETOSA, headers=headers).status_code for _ in range(10)}


def test_pods_require_the_keys_of_a_secret_and_follow_it(place: Cluster, tmp_path: Path) -> None:
    config = configured(place)
    pipeline = wire.assemble(config, tmp_path, Notes(), {"GITHUB_ACTOR": "ada"})
    release = pushed(pipeline)
    with pytest.raises(MlshipError, match="cannot read the API keys in /etc/mlship/api-keys"):
        deploy_production(pipeline, release)

    keys = api_keys.place_of(config, tmp_path, "production")
    former = api_keys.add(keys, "web", NOON)
    apply(place, keys)
    deploy_production(pipeline, release)
    url = f"{pipeline.target('production').routes().endpoint}/predict"
    assert (statuses(url), statuses(url, "wrong"), statuses(url, former)) == ({401}, {401}, {200})

    pods = {pod["metadata"]["uid"] for pod in place.pods(slot_of(release))}
    fresh = api_keys.add(keys, "web2", NOON)
    api_keys.remove(keys, "web")
    apply(place, keys)
    until(lambda: statuses(url, fresh) == {200}, seconds=150)
    until(lambda: statuses(url, former) == {401}, seconds=150)
    assert {pod["metadata"]["uid"] for pod in place.pods(slot_of(release))} == pods

    with place.api() as api:
        names = [pod["metadata"]["name"] for pod in place.pods(slot_of(release))]
        texts = [api.text(f"{name}:9090", "proxy/metrics") for name in names]
        others = [api.text(name, "proxy/metrics") for name in names]
    assert any('mlship_api_key_requests_total{key="web2"}' in text for text in texts)
    assert not any("mlship_api_key_requests_total" in text for text in others)


def apply(place: Cluster, keys: KeyPlace) -> None:
    """Run the command that mlship prints."""
    environment = {**os.environ, "KUBECONFIG": str(place.path)}
    subprocess.run(["bash", "-c", keys.apply], check=True, env=environment, timeout=60)
