"""A batch in real processes: workers that die, and a command that is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlship.adapters.rows.runs import FolderRuns
from mlship.adapters.rows.workers import ChildWorkers
from mlship.domain import batch as batches
from mlship.domain.batch import Plan, Reading, Scored
from mlship.domain.batch_work import Inspect, Score
from mlship.domain.digests import Digest
from mlship.errors import ProjectError
from tests.fakes.batch import InProcessWorkers
from tests.harness.bundles import COLUMNS, SETOSA, iris_bundle

RELEASE = Digest("sha256:" + "5" * 64)
ROOT = Path(__file__).parents[2]
DRIVER = """
import sys
from pathlib import Path
from tests.integration.test_batch import Lake
lake = Lake(Path(sys.argv[1]), sys.argv[2])
with lake.runs.begin(lake.plan) as run:
    for part in lake.workers.score(lake.requests(run.folder)):
        run.add(part)
"""


class Lake:
    """A folder with a bundle and a file of forty row groups."""

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder = folder
        self.digest = Digest(digest)
        self.workers = ChildWorkers(folder / "bundle", 2, os.environ)
        self.runs = FolderRuns(folder / "scores")
        path = folder / "rows.parquet"
        if not path.exists():
            columns = {name: [SETOSA[name]] * 400 for name in COLUMNS}
            pq.write_table(pa.table(columns), path, row_group_size=10)
        reading = Reading(part_rows=10)
        request = Inspect(path=str(path), format="parquet", reading=reading)
        [each] = InProcessWorkers().inspect([request])
        self.plan = Plan(
            release=RELEASE, inputs=(each,), parts=batches.parts_of([each]), reading=reading
        )

    def requests(self, into: str) -> list[Score]:
        [each] = self.plan.inputs
        return [
            Score(
                bundle=str(self.folder / "bundle"),
                digest=self.digest,
                release=RELEASE,
                input=msgspec.structs.replace(each, blocks=(part.block,)),
                part=part.name,
                folder=into,
                keep=(),
                format="parquet",
                reading=self.plan.reading,
            )
            for part in self.plan.parts
        ]

    def scored(self, into: str) -> list[Scored]:
        return list(self.workers.score(self.requests(into)))


def test_processes_write_what_this_one_would_and_hooks_may_print(tmp_path: Path) -> None:
    noisy = 'def postprocess(outputs):\n    print("hello" * 10_000)\n    return outputs\n'
    lake = Lake(tmp_path, iris_bundle(tmp_path / "bundle", postprocess=noisy))
    parts = {part.name: part.digest for part in lake.scored(str(tmp_path / "processes"))}
    [first, *_] = lake.requests(str(tmp_path / "here"))
    [own] = InProcessWorkers().score([first])
    assert len(parts) == 40
    assert parts[own.name] == own.digest


def test_a_worker_that_dies_is_told_with_its_last_lines(tmp_path: Path) -> None:
    deadly = """def postprocess(outputs):
    import os, sys
    sys.stderr.write("out of luck\\n")
    sys.stderr.flush()
    os._exit(7)
"""
    lake = Lake(tmp_path, iris_bundle(tmp_path / "bundle", postprocess=deadly))
    with pytest.raises(ProjectError, match=r"(?s)ended with code 7 at .*rows.parquet.*out of luck"):
        lake.scored(str(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("part-*"))


@pytest.mark.cold
def test_workers_end_with_a_killed_command_and_what_is_left_is_done(tmp_path: Path) -> None:
    slow = "def postprocess(outputs):\n    import time\n    time.sleep(0.05)\n    return outputs\n"
    digest = iris_bundle(tmp_path / "bundle", postprocess=slow)
    lake = Lake(tmp_path, digest)
    command = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path), digest],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    folder = tmp_path / "scores" / lake.plan.folder / f".run-{lake.plan.run}"
    _wait(lambda: len(list(folder.glob("part-*"))) >= 3)
    workers = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
    os.kill(command.pid, signal.SIGKILL)
    command.wait()
    assert len(workers) == 2
    _wait(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    with lake.runs.begin(lake.plan) as run:
        done = run.finished()
        assert 0 < len(done) < 40
        assert len(list(folder.glob("part-*"))) - len(done) <= 2, "one part a worker is redone"
        left = [each for each in lake.requests(run.folder) if each.part not in done]
        for part in lake.workers.score(left):
            run.add(part)
        manifest = batches.manifest_of(
            lake.plan, list(run.finished().values()), "iris@1", lake.digest, "now"
        )
        table = pq.read_table(run.commit(manifest))
    assert manifest.rows == 400
    assert len(set(table.column("id").to_pylist())) == table.num_rows == 400


def _wait(holds: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
