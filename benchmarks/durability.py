"""Kill replicas and the router under load: is any acknowledged prediction missing from the log?

Every kill is a SIGKILL of a replica, of Envoy, or of both, in turn, while requests arrive at a
constant rate. Afterwards, each prediction id that a client received is looked up in the log. The
control responds before it logs (benchmarks/late_log.py), and shows that lost ones are detected.

    python benchmarks/durability.py --kills 20
"""

import argparse
import dataclasses
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import demo
import httpx

from mlship import wire
from mlship.adapters.observations.directory import DirectoryObservations
from mlship.adapters.targets.local import LocalTarget
from mlship.adapters.targets.local.state import Logging
from mlship.cli.progress import Lines
from mlship.config.project import TargetConfig
from mlship.domain.deployment import Split, slot_of
from mlship.domain.release import Release
from mlship.steps.pipeline import Pipeline
from mlship.steps.replay import kept

VICTIMS = ("replica", "router", "both")


@dataclasses.dataclass
class Tally:
    """The responses that clients received."""

    acknowledged: list[str] = dataclasses.field(default_factory=list)
    failed: Counter[str] = dataclasses.field(default_factory=Counter)


class Users:
    """Sends requests at a constant rate until it is told to stop."""

    def __init__(self, endpoint: str, row: dict[str, float], rate: float) -> None:
        """Start sending."""
        self.tally = Tally()
        self._endpoint, self._row, self._rate = endpoint, row, rate
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> Tally:
        """Stop, wait for the last response, and return all responses."""
        self._ended.set()
        self._thread.join()
        return self.tally

    def _run(self) -> None:
        with (
            httpx.Client(
                base_url=self._endpoint, timeout=10, limits=kept(), trust_env=False
            ) as client,
            ThreadPoolExecutor(32) as pool,
        ):
            due = time.monotonic()
            while not self._ended.is_set():
                pool.submit(self._send, client)
                due += 1 / self._rate
                time.sleep(max(0.0, due - time.monotonic()))

    def _send(self, client: httpx.Client) -> None:
        try:
            answer = client.post("/predict", json=self._row)
        except httpx.HTTPError as error:
            self.tally.failed[type(error).__name__] += 1
            return
        if answer.is_success:
            self.tally.acknowledged.append(answer.json()["predictions"][0]["id"])
        else:
            self.tally.failed[self.named(answer)] += 1

    def named(self, answer: httpx.Response) -> str:
        """Return the name under which a refusal is counted."""
        return f"HTTP {answer.status_code}"


def kill(folder: Path, what: str, number: int) -> None:
    """Send SIGKILL to processes of this target, by their recorded ids."""
    running = json.loads((folder / "processes.json").read_text())
    replicas = [one["process"]["pid"] for one in running["replicas"]]
    victims = []
    if what in ("replica", "both"):
        victims.append(replicas[number % len(replicas)])
    if what in ("router", "both"):
        victims.append(running["router"]["process"]["pid"])
    for victim in victims:
        os.kill(victim, signal.SIGKILL)


def measure(
    pipeline: Pipeline, release: Release, name: str, runtime: tuple[str, ...], kills: int
) -> None:
    """Serve a release, kill processes under load, and count predictions missing from the log."""
    folder, log = pipeline.state / "targets" / name, pipeline.state / "predictions" / name
    config = TargetConfig(replicas=2)
    target = LocalTarget(
        name, folder, config, Logging(place=str(log)), pipeline.progress, runtime=runtime
    )
    slot = slot_of(release)
    try:
        target.deploy(
            release, pipeline.artifact(release, "production", pipeline.read()), slot, replicas=2
        )
        target.route(Split(weights={slot: 100}), expected=target.routes().revision)
        row = demo.flowers(pipeline.root)[0][0]
        users = Users(target.routes().endpoint, row, rate=100)
        for number in range(kills):
            time.sleep(1.5)
            kill(folder, VICTIMS[number % 3], number)
        time.sleep(3)
        tally = users.end()
    finally:
        target.down()
    observations = DirectoryObservations([log], log / "outcomes")
    logged = {one.id for one in observations.predictions({release.id})}
    missing = [one for one in tally.acknowledged if one not in logged]
    print(
        f"{name:10} {kills} kills, {len(tally.acknowledged)} acknowledged, "
        f"{len(missing)} of them missing from the log, {tally.failed.total()} requests failed "
        f"{dict(tally.failed)}",
        flush=True,
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "iris"
        demo.new_repository(folder)
        demo.mlship(folder, "train", quiet=True)
        config = wire.read(folder / "mlship.yaml", os.environ, ()).config
        pipeline = wire.assemble(config, folder, Lines(), os.environ)
        release = pipeline.release()
        runtime = (sys.executable, "-P", "-m", "mlship.runtime")
        late = (sys.executable, str(Path(__file__).with_name("late_log.py")))
        measure(pipeline, release, "protected", runtime, options.kills)
        measure(pipeline, release, "control", late, options.kills)


if __name__ == "__main__":
    main()
