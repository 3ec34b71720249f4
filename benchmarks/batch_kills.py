"""Kills a batch at random moments, resumes it, and compares the output with an undisturbed one.

    python benchmarks/batch_kills.py [--kills 200] [--commands 0] [--parts 120] [--seed 1]
        [--output folder|url|delta|postgresql]

SIGKILL ends a batch at a random moment. It is run again until it ends by itself; then its rows are
compared with those of an undisturbed run, and the next cycle begins with an empty output.

Most batches are forks of one process that has loaded the model, so that the kills hit the scoring
and not the start of Python; `--commands` are as many kills of whole commands with two workers, of
which either the command or a worker is hit. The control does without the protocol, as a script
might: it appends the rows of each file to one file, then notes the file as done. It is killed at
most 20 times, and shows rows that are there twice or not at all.

With `--output`, forks write there: to a URL (of files), a Delta table, or a table of a PostgreSQL
that is started for it. In half of the cycles, kills come while the table gets the rows.
"""

import argparse
import csv
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from batch_outputs import OUTPUTS, Output, output_of

from mlship.domain import batch as batches
from mlship.domain.batch import Input, Plan, Reading, Scored
from mlship.domain.batch_work import Score, Written
from mlship.domain.digests import Digest
from mlship.runtime.batches.inspection import inspect
from mlship.runtime.batches.work import Worker
from tests.harness.bundles import iris_bundle

ROOT: Final = Path(__file__).parents[1]
_ROWS: Final = 50
_RELEASE: Final = Digest("sha256:" + "1" * 64)
WORKERS: Final = 2
_CONTROL_KILLS: Final = 20
"""Each costs a start of Python, and a few are enough to show rows that are lost."""
_COLUMNS: Final = ("sepal_length", "sepal_width", "petal_length", "petal_width")

