"""The section `schedules` of mlship.yaml: what runs again and again, when and where."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from mlship.config import cron
from mlship.config.texts import Name
from mlship.domain.ticks import Run
from mlship.errors import ConfigError

Where = Literal["airflow", "kubernetes", "github"]

_SHORTEST = 5
"""Minutes between two runs of a workflow: GitHub starts them no sooner."""
_LONGEST_NAME = 52
"""Of a CronJob, whose Jobs add 11 characters to it."""

Minutes = Annotated[float, Meta(gt=0, le=525_600)]
Absolute = Annotated[
    str,
    Meta(
        pattern=r"^/[\w./@+-]*(?!\n)$",
        extra={"form": "an absolute path of letters, digits and ._@+-: /srv/iris"},
    ),
]
Label = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(?!\n)$",
        extra={"form": "lower-case letters, digits, - and dots: ml-jobs"},
    ),
]
ImageName = Annotated[
    str,
    Meta(
        pattern=r"^(?![-/])[\w./:@-]+(?!\n)$",
        extra={"form": "the name of an image, best with its digest: registry/iris-jobs@sha256:..."},
    ),
]
Amount = Annotated[
    str,
    Meta(pattern=r"^[1-9][0-9]*(m|Mi|Gi)?(?!\n)$", extra={"form": "such as 500m or 2Gi"}),
]


class PodConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pod in which a tick runs."""

    image: Annotated[
        ImageName,
        Meta(description="image with mlship, the project's packages and its checkout with .git"),
    ]
    namespace: Annotated[Label, Meta(description="namespace of the CronJob or the pod")]
    service_account: Annotated[
        Label | None, Meta(description="service account of the pod; default: none, without a token")
    ] = None
    secret: Annotated[
        Label | None,
        Meta(description="Secret whose entries are environment variables of mlship"),
    ] = None
    cpu: Annotated[Amount, Meta(description="CPU that the pod requests")] = "500m"
    memory: Annotated[Amount, Meta(description="memory that the pod requests, and its limit")] = (
        "2Gi"
    )


class ScheduleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A schedule: what it runs, when, and what fires it."""

    run: Annotated[
        Run,
        Meta(
            description="`retrain` trains and tests; `pipeline` is `mlship run`, up to a "
            "challenger in production; `batch` and `evaluate` are the commands of that name"
        ),
    ]
    cron: Annotated[cron.Cron, Meta(description="when, in UTC, as five fields of cron")]
    where: Annotated[Where, Meta(description="what fires it")]
    options: Annotated[
        tuple[str, ...], Meta(description="more options of the command batch, as a list of words")
    ] = ()
    deadline: Annotated[
        Minutes, Meta(description="minutes after which what fired a tick stops it")
    ] = 60.0
    grace: Annotated[
        Minutes,
        Meta(
            description="minutes that a tick may start late; it is overdue if it has no record "
            "`grace` and `deadline` after its planned time"
        ),
    ] = 30.0
    retries: Annotated[
        Annotated[int, Meta(ge=0, le=10)],
        Meta(description="how often a tick that did not end is fired again; not on GitHub"),
    ] = 2
    folder: Annotated[
        Absolute | None,
        Meta(description="the project's checkout on Airflow's workers, or in the pod's image"),
    ] = None
    program: Annotated[
        Absolute | None,
        Meta(
            description="mlship on Airflow's workers, in an environment of its own: "
            "/opt/mlship/bin/mlship; in a pod by default that of the image's PATH"
        ),
    ] = None
    pod: Annotated[
        PodConfig | None,
        Meta(description="for `kubernetes`, and for Airflow if a tick runs in a pod"),
    ] = None


Schedules = Annotated[
    dict[Name, ScheduleConfig],
    Meta(description="what runs again and again, by name: see the guide on schedules"),
]


def check(schedules: Mapping[str, ScheduleConfig], project: str) -> None:
    """Refuse schedules that never come, or that cannot run where they should.

    Args:
        schedules: by name.
        project: the name of the project.

    Raises:
        ConfigError: there are such.
    """
    for name, schedule in schedules.items():
        _check_times(name, schedule)
        _check_place(name, schedule)
        if schedule.options and schedule.run != "batch":
            message = f"mlship.yaml: schedules.{name}.options is for `run: batch`"
            raise ConfigError(message, hint="remove it: settings of mlship.yaml apply to the tick")
        if schedule.where == "kubernetes" and len(f"{project}-{name}") > _LONGEST_NAME:
            message = f"mlship.yaml: schedules.{name}: {project}-{name} is too long for a CronJob"
            raise ConfigError(message, hint=f"{_LONGEST_NAME} characters at most: shorten the name")


def _check_times(name: str, schedule: ScheduleConfig) -> None:
    key = f"mlship.yaml: schedules.{name}.cron: {schedule.cron!r}"
    if reason := cron.fault(schedule.cron):
        raise ConfigError(f"{key}: {reason}", hint=cron.FIELDS)
    if cron.restricts_both_days(schedule.cron):
        message = f"{key} restricts days of the month and of the week, which schedulers join by "
        message += "`or`, and people read as `and`"
        raise ConfigError(message, hint="set one of them to *, or write two schedules")
    shortest = cron.shortest_minutes(schedule.cron)
    if schedule.where == "github" and shortest < _SHORTEST:
        message = f"{key} comes every {shortest} minutes, and GitHub starts a workflow every "
        raise ConfigError(f"{message}{_SHORTEST} at most", hint="set it to */5 * * * * or rarer")


def _check_place(name: str, schedule: ScheduleConfig) -> None:
    key = f"mlship.yaml: schedules.{name}"
    if schedule.where == "github" and schedule.run == "pipeline":
        message = f"{key}: a job that runs the project's code has no credentials of production on "
        message += "GitHub, so that `run: pipeline` cannot run there"
        hint = "set `run: retrain`, or `where: airflow` or `kubernetes`"
        raise ConfigError(message, hint=hint)
    parts = {"folder": schedule.folder, "program": schedule.program, "pod": schedule.pod}
    for part in _needed(schedule):
        if parts[part] is None:
            message = f"{key}: `where: {schedule.where}` needs `{part}`"
            raise ConfigError(message, hint=_NEEDED[part])
    for part, value in parts.items():
        if schedule.where == "github" and value is not None:
            message = f"{key}.{part} is not used with `where: github`"
            raise ConfigError(message, hint="remove it")


def _needed(schedule: ScheduleConfig) -> tuple[str, ...]:
    match schedule.where:
        case "github":
            return ()
        case "kubernetes":
            return ("folder", "pod")
        case "airflow":
            return ("folder",) if schedule.pod else ("folder", "program")


_NEEDED: Final = {
    "folder": "set it to the absolute path of the project's checkout: /srv/iris",
    "program": "set it to mlship in an environment of its own, such as /opt/mlship/bin/mlship, or "
    "set `pod`",
    "pod": "set `pod: {image: registry/iris-jobs@sha256:..., namespace: ml-jobs}`",
}
