"""Ticks of schedules: run the commands of one once, and tell which are overdue."""

import shlex
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from mlship.config import cron
from mlship.config.schedules import ScheduleConfig, Where
from mlship.domain import shapes
from mlship.domain.evidence import Record, Step, Verdict
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.ticks import COMMANDS, Command, Commands, Ran, Run, Ticked
from mlship.errors import (
    ConfigError,
    ConflictError,
    MlshipError,
    NotFoundError,
    TimedOutError,
    UnavailableError,
)
from mlship.steps.pipeline import Pipeline

STEP: Final[Step] = "tick"

_SETTINGS: Final = "mlship.yaml"

_RETRIED: Final[dict[int, type[MlshipError]]] = {
    error.exit_code: error for error in (UnavailableError, TimedOutError, ConflictError)
}
"""Errors after which the same command may succeed."""
_OF_SIGNALS: Final = 128
_MOST_MISSED: Final = 10
"""How many ticks that were missed get a record: a schedule may have been off for years."""


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """A tick that ran, or that ran before.

    Attributes:
        is_new: whether it ran now; otherwise its record was there.
    """

    schedule: str
    planned: datetime
    record: Record
    is_new: bool


class Scheduled(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule and its ticks.

    Attributes:
        last: the planned time of the last tick with a record; `verdict` is that of the record.
        next: the next planned time.
        overdue: the planned time of a tick that should have a record by now; else `None`.
    """

    name: str
    run: Run
    cron: str
    where: Where
    last: datetime | None
    verdict: Verdict | None
    next: datetime
    overdue: datetime | None = None

    @property
    def alarm(self) -> str:
        """What is wrong with the schedule, and the next action; empty if nothing is."""
        subject = f"schedule {self.name}: the tick of "
        if self.overdue is not None:
            before = f"the last one was that of {shown(self.last)}" if self.last else "none ran yet"
            fires = f"find out why {_FIRES[self.where]} did not run it"
            run = f"`mlship schedules run {self.name}` runs it"
            return f"{subject}{shown(self.overdue)} is overdue ({before}): {fires}; {run}"
        if self.last is not None and self.verdict == "failed":
            see = "see its log, and correct what failed before the next one"
            return f"{subject}{shown(self.last)} failed: {see}, at {shown(self.next)}"
        return ""


_FIRES: Final[dict[Where, str]] = {
    "airflow": "Airflow",
    "kubernetes": "its CronJob",
    "github": "its workflow",
}


class _Ended(NamedTuple):
    """How the commands of a tick ended."""

    commands: tuple[Ran, ...]
    verdict: Verdict


def shown(moment: datetime) -> str:
    """Return a planned time for people."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def recorded(records: Iterable[Record], schedule: str) -> dict[datetime, Record]:
    """Return the record of each tick of a schedule: the first one, if a race left two."""
    ticks: dict[datetime, Record] = {}
    for record in records:
        if record.evidence.step == STEP:
            facts = shapes.of(record, Ticked)
            if facts.schedule == schedule and facts.planned is not None:
                ticks.setdefault(facts.planned, record)
    return ticks


def scheduled(pipeline: Pipeline, records: Records) -> tuple[Scheduled, ...]:
    """Return the schedules of a project with their last and next ticks."""
    now = pipeline.clock().astimezone(UTC)
    return tuple(
        _state(pipeline, name, schedule, recorded(records, name), now)
        for name, schedule in sorted(pipeline.config.schedules.items())
    )


def _state(
    pipeline: Pipeline,
    name: str,
    schedule: ScheduleConfig,
    ticks: dict[datetime, Record],
    now: datetime,
) -> Scheduled:
    due = cron.last(
        schedule.cron,
        now - timedelta(minutes=schedule.grace) - timedelta(minutes=schedule.deadline),
    )
    last = max(ticks, default=None)
    # Of a schedule that never ran, it is known only that it is not newer than its settings.
    since = last or pipeline.source.changed(_SETTINGS)
    return Scheduled(
        name=name,
        run=schedule.run,
        cron=schedule.cron,
        where=schedule.where,
        last=last,
        verdict=ticks[last].evidence.verdict if last else None,
        next=cron.following(schedule.cron, now),
        overdue=due if since is None or since < due else None,
    )


def tick(
    pipeline: Pipeline,
    name: str,
    run: Commands,
    at: datetime | None = None,
    timer: Callable[[], float] = time.monotonic,
) -> Tick:
    """Run the commands of a schedule's tick, unless it has a record already.

    A tick that was killed has none, and the next call runs its commands again: each goes on where
    it was. Ticks between the last record and this one are recorded as missed, and not run.

    Args:
        pipeline: the project.
        name: of the schedule.
        run: runs commands of mlship.
        at: the tick is the last one planned until this time; by default until now.
        timer: returns seconds.

    Raises:
        NotFoundError: there is no such schedule; or the project has no release, so that nothing
            can be recorded.
        ConfigError: `at` is in the future.
        UnavailableError, TimedOutError: a command ended so; there is no record.
        ConflictError: a command ended so, or another process runs a tick of the schedule.
    """
    schedule = pipeline.config.schedules.get(name)
    if schedule is None:
        names = ", ".join(sorted(pipeline.config.schedules)) or "none: add one to `schedules`"
        raise NotFoundError(
            f"mlship.yaml has no schedule {name[:60]!r}", hint=f"its schedules are {names}"
        )
    pipeline.check_may(STEP)
    now = pipeline.clock().astimezone(UTC)
    if at is not None and at > now:
        message = f"--at {at.isoformat()} is in the future: it is {shown(now)} now"
        raise ConfigError(message, hint="give the planned time of the tick that was fired")
    planned = cron.last(schedule.cron, (at or now).astimezone(UTC))
    with pipeline.locks.exclusive(f"schedule-{name}"):
        if done := recorded(pipeline.read(), name).get(planned):
            return Tick(schedule=name, planned=planned, record=done, is_new=False)
        pipeline.progress.note(f"schedule {name}: tick of {shown(planned)}")
        begun = timer()
        ended = _run(name, schedule, run, timer)
        records = pipeline.read()
        # On another machine, somebody may have fired it too.
        if done := recorded(records, name).get(planned):
            return Tick(schedule=name, planned=planned, record=done, is_new=False)
        subject = _subject(pipeline, schedule.run, records)
        missed = _missed(schedule.cron, recorded(records, name), planned)
        records = _record_missed(pipeline, name, missed[-_MOST_MISSED:], subject, records)
        facts = Ticked(
            schedule=name,
            planned=planned,
            started=now,
            commands=ended.commands,
            missed=len(missed),
            seconds=round(timer() - begun, 3),
        )
        record = pipeline.learn(subject, STEP, ended.verdict, facts, after=records)
    return Tick(schedule=name, planned=planned, record=record, is_new=True)


def _run(name: str, schedule: ScheduleConfig, run: Commands, timer: Callable[[], float]) -> _Ended:
    """Run the commands of a schedule up to the first that fails.

    Raises:
        UnavailableError, TimedOutError, ConflictError: one ended so, and may be retried.
    """
    ran: list[Ran] = []
    for command in COMMANDS[schedule.run]:
        argv = (*command.argv, *schedule.options)
        begun = timer()
        code = run(argv)
        text = shlex.join(["mlship", *argv])
        _check_ended(name, text, code)
        ran.append(Ran(command=text, exit_code=code, seconds=round(timer() - begun, 3)))
        if not _is_well(command, code):
            return _Ended(tuple(ran), "failed")
    return _Ended(tuple(ran), "passed")


def _is_well(command: Command, code: int) -> bool:
    return code == 0 or code in command.idle


def _check_ended(name: str, command: str, code: int) -> None:
    is_stopped = code < 0 or code > _OF_SIGNALS
    if code not in _RETRIED and not is_stopped:
        return
    how = f"was stopped by signal {-code if code < 0 else code - _OF_SIGNALS}"
    how = how if is_stopped else f"ended with exit code {code}"
    message = f"schedule {name}: `{command}` {how}; its tick is not recorded"
    raise _RETRIED.get(code, UnavailableError)(
        message, hint="fire the tick again: it goes on where it was"
    )


def _subject(pipeline: Pipeline, run: Run, records: Records) -> Release:
    """Return the release that a tick is about: that which its commands made or used.

    Raises:
        NotFoundError: the project has no release.
    """
    roles = records.history
    player: Release | None = None
    match run:
        case "retrain" | "pipeline":
            try:
                player = pipeline.release(None, records)
            except NotFoundError:
                pipeline.progress.note("nothing was trained; the last release has the record")
        case "evaluate":
            player = roles.challenger or roles.champion
        case "batch":
            player = roles.champion
    player = player or next(reversed(records.releases), None)
    if player is None:
        message = "the project has no release, so that no tick can be recorded"
        raise NotFoundError(message, hint="run `mlship train` first; errors are shown above")
    return player


def _missed(schedule: str, ticks: dict[datetime, Record], planned: datetime) -> list[datetime]:
    """Return the planned times between the last recorded tick and this one."""
    before = max((each for each in ticks if each < planned), default=None)
    missed: list[datetime] = []
    while before is not None and (before := cron.following(schedule, before)) < planned:
        missed.append(before)
    return missed


def _record_missed(
    pipeline: Pipeline, name: str, missed: Iterable[datetime], subject: Release, records: Records
) -> Records:
    for planned in missed:
        facts = Ticked(schedule=name, planned=planned, outcome="missed")
        records = records.plus(pipeline.learn(subject, STEP, "undecided", facts, after=records))
    return records
