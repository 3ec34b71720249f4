"""How fast a batch scores rows, beside the model alone and a script of pandas.

    python benchmarks/batch.py [--rows 10000000] [--models linear,forest] [--json FILE]

Parquet to Parquet, ten columns of floats, one process with one thread each: a worker of `mlship
batch`; a script that reads with pandas, asks the fitted scikit-learn model and writes with pandas;
and the model alone, by onnxruntime and by scikit-learn, on a matrix that is there already (no file
is read or written). Rows are counted per second of the processor, user and system, with the start
of the process, since others may use the machine. The memory is the worker's peak (RSS).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS: Final = tuple(f"x{number}" for number in range(10))
_GROUP: Final = 250_000
ROOT: Final = Path(__file__).parents[1]

_SCRIPT: Final = """
import sys, joblib, pandas as pd
import pyarrow.parquet as pq
model = joblib.load(sys.argv[1])
for number, batch in enumerate(pq.ParquetFile(sys.argv[2]).iter_batches(100_000)):
    frame = batch.to_pandas()
    features = frame[[f"x{n}" for n in range(10)]].to_numpy()
    out = pd.DataFrame({"y": model.predict(features)})
    shares = model.predict_proba(features)
    for place, label in enumerate(model.classes_):
        out[f"probability_{label}"] = shares[:, place]
    out.to_parquet(f"{sys.argv[3]}/{number}.parquet")
"""


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--models", default="linear,forest")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", nargs=3, help="score with this bundle and digest this file")
    options = parser.parse_args()
    if options.worker:
        bundle, digest, data = options.worker
        print(json.dumps(worker(Path(bundle), digest, Path(data))))
        return
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.parquet"
        write_rows(data, options.rows)
        for kind in options.models.split(","):
            rows = options.rows if kind != "forest" else min(options.rows, 1_000_000)
            if rows < options.rows:
                data = Path(folder) / "fewer.parquet"
                write_rows(data, rows)
            results[kind] = measure(kind, Path(folder) / kind, data, rows)
            print(kind, f"{rows:,} rows")
            for name, value in results[kind].items():
                print(f"  {name}: {value:,.0f}")
    if options.json:
        options.json.write_text(json.dumps(results))


def write_rows(path: Path, rows: int, seed: int = 0, key: int | None = None) -> None:
    """Write random rows, a row group at a time, with a column `key` that counts from a number."""
    generator = np.random.default_rng(seed)
    names = [(name, pa.float64()) for name in COLUMNS]
    schema = pa.schema(names if key is None else [*names, ("key", pa.int64())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, _GROUP):
            size = min(_GROUP, rows - start)
            table: dict[str, Any] = {name: generator.normal(size=size).round(4) for name in COLUMNS}
            if key is not None:
                table["key"] = np.arange(key + start, key + start + size)
            writer.write_table(pa.table(table, schema=schema), row_group_size=_GROUP)


def measure(kind: str, folder: Path, data: Path, rows: int) -> dict[str, float]:
    """Return the rows per second of each way, and the memory of the batch in MB."""
    estimator, digest = write_bundle(kind, folder / "bundle")
    # From a small process: what a child has taken counts from its fork on.
    own = json.loads(
        subprocess.run(
            [sys.executable, __file__, "--worker", str(folder / "bundle"), digest, str(data)],
            capture_output=True,
            check=True,
        ).stdout
    )
    result = {"mlship batch, rows/s": rows / own["seconds"], "memory of it, MB": own["MB"]}
    result["pandas and scikit-learn, rows/s"] = rows / script(folder, estimator, data)
    matrix = np.random.default_rng(1).normal(size=(min(rows, 200_000), len(COLUMNS)))
    result["onnxruntime alone, rows/s"] = len(matrix) / alone(folder / "bundle", matrix)
    began = time.process_time()
    estimator.predict_proba(matrix)
    result["scikit-learn alone, rows/s"] = len(matrix) / (time.process_time() - began)
    return result


def worker(bundle: Path, digest: str, data: Path) -> dict[str, float]:
    """Return the seconds of the processor and the memory that a worker takes for a file."""
    from mlship.adapters.rows.runs import FolderRuns
    from mlship.adapters.rows.workers import ChildWorkers
    from mlship.domain import batch as batches
    from mlship.domain.batch import Plan, Reading
    from mlship.domain.batch_work import Inspect, Score
    from mlship.domain.digests import Digest

    reading, release = Reading(), Digest("sha256:" + "0" * 64)
    workers = ChildWorkers(bundle, 1, os.environ)
    [each] = workers.inspect([Inspect(path=str(data), format="parquet", reading=reading)])
    plan = Plan(release=release, inputs=(each,), parts=batches.parts_of([each]))
    with FolderRuns(bundle.parent / "scores").begin(plan) as run:
        requests = [
            Score(
                bundle=str(bundle),
                digest=Digest(digest),
                release=release,
                input=_one(each, part.block),
                part=part.name,
                folder=run.folder,
                keep=(),
                format="parquet",
                reading=reading,
            )
            for part in plan.parts
        ]
        for part in workers.score(requests):
            run.add(part)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"seconds": used.ru_utime + used.ru_stime, "MB": used.ru_maxrss / 1024}


def _one(each: Any, block: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(each, blocks=(block,))


def script(folder: Path, estimator: Any, data: Path) -> float:
    """Return the seconds that a script of pandas takes, with its start."""
    import joblib

    model, out = folder / "model.joblib", folder / "pandas"
    joblib.dump(estimator, model)
    out.mkdir()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", _SCRIPT, str(model), str(data), str(out)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def alone(bundle: Path, matrix: Any) -> float:
    """Return the seconds that onnxruntime takes for a matrix, in pieces as a batch has them."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    session = ort.InferenceSession(bundle / "model" / "model.onnx", settings)
    [name] = [each.name for each in session.get_inputs()]
    kind = "float32" if "float)" in session.get_inputs()[0].type else "float64"
    matrix = matrix.astype(kind)
    session.run(None, {name: matrix[:1000]})
    began = time.process_time()
    for start in range(0, len(matrix), 50_000):
        session.run(None, {name: matrix[start : start + 50_000]})
    return time.process_time() - began


