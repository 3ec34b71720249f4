"""Ticks as real processes, a DAG in a real Airflow, and a CronJob in a real cluster."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mlship.cli.schedules import _moment
from mlship.config.layers import from_yaml, resolve
from mlship.domain import shapes
from mlship.domain.evidence import Record
from mlship.domain.ticks import Ticked
from mlship.templates import schedules
from tests.harness.clusters import Cluster, built, cluster, until
from tests.harness.kills import Project
from tests.harness.samples import nothing
from tests.harness.samples import release as sample
from tests.harness.services import require

LEAST = """
name: iris
data: {train: train.csv, test: test.csv, target: species}
model: {train: "pipeline:train"}
store: {kind: directory}
"""
RUN = """
import os, sys
from pathlib import Path
from mlship.adapters.checkout.own_commands import OwnCommands

sys.executable = sys.argv[1]
print(OwnCommands(Path("mlship.yaml"), (), os.environ)(["train"]))
"""


def ticks(project: Project) -> list[Record]:
    return [record for record in project.pipeline().read() if record.evidence.step == "tick"]


def fired(project: Project, at: datetime) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-m", "mlship", "schedules", "run", "often", "--at", at.isoformat()]
    return subprocess.Popen(argv, cwd=project.folder)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    schedule = "{run: evaluate, cron: '*/5 * * * *', where: github}"
    (made.folder / "mlship.yaml").write_text(f"{LEAST}schedules: {{often: {schedule}}}\n")
    made.pipeline().learn(sample("a"), "train", "passed", nothing("train"))
    return made


def test_ticks_that_fire_three_times_at_once_or_never_have_one_record_each(
    project: Project,
) -> None:
    first = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    for minutes in (0, 15):
        processes = [fired(project, first + timedelta(minutes=minutes)) for _ in range(3)]
        codes = sorted(process.wait(60) for process in processes)
        # 8: another process runs the tick.
        assert codes[0] == 0
        assert set(codes) <= {0, 8}
        assert fired(project, first + timedelta(minutes=minutes)).wait(60) == 0
    said = [shapes.of(record, Ticked) for record in ticks(project)]
    assert [each.planned for each in said] == [
        first + timedelta(minutes=each) for each in (0, 5, 10, 15)
    ]
    assert [each.outcome for each in said] == ["ran", "missed", "missed", "ran"]


@pytest.mark.cold
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_ends_with_the_tick_that_started_it(tmp_path: Path, number: int) -> None:
    program, pid = tmp_path / "program", tmp_path / "pid"
    program.write_text(f"#!/bin/sh\necho $$ > {pid}.new\nmv {pid}.new {pid}\nexec sleep 600\n")
    program.chmod(0o755)
    with subprocess.Popen([sys.executable, "-c", RUN, str(program)], cwd=tmp_path) as tick:
        until(pid.exists, seconds=30)
        command = int(pid.read_text())
        os.kill(command, 0)
        tick.send_signal(number)
        tick.wait(60)
    until(lambda: not _runs(command), seconds=30)


def _runs(process: int) -> bool:
    """Return whether a process exists that has not ended."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def rendered(folder: Path, section: str) -> list[Path]:
    """Write what fires the schedules of a section, and return the files."""
    config = resolve([from_yaml(f"{LEAST}schedules: {section}", "mlship.yaml")]).config
    paths = []
    for name, text in schedules.render(config).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        paths.append(path)
    return paths


