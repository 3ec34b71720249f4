"""Kills a batch at random moments, resumes it, and compares the output with an undisturbed one.

    python benchmarks/batch_kills.py [--kills 200] [--parts 120] [--workers 2] [--seed 1]

At a random moment of each run, SIGKILL ends the command or one of its workers. The command is run
again until it ends by itself; then its rows are compared with those of an undisturbed run, and the
next cycle begins with an empty output. The control does without the protocol, as a script might: it
appends the rows of each file to one file, then notes the file as done. It is killed as often, and
shows rows that are there twice or not at all.
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
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

ROOT: Final = Path(__file__).parents[1]
_ROWS: Final = 50
_COLUMNS: Final = ("sepal_length", "sepal_width", "petal_length", "petal_width")

_CONTROL: Final = """
import csv, os, sys
from pathlib import Path
import pyarrow.parquet as pq
lake, out, done = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
known = set(done.read_text().split()) if done.exists() else set()
for path in sorted(lake.glob("*.parquet")):
    if path.name in known:
        continue
    with out.open("a", newline="") as file:
        for row in pq.read_table(path).to_pylist():
            csv.writer(file).writerow([row["key"], row["sepal_length"] > 5.8])
    with done.open("a") as notes:
        notes.write(path.name + "\\n")
"""


class Result(NamedTuple):
    """What came of the kills.

    Attributes:
        redone: parts that were written, and not noted, at most after one kill.
    """

    kills: int
    cycles: int
    missing: int
    doubled: int
    different: int
    redone: int


def main() -> int:
    """Run both, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--parts", type=int, default=120)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = make(folder, options.parts, options.workers)
        result = batch(project, options.kills, random.Random(options.seed))
        print(f"batch: {result}")
        control_ = control(project, folder, options.kills, random.Random(options.seed))
        print(f"control: {control_}")
    is_right = not (result.missing or result.doubled or result.different)
    is_right &= result.redone <= options.workers
    return 0 if is_right and (control_.missing or control_.doubled) else 1


def make(folder: Path, parts: int, workers: int) -> Path:
    """Train the example, and write a lake of so many files."""
    project = folder / "project"
    shutil.copytree(ROOT / "iris_example", project)
    with (project / "mlship.yaml").open("a") as settings:
        settings.write(
            f"\nbatch: {{input: lake, output: scores, keep: [key], workers: {workers}}}\n"
        )
    (project / ".gitignore").write_text("lake\nscores\n.mlship\n")
    for command in (
        ["git", "init", "--quiet"],
        ["git", "add", "--all"],
        ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "-m", "it"],
    ):
        subprocess.run(command, cwd=project, check=True)
    run(project, "train")
    lake = project / "lake"
    lake.mkdir()
    chance = random.Random(0)
    for part in range(parts):
        columns: dict[str, Any] = {
            name: [round(chance.uniform(0.1, 8), 2) for _ in range(_ROWS)] for name in _COLUMNS
        }
        columns["key"] = [part * _ROWS + row for row in range(_ROWS)]
        pq.write_table(pa.table(columns), lake / f"{part:05}.parquet")
    return project


def run(project: Path, *arguments: str) -> None:
    """Run a command to its end."""
    subprocess.run(command(*arguments), cwd=project, check=True, env=environment())


def command(*arguments: str) -> list[str]:
    """Return the arguments of a command of mlship."""
    return [sys.executable, "-m", "mlship", "--set", "store.kind=directory", *arguments]


