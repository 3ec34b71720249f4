"""Schedules: settings, planned times, and ticks that leave one record however often they fire."""

import dataclasses
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlship.cli.schedules import _moment
from mlship.config import cron
from mlship.config.layers import from_yaml, resolve
from mlship.config.schedules import ScheduleConfig
from mlship.domain import shapes
from mlship.domain.evidence import Record
from mlship.domain.public_keys import key_id
from mlship.domain.ticks import Ticked
from mlship.domain.trust import Signer, Trust, check_may
from mlship.errors import (
    ConfigError,
    ConflictError,
    MlshipError,
    NotFoundError,
    TimedOutError,
    UnavailableError,
)
from mlship.reports.summary import summary
from mlship.steps.status import status
from mlship.steps.tick import Scheduled, Tick, scheduled, tick
from mlship.steps.train import train
from tests.fakes.ports import CONFIG, World, world
from tests.harness.kills import Killed

LEAST = """
name: iris
data: {train: data/train.csv, test: data/test.csv}
model: {train: "pipeline:train"}
"""
MONDAY = datetime(2026, 11, 23, 3, tzinfo=UTC)
WEEK = timedelta(days=7)
RETRAIN = ScheduleConfig(run="retrain", cron="0 3 * * 1", where="github")
EVALUATE = ScheduleConfig(run="evaluate", cron="0 3 * * 1", where="github")
AIRFLOW = "where: airflow, folder: /srv/iris, program: /opt/mlship/bin/mlship"
POD = "pod: {image: registry/jobs, namespace: ml}"


def read(schedules: str) -> dict[str, ScheduleConfig]:
    return resolve([from_yaml(f"{LEAST}schedules: {schedules}", "mlship.yaml")]).config.schedules


def complaint(schedules: str) -> tuple[str, str]:
    with pytest.raises(ConfigError) as caught:
        read(schedules)
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize(
    ("schedule", "says", "explains"),
    [
        ("run: sleep, cron: 0 3 * * 1, where: github", "schedules.a.run", "retrain"),
        ("run: retrain, cron: 0 3 * *, where: github", "cron", "five fields"),
        ("run: retrain, cron: '\u0663 3 * * *', where: github", "cron", "five fields"),
        ("run: retrain, cron: 0 24 * * *, where: github", "hour 24", "minute, hour"),
        (
            "run: retrain, cron: '*/90 * * * *', where: github",
            "minute */90 has a step beyond its end: it comes at 0 only",
            "minute, hour",
        ),
        ("run: retrain, cron: '0 3 1,10-12/3 * *', where: github", "10-12/3 has a step", "day"),
        ("run: retrain, cron: 0 3 31 2 *, where: github", "no month 2 has a day 31", "minute"),
        ("run: retrain, cron: 0 3 1 * 1, where: github", "people read as `and`", "two schedules"),
        ("run: retrain, cron: '*/3 * * * *', where: github", "every 3 minutes", "*/5"),
        ("run: retrain, cron: '59,2 * * * *', where: github", "every 3 minutes", "*/5"),
        ("run: pipeline, cron: 0 3 * * 1, where: github", "no credentials", "run: retrain"),
        (
            "run: retrain, cron: 0 3 * * 1, where: github, folder: /a",
            "folder is not used",
            "remove",
        ),
        ("run: retrain, cron: 0 3 * * 1, where: airflow", "needs `folder`", "/srv/iris"),
        ("run: retrain, cron: 0 3 * * 1, where: airflow, folder: /a", "needs `program`", "pod"),
        (f"run: retrain, cron: 0 3 * * 1, where: kubernetes, {POD}", "needs `folder`", "/srv"),
        ("run: retrain, cron: 0 3 * * 1, where: kubernetes, folder: /a", "needs `pod`", "image"),
        (f"run: retrain, cron: 0 3 * * 1, {AIRFLOW}, options: [--x]", "`run: batch`", "remove"),
        ("run: retrain, cron: 0 3 * * 1, where: moon", "schedules.a.where", "airflow"),
        ("run: retrain, cron: 0 3 * * 1, where: github, color: red", "unknown key", ""),
    ],
)
def test_a_schedule_that_cannot_run_is_refused(schedule: str, says: str, explains: str) -> None:
    message, hint = complaint(f"{{a: {{{schedule}}}}}")
    assert says in message
    assert explains in hint


def test_two_schedules_of_one_name_are_refused() -> None:
    message, _ = complaint("{a: {run: retrain}, a: {run: batch}}")
    assert "duplicate key 'a'" in message


def test_a_name_too_long_for_a_cron_job_is_refused() -> None:
    one = f"{{run: retrain, cron: 0 3 * * 1, where: kubernetes, folder: /a, {POD}}}"
    project, name = "i" * 40, "n" * 12
    text = LEAST.replace("iris", project) + f"schedules: {{{name}: {one}}}"
    with pytest.raises(ConfigError, match="too long for a CronJob"):
        resolve([from_yaml(text, "mlship.yaml")])


