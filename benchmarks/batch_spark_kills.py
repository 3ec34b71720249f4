"""Kills what a batch on Spark consists of, resumes it, and compares the rows.

    TEST_SPARK=~/.cache/mlship-spark/4.0.0 python benchmarks/batch_spark_kills.py [--kills 50]
        [--parts 120] [--control 10] [--master "local-cluster[2,1,1024]"] [--seed 1]

SIGKILL hits, at random moments after the first part is written: a Python worker, an executor (a
JVM of its own under the default master), Spark's driver, the process with the session, or the
command. Spark replaces workers and executors; after the others the command is run again. Each run
that is published is compared row for row with one in processes that nobody disturbed. What is left
of a killed command must end by itself.

The control does without the protocol, as a script might: tasks of Spark append the rows of their
files to one file, each row after 5 ms, so that a kill meets a file half-way. Its workers and
executors are killed so often, while rows are written. Rows are there twice, since Spark runs again
what was killed.
"""

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

from batch_kills import (
    command,
    compare,
    environment,
    make,
    rows_of,
    run,
    size_of,
    unnoted,
    write_lake,
)

_KINDS: Final = {
    "worker": "pyspark.daemon",
    "executor": "CoarseGrainedExecutorBackend",
    "driver": "org.apache.spark.deploy.SparkSubmit",
    "session": "mlship.runtime",
    "command": "mlship",
}
"""What the command line of each kind of process has; the first that fits counts."""
_FATAL: Final = ("driver", "session", "command")
_PARALLEL: Final = 2
"""The tasks that run at the same time."""
_ENDING: Final = 120.0
"""Seconds: an executor that is starting looks for its driver first."""
_CONTROL: Final = """
import csv, sys, time
from pathlib import Path
from pyspark.sql import SparkSession
lake, out, master = sys.argv[1:]
def score(paths):
    import pyarrow.parquet as pq
    for path in paths:
        with open(out, "a", newline="", buffering=1) as file:
            for row in pq.read_table(path).to_pylist():
                csv.writer(file).writerow([row["key"], row["sepal_length"] > 5.8])
                time.sleep(0.005)
builder = SparkSession.builder.master(master).config("spark.ui.enabled", "false")
for name in ("spark.driver.host", "spark.driver.bindAddress"):
    builder = builder.config(name, "127.0.0.1")
paths = sorted(map(str, Path(lake).glob("*.parquet")))
builder.getOrCreate().sparkContext.parallelize(paths, 4).foreachPartition(score)
"""


