"""Batches on the real Spark: it answers what processes of this machine answer."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from mlship.adapters.rows.spark import SparkWorkers
from mlship.adapters.rows.workers import ChildWorkers
from mlship.errors import ConfigError, ProjectError
from tests.harness import spark
from tests.harness.batches import Here, parts

SLOW = """
def preprocess(data):
    import os, pathlib, time
    pathlib.Path(os.environ["TMPDIR"], f"executor-{os.getpid()}").touch()
    time.sleep(0.5)
    return data
"""


class OnSpark(Here):
    """A project whose batches run on Spark; its hook notes the executor, and takes a while."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, SLOW, part_rows=10)
        self.notes = root / "notes"
        self.notes.mkdir()
        variables = {**spark.environment(), "TMPDIR": str(self.notes)}
        self.on_spark = SparkWorkers(
            self.bundle, {"spark.master": "local[2,4]"}, variables, named=(spark.OPTIONS,)
        )
        self.in_processes = ChildWorkers(self.bundle, 2, variables)

    def executors(self) -> set[int]:
        """Return the processes in which the hook ran."""
        return {int(path.name.partition("-")[2]) for path in self.notes.glob("executor-*")}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> OnSpark:
    made = OnSpark(tmp_path_factory.mktemp("spark"))
    made.write("a.parquet", rows=40)
    made.write("b.parquet", rows=30)
    return made


def test_spark_writes_the_bytes_that_processes_write(here: OnSpark) -> None:
    wanted = parts(here.score(here.in_processes, "in-processes"))
    found = parts(here.score(here.on_spark, "on-spark"))
    assert len(found) == 7
    assert found == wanted


def test_a_task_whose_executor_is_killed_is_tried_again(here: OnSpark) -> None:
    wanted = parts(here.score(here.in_processes, "in-processes"))
    for path in here.notes.glob("executor-*"):
        path.unlink()
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not killed:
            for pid in here.executors():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            time.sleep(0.02)

    thread = threading.Thread(target=kill)
    thread.start()
    found = parts(here.score(here.on_spark, "killed"))
    thread.join()
    assert killed
    assert here.executors() - set(killed)
    assert found == wanted


def test_rows_that_the_model_refuses_hold_the_run_back(here: OnSpark, tmp_path: Path) -> None:
    made = OnSpark(tmp_path)
    lake = made.root / "lake"
    lake.mkdir()
    (lake / "texts.csv").write_text(
        "sepal_length,sepal_width,petal_length,petal_width\n5.1,3.5,1.4,wide\n5.1,3.5,1.4,0.2\n"
    )
    assert made.release.bundle == here.release.bundle  # which the session has
    result = made.score(here.on_spark, "scores")
    assert result.record.evidence.verdict == "failed"
    assert "petal_width must be a number" in result.reasons[0]
    assert not made.published


def test_a_file_that_is_cut_off_is_named(here: OnSpark) -> None:
    torn = here.root / "lake" / "torn.parquet"
    whole = (here.root / "lake/a.parquet").read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    try:
        with pytest.raises(ProjectError, match=r"torn\.parquet"):
            here.score(here.on_spark, "torn")
    finally:
        torn.unlink()


def test_without_java_nothing_is_started(here: OnSpark, tmp_path: Path) -> None:
    variables = {**spark.environment(), "JAVA_HOME": str(tmp_path)}
    workers = SparkWorkers(here.bundle, {}, variables)
    with pytest.raises(ConfigError, match="Spark needs Java: JAVA_HOME"):
        here.score(workers, "nowhere")