def test_schedules_of_all_places_are_read() -> None:
    schedules = read(
        f"{{a: {{run: retrain, cron: 0 3 * * 1, where: github}}, "
        f"b: {{run: batch, cron: 5 * * * *, {AIRFLOW}, options: [--output, scores]}}, "
        f"c: {{run: evaluate, cron: 0 0 1 * *, where: kubernetes, folder: /a, {POD}}}}}"
    )
    assert list(schedules) == ["a", "b", "c"]
    assert schedules["b"].options == ("--output", "scores")


@pytest.mark.parametrize(
    ("schedule", "at", "last", "following"),
    [
        ("0 3 * * 1", "2026-11-23T03:00", "2026-11-23T03:00", "2026-11-30T03:00"),
        ("0 3 * * 1", "2026-11-23T02:59", "2026-11-16T03:00", "2026-11-23T03:00"),
        ("*/15 * * * *", "2026-11-23T03:07", "2026-11-23T03:00", "2026-11-23T03:15"),
        ("0 0 29 2 *", "2026-11-23T03:07", "2024-02-29T00:00", "2028-02-29T00:00"),
        ("0 0 29 2 *", "2103-01-01T00:00", "2096-02-29T00:00", "2104-02-29T00:00"),
        ("30 23 31 12 *", "2027-01-01T00:00", "2026-12-31T23:30", "2027-12-31T23:30"),
        ("0 12 * * 0", "2026-11-27T00:00", "2026-11-22T12:00", "2026-11-29T12:00"),
        ("0 0 1 * 1", "2026-11-27T00:00", "2026-11-23T00:00", "2026-11-30T00:00"),
    ],
)
def test_planned_times(schedule: str, at: str, last: str, following: str) -> None:
    moment, before, after = (
        datetime.fromisoformat(each).replace(tzinfo=UTC) for each in (at, last, following)
    )
    assert cron.last(schedule, moment) == before
    assert cron.following(schedule, moment) == after


FIELD = st.sampled_from(["*", "*/2", "0", "1-3", "1,5"])


@given(st.tuples(FIELD, FIELD, FIELD.filter(lambda f: f != "0"), FIELD, FIELD), st.datetimes())
def test_last_and_following_are_neighbours(fields: tuple[str, ...], at: datetime) -> None:
    at = at.replace(year=2000 + at.year % 90, tzinfo=UTC)
    schedule = " ".join(fields).replace(" 0 ", " 1 ")
    if cron.fault(schedule):
        return
    before, after = cron.last(schedule, at), cron.following(schedule, at)
    assert before <= at < after
    assert cron.following(schedule, before) == after
    assert cron.last(schedule, after - timedelta(seconds=1)) == before


class FakeCommands:
    """Commands of mlship that run a function, or end with an exit code."""

    def __init__(self, here: World) -> None:
        self._here = here
        self.ran: list[str] = []
        self.codes: dict[str, int] = {}
        self.killed = ""
        self.meanwhile: Callable[[], Any] = lambda: None

    def __call__(self, argv: Sequence[str]) -> int:
        self.ran.append(" ".join(argv))
        name = argv[0]
        if name == self.killed:
            raise Killed
        if name == "train" and not self.codes.get(name):
            train(self._here.pipeline)
        self.meanwhile()
        return self.codes.get(name, 0)


@pytest.fixture
def here(tmp_path: Path) -> World:
    made = world(tmp_path, msgspec.structs.replace(CONFIG, schedules={"weekly": RETRAIN}))
    made.clock.now = MONDAY + timedelta(minutes=5)
    return made


@pytest.fixture
def commands(here: World) -> FakeCommands:
    return FakeCommands(here)


def ticks(here: World) -> list[Record]:
    return [record for record in here.ledger.records() if record.evidence.step == "tick"]


def facts(record: Record) -> Ticked:
    return shapes.of(record, Ticked)


def test_a_tick_runs_its_commands_and_is_recorded_for_what_they_made(
    here: World, commands: FakeCommands
) -> None:
    result = tick(here.pipeline, "weekly", commands)
    assert commands.ran == ["train", "test"]
    (record,) = ticks(here)
    assert result == Tick(schedule="weekly", planned=MONDAY, record=record, is_new=True)
    assert record.evidence.release == here.pipeline.release()
    assert record.evidence.verdict == "passed"
    said = facts(record)
    assert (said.planned, said.outcome, said.missed) == (MONDAY, "ran", 0)
    assert said.started is not None
    assert said.started > MONDAY
    assert [each.command for each in said.commands] == ["mlship train", "mlship test"]
    assert "weekly, 2026-11-23 03:00 UTC: mlship train, mlship test" in summary(record)