def write_bundle(kind: str, folder: Path) -> tuple[Any, str]:
    """Write an ONNX bundle of a model of ten columns; return the estimator and the digest."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    from mlship.domain import bundle as bundles
    from mlship.domain.bundle import Bundle, Field, Hooks, Model, Schema

    generator = np.random.default_rng(2)
    data = generator.normal(size=(5_000, len(COLUMNS)))
    labels = np.where(data[:, 0] + data[:, 1] * data[:, 2] > 0, "yes", "no")
    forest = RandomForestClassifier(100, random_state=0, max_depth=10)
    estimator = (forest if kind == "forest" else LogisticRegression()).fit(data, labels)
    tensor = FloatTensorType if kind == "forest" else DoubleTensorType
    onnx = to_onnx(
        estimator,
        initial_types=[("features", tensor([None, len(COLUMNS)]))],
        options={"zipmap": False},
    )
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.onnx").write_bytes(onnx.SerializeToString())
    fields = tuple(
        Field(name=name, kind="number", example=0.5, dtype="float64") for name in COLUMNS
    )
    outputs = (
        Field(name="y", kind="text", choices=("no", "yes")),
        Field(name="probability_no", kind="number"),
        Field(name="probability_yes", kind="number"),
    )
    draft = Bundle(
        name="batch",
        task="classification",
        target="y",
        schema=Schema(inputs=fields, outputs=outputs),
        model=Model(
            format="onnx",
            path="model/model.onnx",
            layout="matrix",
            columns=fields,
            classes=("no", "yes"),
            dtype="float32" if kind == "forest" else "float64",
        ),
        hooks=Hooks(),
        metrics={},
        requirements=("onnxruntime==1.31.1",),
        python="3.11",
    )
    return estimator, bundles.seal(folder, draft)


if __name__ == "__main__":
    main()
