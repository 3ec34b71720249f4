"""A stream in a real cluster: its workers are pods, and the route changes while messages flow.

    TEST_KUBECONFIG=KUBECONFIG python benchmarks/stream_cluster.py --messages 3000

Two releases run as images that `containerize` made, one of them as champion. The objects of `mlship
stream render` are applied. While messages are sent, the challenger is promoted and rolled back, and
a worker is killed. Each message must have one output, of the release that the route gave its key.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from stream_promotions import LIMIT, SLACK, Feeder, Reader, Watcher, followed

from mlship import wire
from mlship.config.project import GatesConfig
from mlship.config.stream import StreamConfig
from mlship.domain.evidence import Saw
from mlship.domain.policy import PromotePolicy
from mlship.steps.approve import approve
from mlship.steps.pipeline import Pipeline
from mlship.steps.promote import promote
from mlship.steps.rollback import rollback
from tests.harness import clusters, in_cluster, kafka
from tests.harness.in_cluster import applied, are_ready, log, pipeline, running, until, workers
from tests.harness.samples import better

EARLY = 1.0
"""Seconds that the watcher needs to read a route through the cluster's API."""
PINS = (*in_cluster.PINS, "confluent-kafka", "xxhash")


class Place:
    """What `Watcher` asks for the pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def pipeline(self) -> Pipeline:
        """Return the project's pipeline."""
        return self._pipeline


def measure(count: int, per_second: float, changes: int, *, is_plain: bool) -> dict[str, Any]:
    """Run the stream, and count."""
    with (
        clusters.cluster(is_plain=is_plain) as place,
        tempfile.TemporaryDirectory() as folder,
        kafka.broker(place.host()) as broker,
    ):
        broker.create("features", "predictions", "predictions.dead-letter", partitions=4)
        section = StreamConfig(
            brokers=broker.address, input="features", output="predictions", workers=2
        )
        gates = GatesConfig(container=False, promote=PromotePolicy(min_labels=50))
        project = pipeline(Path(folder), place, stream=section, gates=gates)
        one, two = running(project, 0.8, PINS), running(project, 0.9, PINS)
        project.learn(two, "evaluate", "passed", better(), Saw(champion=one.id))
        approve(project, two, "grace@example.org")
        applied(place, wire.stream_files(project))
        until(place, lambda _: are_ready(place, 2))
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
