"""The main job on iris_example: two releases, one duel, a promotion, a rollback, a promotion.

Everything is done by the command line, as a user would: this script types the commands, plays the
users who send requests and, later, the people who tell what the flowers were. It prints how long
each command took and leaves the champion running; `make down` stops it.
"""

import argparse
import csv
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
MEASUREMENTS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
TIMES: list[tuple[str, float]] = []


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
    print(f"\n{'command':58} seconds")
    for command, seconds in TIMES:
        print(f"{command:58} {seconds:7.1f}")
    print(f"{'all of it':58} {time.monotonic() - started:7.1f}")
    if given.down:
        mlship(given.folder, "down")
    else:
        print("\nThe champion goes on serving. Look at it, then stop it with `make down`.")


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
    told = subprocess.run(
        [*command(), "status", "--json"], cwd=folder, check=True, capture_output=True, text=True
    )
    return str(json.loads(told.stdout)["endpoints"]["production"])


def retired(folder: Path) -> str:
    """Return the release that was retired last."""
    told = subprocess.run(
        [*command(), "status", "--json"], cwd=folder, check=True, capture_output=True, text=True
    )
    roles = {one["release"]: one["role"] for one in json.loads(told.stdout)["releases"]}
    return str(next(name for name, role in roles.items() if role == "retired"))


def say(text: str) -> None:
    """Print a heading."""
    print(f"\n== {text}", flush=True)


def mlship(folder: Path, *arguments: str, quiet: bool = False) -> None:
    """Run one command of mlship and remember how long it took."""
    shown = " ".join(["mlship", *arguments])
    print(f"$ {shown}", flush=True)
    started = time.monotonic()
    output = subprocess.DEVNULL if quiet else None
    subprocess.run([*command(), *arguments], cwd=folder, check=True, stdout=output, stderr=output)
    TIMES.append((shown[:58], time.monotonic() - started))


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
