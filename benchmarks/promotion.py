"""Promotion and rollback under load: the number of failed requests, and the rollback's duration.

Requests arrive at a constant rate while the command line deploys a challenger, promotes it, rolls
back and retires it. Then the same steps run without readiness and draining: this control shows
that the load detects failures. The duration of a rollback is from the start of the command to the
last response of the release that was rolled back.

    python benchmarks/promotion.py --rounds 5 --seconds 60
"""

import argparse
import dataclasses
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import demo
import httpx

from mlship import wire
from mlship.adapters.targets.local import LocalTarget, Safeguards
from mlship.adapters.targets.local.state import Logging
from mlship.cli.progress import Lines
from mlship.domain.fence import KERNEL, Fence
from mlship.steps.deploy import deploy_production
from mlship.steps.pipeline import Pipeline
from mlship.steps.promote import promote
from mlship.steps.replay import kept
from mlship.steps.retire import retire
from mlship.steps.rollback import rollback

Answer = tuple[float, str]
"""The time of a response, and its release or the reason for no response."""


class Load:
    """Requests at a constant rate; each is sent when it is due, independent of the others."""

    def __init__(self, endpoint: str, row: dict[str, float], rate: float) -> None:
        """Prepare; nothing is sent before `start`."""
        self.answers: list[Answer] = []
        self._endpoint, self._row, self._rate = endpoint, row, rate
        self._sent = 0

    def run(self, seconds: float) -> None:
        """Send requests for this time and wait for the last response."""
        with (
            httpx.Client(
                base_url=self._endpoint, timeout=10, limits=kept(), trust_env=False
            ) as client,
            ThreadPoolExecutor(64) as pool,
        ):
            started = time.monotonic()
            for number in range(int(seconds * self._rate)):
                time.sleep(max(0.0, started + number / self._rate - time.monotonic()))
                pool.submit(self._send, client)

    def _send(self, client: httpx.Client) -> None:
        try:
            answer = client.post("/predict", json=self._row)
            said = answer.json()["release"] if answer.is_success else f"HTTP {answer.status_code}"
        except httpx.HTTPError as error:
            said = type(error).__name__
        self.answers.append((time.monotonic(), said))

    def failed(self) -> Counter[str]:
        """Count the requests without a response from a release."""
        return Counter(said for _, said in self.answers if "@" not in said)


@contextmanager
def under_load(folder: Path, seconds: float, rate: float) -> Iterator[Load]:
    """Send requests to production while the block runs, for `seconds` in all."""
    load = Load(demo.production(folder), demo.flowers(folder)[0][0], rate)
    thread = threading.Thread(target=load.run, args=(seconds,))
    thread.start()
    try:
        yield load
    finally:
        thread.join()


def prepare(folder: Path) -> None:
    """Create two verified releases, a passed evaluation and an approval; then roll back."""
    demo.new_repository(folder)
    demo.play(folder, 1500)
    demo.mlship(folder, "rollback", quiet=True)
    demo.mlship(folder, "retire", "challenger", quiet=True)


def rounds(
    folder: Path, steps: dict[str, Callable[[], None]], count: int, seconds: float, rate: float
) -> tuple[int, Counter[str], list[float]]:
    """Deploy and promote in one window, roll back and retire in the next; repeat."""
    total, failed, times = 0, Counter[str](), []
    for number in range(count):
        for names in (("deploy", "promote"), ("rollback", "retire")):
            with under_load(folder, seconds, rate) as load:
                for name in names:
                    time.sleep(seconds / 4)
                    begun = time.monotonic()
                    serving = load.answers[-1][1]
                    steps[name]()
                    if name == "rollback":
                        time.sleep(1)
                        late = [when for when, said in list(load.answers) if said == serving]
                        times.append(max(late) - begun)
            total += len(load.answers)
            failed += load.failed()
            print(
                f"round {number + 1}, {' and '.join(names):19}: {len(load.answers)} requests, "
                f"{load.failed().total()} failed {dict(load.failed())}",
                flush=True,
            )
    return total, failed, times


def by_command(folder: Path, release: str) -> dict[str, Callable[[], None]]:
    """Return the steps as a user types them."""

    def command(*arguments: str) -> Callable[[], None]:
        def run() -> None:
            subprocess.run(
                [*demo.command(), *arguments], cwd=folder, check=True, capture_output=True
            )

        return run

    return {
        "deploy": command("deploy-production", release),
        "promote": command("promote", release),
        "rollback": command("rollback"),
        "retire": command("retire", release),
    }


def unprotected(folder: Path, release: str) -> dict[str, Callable[[], None]]:
    """Return the same steps on a target without readiness and draining."""
    options = wire.read(folder / "mlship.yaml", os.environ, ()).config
    pipeline = wire.assemble(options, folder, Lines(), os.environ)

    def target(name: str, fence: Fence = KERNEL) -> LocalTarget:
        del fence
        return LocalTarget(
            name,
            pipeline.state / "targets" / name,
            pipeline.target_config(name),
            Logging(place=str(pipeline.state / "predictions" / name)),
            pipeline.progress,
            Safeguards(readiness=False, draining=False),
        )

    bare: Pipeline = dataclasses.replace(pipeline, target=target)
    named = pipeline.release(release)
    return {
        "deploy": lambda: void(deploy_production(bare, named)),
        "promote": lambda: void(promote(bare, named)),
        "rollback": lambda: void(rollback(bare)),
        "retire": lambda: void(retire(bare, named)),
    }


def void(_: object) -> None:
    """Drop a step's record."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "iris"
        prepare(folder)
        release = demo.retired(folder)
        try:
            measure(folder, release, options)
        finally:
            demo.mlship(folder, "down", quiet=True)


def measure(folder: Path, release: str, options: argparse.Namespace) -> None:
    """Measure both sides and print them."""
    steps = by_command(folder, release)
    total, failed, times = rounds(folder, steps, options.rounds, options.seconds, options.rate)
    print("\ncontrol: without readiness and draining")
    bare = unprotected(folder, release)
    control, broken, _ = rounds(folder, bare, 1, min(options.seconds, 20), options.rate)
    print(f"\nprotected: {failed.total()} of {total} requests failed {dict(failed)}")
    print(f"control:   {broken.total()} of {control} requests failed {dict(broken)}")
    print(
        f"rollback to the full split: median {statistics.median(times):.2f} s, "
        f"longest {max(times):.2f} s, of {len(times)}"
    )


if __name__ == "__main__":
    main()
