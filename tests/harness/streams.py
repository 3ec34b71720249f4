"""A stream of the iris bundle: its folder, its workers and what it was sent."""

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Message

from mlship.adapters.streams.workers import LocalWorkers
from mlship.domain.bundle import Row
from mlship.domain.digests import Digest
from mlship.domain.stream import Plan, Settings, Side
from mlship.errors import MlshipError
from tests.harness.bundles import SETOSA, iris_bundle
from tests.harness.kafka import Broker


class Notes:
    """Keeps the lines of workers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def side(folder: Path, name: str = "a", weight: int = 100, **hooks: str) -> Side:
    """Return a release with a bundle of its own."""
    bundle = folder / f"bundle-{name}"
    if not bundle.is_dir():
        iris_bundle(bundle, **hooks)  # type: ignore[arg-type]  # the hooks are texts
    from mlship.domain import digests

    return Side(
        slot=f"r{name}",
        release=Digest(f"sha256:{name * 64:.64}"),
        name=f"iris@{name}",
        bundle=str(bundle),
        digest=digests.of_file(bundle / "bundle.json"),
        weight=weight,
    )


def settings(broker: Broker, name: str, **changed: Any) -> Settings:
    """Return the settings of a stream whose topics begin with a name."""
    names = {key: f"{name}-{key}" for key in ("input", "output", "dead_letter")}
    return Settings(brokers=broker.address, group=name, **{**names, **changed})


@contextmanager
def running(
    folder: Path,
    told: Settings,
    plan: Plan,
    count: int = 1,
    notes: Notes | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[LocalWorkers]:
    """Run workers that are started again when they end, until the end of the block."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        **(variables or {}),
    }
    workers = LocalWorkers(folder, told, environment, notes or Notes())
    workers.start(plan, count)
    is_over = threading.Event()
    failures: list[MlshipError] = []

    def watch() -> None:
        while not is_over.wait(0.1):
            try:
                workers.look()
            except MlshipError as error:
                failures.append(error)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield workers
    finally:
        is_over.set()
        watcher.join()
        workers.stop()
    assert not failures, failures


def row(number: int) -> dict[str, Any]:
    """Return the features of a message by its number."""
    return {**SETOSA, "sepal_length": round(4 + number % 4000 / 1000, 3)}


def messages(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Return messages whose keys are their numbers."""
    return [
        {"value": json.dumps(row(number)), "key": str(number), "headers": [("n", b"%d" % number)]}
        for number in range(start, start + count)
    ]


def keys(read: list[Message]) -> list[int]:
    """Return the numbers of messages, in order."""
    return sorted(int((each.key() or b"-1").decode()) for each in read)


def is_answer(value: bytes | None, expected: Row) -> bool:
    """Tell whether an output is what the model answers offline, but for the size of the batch.

    The sums of a model may differ in their last digits with the number of rows.
    """
    found = json.loads(value or b"")
    names = set(found) - {"prediction_id", "release"}
    return names == set(expected) and all(
        math.isclose(found[name], one, rel_tol=1e-5, abs_tol=1e-6)
        if isinstance(one, float)
        else found[name] == one
        for name, one in expected.items()
    )


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.02)