def environment() -> dict[str, str]:
    """Return the environment of the commands."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def batch(project: Path, kills: int, chance: random.Random) -> Result:
    """Kill the batch so often, and compare its rows after each completed run."""
    # The digests of the files are remembered from here on: what is killed is mostly the scoring.
    run(project, "batch")
    wanted = rows_of(project)
    shutil.rmtree(project / "scores")
    began = time.monotonic()
    run(project, "batch")
    seconds = time.monotonic() - began
    shutil.rmtree(project / "scores")
    done = cycles = redone = 0
    faults: Counter[str] = Counter()
    while done < kills:
        cycles += 1
        while True:
            is_killed = done < kills and killed(project, seconds, chance)
            if is_killed:
                done += 1
                redone = max(redone, unnoted(project))
                continue
            if list(project.glob("scores/*/run-*")):
                break
            run(project, "batch")
        compare(wanted, rows_of(project), faults)
        shutil.rmtree(project / "scores")
    return Result(done, cycles, faults["missing"], faults["doubled"], faults["different"], redone)


def killed(project: Path, seconds: float, chance: random.Random) -> bool:
    """Start the batch and kill one of its processes; return whether it was still running."""
    process = subprocess.Popen(
        command("batch"),
        cwd=project,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if chance.random() < 0.9:
        # Most of the time goes into the start of Python: nine of ten kills come after it.
        await_growth(process, project)
        seconds /= 4
    time.sleep(seconds * chance.random())
    victims = [process.pid, *children(process.pid)]
    with suppress(ProcessLookupError):
        os.kill(chance.choice(victims), signal.SIGKILL)
    return process.wait() != 0


def await_growth(process: "subprocess.Popen[bytes]", project: Path) -> None:
    """Wait until a part is written, or the process has ended."""
    before = written(project)
    while process.poll() is None and written(project) == before:
        time.sleep(0.01)


def written(project: Path) -> int:
    """Return the number of parts of the run that is not published."""
    return len(list(project.glob("scores/*/.run-*/part-*")))


def children(process: int) -> list[int]:
    """Return the processes that a process has started."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    return [int(number) for number in text.split()]


def unnoted(project: Path) -> int:
    """Return how many parts are written, and not in the journal."""
    count = 0
    for folder in project.glob("scores/*/.run-*"):
        noted = (folder / "_journal.jsonl").read_bytes().count(b'"name"')
        count += len(list(folder.glob("part-*"))) - noted
    return count


def rows_of(project: Path) -> dict[int, list[tuple[Any, ...]]]:
    """Return what the published run says of each key."""
    [folder] = project.glob("scores/*/run-*")
    found: dict[int, list[tuple[Any, ...]]] = {}
    for row in pq.read_table(folder).to_pylist():
        found.setdefault(row["key"], []).append(tuple(row.values()))
    return found


def compare(wanted: dict[int, Any], found: dict[int, Any], faults: Counter[str]) -> None:
    """Count the keys that are missing, there twice, or have another row."""
    for key, rows in wanted.items():
        own = found.get(key, [])
        faults["missing"] += not own
        faults["doubled"] += len(own) > 1
        faults["different"] += len(own) == 1 and own != rows


def control(project: Path, folder: Path, kills: int, chance: random.Random) -> Result:
    """Kill a script without the protocol so often, and count keys."""
    out, done = folder / "out.csv", folder / "done.txt"
    arguments = [sys.executable, "-c", _CONTROL, str(project / "lake"), str(out), str(done)]
    began = time.monotonic()
    subprocess.run(arguments, check=True)
    seconds = time.monotonic() - began
    faults: Counter[str] = Counter()
    keys = Counter(row[0] for row in csv.reader(out.open()))
    count = cycles = 0
    while count < kills:
        cycles += 1
        for path in (out, done):
            path.unlink(missing_ok=True)
        is_complete = False
        while not is_complete:
            process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
            if count < kills:
                known = size_of(done)
                while process.poll() is None and size_of(done) == known:
                    time.sleep(0.001)
                time.sleep(seconds / 4 * chance.random())
                process.kill()
            is_complete = process.wait() == 0
            count += not is_complete
        found = Counter(row[0] for row in csv.reader(out.open()))
        faults["missing"] += sum(key not in found for key in keys)
        faults["doubled"] += sum(found[key] > 1 for key in keys)
    return Result(count, cycles, faults["missing"], faults["doubled"], 0, 0)


def size_of(path: Path) -> int:
    """Return the size of a file, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


if __name__ == "__main__":
    sys.exit(main())