@pytest.mark.parametrize("at", [None, MONDAY, MONDAY + timedelta(minutes=2)])
def test_a_tick_that_fires_three_times_has_one_record(
    here: World, commands: FakeCommands, at: datetime | None
) -> None:
    results = [tick(here.pipeline, "weekly", commands, at) for _ in range(3)]
    assert [each.is_new for each in results] == [True, False, False]
    assert len({each.record.digest for each in results}) == len(ticks(here)) == 1
    assert commands.ran == ["train", "test"]


def test_a_tick_that_fires_while_it_runs_is_refused(here: World, commands: FakeCommands) -> None:
    other = FakeCommands(here)

    def again() -> None:
        with pytest.raises(ConflictError, match="schedule-weekly"):
            tick(here.pipeline, "weekly", other)

    commands.meanwhile = again
    tick(here.pipeline, "weekly", commands)
    assert other.ran == []
    assert len(ticks(here)) == 1


def test_a_tick_that_ran_on_another_machine_meanwhile_is_not_recorded_twice(
    here: World, commands: FakeCommands
) -> None:
    other = FakeCommands(here)

    def elsewhere() -> None:
        commands.meanwhile = lambda: None
        here.locks.held.clear()
        tick(here.pipeline, "weekly", other)
        here.locks.held.add("schedule-weekly")

    commands.meanwhile = elsewhere
    assert not tick(here.pipeline, "weekly", commands).is_new
    assert len(ticks(here)) == 1


@pytest.mark.parametrize("killed", ["train", "test"])
def test_a_tick_that_was_killed_goes_on(here: World, commands: FakeCommands, killed: str) -> None:
    commands.killed = killed
    with pytest.raises(Killed):
        tick(here.pipeline, "weekly", commands)
    assert ticks(here) == []
    commands.killed = ""
    assert tick(here.pipeline, "weekly", commands).is_new
    assert len(ticks(here)) == 1
    assert here.trainer.trainings == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (4, UnavailableError),
        (6, TimedOutError),
        (8, ConflictError),
        (-9, UnavailableError),
        (143, UnavailableError),
    ],
)
def test_a_fault_that_may_pass_is_an_error_without_a_record(
    here: World, commands: FakeCommands, code: int, kind: type[MlshipError]
) -> None:
    commands.codes["test"] = code
    with pytest.raises(kind, match="`mlship test`") as caught:
        tick(here.pipeline, "weekly", commands)
    assert "fire the tick again" in caught.value.hint
    assert ticks(here) == []
    commands.codes.clear()
    assert tick(here.pipeline, "weekly", commands).is_new


@pytest.mark.parametrize("code", [1, 2, 3, 5, 7])
def test_a_fault_that_stays_is_recorded_once(
    here: World, commands: FakeCommands, code: int
) -> None:
    commands.codes["test"] = code
    first = tick(here.pipeline, "weekly", commands)
    assert first.record.evidence.verdict == "failed"
    assert facts(first.record).commands[-1].exit_code == code
    assert f"mlship test ended with exit code {code}" in summary(first.record)
    assert not tick(here.pipeline, "weekly", commands).is_new
    (state,) = scheduled(here.pipeline, here.pipeline.read())
    assert "failed" in state.alarm


def test_a_tick_without_any_release_says_that_nothing_can_be_recorded(
    here: World, commands: FakeCommands
) -> None:
    commands.codes["train"] = 2
    with pytest.raises(NotFoundError, match="no release"):
        tick(here.pipeline, "weekly", commands)


def test_missed_ticks_are_recorded_and_only_the_last_is_run(
    here: World, commands: FakeCommands
) -> None:
    tick(here.pipeline, "weekly", commands)
    here.clock.now = MONDAY + 3 * WEEK + timedelta(hours=1)
    tick(here.pipeline, "weekly", commands)
    assert commands.ran == ["train", "test"] * 2
    said = [facts(each) for each in ticks(here)]
    assert [each.planned for each in said] == [MONDAY + week * WEEK for week in range(4)]
    assert [each.outcome for each in said] == ["ran", "missed", "missed", "ran"]
    assert [each.evidence.verdict for each in ticks(here)][1:3] == ["undecided"] * 2
    assert said[-1].missed == 2
    # One of them fires after all: it has its record.
    late = tick(here.pipeline, "weekly", commands, MONDAY + WEEK)
    assert not late.is_new
    assert len(ticks(here)) == 4
    assert "nobody fired it" in summary(late.record)


def test_after_years_only_the_last_missed_ticks_have_records(
    here: World, commands: FakeCommands
) -> None:
    tick(here.pipeline, "weekly", commands)
    here.clock.now = MONDAY + 100 * WEEK
    tick(here.pipeline, "weekly", commands)
    assert len(ticks(here)) == 1 + 10 + 1
    assert facts(ticks(here)[-1]).missed == 99


