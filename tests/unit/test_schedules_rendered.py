"""What `mlship schedules render` writes: a DAG that does nothing at import, and CronJobs."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlship.config.layers import from_yaml, resolve
from mlship.config.project import Config
from mlship.errors import ConfigError, ConflictError
from mlship.steps.preview import write_rendered
from mlship.templates import schedules

LEAST = """
name: iris
data: {train: data/train.csv, test: data/test.csv}
model: {train: "pipeline:train"}
"""
SCHEDULES = """
schedules:
  weekly:
    run: retrain
    cron: 0 3 * * 1
    where: airflow
    folder: /srv/iris
    program: /opt/mlship/bin/mlship
  pods:
    run: evaluate
    cron: "*/30 * * * *"
    where: airflow
    folder: /srv/iris
    deadline: 7.5
    pod: {image: "registry/jobs@sha256:00", namespace: ml-jobs, secret: iris-jobs}
  nightly:
    run: batch
    cron: 0 1 * * *
    where: kubernetes
    folder: /srv/iris
    deadline: 45
    grace: 10
    retries: 1
    pod: {image: "registry/jobs@sha256:00", namespace: ml-jobs, service_account: jobs, cpu: "2"}
  daily: {run: evaluate, cron: 0 4 * * *, where: github}
"""


def config() -> Config:
    return resolve([from_yaml(LEAST + SCHEDULES, "mlship.yaml")]).config


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return schedules.render(config())


def test_each_schedule_outside_of_github_has_a_file(texts: dict[str, str]) -> None:
    assert set(texts) == {
        "airflow/iris-pods.py",
        "airflow/iris-weekly.py",
        "kubernetes/iris-nightly.yaml",
    }


DAGS = pytest.mark.parametrize(
    ("name", "operator"), [("weekly", "BashOperator"), ("pods", "KubernetesPodOperator")]
)


@DAGS
def test_a_dag_is_static_and_imports_airflow_and_one_operator(
    texts: dict[str, str], name: str, operator: str
) -> None:
    text = texts[f"airflow/iris-{name}.py"]
    assert len(text.splitlines()) < 60
    tree = ast.parse(text)
    docstring, *imports, dag = tree.body
    assert isinstance(docstring, ast.Expr)
    assert all(isinstance(each, ast.ImportFrom) for each in imports)
    modules = [each.module for each in imports if isinstance(each, ast.ImportFrom)]
    assert modules[0] == "datetime"
    assert str(modules[1]).startswith("airflow.providers.")
    assert modules[2:] == ["airflow.sdk"]
    # Nothing but values: the calls are those that declare the DAG and its task.
    assert isinstance(dag, ast.With)
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert called == {"DAG", "CronTriggerTimetable", "datetime", "timedelta", operator}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.For | ast.FunctionDef)]


def keywords(text: str, name: str) -> dict[str, Any]:
    """Return the constant arguments of a call."""
    [call] = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]
    given = {}
    for keyword in call.keywords:
        try:
            given[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except ValueError:
            given[str(keyword.arg)] = ast.unparse(keyword.value)
    return given


def test_a_dag_runs_mlship_in_an_environment_of_its_own(texts: dict[str, str]) -> None:
    text = texts["airflow/iris-weekly.py"]
    dag, task = keywords(text, "DAG"), keywords(text, "BashOperator")
    assert dag["schedule"] == "CronTriggerTimetable('0 3 * * 1', timezone='UTC')"
    assert (dag["catchup"], dag["max_active_runs"]) == (False, 1)
    assert task["bash_command"] == (
        'exec /opt/mlship/bin/mlship schedules run weekly --at "$PLANNED"'
    )
    assert task["cwd"] == "/srv/iris"
    assert (task["retries"], task["execution_timeout"]) == (2, "timedelta(minutes=60)")
    assert task["env"]["PLANNED"] == "{{ (logical_date or dag_run.run_after).isoformat() }}"


def test_a_pod_of_airflow_is_not_deferred_and_has_no_privilege(texts: dict[str, str]) -> None:
    task = keywords(texts["airflow/iris-pods.py"], "KubernetesPodOperator")
    assert task["deferrable"] is False
    assert task["execution_timeout"] == "timedelta(minutes=7.5)"
    assert "'pods', '--at'" in task["arguments"]
    spec = task["pod_template_dict"]["spec"]
    [container] = spec["containers"]
    assert container["name"] == task["base_container_name"]
    assert container["envFrom"] == [{"secretRef": {"name": "iris-jobs"}}]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True


def test_a_cron_job_runs_one_at_a_time_with_an_end(texts: dict[str, str]) -> None:
    made = yaml.safe_load(texts["kubernetes/iris-nightly.yaml"])
    assert made["metadata"]["namespace"] == "ml-jobs"
    spec = made["spec"]
    assert spec["schedule"] == "0 1 * * *"
    assert spec["timeZone"] == "Etc/UTC"
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] == 600
    job = spec["jobTemplate"]["spec"]
    assert (job["backoffLimit"], job["activeDeadlineSeconds"]) == (1, 2700)
    pod = job["template"]["spec"]
    assert pod["serviceAccountName"] == "jobs"
    assert pod["restartPolicy"] == "Never"
    [container] = pod["containers"]
    assert container["command"] == ["mlship"]
    assert container["args"] == ["schedules", "run", "nightly", "--at", "$(JOB_NAME)"]
    assert container["workingDir"] == "/srv/iris"
    assert container["resources"]["requests"] == {"cpu": "2", "memory": "2Gi"}
    assert json.dumps(made).count("&id") == 0


def test_an_edited_file_is_left_alone(texts: dict[str, str], tmp_path: Path) -> None:
    into = tmp_path / "deploy"
    files = {into / name: text for name, text in texts.items()}
    paths = write_rendered(files, into, (schedules.WRITER,))
    assert all(path.read_text() == files[path] for path in paths)
    first = into / "airflow/iris-weekly.py"
    first.write_text(first.read_text().replace("retries=2", "retries=3"))
    with pytest.raises(ConflictError, match=r"iris-weekly\.py was changed"):
        write_rendered(files, into, (schedules.WRITER,))
    with pytest.raises(ConfigError, match="is not a folder"):
        write_rendered({first / "a": ""}, first, (schedules.WRITER,))
