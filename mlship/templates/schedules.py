"""What fires the schedules of a project outside of GitHub: DAGs of Airflow, and CronJobs."""

import math
import pprint
from collections.abc import Mapping
from string import Template
from typing import Any, Final

import yaml

from mlship import files
from mlship.config.project import Config
from mlship.config.schedules import PodConfig, ScheduleConfig

WRITER: Final = "`mlship schedules render`"

_NOBODY: Final = 65532
"""The user of the pod, who owns the project's folder in the image."""
_RETRIES_MINUTES: Final = 5
_KEPT_SECONDS: Final = 7 * 24 * 3600
"""How long a Job stays to be looked at; the ledger has its record."""
_JOB: Final = "batch.kubernetes.io/job-name"
"""The label with the name of the Job, which the CronJob's controller ends in the planned time."""
_FINAL: Final = (2, 3, 5, 7)
"""Exit codes that a retry does not change."""

_WIDTH: Final = 110
"""Of lines with the pod's template, so that the file stays short."""

_DAG: Final = Template('''\
"""Runs the ticks of the schedule $name of $project ($run). Its settings are in mlship.yaml."""

from datetime import datetime, timedelta, timezone

from airflow.providers.$module import $operator
from airflow.sdk import DAG, CronTriggerTimetable

with DAG(
    dag_id="$project-$name",
    # With it, the logical date is the planned time, whatever Airflow's settings are.
    schedule=CronTriggerTimetable("$cron", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,  # of the ticks that were missed, the next one records that they were
    max_active_runs=1,
    tags=["mlship"],
):
    # Airflow imports nothing of mlship, which runs in $place.
    $operator(
        task_id="tick",
$arguments
        retries=$retries,
        retry_delay=timedelta(minutes=$delay),
        execution_timeout=timedelta(minutes=$deadline),
    )
''')

_BASH: Final = Template("""\
        bash_command='exec $program schedules run $name --at "$$PLANNED"',
        # A run by hand may have no logical date.
        env={"PLANNED": "{{ (logical_date or dag_run.run_after).isoformat() }}", "PYTHONPATH": ""},
        append_env=True,
        cwd="$folder",""")

_POD: Final = Template("""\
        name="$project-$name",
        namespace="$namespace",
        pod_template_dict=$pod,
        base_container_name="mlship",
        # A run by hand may have no logical date.
        arguments=[
            *("schedules", "run", "$name", "--at"),
            "{{ (logical_date or dag_run.run_after).isoformat() }}",
        ],
        deferrable=False,""")


def render(config: Config) -> dict[str, str]:
    """Return the file for each schedule that Airflow or a CronJob fires, by its path."""
    texts: dict[str, str] = {}
    for name, schedule in sorted(config.schedules.items()):
        match schedule.where:
            case "airflow":
                texts[f"airflow/{config.name}-{name}.py"] = _dag(config.name, name, schedule)
            case "kubernetes" if schedule.pod is not None:
                manifest = cron_job(config.name, name, schedule, schedule.pod)
                text = yaml.safe_dump(manifest, sort_keys=False)
                texts[f"kubernetes/{config.name}-{name}.yaml"] = text
            case _:
                pass
    return {path: files.signed(text, WRITER) for path, text in texts.items()}


def cron_job(project: str, name: str, schedule: ScheduleConfig, pod: PodConfig) -> dict[str, Any]:
    """Return the CronJob of a schedule."""
    template = _pod(project, name, schedule, pod)
    [container] = template["spec"]["containers"]
    container["args"] = ["schedules", "run", name, "--at", "$(JOB_NAME)"]
    container["env"] = [
        {"name": "JOB_NAME", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{_JOB}']"}}}
    ]
    ends = {"containerName": "mlship", "operator": "In", "values": list(_FINAL)}
    job = {
        "backoffLimit": schedule.retries,
        "activeDeadlineSeconds": math.ceil(60 * schedule.deadline),
        "ttlSecondsAfterFinished": _KEPT_SECONDS,
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": ends}]},
        "template": template,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {
            "name": f"{project}-{name}",
            "namespace": pod.namespace,
            "labels": _labels(project, name),
        },
        "spec": {
            "schedule": schedule.cron,
            "timeZone": "Etc/UTC",
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": math.ceil(60 * schedule.grace),
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {"metadata": {"labels": _labels(project, name)}, "spec": job},
        },
    }


def _labels(project: str, name: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/managed-by": "mlship",
        "app.kubernetes.io/name": project,
        "app.kubernetes.io/component": f"schedule-{name}",
    }


def _pod(project: str, name: str, schedule: ScheduleConfig, pod: PodConfig) -> dict[str, Any]:
    """Return the template of an unprivileged pod, whose container has no arguments yet."""
    container: dict[str, Any] = {
        "name": "mlship",
        "image": pod.image,
        "workingDir": schedule.folder,
        "command": [schedule.program or "mlship"],
    }
    if pod.secret:
        container["envFrom"] = [{"secretRef": {"name": pod.secret}}]
    container["resources"] = {
        "requests": {"cpu": pod.cpu, "memory": pod.memory},
        "limits": {"memory": pod.memory},
    }
    container["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": pod.service_account is not None,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _NOBODY,
            "runAsGroup": _NOBODY,
            "fsGroup": _NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    if pod.service_account is not None:
        spec["serviceAccountName"] = pod.service_account
    return {"metadata": {"labels": _labels(project, name)}, "spec": spec}


def _dag(project: str, name: str, schedule: ScheduleConfig) -> str:
    values: dict[str, object] = {
        "project": project,
        "name": name,
        "run": schedule.run,
        "cron": schedule.cron,
        "retries": schedule.retries,
        "delay": _RETRIES_MINUTES,
        "deadline": f"{schedule.deadline:g}",
        "folder": schedule.folder,
        "program": schedule.program,
    }
    if schedule.pod is None:
        arguments = _BASH.substitute(values)
        return _DAG.substitute(
            values,
            module="standard.operators.bash",
            operator="BashOperator",
            place="an environment of its own",
            arguments=arguments,
        )
    template = {"apiVersion": "v1", "kind": "Pod", **_pod(project, name, schedule, schedule.pod)}
    arguments = _POD.substitute(
        values, namespace=schedule.pod.namespace, pod=_written(template, indent=26)
    )
    return _DAG.substitute(
        values,
        module="cncf.kubernetes.operators.pod",
        operator="KubernetesPodOperator",
        place="a pod of its own",
        arguments=arguments,
    )


def _written(value: Mapping[str, Any], indent: int) -> str:
    """Return a mapping as Python that begins within a line."""
    text = pprint.pformat(value, width=_WIDTH - indent, sort_dicts=False)
    return text.replace("\n", "\n" + " " * indent)
