"""`mlship promote` and `mlship rollback`, in turn, while a stream answers messages.

    python benchmarks/stream_promotions.py --changes 100 --per-second 200

Each output names its release and, by its key, the side that a route gives it. A reader that follows
the output topic compares it with the routes that were in force in the last seconds: an output that
none of them would give is *late*. Messages are counted: each has one output. The stream is `mlship
stream run` on a local target, and the commands are processes, one after the other.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import demo
import resume
from confluent_kafka import Consumer, Producer, TopicPartition

from mlship.domain import stream
from mlship.domain.deployment import Route
from mlship.runtime.stream.sides import Choice
from mlship.steps.pipeline import PRODUCTION
from mlship.steps.stream import plan_of
from tests.harness import kafka
from tests.harness.kafka import Broker
from tests.harness.kills import Project

LIMIT = 2.0
"""Seconds within which a change of the route is followed."""
SLACK = 0.1
"""How often the route and the topic are looked at, and what a message needs to arrive."""


class Seen(NamedTuple):
    """An output: when it was read, its key and the release that gave it."""

    time: float
    key: bytes
    release: str


class Ruled(NamedTuple):
    """A route, and since when it is in force."""

    since: float
    choice: Choice


class Watcher:
    """Notes each route of production with the time at which it was seen first."""

    def __init__(self, project: Project) -> None:
        self.routes: list[Ruled] = []
        self._pipeline = project.pipeline()
        self._revision = ""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.look()
        self._thread.start()

    def look(self) -> None:
        """Look at the route once."""
        route: Route = self._pipeline.target(PRODUCTION).routes()
        if route.revision != self._revision:
            now = time.monotonic()
            plan = plan_of(self._pipeline, route)
            self.routes.append(Ruled(now, Choice(plan.sides)))
            self._revision = route.revision

    def stop(self) -> None:
        """Look no more."""
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(SLACK / 4):
            self.look()


class Feeder:
    """Sends numbered messages at a rate until it is stopped."""

    def __init__(self, broker: Broker, topic: str, per_second: float) -> None:
        self.count = 0
        self._topic, self._per_second = topic, per_second
        options = {"bootstrap.servers": broker.address, "enable.idempotence": "true"}
        self._producer = Producer({**options, "linger.ms": "2", "log_level": "2"})
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def stop(self) -> int:
        """Send no more; return how many were sent."""
        self._is_over.set()
        self._thread.join()
        assert self._producer.flush(60) == 0
        return self.count

    def _send(self) -> None:
        flower = dict.fromkeys(demo.MEASUREMENTS, 1.5)
        started = time.monotonic()
        while not self._is_over.is_set():
            value = json.dumps({**flower, "sepal_length": 4 + self.count % 40 / 10})
            self._producer.produce(self._topic, value, f"{self.count}")
            self._producer.poll(0)
            self.count += 1
            ahead = started + self.count / self._per_second - time.monotonic()
            time.sleep(max(0.0, ahead))


class Reader:
    """Reads committed outputs as they come."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self.seen: list[Seen] = []
        self._consumer = Consumer(
            {
                "bootstrap.servers": broker.address,
                "group.id": "reader",
                "log_level": "2",
                "isolation.level": "read_committed",
                "enable.auto.commit": "false",
            }
        )
        numbers = self._consumer.list_topics(topic, timeout=30).topics[topic].partitions
        self._consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def stop(self, count: int, seconds: float = 60) -> None:
        """Read until there are so many outputs, and a little more."""
        end = time.monotonic() + seconds
        while len(self.seen) < count and time.monotonic() < end:
            time.sleep(SLACK)
        time.sleep(1.0)
        self._is_over.set()
        self._thread.join()
        self._consumer.close()

    def _read(self) -> None:
        while not self._is_over.is_set():
            for each in self._consumer.consume(1000, SLACK / 4):
                if each.error() is None:
                    release = dict(each.headers() or ())[stream.RELEASE] or b""
                    self.seen.append(Seen(time.monotonic(), each.key() or b"", release.decode()))


def followed(
    routes: list[Ruled], seen: list[Seen], early: float = SLACK
) -> tuple[int, list[float]]:
    """Return how many outputs came late, and how long after each change the last old one came.

    Args:
        routes: as they were seen.
        seen: the outputs.
        early: how long before the watcher a worker may see a route.
    """
    late, lags = 0, [0.0] * len(routes)
    number = 0
    for output in seen:
        while number + 1 < len(routes) and routes[number + 1].since <= output.time:
            number += 1
        place, key = number, output.key
        while place > 0 and routes[place].choice.of(key).name != output.release:
            place -= 1
        # A worker may see a route before the watcher does: that is none that is late.
        is_early = (
            number + 1 < len(routes)
            and routes[number + 1].since - output.time < early
            and routes[number + 1].choice.of(key).name == output.release
        )
        if place < number and not is_early:
            lag = output.time - routes[place + 1].since
            lags[place + 1] = max(lags[place + 1], lag)
            late += lag > LIMIT + SLACK
        elif routes[place].choice.of(key).name != output.release and not is_early:
            late += 1
    return late, lags[1:]


@contextmanager
def prepared(folder: Path, broker: Broker) -> Iterator[Project]:
    """Give a project with a champion and a challenger that has won, and a stream that runs."""
    broker.create("features", "predictions", "predictions.dead-letter", partitions=4)
    project = resume.prepared(folder, "directory")
    with (folder / "mlship.yaml").open("a") as file:
        file.write(
            f"\nstream: {{brokers: '{broker.address}', input: features, output: predictions}}\n"
        )
    try:
        for release in resume.releases(project):
            project.plain("deploy-production", release)
        resume.win(project)
        project.plain("stream", "run", "--workers", "2", "--detach")
        yield project
    finally:
        subprocess.run([sys.executable, "-m", "mlship", "stream", "stop"], cwd=folder, check=False)
        project.plain("down")


def measure(changes: int, per_second: float, folder: Path) -> Mapping[str, Any]:
    """Promote and roll back under load, and count."""
    with kafka.broker() as broker, prepared(folder, broker) as project:
        watcher, reader = Watcher(project), Reader(broker, "predictions")
        feeder = Feeder(broker, "features", per_second)
        time.sleep(1.0)
        started = time.monotonic()
        for number in range(changes):
            project.plain(*(("rollback",) if number % 2 else ("promote", "challenger")))
        taken = time.monotonic() - started
        # The last change is followed, too.
        time.sleep(LIMIT + 1.0)
        count = feeder.stop()
        reader.stop(count)
        watcher.stop()
        log = (project.folder / ".mlship" / "stream" / "log").read_text()
    counted = Counter(each.key for each in reader.seen)
    late, lags = followed(watcher.routes, reader.seen)
    return {
        "changes": changes,
        "routes seen": len(watcher.routes) - 1,
        "messages": count,
        "missing": count - len(counted),
        "twice": sum(times - 1 for times in counted.values()),
        "late": late,
        "releases": dict(Counter(each.release for each in reader.seen)),
        "workers started again": log.count("starts again"),
        "last output by the former route, median s": round(statistics.median(lags), 3),
        "longest s": round(max(lags), 3),
        "seconds": round(taken, 1),
    }


def main() -> None:
    """Print the figures; exit with 1 if a message was lost, repeated or late."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--per-second", type=float, default=200.0)
    arguments = parser.parse_args()
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[1]))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found = measure(arguments.changes, arguments.per_second, Path(folder) / "iris")
    print(json.dumps(found, indent=2))
    sys.exit(bool(found["missing"] or found["twice"] or found["late"]))


if __name__ == "__main__":
    main()