_CONTROL: Final = """
import csv, os, sys
from pathlib import Path
import pyarrow.parquet as pq
lake, out, done = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
known = set(done.read_text().split()) if done.exists() else set()
with out.open("a", newline="") as file:
    for path in sorted(lake.glob("*.parquet")):
        if path.name in known:
            continue
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
    parser.add_argument("--commands", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", choices=("folder", *OUTPUTS), default="folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_lake(folder / "lake", options.parts)
        chance = random.Random(options.seed)
        with output_of(options.output, folder) as output:
            results = [forks(folder, options.kills, chance, output)]
        print(f"one process, to {options.output}: {results[0]}", flush=True)
        control_ = control(folder, min(options.kills, _CONTROL_KILLS), chance)
        print(f"control: {control_}", flush=True)
        if options.commands:
            results.append(commands(make(folder), options.commands, chance))
            print(f"commands: {results[1]}", flush=True)
    is_right = not any(each.missing or each.doubled or each.different for each in results)
    is_right &= all(each.redone <= WORKERS for each in results)
    return 0 if is_right and (control_.missing or control_.doubled) else 1


def write_lake(lake: Path, parts: int) -> None:
    """Write so many files."""
    lake.mkdir()
    chance = random.Random(0)
    for part in range(parts):
        columns: dict[str, Any] = {
            name: [round(chance.uniform(0.1, 8), 2) for _ in range(_ROWS)] for name in _COLUMNS
        }
        columns["key"] = [part * _ROWS + row for row in range(_ROWS)]
        pq.write_table(pa.table(columns), lake / f"{part:05}.parquet")


class Forks:
    """Batches of a lake in forks of this process, which has loaded the model."""

    def __init__(self, folder: Path, output: Output) -> None:
        self._folder = folder
        self._output = output
        self._digest = iris_bundle(folder / "bundle")
        self._worker = Worker()
        reading = Reading()
        paths = sorted((folder / "lake").glob("*.parquet"))
        inputs = tuple(inspect(str(path), "parquet", reading) for path in paths)
        self._plan = Plan(
            release=_RELEASE,
            inputs=inputs,
            parts=batches.parts_of(inputs),
            reading=reading,
            keep=("key",),
        )

    def score(self) -> None:
        """Score what is left, and publish the run."""
        runs, plan = self._output.runs(), self._plan
        if runs.committed(plan):
            return
        with runs.begin(plan) as run:
            done = dict(run.finished())
            for part, each in zip(plan.parts, plan.inputs, strict=True):
                if part.name not in done:
                    scored = self._scored(part.name, each, run.folder)
                    run.add(scored)
                    done[part.name] = scored
            manifest = batches.manifest_of(plan, list(done.values()), "iris", self._digest, "now")
            run.commit(manifest)

    def _scored(self, part: str, each: Input, into: str) -> Scored:
        request = Score(
            bundle=str(self._folder / "bundle"),
            digest=self._digest,
            release=_RELEASE,
            input=each,
            part=part,
            folder=into,
            keep=self._plan.keep,
            format="parquet",
            reading=self._plan.reading,
        )
        answer = self._worker.answer(request)
        if not isinstance(answer, Written):
            raise SystemExit(str(answer))
        return answer.part


def forks(folder: Path, kills: int, chance: random.Random, output: Output) -> Result:
    """Kill forks of this process that score the lake, and compare after each completed run."""
    score = Forks(folder, output).score
    if output.may_fork:  # what is loaded here, each fork has
        score()
    else:
        ended(fork(score))
    wanted = keyed(output.rows())
    output.clear()
    began = time.monotonic()
    ended(fork(score))
    seconds = time.monotonic() - began
    output.clear()
    done = cycles = redone = 0
    faults: Counter[str] = Counter()
    while done < kills:
        cycles += 1
        while True:
            process = fork(score)
            if done < kills:
                if cycles % 2 and output.is_table:
                    await_copy(folder, process)
                    time.sleep(seconds * chance.random())
                else:
                    time.sleep(seconds * chance.random())
                os.kill(process, signal.SIGKILL)
            if ended(process) == 0:
                break
            done += 1
            redone = max(redone, unnoted(folder))
        compare(wanted, keyed(output.rows()), faults)
        output.clear()
    return _result(done, cycles, faults, redone)


def fork(call: Callable[[], None]) -> int:
    """Call a function in a fork, which ends after it; return its process id."""
    process = os.fork()
    if process == 0:
        try:
            call()
        except BaseException:  # noqa: BLE001 (a fork must not go on as its parent)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return process


def ended(process: int) -> int:
    """Wait for a process, and return how it ended; 0 if it was not killed."""
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"a batch ended with code {code}")
    return code


def _result(kills: int, cycles: int, faults: Counter[str], redone: int) -> Result:
    return Result(kills, cycles, faults["missing"], faults["doubled"], faults["different"], redone)


def make(folder: Path) -> Path:
    """Train the example, as a project whose batch reads the lake."""
    project = folder / "project"
    shutil.copytree(ROOT / "iris_example", project)
    settings = project / "mlship.yaml"
    others = re.sub(r"(?ms)^batch:.*?(?=^\S|\Z)", "", settings.read_text())
    own = f"batch: {{input: ../lake, output: scores, keep: [key], workers: {WORKERS}}}"
    settings.write_text(f"{others}\n{own}\n")
    (project / ".gitignore").write_text("scores\n.mlship\n")
    for command in (
        ["git", "init", "--quiet"],
        ["git", "add", "--all"],
        ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "-m", "it"],
    ):
        subprocess.run(command, cwd=project, check=True)
    run(project, "train")
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


def commands(project: Path, kills: int, chance: random.Random) -> Result:
    """Kill commands so often, and compare its rows after each completed run."""
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
    return _result(done, cycles, faults, redone)


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


def await_copy(folder: Path, process: int) -> None:
    """Wait until the copy of a run is complete, so that its table gets the rows, or it ended."""
    while not list(folder.glob(".mlship/batch/outputs/*/*/run-*")):
        # A process that has ended is not waited for here.
        if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.002)


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
    return keyed(pq.read_table(folder).to_pylist())


def keyed(rows: Iterable[Mapping[str, Any]]) -> dict[int, list[tuple[Any, ...]]]:
    """Return rows by their key."""
    found: dict[int, list[tuple[Any, ...]]] = {}
    for row in rows:
        found.setdefault(row["key"], []).append(tuple(row.values()))
    return found


def compare(wanted: dict[int, Any], found: dict[int, Any], faults: Counter[str]) -> None:
    """Count the keys that are missing, there twice, or have another row."""
    for key, rows in wanted.items():
        own = found.get(key, [])
        faults["missing"] += not own
        faults["doubled"] += len(own) > 1
        faults["different"] += len(own) == 1 and own != rows


def control(folder: Path, kills: int, chance: random.Random) -> Result:
    """Kill a script without the protocol so often, and count keys."""
    out, done = folder / "out.csv", folder / "done.txt"
    arguments = [sys.executable, "-c", _CONTROL, str(folder / "lake"), str(out), str(done)]
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
