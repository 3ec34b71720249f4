"""Rows of a large batch: found by outcomes, compared by an evaluation, and traced one by one.

    python benchmarks/batch_rows.py [--rows 10000000] [--outcomes 1000000] [--traced 1000]

A champion and, in its shadow, a challenger score Parquet with four columns of floats and a key.
Outcomes of random keys are taken in from a CSV file, by the step of `mlship feedback --key`, and
are evaluated; each in a process of its own, whose memory (peak RSS) is that of the step with the
libraries. Then random rows of the output are traced and computed again, by the step of `mlship
trace --reproduce`: the row of the input must be the one that was written, and the answer the same.
Workers and predictor are in the process, since a start of Python a row would be all that is
measured. The seconds are of the processor.
"""

import argparse
import dataclasses
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlship.adapters.observations.directory import DirectoryObservations
from mlship.config.project import GatesConfig
from mlship.domain import digests, shapes
from mlship.domain.bundle import MANIFEST, Row
from mlship.domain.digests import Digest
from mlship.domain.facts import Evaluated
from mlship.domain.policy import PromotePolicy
from mlship.runtime.model import Model
from mlship.steps.batch import Batching
from mlship.steps.batch_feedback import Key
from mlship.steps.evaluate import evaluate
from mlship.steps.feedback import feedback
from mlship.steps.outcome_files import read
from mlship.steps.pipeline import Pipeline
from mlship.steps.trace import trace
from tests.fakes.batch import InProcessWorkers, batching
from tests.fakes.ports import CONFIG, FakePredictor, world

ROOT: Final = Path(__file__).parents[1]
_GROUP: Final = 250_000
_KEY: Final = "customer"
_COLUMNS: Final = ("sepal_length", "sepal_width", "petal_length", "petal_width")


def main() -> None:
    """Make a batch, measure each step in a process of its own, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--outcomes", type=int, default=1_000_000)
    parser.add_argument("--traced", type=int, default=1_000)
    parser.add_argument("--folder", type=Path, help="keep the files here")
    parser.add_argument("--step", choices=STEPS, help="do only this, in the folder")
    options = parser.parse_args()
    if options.step:
        result = STEPS[options.step](options.folder, options)
        own = resource.getrusage(resource.RUSAGE_SELF)
        memory = {"MB": own.ru_maxrss >> 10, "seconds": round(own.ru_utime + own.ru_stime, 1)}
        print(json.dumps({**result, **memory}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        counts = ["--rows", options.rows, "--outcomes", options.outcomes]
        counts += ["--traced", options.traced]
        for step in STEPS:
            command = [sys.executable, __file__, *counts, "--folder", folder, "--step", step]
            done = subprocess.run(
                list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(done.stderr[-4000:])
            print(step, done.stdout.strip(), flush=True)


def make(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Write rows and outcomes, and score the rows by champion and challenger."""
    from tests.harness.batches import Contest

    here = Contest(folder, keep=(_KEY,), part_rows=1_000_000)
    (folder / "lake").mkdir()
    generator = np.random.default_rng(0)
    schema = pa.schema([*((name, pa.float64()) for name in _COLUMNS), (_KEY, pa.int64())])
    with pq.ParquetWriter(folder / "lake" / "rows.parquet", schema) as writer:
        for first in range(0, options.rows, _GROUP):
            count = min(_GROUP, options.rows - first)
            columns = [generator.uniform(0.1, 8, count) for _ in _COLUMNS]
            keys = np.arange(first, first + count)
            writer.write_batch(pa.record_batch([*columns, keys], schema=schema))
    result = here.compare("shadow")
    stored = {name: data.decode() for name, data in here.world.ledger.stored.items()}
    (folder / "ledger.json").write_text(json.dumps(stored))
    (folder / "published").write_text(result.published.folder)
    own = random.Random(1).sample(range(options.rows), options.outcomes)
    with (folder / "outcomes.csv").open("w") as file:
        file.write(f"{_KEY},outcome\n")
        file.writelines(f"{key},{'setosa' if key % 3 else 'virginica'}\n" for key in own)
    return {"rows": options.rows}


def take(folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Take in the outcomes."""
    pipeline, ports = _project(folder)
    taken = feedback(
        pipeline,
        read(folder / "outcomes.csv", ["species"], _KEY),
        batching=ports,
        key=Key(_KEY),
    )
    return {"new": taken.new, "known": taken.known, "unknown": len(taken.unknown)}


def compare(folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Evaluate the outcomes."""
    pipeline, ports = _project(folder)
    facts = shapes.of(evaluate(pipeline, batching=ports), Evaluated)
    return {"champion": facts.champion_n, "challenger": facts.challenger_n, "said": facts.reason}


def follow(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Trace random rows of the output, and compute them again."""
    pipeline, ports = _project(folder)
    parts = sorted(Path((folder / "published").read_text()).glob("part-*"))
    random_ = random.Random(2)
    wanted = []
    for part in parts:
        ids = pq.read_table(part, columns=["id", _KEY])
        count = options.traced // len(parts) + (part == parts[0]) * (options.traced % len(parts))
        wanted += ids.take(random_.sample(range(ids.num_rows), count)).to_pylist()
    inputs = pq.ParquetFile(folder / "lake" / "rows.parquet")
    seconds, wrong = 0.0, 0
    for row in wanted:
        began = time.process_time()
        found = trace(pipeline, row["id"], reproduce=True, batching=ports)
        seconds += time.process_time() - began
        group = inputs.read_row_group(row[_KEY] // _GROUP, columns=[*_COLUMNS, _KEY])
        [original] = group.slice(row[_KEY] % _GROUP, 1).to_pylist()
        is_shadowed = found.shadow is not None and found.shadow.outputs["species"] == "virginica"
        is_same = {**found.prediction.inputs, _KEY: row[_KEY]} == original
        # That both answers are the same is checked by the step, which would end with an error.
        wrong += not (is_same and is_shadowed and found.reproduced)
    return {"traced": len(wanted), "wrong": wrong, "seconds each": round(seconds / len(wanted), 3)}


class _Predictor(FakePredictor):
    """The port Predictor, in this process."""

    def __init__(self) -> None:
        super().__init__()
        self._models: dict[Path, Model] = {}

    def predict(self, bundle: Path, rows: Sequence[Row]) -> list[Row]:
        if bundle not in self._models:
            self._models[bundle] = Model.load(
                bundle, digests.of_bytes((bundle / MANIFEST).read_bytes())
            )
        return self._models[bundle].predict(rows)


def _project(folder: Path) -> tuple[Pipeline, Batching]:
    """Return the project of the batch with its ledger."""
    gates = GatesConfig(promote=PromotePolicy(min_labels=50))
    here = world(folder, msgspec.structs.replace(CONFIG, gates=gates))
    stored = json.loads((folder / "ledger.json").read_text())
    here.ledger.stored = {Digest(name): data.encode() for name, data in stored.items()}
    here.clock.now += timedelta(days=1)
    store = DirectoryObservations([folder / "predictions"], folder / "outcomes.jsonl")
    pipeline = dataclasses.replace(here.pipeline, observations=store, predictor=_Predictor())
    return pipeline, batching(folder, InProcessWorkers())


STEPS: Final = {"make": make, "feedback": take, "evaluate": compare, "trace": follow}


if __name__ == "__main__":
    main()
