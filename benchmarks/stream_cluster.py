"""A stream in a real cluster: its workers are pods, and the route changes while messages flow.

    TEST_KUBECONFIG=KUBECONFIG python benchmarks/stream_cluster.py --messages 3000

Two releases run as images that `containerize` made, one of them as champion. The objects of `mlship
stream render` are applied. While messages are sent, the challenger is promoted and rolled back, and
a worker is killed. Each message must have one output, of the release that the route gave its key.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import yaml
from stream_promotions import LIMIT, SLACK, Feeder, Reader, Watcher, followed

from mlship import wire
from mlship.adapters.checkout import lock
from mlship.adapters.targets.kubernetes.api import Manifest
from mlship.config.backends import StoreConfig
from mlship.config.project import Config, GatesConfig, ImageConfig
from mlship.config.stream import StreamConfig
from mlship.domain import bundle as bundles
from mlship.domain.evidence import Saw, Step
from mlship.domain.policy import PromotePolicy
from mlship.domain.release import Release
from mlship.domain.versions import Run
from mlship.errors import MlshipError
from mlship.steps.approve import approve
from mlship.steps.containerize import containerize
from mlship.steps.deploy import deploy_production
from mlship.steps.pipeline import Pipeline
from mlship.steps.promote import promote
from mlship.steps.push import push
from mlship.steps.rollback import rollback
from tests.fakes.ports import CONFIG
from tests.harness import clusters, kafka
from tests.harness.bundles import iris_bundle
from tests.harness.clusters import REGISTRY, Cluster
from tests.harness.places import Notes
from tests.harness.samples import better, nothing
from tests.harness.samples import release as sample

EARLY = 1.0
"""Seconds that the watcher needs to read a route through the cluster's API."""
PINS = ["msgspec", "numpy", "onnxruntime", "confluent-kafka", "xxhash"]


class Place:
    """What `Watcher` asks for the pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def pipeline(self) -> Pipeline:
        """Return the project's pipeline."""
        return self._pipeline


def pipeline(root: Path, place: Cluster, brokers: str) -> Pipeline:
    """Return a pipeline whose production is a namespace of the cluster."""
    production = msgspec.structs.replace(place.config, challenger_weight=50, ready_seconds=200)
    config: Config = msgspec.structs.replace(
        CONFIG,
        gates=GatesConfig(container=False, promote=PromotePolicy(min_labels=50)),
        image=ImageConfig(
            repository=f"{REGISTRY}/mlship-tests/iris",
            base=f"{REGISTRY}/library/python:3.11-slim",
            attach="off",
        ),
        targets={"production": production},
        store=StoreConfig(kind="directory"),
        stream=StreamConfig(brokers=brokers, input="features", output="predictions", workers=2),
    )
    return wire.assemble(config, root, Notes(), {**os.environ, "GITHUB_ACTOR": "ada"})


def running(pipeline: Pipeline, accuracy: float) -> Release:
    """Run a release in production, whose image has the client of Kafka."""
    folder = pipeline.root / f"bundle-{accuracy}"
    iris_bundle(folder)
    draft = msgspec.structs.replace(
        bundles.read(folder),
        requirements=lock.closure(PINS),
        metrics={"accuracy": accuracy},
        files={},
    )
    release = msgspec.structs.replace(sample(str(accuracy)), bundle=bundles.seal(folder, draft))
    pipeline.store.record(Run(release=release, bundle=folder))
    steps: tuple[Step, ...] = ("train", "test", "verify-staging-workload")
    for step in steps:
        pipeline.learn(release, step, "passed", nothing(step))
    containerize(pipeline, release)
    push(pipeline, release)
    deploy_production(pipeline, release)
    return release


