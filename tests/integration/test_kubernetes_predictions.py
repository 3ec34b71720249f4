"""Predictions of pods: they outlive the pod, are evaluated, and lead back to what made them."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from mlship import wire
from mlship.adapters.checkout import lock
from mlship.config.backends import ObservationsConfig, StoreConfig
from mlship.config.project import GatesConfig, ImageConfig
from mlship.domain import bundle as bundles
from mlship.domain.deployment import slot_of
from mlship.domain.evidence import Step
from mlship.domain.release import Release
from mlship.domain.versions import Run
from mlship.steps.containerize import containerize
from mlship.steps.deploy import deploy_production
from mlship.steps.evaluate import evaluate
from mlship.steps.feedback import feedback
from mlship.steps.outcome_files import Received
from mlship.steps.pipeline import Pipeline
from mlship.steps.push import push
from mlship.steps.trace import trace
from tests.fakes.ports import CONFIG
from tests.harness import clusters, postgres
from tests.harness.bundles import SETOSA, iris_bundle
from tests.harness.clusters import REGISTRY, Cluster
from tests.harness.places import Notes
from tests.harness.postgres import Server
from tests.harness.samples import nothing
from tests.harness.samples import release as sample

pytestmark = [pytest.mark.service("cluster"), pytest.mark.service("postgresql")]

REQUESTS = 80
CREDENTIALS = "predictions"


@pytest.fixture
def place() -> Iterator[Cluster]:
    with clusters.cluster() as found:
        yield found


@pytest.fixture
def database(place: Cluster) -> Iterator[Server]:
    with postgres.server(place.host()) as running:
        place.secret(CREDENTIALS, PGPASSWORD=running.password)
        yield running


def pipeline(root: Path, place: Cluster, database: Server) -> Pipeline:
    """Return a pipeline with production in the cluster and its predictions in the database."""
    url = database.create("iris").replace(f":{database.password}@", "@")
    own = msgspec.structs.replace(place.kubernetes, env_from_secret=CREDENTIALS)
    production = msgspec.structs.replace(
        place.config, kubernetes=own, challenger_weight=50, ready_seconds=200
    )
    config = msgspec.structs.replace(
        CONFIG,
        gates=GatesConfig(container=False),
        image=ImageConfig(
            repository=f"{REGISTRY}/mlship-tests/iris", base=f"{REGISTRY}/library/python:3.11-slim"
        ),
        targets={"production": production},
        store=StoreConfig(kind="directory"),
        observations=ObservationsConfig(kind="postgres", url=url),
    )
    environment = {"PGPASSWORD": database.password, "GITHUB_ACTOR": "ada"}
    return wire.assemble(config, root, Notes(), environment)


def running(pipeline: Pipeline, accuracy: float) -> Release:
    """Run a release in production, whose bundle serves and whose image is in the registry."""
    folder = pipeline.root / f"bundle-{accuracy}"
    iris_bundle(folder)
    pins = lock.closure(["msgspec", "numpy", "onnxruntime"])
    draft = msgspec.structs.replace(
        bundles.read(folder), requirements=pins, metrics={"accuracy": accuracy}, files={}
    )
    digest = bundles.seal(folder, draft)
    release = msgspec.structs.replace(sample(str(accuracy)), bundle=digest)
    pipeline.store.record(Run(release=release, bundle=folder))
    steps: tuple[Step, ...] = ("train", "test", "verify-staging-workload")
    for step in steps:
        pipeline.learn(release, step, "passed", nothing(step))
    containerize(pipeline, release)
    push(pipeline, release)
    deploy_production(pipeline, release)
    return release


def answered(pipeline: Pipeline) -> dict[str, str]:
    """Send requests through the gateway; return which release made which prediction."""
    made = {}
    url = pipeline.target("production").routes().endpoint + "/predict"
    with httpx.Client() as client:
        for _ in range(REQUESTS):
            answer = client.post(url, json=SETOSA).raise_for_status().json()
            made[answer["predictions"][0]["id"]] = answer["release"]
    return made


def end(place: Cluster, release: Release) -> None:
    """Delete the pods of a release, with all that they have."""
    with place.api() as api:
        for pod in place.pods(slot_of(release)):
            api.delete("Pod", pod["metadata"]["name"], grace=0)


def test_predictions_of_pods_are_evaluated_and_traced(
    tmp_path: Path, place: Cluster, database: Server
) -> None:
    project = pipeline(tmp_path, place, database)
    champion, challenger = running(project, 0.8), running(project, 0.9)
    made = answered(project)
    counts = Counter(made.values())
    assert set(counts) == {str(champion), str(challenger)}
    end(place, champion)
    end(place, challenger)

    truths = {str(champion): "setosa", str(challenger): "virginica"}
    taken = feedback(project, [Received(name, truths[by]) for name, by in made.items()])
    assert (taken.new, taken.unknown) == (REQUESTS, ())
    found = evaluate(project).evidence
    assert found.facts["champion_n"] == counts[str(champion)]
    assert found.facts["challenger_n"] == counts[str(challenger)]
    assert (found.facts["champion_mean"], found.facts["challenger_mean"]) == (1.0, 0.0)

    for release, role in ((champion, "champion"), (challenger, "challenger")):
        name = next(name for name, by in made.items() if by == str(release))
        behind = trace(project, name, reproduce=True)
        assert (behind.release, behind.role) == (release, role)
        assert behind.outcome is not None
        assert behind.outcome.value == truths[str(release)]
        assert behind.prediction.inputs == SETOSA
        assert behind.reproduced is not None
