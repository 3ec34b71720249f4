"""What it takes to find out what is left of a batch of 10,000 parts that was killed.

    python benchmarks/batch_plan.py [--parts 10000] [--json FILE]

Each part is a file of its own, which is the most that there can be to look at. All but ten are
done. A new process lists the files, takes what is remembered of them, makes the plan, and reads the
journal: the seconds of the processor, and the growth of the memory, are those from there until the
first part could be scored. The time that Python and mlship take to start is not in them.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from mlship.adapters.rows.listing import LakeFiles
from mlship.adapters.rows.runs import FolderRuns
from mlship.domain import batch as batches
from mlship.domain import digests
from mlship.domain.batch import Block, Counts, Input, Plan, Reading, Scored
from mlship.domain.digests import Digest

_RELEASE: Final = Digest("sha256:" + "1" * 64)
_LEFT: Final = 10
_COLUMNS: Final = tuple((f"x{number}", "double") for number in range(10))


def main() -> None:
    """Measure in a process of its own, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--resume", type=Path, help="measure in this folder")
    options = parser.parse_args()
    if options.resume:
        print(json.dumps(resume(options.resume)))
        return
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), options.parts)
        result = subprocess.run(
            [sys.executable, __file__, "--resume", name], capture_output=True, check=True
        )
    figures = json.loads(result.stdout)
    print(figures)
    if options.json:
        options.json.write_text(json.dumps(figures))


def make(folder: Path, parts: int) -> None:
    """Write the files, what is remembered of them, and a run of which ten parts are left."""
    lake = folder / "lake"
    lake.mkdir()
    for number in range(parts):
        (lake / f"{number:06}.parquet").write_bytes(b"PAR1")
    files = LakeFiles(folder, folder / ".mlship")
    inputs = tuple(
        Input(
            path=each.path,
            format=each.format,
            version=each.version,
            digest=digests.of_bytes(each.path.encode()),
            size=4,
            blocks=(Block(0, 1, 1_000_000),),
            columns=_COLUMNS,
        )
        for each in files.list(["lake"])
    )
    files.remember("plan", inputs)
    plan = plan_of(inputs)
    counts = {
        "y": Counts(named={"no": 1, "yes": 2}),
        "probability": Counts(buckets={64_000 + number: number for number in range(100)}),
    }
    with FolderRuns(folder / "scores").begin(plan) as run:
        for part in plan.parts[:-_LEFT]:
            (Path(run.folder) / batches.file_of(part.name, "parquet")).write_bytes(b"PAR1")
            run.add(
                Scored(name=part.name, rows=3, rejected=0, size=4, digest=_RELEASE, counts=counts)
            )


def plan_of(inputs: tuple[Input, ...]) -> Plan:
    """Return the plan of the inputs."""
    parts = batches.parts_of(inputs)
    return Plan(release=_RELEASE, inputs=inputs, parts=parts, reading=Reading())


def resume(folder: Path) -> dict[str, float]:
    """Return the seconds and the megabytes until it is known what is left."""
    before = peak()
    began, processor = time.perf_counter(), time.process_time()
    files = LakeFiles(folder, folder / ".mlship")
    listed = files.list(["lake"])
    known = files.known("plan")
    inputs = tuple(known[each.path] for each in listed if known[each.path].version == each.version)
    plan = plan_of(inputs)
    runs = FolderRuns(folder / "scores")
    if runs.committed(plan) is not None:
        raise SystemExit("it is published already")
    with runs.begin(plan) as run:
        done = run.finished()
        left = [part for part in plan.parts if part.name not in done]
        seconds, own = time.perf_counter() - began, time.process_time() - processor
    after = peak()
    return {
        "parts": len(plan.parts),
        "left": len(left),
        "seconds": round(seconds, 3),
        "processor seconds": round(own, 3),
        "MB": round((after - before) / 1024, 1),
        "MB of the process": round(after / 1024, 1),
    }


def peak() -> int:
    """Return the most memory that this process has taken, in KB."""
    match = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    if match is None:
        raise SystemExit("/proc/self/status does not tell the memory: this needs Linux")
    return int(match[1])


if __name__ == "__main__":
    main()
