"""Predictions of pods: they outlive the pod, are evaluated, and lead back to what made them."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mlship.config.backends import ObservationsConfig
from mlship.domain.deployment import slot_of
from mlship.domain.release import Release
from mlship.steps.evaluate import evaluate
from mlship.steps.feedback import feedback
from mlship.steps.outcome_files import Received
from mlship.steps.pipeline import Pipeline
from mlship.steps.trace import trace
from tests.harness import clusters, in_cluster, postgres
from tests.harness.bundles import SETOSA
from tests.harness.clusters import Cluster
from tests.harness.in_cluster import running
from tests.harness.postgres import Server

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


def project(root: Path, place: Cluster, database: Server) -> Pipeline:
    """Return a pipeline with production in the cluster and its predictions in the database."""
    url = database.create("iris").replace(f":{database.password}@", "@")
    observations = ObservationsConfig(kind="postgres", url=url)
    environment = {"PGPASSWORD": database.password}
    return in_cluster.pipeline(
        root, place, environment, secret=CREDENTIALS, observations=observations
    )


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
    pipeline = project(tmp_path, place, database)
    champion, challenger = running(pipeline, 0.8), running(pipeline, 0.9)
    made = answered(pipeline)
    counts = Counter(made.values())
    assert set(counts) == {str(champion), str(challenger)}
    end(place, champion)
    end(place, challenger)

    truths = {str(champion): "setosa", str(challenger): "virginica"}
    taken = feedback(pipeline, [Received(name, truths[by]) for name, by in made.items()])
    assert (taken.new, taken.unknown) == (REQUESTS, ())
    found = evaluate(pipeline).evidence
    assert found.facts["champion_n"] == counts[str(champion)]
    assert found.facts["challenger_n"] == counts[str(challenger)]
    assert (found.facts["champion_mean"], found.facts["challenger_mean"]) == (1.0, 0.0)

    for release, role in ((champion, "champion"), (challenger, "challenger")):
        name = next(name for name, by in made.items() if by == str(release))
        behind = trace(pipeline, name, reproduce=True)
        assert (behind.release, behind.role) == (release, role)
        assert behind.outcome is not None
        assert behind.outcome.value == truths[str(release)]
        assert behind.prediction.inputs == SETOSA
        assert behind.reproduced is not None
