"""The main workflow on iris_example: two releases, a comparison, promotion, rollback, promotion.

Everything is done on the command line, as by a user. The script runs the commands, sends requests
and records their outcomes. It prints the duration of each command, in wall time and processor
seconds (including children, but not replicas and routers), and of each step of a run. The champion
keeps running; `make down` stops it.
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
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
MEASUREMENTS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
CLIENTS = 8
STEPS = ("train", "test", "deploy-staging", "verify-staging-workload", "deploy-production")


class Timing(NamedTuple):
    """The duration of a command, in wall time and processor seconds."""

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
    options = parser.parse_args()
    started = time.monotonic()
    new_repository(options.folder)
    play(options.folder, options.requests)
    print_times(options.folder, time.monotonic() - started)
    if options.down:
        mlship(options.folder, "down")
    else:
        print("\nThe champion keeps running. To stop it, run `make down`.")


def print_times(folder: Path, total: float) -> None:
    """Print the duration of each command, and of the steps of each run from their records."""
    runs = iter([steps(folder, release["release"]) for release in status(folder)["releases"]])
    print(f"\n{'command':52} seconds     CPU")
    for timing in TIMES:
        print(f"{timing.command:52} {timing.wall:7.1f} {timing.cpu:7.1f}")
        if timing.command == "mlship run":
            for step, seconds in next(runs):
                print(f"    {step:48} {seconds:7.1f}")
    print(f"{'total':52} {total:7.1f} {sum(timing.cpu for timing in TIMES):7.1f}")


def steps(folder: Path, release: str) -> list[tuple[str, float]]:
    """Return the steps of the run that created a release, with their durations in seconds."""
    timeline = read(folder, "report", release)["timeline"]
    first = {moment["step"]: moment["seconds"] for moment in reversed(timeline)}
    return [(step, first[step]) for step in STEPS if first.get(step) is not None]


def play(folder: Path, requests: int) -> None:
    """Run the pipeline for two releases."""
    say("A first model, with the sepals only")
    mlship(folder, "run")
    endpoint = production(folder)

    say("A better model, with all four measurements, as challenger")
    config = folder / "mlship.yaml"
    short, full = list(MEASUREMENTS[:2]), list(MEASUREMENTS)
    features = f"features: [{', '.join(short)}]", f"features: [{', '.join(full)}]"
    config.write_text(config.read_text().replace(*features))
    git(folder, "commit", "-qam", "Train on the petals too")
    mlship(folder, "run")

    say(f"{requests} requests, and their outcomes")
    outcomes = send(endpoint, flowers(folder), requests)
    path = folder / ".mlship" / "outcomes.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("prediction_id", "outcome"), *outcomes])
    mlship(folder, "feedback", str(path))
    mlship(folder, "evaluate")

    say("Approval, promotion, rollback, promotion")
    mlship(folder, "approve", "challenger", "--by", "grace@example.org")
    mlship(folder, "promote", "challenger")
    mlship(folder, "rollback")
    mlship(folder, "promote", "challenger")

    say("Trace one prediction, and compute it again")
    prediction, _ = outcomes[-1]
    mlship(folder, "trace", prediction, "--reproduce")
    mlship(folder, "status", "--all")
    flower, _ = flowers(folder)[0]
    print(json.dumps(ask(connect(endpoint), flower), indent=2))


def new_repository(folder: Path) -> None:
    """Create a git repository from the example; stop an earlier demonstration."""
    if (folder / "mlship.yaml").exists():
        mlship(folder, "down", quiet=True)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    say("A new repository")
    mlship(folder, "init", "--example", "iris")
    git(folder, "init", "-q", "-b", "develop")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "Start from the example")


def send(
    endpoint: str, rows: list[tuple[dict[str, float], str]], count: int
) -> list[tuple[str, str]]:
    """Send `count` rows in a random order; return (prediction id, true species) of each."""
    order = random.Random(7).choices(rows, k=count)
    with ThreadPoolExecutor(CLIENTS) as pool:
        shares = [order[client::CLIENTS] for client in range(CLIENTS)]
        answered = pool.map(lambda share: answers(endpoint, share), shares)
        return list(itertools.chain.from_iterable(answered))


def answers(endpoint: str, rows: list[tuple[dict[str, float], str]]) -> list[tuple[str, str]]:
    """Send rows one after the other; return (prediction id, true species) of each."""
    connection = connect(endpoint)
    return [(str(ask(connection, row)["predictions"][0]["id"]), species) for row, species in rows]


def connect(endpoint: str) -> HTTPConnection:
    """Return a connection. Of Python's clients, this one takes the least time of a processor."""
    return HTTPConnection(endpoint.removeprefix("http://"), timeout=30)


def ask(connection: HTTPConnection, row: dict[str, float]) -> Any:
    """Return the answer to one row."""
    connection.request("POST", "/predict", json.dumps(row), {"Content-Type": "application/json"})
    response = connection.getresponse()
    body = response.read().decode()
    if response.status != HTTPStatus.OK:
        raise SystemExit(f"/predict: HTTP {response.status}: {body}")
    return json.loads(body)


def flowers(folder: Path) -> list[tuple[dict[str, float], str]]:
    """Return all 150 measured flowers with their species."""
    paths = [folder / "data" / "train.csv", folder / "data" / "test.csv"]
    lines = itertools.chain.from_iterable(csv.DictReader(path.open()) for path in paths)
    return [({name: float(line[name]) for name in MEASUREMENTS}, line["species"]) for line in lines]


def production(folder: Path) -> str:
    """Return the endpoint of production."""
    return str(status(folder)["endpoints"]["production"])


def retired(folder: Path) -> str:
    """Return the release that was retired last."""
    releases = status(folder)["releases"]
    return str(next(each["release"] for each in releases if each["role"] == "retired"))


def status(folder: Path) -> Any:
    """Return the result of `mlship status`."""
    return read(folder, "status")


def read(folder: Path, *arguments: str) -> Any:
    """Return the JSON output of a command."""
    done = subprocess.run(
        [*command(), *arguments, "--json"], cwd=folder, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def say(text: str) -> None:
    """Print a heading."""
    print(f"\n== {text}", flush=True)


def mlship(folder: Path, *arguments: str, quiet: bool = False) -> None:
    """Run one command of mlship and record its duration."""
    shown = " ".join(["mlship", *arguments])
    print(f"$ {shown}", flush=True)
    started, before = time.monotonic(), cpu()
    output = subprocess.DEVNULL if quiet else None
    subprocess.run([*command(), *arguments], cwd=folder, check=True, stdout=output, stderr=output)
    TIMES.append(Timing(shown[:52], time.monotonic() - started, cpu() - before))


def cpu() -> float:
    """Return the processor seconds of all commands so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def command() -> list[str]:
    """Return the command that starts mlship in this environment."""
    return [sys.executable, "-m", "mlship"]


def git(folder: Path, *arguments: str) -> None:
    """Run git without a configured name."""
    who = {"NAME": "Ada Student", "EMAIL": "ada@example.org"}
    identity = {f"GIT_{role}_{key}": who[key] for role in ("AUTHOR", "COMMITTER") for key in who}
    subprocess.run(["git", *arguments], cwd=folder, check=True, env={**os.environ, **identity})


if __name__ == "__main__":
    main()
