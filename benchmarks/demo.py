"""The main job on iris_example: two releases, one duel, a promotion, a rollback, a promotion.

Everything is done by the command line, as a user would: this script types the commands, plays the
users who send requests and, later, the people who tell what the flowers were. It prints how long
each command took, in seconds of the clock and of the processor (children included, replicas and
routers not), and each step of a run. It leaves the champion running; `make down` stops it.
"""

import argparse
import csv
import itertools
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx

ROOT = Path(__file__).parents[1]
MEASUREMENTS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
STEPS = ("train", "test", "deploy-staging", "verify-staging-workload", "deploy-production")


class Timing(NamedTuple):
    """How long a command took, in seconds of the clock and of the processor."""

    command: str
    wall: float
    cpu: float


TIMES: list[Timing] = []


def main() -> None:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".demo")
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--down", action="store_true", help="stop everything at the end")
    given = parser.parse_args()
    started = time.monotonic()
    new_repository(given.folder)
    play(given.folder, given.requests)
    print_times(given.folder, time.monotonic() - started)
    if given.down:
        mlship(given.folder, "down")
    else:
        print("\nThe champion goes on serving. Look at it, then stop it with `make down`.")


def print_times(folder: Path, total: float) -> None:
    """Print where the time went: each command, and the steps of each run as their records say."""
    runs = iter([steps(folder, release["release"]) for release in status(folder)["releases"]])
    print(f"\n{'command':52} seconds     CPU")
    for timing in TIMES:
        print(f"{timing.command:52} {timing.wall:7.1f} {timing.cpu:7.1f}")
        if timing.command == "mlship run":
            for step, seconds in next(runs):
                print(f"    {step:48} {seconds:7.1f}")
    print(f"{'all of it':52} {total:7.1f} {sum(timing.cpu for timing in TIMES):7.1f}")


def steps(folder: Path, release: str) -> list[tuple[str, float]]:
    """Return the steps of the run that made a release, and the seconds that each took."""
    timeline = read(folder, "report", release)["timeline"]
    first = {moment["step"]: moment["seconds"] for moment in reversed(timeline)}
    return [(step, first[step]) for step in STEPS if first.get(step) is not None]


def play(folder: Path, requests: int) -> None:
    """Carry two releases through the pipeline."""
    say("A first model, on the sepals only")
    mlship(folder, "run")
    endpoint = production(folder)

    say("A better one, on all four measurements, as challenger")
    config = folder / "mlship.yaml"
    short, full = list(MEASUREMENTS[:2]), list(MEASUREMENTS)
    features = f"features: [{', '.join(short)}]", f"features: [{', '.join(full)}]"
    config.write_text(config.read_text().replace(*features))
    git(folder, "commit", "-qam", "Train on the petals too")
    mlship(folder, "run")

    say(f"{requests} requests arrive, and days later what the flowers really were")
    outcomes = send(endpoint, flowers(folder), requests)
    path = folder / ".mlship" / "outcomes.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("prediction_id", "outcome"), *outcomes])
    mlship(folder, "feedback", str(path))
    mlship(folder, "evaluate")

    say("Somebody approves; promotion, rollback, promotion")
    mlship(folder, "approve", "challenger", "--by", "grace@example.org")
    mlship(folder, "promote", "challenger")
    mlship(folder, "rollback")
    mlship(folder, "promote", "challenger")

    say("What is behind one prediction, computed again")
    prediction, _ = outcomes[-1]
    mlship(folder, "trace", prediction, "--reproduce")
    mlship(folder, "status", "--all")
    answer = httpx.post(f"{endpoint}/predict", json=flowers(folder)[0][0]).raise_for_status()
    print(json.dumps(answer.json(), indent=2))


def new_repository(folder: Path) -> None:
    """Make a git repository of the example, as a student would; stop what ran there before."""
    if (folder / "mlship.yaml").exists():
        mlship(folder, "down", quiet=True)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    say("A homework repository")
    mlship(folder, "init", "--example", "iris")
    git(folder, "init", "-q", "-b", "develop")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "Start from the example")


def send(
    endpoint: str, rows: list[tuple[dict[str, float], str]], count: int
) -> list[tuple[str, str]]:
    """Send `count` rows in a shuffled order; return (prediction id, true species) of each."""
    order = random.Random(7).choices(rows, k=count)
    with httpx.Client(base_url=endpoint, trust_env=False) as client, ThreadPoolExecutor(8) as pool:

        def one(row: dict[str, float]) -> str:
            answer = client.post("/predict", json=row).raise_for_status()
            return str(answer.json()["predictions"][0]["id"])

        names = pool.map(one, [row for row, _ in order])
        return list(zip(names, [species for _, species in order], strict=True))


def flowers(folder: Path) -> list[tuple[dict[str, float], str]]:
    """Return all 150 measured flowers with their species."""
    paths = [folder / "data" / "train.csv", folder / "data" / "test.csv"]
    lines = itertools.chain.from_iterable(csv.DictReader(path.open()) for path in paths)
    return [({name: float(line[name]) for name in MEASUREMENTS}, line["species"]) for line in lines]


def production(folder: Path) -> str:
    """Return where production takes requests in."""
    return str(status(folder)["endpoints"]["production"])


def retired(folder: Path) -> str:
    """Return the release that was retired last."""
    releases = status(folder)["releases"]
    return str(next(each["release"] for each in releases if each["role"] == "retired"))


def status(folder: Path) -> Any:
    """Return what `mlship status` says."""
    return read(folder, "status")


def read(folder: Path, *arguments: str) -> Any:
    """Return what a command prints as JSON."""
    done = subprocess.run(
        [*command(), *arguments, "--json"], cwd=folder, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def say(text: str) -> None:
    """Print a heading."""
    print(f"\n== {text}", flush=True)


def mlship(folder: Path, *arguments: str, quiet: bool = False) -> None:
    """Run one command of mlship and remember how long it took."""
    shown = " ".join(["mlship", *arguments])
    print(f"$ {shown}", flush=True)
    started, before = time.monotonic(), cpu()
    output = subprocess.DEVNULL if quiet else None
    subprocess.run([*command(), *arguments], cwd=folder, check=True, stdout=output, stderr=output)
    TIMES.append(Timing(shown[:52], time.monotonic() - started, cpu() - before))


def cpu() -> float:
    """Return the processor seconds of all commands that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def command() -> list[str]:
    """Return how mlship is started from this environment."""
    return [sys.executable, "-m", "mlship"]


def git(folder: Path, *arguments: str) -> None:
    """Run git as a student who never set a name."""
    who = {"NAME": "Ada Student", "EMAIL": "ada@example.org"}
    identity = {f"GIT_{role}_{key}": who[key] for role in ("AUTHOR", "COMMITTER") for key in who}
    subprocess.run(["git", *arguments], cwd=folder, check=True, env={**os.environ, **identity})


if __name__ == "__main__":
    main()
