"""Commands with a faulty tracking server: how many succeed, and how long they take.

    python benchmarks/tracking.py [--times 20] [--share 0.3] [--commands status promote ...]

A real `mlflow server`, which stores the models and the ledger, is behind a proxy with random
faults: it returns 429 with Retry-After (seconds or a date), 500 or 503, resets the connection
before or after the server has acted, or truncates a body. Every command runs `--times` times; `run`
trains a new release each time. At the end, the server is checked for duplicates. The control does
the same with MLFLOW_HTTP_REQUEST_MAX_RETRIES=0. Finally the server is stopped: each command must
exit with code 4 within the deadline, and succeed after the server is started again.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import demo
import yaml

from mlship.adapters.mlflow.rest import connected
from tests.harness import tracking
from tests.stand_ins.faulty import Proxy, Storm, before

COMMANDS = ("status", "promote", "rollback", "run")
_ARGUMENTS = {"promote": ("promote", "challenger"), "run": ("run", "--replace")}
_OFF = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


def main() -> None:
    """Print a line for each command in each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--control", type=int, default=5, help="times without repetitions")
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--commands", nargs="+", default=COMMANDS, choices=COMMANDS)
    parser.add_argument("--server", help="an empty tracking server that runs already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, opened(options.server, temporary) as real:
        folder = Path(temporary) / "iris"
        with before(real) as proxy:
            prepare(folder, f"http://{proxy.host}")
            try:
                play(folder, proxy, options)
                print(f"duplicates on the server: {doubled(real) or 'none'}", flush=True)
            finally:
                proxy.storm = None
                proxy.up()
                demo.mlship(folder, "down", quiet=True)


@contextmanager
def opened(server: str | None, temporary: str) -> Iterator[str]:
    """Yield the URL of a tracking server."""
    if server is not None:
        yield server
        return
    folder = Path(temporary) / "server"
    folder.mkdir()
    with tracking.server(folder) as url:
        yield url


def prepare(folder: Path, uri: str) -> None:
    """Prepare a project until a challenger can be promoted."""
    demo.new_repository(folder)
    settings = folder / "mlship.yaml"
    values = yaml.safe_load(settings.read_text())
    values["store"] = {"kind": "mlflow", "uri": uri}
    values["ledger"] = {"kind": "mlflow"}
    values["gates"]["staging"]["p99_ms"] = {"max": 10_000}
    settings.write_text(yaml.safe_dump(values, sort_keys=False))
    demo.git(folder, "commit", "-qam", "Keep models and evidence on a server")
    demo.mlship(folder, "run", quiet=True)
    values["model"]["params"].pop("features", None)
    settings.write_text(yaml.safe_dump(values, sort_keys=False))
    demo.git(folder, "commit", "-qam", "Train on all measurements")
    demo.mlship(folder, "run", quiet=True)
    outcomes = demo.send(demo.production(folder), demo.flowers(folder), 1500)
    path = folder / ".mlship" / "outcomes.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("prediction_id", "outcome"), *outcomes])
    demo.mlship(folder, "feedback", str(path), quiet=True)
    demo.mlship(folder, "evaluate", quiet=True)
    demo.mlship(folder, "approve", "challenger", "--by", "grace@example.org", quiet=True)


def play(folder: Path, proxy: Proxy, options: argparse.Namespace) -> None:
    """Run each command with faults, without retries, and without the server."""
    print("command                succeeded     seconds: median, highest  faulty requests")
    for command in options.commands:
        for times, environ in ((options.times, {}), (options.control, _OFF)):
            storm = Storm(share=options.share)
            results = [attempt(folder, proxy, command, storm, environ) for _ in range(times)]
            tell(command + (" (no retries)" if environ else ""), results, storm)
        ready(folder, command)
        proxy.down()
        code, seconds = once(folder, command, {})
        proxy.up()
        again, _ = once(folder, command, {})
        print(f"{command} without a server: exit code {code} after {seconds:.0f} s", end="; ")
        print(f"run again with one: exit code {again}", flush=True)
        settle(folder, command)


def attempt(
    folder: Path, proxy: Proxy, command: str, storm: Storm, environ: dict[str, str]
) -> tuple[int, float]:
    """Run a command with faults; return its exit code and duration; leave a consistent project."""
    ready(folder, command)
    proxy.storm = storm
    result = once(folder, command, environ)
    proxy.storm = None
    if result[0]:
        once(folder, command, {})
    settle(folder, command)
    return result


def tell(command: str, results: list[tuple[int, float]], storm: Storm) -> None:
    """Print the result of a command."""
    codes = Counter(code for code, _ in results)
    spent = [seconds for _, seconds in results]
    requests = storm.counts.total()
    print(
        f"{command:22} {codes[0]:3} of {len(results):3}   {statistics.median(spent):7.1f}"
        f" {max(spent):7.1f}  {requests - storm.counts['']:10} of {requests}"
        f"  exit codes {dict(codes)}",
        flush=True,
    )


def ready(folder: Path, command: str) -> None:
    """Prepare the project so that a command has work to do."""
    if command == "rollback":
        once(folder, "promote", {})
    if command == "run":
        change(folder)


def settle(folder: Path, command: str) -> None:
    """Undo a promotion."""
    if command == "promote":
        once(folder, "rollback", {})


def once(folder: Path, command: str, environ: dict[str, str]) -> tuple[int, float]:
    """Run a command; return its exit code and its duration in seconds."""
    started = time.monotonic()
    done = subprocess.run(
        [*demo.command(), *_ARGUMENTS.get(command, (command,))],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and not environ:
        print(f"  {command}: {done.stderr.strip().splitlines()[-3:]}", file=sys.stderr, flush=True)
    return done.returncode, time.monotonic() - started


def change(folder: Path) -> None:
    """Commit another parameter, so that `run` trains a new release."""
    settings = folder / "mlship.yaml"
    values = yaml.safe_load(settings.read_text())
    params = values["model"]["params"]
    params["C"] = round(float(params.get("C", 1.0)) + 0.01, 2)
    settings.write_text(yaml.safe_dump(values, sort_keys=False))
    demo.git(folder, "commit", "-qam", "Try another C")


def doubled(uri: str) -> list[str]:
    """Return duplicates on the server: runs, versions or records of one release."""
    counts: Counter[str] = Counter()
    with connected(uri, {}) as server:
        for experiment, key in (("iris", "mlship.release"), ("iris-ledger", "mlship.record")):
            found = server.get("experiments/get-by-name", {"experiment_name": experiment})
            number = found["experiment"]["experiment_id"]
            body = {"experiment_ids": [number], "max_results": 50_000}
            for run in server.post("runs/search", body).get("runs", []):
                tags = {tag["key"]: tag.get("value", "") for tag in run["data"].get("tags", [])}
                counts[f"run {key} {tags.get(key)}"] += 1
        query = {"filter": "name='iris'", "max_results": "10000"}
        for version in server.get("model-versions/search", query).get("model_versions", []):
            tags = {tag["key"]: tag.get("value", "") for tag in version.get("tags", [])}
            counts[f"version {tags.get('mlship.release')}"] += 1
    return [name for name, count in counts.items() if count > 1]


if __name__ == "__main__":
    main()