def test_a_tick_of_evaluate_without_a_challenger_is_no_fault(
    here: World, commands: FakeCommands
) -> None:
    train(here.pipeline)
    config = msgspec.structs.replace(here.pipeline.config, schedules={"daily": EVALUATE})
    pipeline = dataclasses.replace(here.pipeline, config=config)
    commands.codes["evaluate"] = 5
    assert tick(pipeline, "daily", commands).record.evidence.verdict == "passed"


def test_a_tick_of_batch_scores_with_the_champion(here: World, commands: FakeCommands) -> None:
    train(here.pipeline)
    batch = ScheduleConfig(
        run="batch", cron="0 3 * * 1", where="github", options=("--output", "scores")
    )
    config = msgspec.structs.replace(here.pipeline.config, schedules={"nightly": batch})
    result = tick(dataclasses.replace(here.pipeline, config=config), "nightly", commands)
    assert commands.ran == ["batch champion --output scores"]
    assert result.record.evidence.release in here.pipeline.read().releases


def test_an_unknown_schedule_and_a_tick_of_the_future_are_refused(
    here: World, commands: FakeCommands
) -> None:
    with pytest.raises(NotFoundError, match="no schedule 'weekli'") as caught:
        tick(here.pipeline, "weekli", commands)
    assert "weekly" in caught.value.hint
    with pytest.raises(ConfigError, match="in the future"):
        tick(here.pipeline, "weekly", commands, MONDAY + WEEK)
    assert commands.ran == []


def state_of(here: World) -> Scheduled:
    (state,) = status(here.pipeline).schedules
    return state


def test_status_names_a_tick_that_is_overdue(here: World, commands: FakeCommands) -> None:
    tick(here.pipeline, "weekly", commands)
    assert state_of(here).overdue is None
    assert state_of(here).last == MONDAY
    assert state_of(here).next == MONDAY + WEEK
    # It may start 30 minutes late and run for 60.
    here.clock.now = MONDAY + WEEK + timedelta(minutes=89)
    assert state_of(here).overdue is None
    here.clock.now = MONDAY + WEEK + timedelta(minutes=91)
    state = state_of(here)
    assert state.overdue == MONDAY + WEEK
    assert "the tick of 2026-11-30 03:00 UTC is overdue" in state.alarm
    assert "mlship schedules run weekly" in state.alarm
    tick(here.pipeline, "weekly", commands)
    assert state_of(here).alarm == ""


def test_a_schedule_that_never_ran_is_overdue(here: World) -> None:
    state = state_of(here)
    assert state.overdue == MONDAY - WEEK
    assert "none ran yet" in state.alarm
    here.source.changes["mlship.yaml"] = MONDAY - WEEK + timedelta(hours=1)
    assert state_of(here).overdue is None
    here.clock.now = MONDAY + timedelta(hours=2)
    assert state_of(here).overdue == MONDAY


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-23T03:00:00+00:00", MONDAY),
        ("2026-11-23T03:00:00Z", MONDAY),
        ("2026-11-23 04:00+01:00", MONDAY),
        ("iris-weekly-29923380", MONDAY),
        ("", None),
        ("None", None),
    ],
)
def test_the_planned_time_as_schedulers_give_it(text: str, moment: datetime | None) -> None:
    assert _moment(text) == moment


def test_an_hour_that_clocks_show_twice_has_two_ticks_and_one_that_they_skip_has_none() -> None:
    # In Berlin, 02:30 comes twice on 25 October 2026, and never on 29 March.
    first, second = _moment("2026-10-25T02:30+02:00"), _moment("2026-10-25T02:30+01:00")
    assert first is not None
    assert second is not None
    hourly = [cron.last("0 * * * *", each.astimezone(UTC)) for each in (first, second)]
    assert [f"{each:%H:%M}" for each in hourly] == ["00:00", "01:00"]
    skipped = [_moment(f"2026-03-29T02:30+0{offset}:00") for offset in (1, 2)]
    assert skipped == [_moment("2026-03-29T03:30+02:00"), _moment("2026-03-29T01:30+01:00")]


@pytest.mark.parametrize(
    "text",
    ["yesterday", "2026-03-29T02:30", "2026-11-23T03:00:00", "iris-weekly-1", "0001-01-01T00:00Z"],
)
def test_a_planned_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--at"):
        _moment(text)


@pytest.mark.parametrize("scope", ["build", "staging", "production", "approve"])
def test_whoever_may_sign_anything_may_sign_a_tick(scope: Any) -> None:
    key = "ed25519:" + "A" * 43 + "="
    trust = Trust(signers=(Signer(name="job", key=key, may=frozenset({scope})),), unsigned=False)
    check_may(["tick"], key_id(key), trust, MONDAY)
