"""How much memory a training takes whose raw rows are wide, and whose features are few.

    python benchmarks/training_memory.py [--gb 2] [--batch-rows 50000]

Raw rows of 60 columns of floats and two of text are written to a Parquet file. `preprocess` makes
four features of them. The project is trained with `data.batch_rows` and without; the figure is the
largest memory (RSS) that any process of `mlship train` had. `--gb` is the size of the rows as a
DataFrame; with more than a quarter of the machine's memory, only the batches are measured.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT: Final = Path(__file__).parents[1]
_GROUP: Final = 100_000
_FLOATS: Final = 60

_CODE: Final = """
from sklearn.linear_model import LogisticRegression

def preprocess(rows):
    sums = rows.filter(regex="^x").to_numpy()
    return rows[["x0"]].assign(
        total=sums.sum(axis=1), spread=sums.std(axis=1), is_red=(rows.colour == "red") * 1.0
    )

def train(data, params):
    return LogisticRegression().fit(data.drop(columns="target"), data.target)
"""
_SETTINGS: Final = """
name: wide
data: {train: train.parquet, test: test.parquet, target: target%s}
model: {train: pipeline:train, preprocess: pipeline:preprocess}
targets: {staging: {kind: local}, production: {kind: local}}
"""


def main() -> None:
    """Train with batches and without, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=2)
    parser.add_argument("--batch-rows", type=int, default=50_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A text of this size takes about 60 bytes in a DataFrame.
        rows = int(options.gb * 1e9 / (_FLOATS * 8 + 2 * 60 + 1))
        write(folder / "train.parquet", rows, 0)
        write(folder / "test.parquet", 2_000, 1)
        size = (folder / "train.parquet").stat().st_size
        print(f"{rows:,} rows, {options.gb} GB as a DataFrame, {size / 1e9:.2f} GB of Parquet")
        measure(folder, "in batches", f", batch_rows: {options.batch_rows}")
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if options.gb * 1e9 < memory / 4:
            measure(folder, "at once", "")


def write(path: Path, rows: int, seed: int) -> None:
    """Write random rows, a row group at a time."""
    generator = np.random.default_rng(seed)
    writer = None
    for start in range(0, rows, _GROUP):
        count = min(_GROUP, rows - start)
        columns = {f"x{n}": generator.normal(size=count) for n in range(_FLOATS)}
        texts = np.array([f"customer-{number:08}" for number in range(start, start + count)])
        colours = generator.choice(["red", "green", "blue"], count)
        target = np.where(columns["x0"] + generator.normal(size=count) > 0, "yes", "no")
        table = pa.table({**columns, "customer": texts, "colour": colours, "target": target})
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=_GROUP)
    if writer is not None:
        writer.close()


def measure(folder: Path, name: str, setting: str) -> None:
    """Train a project of its own, and print time and memory."""
    project = folder / name.replace(" ", "-")
    project.mkdir()
    (project / "pipeline.py").write_text(_CODE)
    (project / "mlship.yaml").write_text(_SETTINGS % setting)
    for each in ("train.parquet", "test.parquet"):
        (project / each).symlink_to(folder / each)
    (project / ".gitignore").write_text("*.parquet\n.mlship\n")
    for command in (
        ["git", "init", "--quiet"],
        ["git", "add", "--all"],
        ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "-m", "it"],
    ):
        subprocess.run(command, cwd=project, check=True)
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlship", "--set", "store.kind=directory", "train"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    peak = 0
    while process.poll() is None:
        peak = max([peak, *(resident(pid) for pid in tree(process.pid))])
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"the training ended with code {process.returncode}")
    print(f"{name}: {peak / 1e6:,.0f} MB, {time.monotonic() - began:.0f} s", flush=True)
    shutil.rmtree(project)


def resident(pid: int) -> int:
    """Return the largest memory that a process has had until now, in bytes."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(match[1]) * 1024 if match else 0


def tree(pid: int) -> list[int]:
    """Return a process and all that it has started."""
    found, pending = [], [pid]
    while pending:
        found.append(pending.pop())
        try:
            for task in Path(f"/proc/{found[-1]}/task").iterdir():
                pending += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


if __name__ == "__main__":
    main()
