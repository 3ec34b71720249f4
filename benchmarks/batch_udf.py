"""How fast `mlship batch` and MLflow's `spark_udf` score the same rows with the same model.

    TEST_SPARK=~/.cache/mlship-spark/4.0.0 python benchmarks/batch_udf.py [--rows 100000]
        [--master "local[1]"] [--repeat 2] [--parts 1] [--json FILE]

Ten columns of floats, Parquet to Parquet, a logistic regression of scikit-learn. One side is a
script that starts Spark, makes `mlflow.pyfunc.spark_udf` of a saved model, and writes the outputs
beside the columns; it asks MLflow for the environment of the driver, so no time goes into the
installation of another one. The other sides are the command `mlship batch`, with one process and on
the same Spark. It publishes a run with ids and digests, and records it in a ledger.

Whole processes are counted, with the start of Python and Java: seconds of the processor, user and
system, of a command and all that it starts, since others may use the machine; and seconds by the
clock. Of each, the least of the repetitions. Labels of all sides are compared, row by row.
"""

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds
from batch import COLUMNS, write_rows

_PR_SET_CHILD_SUBREAPER: Final = 36
ROOT: Final = Path(__file__).parents[1]
_TRAIN: Final = """
import numpy as np
from sklearn.linear_model import LogisticRegression

def train(data, params):
    return LogisticRegression().fit(data.drop(columns="y"), data["y"])
"""
_SETTINGS: Final = """
name: udf
data: {train: train.csv, test: test.csv, target: y}
model: {train: pipeline:train}
batch: {input: ROWS, output: OUTPUT, keep: [key], workers: 1, part_rows: PART}
store: {kind: directory}
"""
_SAVE: Final = """
import sys
import mlflow.sklearn
import pandas as pd
from pipeline import train
data = pd.read_csv("train.csv")
mlflow.sklearn.save_model(train(data, {}), sys.argv[1], input_example=data.drop(columns="y")[:5])
"""
_UDF: Final = """
import sys
import mlflow.pyfunc
from pyspark.sql import SparkSession
model, rows, output, master = sys.argv[1:]
spark = (
    SparkSession.builder.master(master)
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.ui.enabled", "false")
    .getOrCreate()
)
predict = mlflow.pyfunc.spark_udf(spark, model, result_type="string", env_manager="local")
names = [f"x{number}" for number in range(10)]
data = spark.read.parquet(rows)
data.select("key", predict(*names).alias("y")).write.parquet(output)
spark.stop()
"""


class Used(NamedTuple):
    """What a command took, in seconds of the processor and by the clock."""

    processor: float
    clock: float


def main() -> int:
    """Measure and print; return 1 if the sides do not answer alike."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--master", default="local[1]")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--parts", type=int, default=1, help="files of rows")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    adopt_orphans()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = make(folder, options.rows, options.parts)
        on_spark = ("batch.engine=spark", f'batch.spark={{spark.master: "{options.master}"}}')
        sides = {
            "spark_udf": [sys.executable, "-c", _UDF, "model", "../rows", "OUTPUT", options.master],
            "mlship batch, processes": mlship(),
            "mlship batch, Spark": mlship(*on_spark),
        }
        used: dict[str, list[Used]] = {side: [] for side in sides}
        labels: dict[str, Any] = {}
        for number in range(options.repeat):
            for side, command in sides.items():
                output = folder / f"{side} {number}"
                used[side].append(run(command, project, output))
                labels[side] = labels_of(output)
        is_equal = all(each.equals(labels["spark_udf"]) for each in labels.values())
    best = {side: Used(*map(min, zip(*each, strict=True))) for side, each in used.items()}
    print(f"{options.rows:,} rows in {options.parts} files, {options.master}")
    for side, each in best.items():
        ratio = best["spark_udf"].processor / each.processor
        clock = best["spark_udf"].clock / each.clock
        print(
            f"  {side}: {each.processor:.1f} s of the processor, {each.clock:.1f} s by the clock; "
            f"spark_udf takes {ratio:.1f} and {clock:.1f} times as much"
        )
    print("  labels: all equal" if is_equal else "  labels DIFFER")
    if options.json:
        options.json.write_text(json.dumps({side: each._asdict() for side, each in best.items()}))
    return 0 if is_equal else 1


def adopt_orphans() -> None:
    """Become the parent of processes whose own has ended, as `prctl` of Linux allows."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no orphan can be adopted")


def make(folder: Path, rows: int, parts: int) -> Path:
    """Write the rows, and a project with a release and its model as MLflow saves it."""
    (folder / "rows").mkdir()
    for part in range(parts):
        write_rows(
            folder / "rows" / f"{part:04}.parquet", rows // parts, seed=part, key=part * rows
        )
    project = folder / "project"
    project.mkdir()
    write_training(project)
    (project / "pipeline.py").write_text(_TRAIN)
    settings = _SETTINGS.replace("ROWS", "../rows").replace("PART", str(max(1, rows // parts)))
    (project / "mlship.yaml").write_text(settings)
    (project / ".gitignore").write_text(".mlship\nmodel\n")
    author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for command in (
        ["git", "init", "--quiet"],
        ["git", "add", "--all"],
        ["git", *author, "commit", "--quiet", "-m", "it"],
        [sys.executable, "-c", _SAVE, "model"],
        [sys.executable, "-m", "mlship", "--set", "batch.output=unused", "train"],
    ):
        subprocess.run(command, cwd=project, check=True, env=environment(), stdout=sys.stderr)
    return project


def write_training(project: Path) -> None:
    """Write rows of two classes, for a training and a test."""
    import numpy as np
    import pandas as pd

    for seed, name in enumerate(("train", "test")):
        generator = np.random.default_rng(seed + 10)
        data = pd.DataFrame(generator.normal(size=(2_000, 10)).round(4), columns=list(COLUMNS))
        score = data.x0 + data.x1 - data.x2 + generator.normal(scale=0.3, size=len(data))
        data["y"] = np.where(score > 0, "yes", "no")
        data.to_csv(project / f"{name}.csv", index=False)


def mlship(*settings: str) -> list[str]:
    """Return the command `mlship batch`, with settings."""
    flags = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "-m", "mlship", *flags, "batch", "--output", "OUTPUT"]


def environment() -> dict[str, str]:
    """Return the environment of all commands: one thread, and Spark where it is."""
    paths = [str(ROOT), os.environ.get("TEST_SPARK", ""), "."]
    alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    own = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYSPARK_PYTHON": sys.executable}
    return {**os.environ, **alone, **own}


def run(command: list[str], project: Path, output: Path) -> Used:
    """Run a command to its end; return what it and all that it started took."""
    command = [str(output) if part == "OUTPUT" else part for part in command]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    ended = subprocess.run(
        command, cwd=project, env=environment(), capture_output=True, check=False
    )
    clock = time.monotonic() - began
    # A JVM may outlive the Python that started it: what it took counts when it was waited for.
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode:
        raise SystemExit(ended.stderr.decode("utf-8", "replace")[-3000:])
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Used(used, clock)


def labels_of(output: Path) -> pa.Table:
    """Return the labels of an output by key."""
    [folder] = list(output.glob("release-*/run-*")) or [output]
    table = ds.dataset(sorted(folder.rglob("part-*.parquet"))).to_table(columns=["key", "y"])
    table = table.cast(pa.schema([("key", pa.int64()), ("y", pa.string())]))
    return table.sort_by("key")


if __name__ == "__main__":
    sys.exit(main())
