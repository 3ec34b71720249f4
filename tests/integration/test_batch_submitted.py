"""Batches that the real spark-submit starts, by the job that `mlship batch --render` writes."""

import json
import os
from pathlib import Path

import msgspec
import pytest

from mlship.domain.release import Release
from tests.harness import commands, spark
from tests.harness.batches import DIFFERENT
from tests.harness.bundles import COLUMNS, SETOSA, iris_bundle
from tests.harness.kills import Project
from tests.harness.samples import nothing
from tests.harness.samples import release as sample

SETTINGS = """
name: iris
data: {train: train.csv, test: test.csv, target: species}
model: {train: "pipeline:train"}
store: {kind: directory}
batch: {input: lake, output: scores, workers: 1}
"""
DRIVER = """
import runpy, sys
for job in sys.argv[1:]:
    sys.argv = [job, "."]
    try:
        runpy.run_path(job)
    except SystemExit as end:
        assert not end.code, end.code
"""
"""Runs jobs one after the other, so that they share the JVM as the releases of a split do."""


def made(project: Project, seed: str, postprocess: str = "") -> Release:
    """Let the project have another release, without a training."""
    pipeline = project.pipeline()
    digest = iris_bundle(project.folder / "bundle", postprocess=postprocess, limit=100.0)
    folder = pipeline.bundle_folder(digest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    (project.folder / "bundle").rename(folder)
    release = msgspec.structs.replace(sample(seed), bundle=digest)
    pipeline.learn(release, "train", "passed", nothing("train"))
    return release


def run(project: Project, *arguments: str) -> str:
    """Run a command; return its output."""
    done = commands.run(*arguments, folder=project.folder, environment=os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def written(folder: Path) -> dict[str, bytes]:
    """Return the outputs that are published in a folder."""
    return {
        f"{path.parent.parent.name}/{path.name}": path.read_bytes()
        for path in folder.glob("release-*/run-*/part-*")
    }


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "mlship.yaml").write_text(SETTINGS)
    (tmp_path / "lake").mkdir()
    row = ",".join(str(SETOSA[name]) for name in COLUMNS)
    for name in ("a.csv", "b.csv"):
        (tmp_path / "lake" / name).write_text("\n".join([",".join(COLUMNS), row, row, ""]))
    return Project(tmp_path)


def test_jobs_below_spark_submit_write_the_bytes_of_processes(project: Project) -> None:
    releases = (made(project, "one"), made(project, "two", DIFFERENT))
    jobs: list[str] = []
    for number, release in enumerate(releases):
        run(project, "batch", str(release), "--output", "wanted")
        told = run(project, "--json", "batch", str(release), "--render", f"job-{number}")
        jobs += json.loads(told)["files"]
    (project.folder / "driver.py").write_text(DRIVER)
    done = spark.submit("driver.py", *jobs, folder=project.folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for release in releases:
        assert f"batch {release}: passed" in done.stdout
    found = written(project.folder / "scores")
    assert len(found) == 4
    assert found == written(project.folder / "wanted")
    assert project.steps()["batch"] == 4