def applied(place: Cluster, texts: dict[str, str]) -> None:
    """Apply the files as `kubectl apply` does, to a namespace in which none of them is."""
    paths = {
        "ConfigMap": "/api/v1/namespaces/{}/configmaps",
        "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
        "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
        "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
        "StatefulSet": "/apis/apps/v1/namespaces/{}/statefulsets",
        "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
    }
    for text in texts.values():
        manifest: Manifest = yaml.safe_load(text)
        place.kubectl("POST", paths[manifest["kind"]].format(place.namespace), json=manifest)


def workers(place: Cluster) -> list[Manifest]:
    """Return the pods of the workers."""
    with place.api() as api:
        return api.list("Pod", {"app.kubernetes.io/component": "stream"})


def are_ready(place: Cluster) -> bool:
    """Tell whether both workers have said that they answer messages."""
    lines = [log(place, pod).splitlines() for pod in workers(place)]
    return sum(any(line.endswith(": ready") for line in each) for each in lines) == 2


def log(place: Cluster, pod: Manifest) -> str:
    """Return what a worker has written."""
    try:
        with place.api() as api:
            return api.text(pod["metadata"]["name"], "log")
    except MlshipError as error:
        return error.message


def measure(count: int, per_second: float, changes: int, *, is_plain: bool) -> dict[str, Any]:
    """Run the stream, and count."""
    with (
        clusters.cluster(is_plain=is_plain) as place,
        tempfile.TemporaryDirectory() as folder,
        kafka.broker(place.host()) as broker,
    ):
        broker.create("features", "predictions", "predictions.dead-letter", partitions=4)
        project = pipeline(Path(folder), place, f"{place.host()}:{broker.port}")
        one, two = running(project, 0.8), running(project, 0.9)
        project.learn(two, "evaluate", "passed", better(), Saw(champion=one.id))
        approve(project, two, "grace@example.org")
        applied(place, wire.stream_files(project))
        try:
            clusters.until(lambda: are_ready(place), seconds=240)
        except AssertionError:
            print([log(place, pod) for pod in workers(place)], file=sys.stderr)
            raise
        watcher, reader = Watcher(Place(project)), Reader(broker, "predictions")  # type: ignore[arg-type]  # it asks for the pipeline only
        feeder = Feeder(broker, "features", per_second)
        pause = count / per_second / (changes + 2)
        killed = ""
        for number in range(1, changes + 1):
            time.sleep(pause)
            promote(project, two) if number % 2 else rollback(project)
            if number == changes // 2 + 1:
                killed = workers(place)[0]["metadata"]["name"]
                with place.api() as api:
                    api.delete("Pod", killed, grace=0)
        time.sleep(max(pause, LIMIT + 1))
        sent = feeder.stop()
        reader.stop(sent, 180)
        watcher.stop()
        told = {pod["metadata"]["name"]: log(place, pod)[-300:] for pod in workers(place)}
    counted = Counter(each.key for each in reader.seen)
    late, lags = followed(watcher.routes, reader.seen, EARLY)
    return {
        "messages": sent,
        "changes": len(watcher.routes) - 1,
        "killed": killed,
        "missing": sent - len(counted),
        "twice": sum(times - 1 for times in counted.values()),
        "late": late,
        "releases": dict(Counter(each.release for each in reader.seen)),
        "last output by the former route, median s": round(statistics.median(lags or [0]), 3),
        "longest s": round(max(lags or [0]), 3),
        "looked at each s": SLACK / 4,
        "log": told,
    }


def main() -> None:
    """Print the figures; exit with 1 if a message was lost or repeated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--per-second", type=float, default=100.0)
    parser.add_argument("--changes", type=int, default=4)
    parser.add_argument("--plain", action="store_true", help="mlship's own load balancer")
    arguments = parser.parse_args()
    found = measure(
        arguments.messages, arguments.per_second, arguments.changes, is_plain=arguments.plain
    )
    print(json.dumps(found, indent=2))
    sys.exit(bool(found["missing"] or found["twice"]))


if __name__ == "__main__":
    main()