@pytest.mark.service("airflow")
def test_airflow_runs_a_tick_at_its_planned_time(tmp_path: Path) -> None:
    place = os.environ.get("TEST_AIRFLOW", "")
    require("airflow", bool(place), "set TEST_AIRFLOW to the folder of Airflow's programs")
    program, project = tmp_path / "mlship", tmp_path / "project"
    project.mkdir()
    program.write_text('#!/bin/sh\npwd > "$0.said"\necho "$@" "$PYTHONPATH" >> "$0.said"\n')
    program.chmod(0o755)
    where = f"where: airflow, folder: {project}"
    pod = "{image: registry/jobs, namespace: ml-jobs}"
    dags = tmp_path / "dags"
    rendered(
        dags,
        f"{{weekly: {{run: retrain, cron: 0 3 * * 1, {where}, program: {program}}}, "
        f"pods: {{run: retrain, cron: 0 3 * * 1, {where}, pod: {pod}}}}}",
    )
    environment = {
        "PATH": f"{place}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(tmp_path / "of-airflow"),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }

    def of_airflow(name: str, *arguments: str) -> str:
        done = subprocess.run(
            [Path(place) / name, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    of_airflow("airflow", "db", "migrate")
    of_airflow("airflow", "dags", "test", "iris-weekly", "2026-11-23T03:00:00+00:00")
    folder, arguments = (tmp_path / "mlship.said").read_text().splitlines()
    assert folder == str(project)
    assert arguments.split() == [
        *("schedules", "run", "weekly", "--at"),
        "2026-11-23T03:00:00+00:00",
    ]
    read = "import runpy, sys; print(runpy.run_path(sys.argv[1]))"
    of_airflow("python", "-c", read, str(dags / "airflow/iris-pods.py"))


@pytest.mark.service("cluster")
def test_a_cluster_runs_a_tick_at_its_planned_time(tmp_path: Path) -> None:
    (tmp_path / "mlship").write_text(
        '#!/bin/sh\n{ id -u; pwd; echo "$@"; } > /dev/termination-log\n'
    )
    (tmp_path / "Dockerfile").write_text(
        "FROM localhost:5000/library/python:3.11-slim\n"
        "COPY mlship /usr/local/bin/mlship\nWORKDIR /srv/iris\n"
    )
    (tmp_path / "mlship").chmod(0o755)
    with cluster() as place:
        image = built("localhost:5000/iris-jobs:test", tmp_path)
        pod = f"{{image: '{image}', namespace: {place.namespace}, cpu: 10m, memory: 64Mi}}"
        config = resolve(
            [
                from_yaml(
                    f"{LEAST}schedules: {{often: {{run: evaluate, cron: '* * * * *', "
                    f"where: kubernetes, folder: /srv/iris, pod: {pod}}}}}",
                    "mlship.yaml",
                )
            ]
        ).config
        schedule = config.schedules["often"]
        assert schedule.pod is not None
        manifest = schedules.cron_job("iris", "often", schedule, schedule.pod)
        batch = f"/apis/batch/v1/namespaces/{place.namespace}"
        place.kubectl("POST", f"{batch}/cronjobs", json=manifest)
        job = _finished(place, f"{batch}/jobs")
        planned = job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"]
        user, folder, arguments = _said(place, job["metadata"]["name"])
        assert (user, folder) == ("65532", "/srv/iris")
        *words, at = arguments.split()
        assert words == ["schedules", "run", "often", "--at"]
        assert _moment(at) == datetime.fromisoformat(planned)


def _finished(place: Cluster, jobs: str, seconds: float = 200) -> Any:
    """Wait for the first Job that succeeded, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for job in place.kubectl("GET", jobs)["items"]:
            if job.get("status", {}).get("succeeded"):
                return job
        time.sleep(1)
    raise AssertionError(place.kubectl("GET", jobs))


def _said(place: Cluster, job: str) -> list[str]:
    """Return the lines that the pod of a Job left as its last message.

    Not its log: the kubelets of two clusters on one machine remove each other's files of logs.
    """
    pods = f"/api/v1/namespaces/{place.namespace}/pods"
    [pod] = place.kubectl("GET", pods, params={"labelSelector": f"job-name={job}"})["items"]
    [container] = pod["status"]["containerStatuses"]
    return str(container["state"]["terminated"]["message"]).splitlines()
