"""The job of a batch for spark-submit."""

import json
import os
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mlship.cli.main import app
from mlship.cli.session import Session
from mlship.domain import environment as environments
from mlship.errors import ConfigError
from mlship.templates import batch_job
from tests.harness.batches import Here

ARGUMENTS = ("batch", "iris@37e66b8a9efe", "--input", "la\"ke's", "--output", "out")


def job(to: str = "out", jars: str = "a.jar") -> str:
    return batch_job.render(
        release="iris@37e66b8a9efe",
        to=to,
        config="own.yaml",
        flags=("batch.engine=spark",),
        arguments=ARGUMENTS,
        settings={"spark.master": "spark://one:7077", "spark.jars": jars},
    )


def test_the_job_runs_the_command_for_the_folder_that_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    monkeypatch.setattr("mlship.cli.main.main", lambda: found.extend(sys.argv))
    monkeypatch.setattr("sys.argv", ["job", "project"])
    path = tmp_path / batch_job.NAME
    path.write_text(job())
    runpy.run_path(str(path))
    own = ["mlship", "--config", "project/own.yaml", "--set", "batch.engine=spark"]
    assert found == [*own, *ARGUMENTS]


def test_no_output_is_taken_for_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlship.cli.main.main", lambda: None)
    monkeypatch.setattr("sys.argv", ["job", "project"])
    path = tmp_path / batch_job.NAME
    path.write_text(job('"""\\\nraise SystemExit(1)\n'))
    runpy.run_path(str(path))


IMAGE = "--conf spark.kubernetes.container.image=IMAGE"
PLACES = "local:///srv/iris/job.py /srv/iris"
MEMORY = "--conf spark.executor.memory=4 g"


@pytest.mark.parametrize(
    ("master", "command"),
    [
        ("", f"--master local[*] {MEMORY} job.py ."),
        ("spark://one:7077", f"--master spark://one:7077 {MEMORY} job.py ."),
        (
            "k8s://https://one",
            f"--master k8s://https://one --deploy-mode cluster {IMAGE} {MEMORY} {PLACES}",
        ),
    ],
)
def test_the_command_has_the_master_and_the_settings_of_the_project(
    master: str, command: str
) -> None:
    own = {"spark.executor.memory": "4 g", **({"spark.master": master} if master else {})}
    parts = shlex.split(batch_job.submit(own, "iris@37e66b8a9efe", "job.py"))
    assert " ".join(part for part in parts if part.strip()) == f"spark-submit {command}"


@pytest.mark.parametrize(
    ("jars", "properties"),
    [
        ("a.jar", "--properties=spark.submit.deployMode=cluster,spark.jars=a.jar"),
        ("a.jar,b.jar", "--properties=^;^spark.submit.deployMode=cluster;spark.jars=a.jar,b.jar"),
    ],
)
def test_commas_in_a_setting_are_not_those_of_gcloud(jars: str, properties: str) -> None:
    assert shlex.quote(properties) in job(jars=jars)


def test_only_a_session_of_spark_learns_of_the_jvm_of_spark_submit() -> None:
    variables = {**os.environ, "PYSPARK_GATEWAY_PORT": "1", "PYSPARK_GATEWAY_SECRET": "s"}
    assert environments.of_spark(variables)["PYSPARK_GATEWAY_SECRET"] == "s"
    assert "PYSPARK_GATEWAY_SECRET" not in environments.of_user_code(variables)


def here(root: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Here:
    made = Here(root, **settings)
    monkeypatch.setattr(Session, "pipeline", lambda *_args, **_options: made.world.pipeline)
    return made


def test_a_job_is_written_for_the_release_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = here(tmp_path, monkeypatch, spark={"spark.master": "spark://one:7077"})
    arguments = ["--set", "name=iris", "--json", "batch", str(made.release)]
    arguments += ["--keep", "key", "--challenger", "shadow", "--render", str(tmp_path / "jobs")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["release"] == str(made.release)
    assert "--master spark://one:7077" in told["submit"]
    [path] = told["files"]
    found: list[str] = []
    monkeypatch.setattr("mlship.cli.main.main", lambda: found.extend(sys.argv))
    monkeypatch.setattr("sys.argv", ["job", "project"])
    runpy.run_path(path)
    settings = ["--set", "name=iris", "--set", "batch.engine=spark"]
    options = ["--input", "lake", "--output", "scores", "--keep", "key", "--max-rejected", "0"]
    batch = ["batch", str(made.release), *options, "--challenger", "shadow"]
    assert found == ["mlship", "--config", "project/mlship.yaml", *settings, *batch]


def test_no_job_is_written_with_a_wrong_master(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = here(tmp_path, monkeypatch, spark={"spark.master": "spark:one"})
    done = CliRunner().invoke(app, ["batch", str(made.release), "--render", str(tmp_path / "jobs")])
    assert isinstance(done.exception, ConfigError)
    assert "invalid spark.master in batch.spark: spark:one" in str(done.exception)
    assert not (tmp_path / "jobs").exists()