def main() -> int:
    """Kill, compare and print; return 1 if a row is missing, there twice or different."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--parts", type=int, default=120)
    parser.add_argument("--control", type=int, default=10, help="kills of the control")
    parser.add_argument("--master", default="local-cluster[2,1,1024]")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_lake(folder / "lake", options.parts)
        project = make(folder)
        run(project, "batch")
        wanted = rows_of(project)
        shutil.rmtree(project / "scores")
        kills: Counter[str] = Counter()
        faults: Counter[str] = Counter()
        runs = redone = left = 0
        while kills.total() < options.kills:
            hit = disturbed(project, options.master, chance, options.kills - kills.total())
            kills += hit.kills
            left += hit.left
            if not list(project.glob("scores/*/run-*")):
                redone = max(redone, unnoted(project))
                if kills.total() < options.kills:
                    continue
                disturbed(project, options.master, chance, 0)
            runs += 1
            compare(wanted, rows_of(project), faults)
            shutil.rmtree(project / "scores")
            print(f"{kills.total()} kills, {runs} runs published, {dict(faults)}", flush=True)
        shown = control(folder, options.master, chance, options.control, set(wanted))
    print(f"kills: {kills.total()} {dict(kills)}; runs published and compared: {runs}")
    print(f"rows of a run: {len(wanted)}; over all runs: {dict(faults)}")
    print(f"most parts written and not noted after a kill: {redone}")
    print(f"processes that did not end by themselves within {_ENDING:.0f} s: {left}")
    print(f"control: {dict(shown)}")
    is_right = not faults.total() and redone <= _PARALLEL and not left
    return 0 if is_right and shown["missing"] + shown["doubled"] else 1


class Hit:
    """What was killed of one command.

    Attributes:
        kills: of each kind.
        left: processes that were still there so long after the command.
    """

    def __init__(self) -> None:
        self.kills: Counter[str] = Counter()
        self.left = 0


def disturbed(project: Path, master: str, chance: random.Random, most: int) -> Hit:
    """Run the batch on Spark, and kill at most so many of its processes."""
    hit = Hit()
    settings = ("batch.engine=spark", f'batch.spark={{spark.master: "{master}"}}')
    flags = [part for setting in settings for part in ("--set", setting)]
    variables = with_spark()
    with tempfile.TemporaryFile() as log:
        arguments = [*command(*flags), "batch"]
        process = subprocess.Popen(
            arguments, cwd=project, env=variables, stdout=log, stderr=subprocess.STDOUT
        )
        before = noted(project)
        while process.poll() is None and noted(project) == before:
            time.sleep(0.05)
        known: set[int] = set()
        while process.poll() is None and hit.kills.total() < most:
            time.sleep(chance.random())
            found = processes(process.pid)
            known |= set(found)
            kind = chance.choices(list(_KINDS), (76, 12, 4, 4, 4))[0]
            victims = [pid for pid, own in found.items() if own == kind]
            if not victims or process.poll() is not None:
                continue
            with suppress(ProcessLookupError):
                os.kill(chance.choice(victims), signal.SIGKILL)
                hit.kills[kind] += 1
                print(f"  {kind}, {noted(project)} parts written", flush=True)
            if kind in _FATAL:
                break
        process.wait()
        if not hit.kills and process.returncode:
            log.seek(0)
            raise SystemExit(log.read().decode("utf-8", "replace")[-3000:])
    hit.left = remaining(known)
    return hit


def with_spark() -> dict[str, str]:
    """Return the environment of commands, in which Python finds Spark."""
    variables = environment()
    paths = (variables["PYTHONPATH"], os.environ.get("TEST_SPARK", ""))
    return {**variables, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def control(
    folder: Path, master: str, chance: random.Random, most: int, wanted: set[int]
) -> Counter[str]:
    """Kill workers and executors of a script without the protocol, and count keys."""
    found: Counter[str] = Counter()
    while found["kills"] < most:
        out = folder / "out.csv"
        out.unlink(missing_ok=True)
        arguments = [sys.executable, "-c", _CONTROL, str(folder / "lake"), str(out), master]
        variables = {**with_spark(), "PYSPARK_PYTHON": sys.executable}
        process = subprocess.Popen(arguments, env=variables, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            known = size_of(out)
            time.sleep(0.001)
            if size_of(out) == known or found["kills"] >= most:
                continue
            time.sleep(0.02 * chance.random())
            kind = chance.choices(("worker", "executor"), (6, 1))[0]
            victims = [pid for pid, own in processes(process.pid).items() if own == kind]
            if victims:
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(victims), signal.SIGKILL)
                    found["kills"] += 1
        found["runs"] += 1
        found["failed runs"] += process.returncode != 0
        keys = Counter(int(row[0]) for row in csv.reader(out.open()) if len(row) == 2)
        found["missing"] += sum(key not in keys for key in wanted)
        found["doubled"] += sum(keys[key] > 1 for key in wanted)
    return found


def noted(project: Path) -> int:
    """Return the number of parts of the run that is not published."""
    return len(list(project.glob("scores/*/.run-*/part-*")))


def processes(root: int) -> dict[int, str]:
    """Return the processes of a command, with their kind."""
    found: dict[int, str] = {}
    pending = [root]
    while pending:
        pid = pending.pop()
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            kind = next((kind for kind, text in _KINDS.items() if text in line), "")
            found[pid] = kind
            for task in Path(f"/proc/{pid}/task").iterdir():
                pending += map(int, (task / "children").read_text().split())
    return found


def remaining(known: set[int]) -> int:
    """Return how many processes do not end by themselves; they are killed then."""
    deadline = time.monotonic() + _ENDING
    while (alive := [pid for pid in known if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    for pid in alive:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")[:150]
        print(f"left: {pid} {line.decode()}", flush=True)
        os.kill(pid, signal.SIGKILL)
    return len(alive)


def is_alive(pid: int) -> bool:
    """Return whether a process is there, and is none that has ended and is not waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
