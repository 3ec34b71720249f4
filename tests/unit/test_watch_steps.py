"""watch on fakes: who is taken off, what is recorded, and what is not known."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest
from typer.testing import CliRunner

from mlship.cli.main import app
from mlship.cli.session import Session
from mlship.config.project import TargetConfig
from mlship.domain import shapes
from mlship.domain.counts import Counts, Look, Tally
from mlship.domain.deployment import Artifact, Deployment, Revision, Slot, Split, slot_of
from mlship.domain.evidence import Evidence, Record
from mlship.domain.facts import Verified
from mlship.domain.policy import ChallengerBounds, PromotePolicy
from mlship.domain.ports import Target
from mlship.domain.release import Release
from mlship.domain.watch import Watched
from mlship.errors import (
    ConfigError,
    ConflictError,
    MlshipError,
    NotFoundError,
    RefusedError,
    TimedOutError,
    UnavailableError,
)
from mlship.reports import markdown
from mlship.reports.report import collect
from mlship.steps import drift
from mlship.steps import test as testing
from mlship.steps.approve import approve
from mlship.steps.deploy import deploy_production, deploy_staging
from mlship.steps.drift import recorded_split
from mlship.steps.pipeline import Pipeline
from mlship.steps.promote import promote
from mlship.steps.status import status
from mlship.steps.traffic import traffic
from mlship.steps.train import train
from mlship.steps.watch import Watch, watch
from tests.fakes.ports import CONFIG, World, world
from tests.fakes.target import FakeTarget


class Counting(FakeTarget):
    """A target that gets requests at each look, and answers them as told."""

    def __init__(self) -> None:
        super().__init__()
        self.router = 1
        self.failing: dict[Slot, float] = {}
        self.milliseconds: dict[Slot, float] = {}
        self.is_silent = False
        self.is_unready = False
        self.per_look = 100
        self._counts: dict[Slot, Tally] = {}

    def counts(self) -> Look:
        for slot, weight in self.routes().split.weights.items():
            requests = self.per_look * weight // 10
            failed = int(requests * self.failing.get(slot, 0))
            before = self._counts.get(slot, Tally())
            self._counts[slot] = Tally(
                answered=before.answered + requests - failed, failed=before.failed + failed
            )
        if self.is_silent:
            raise UnavailableError("the router does not say what it has counted")
        if self.is_unready:
            return {"another router": {}}
        by_slot = {
            slot: Counts(
                own={"a": tally},
                times={self.milliseconds.get(slot, 5.0): tally.answered + tally.failed},
            )
            for slot, tally in self._counts.items()
        }
        return {f"router {self.router}": by_slot}

    def start_again(self) -> None:
        self.router += 1
        self._counts = {}


class Duel:
    """A champion, a challenger with 10 % of the traffic, and the world around them."""

    def __init__(self, here: World) -> None:
        self.here = here
        self.target = Counting()
        here.targets["production"] = self.target
        self.champion, self.challenger = self._made("C=1"), self._made("C=2")
        deploy_production(here.pipeline, self.champion)
        deploy_production(here.pipeline, self.challenger)
        self.pauses: list[float] = []
        self.during: dict[int, Callable[[], object]] = {}
        self.passed = 0.0

    def _made(self, params: str) -> Release:
        here = self.here
        here.trainer.params = params
        release = train(here.pipeline).evidence.release
        testing.test(here.pipeline, release)
        deploy_staging(here.pipeline, release)
        here.pipeline.learn(release, "verify-staging-workload", "passed", Verified())
        return release

    def watch(self, seconds: float | None = 120, every: float = 10) -> Watch:
        return watch(
            self.here.pipeline, every=every, seconds=seconds, pause=self.pause, timer=self.timer
        )

    def timer(self) -> float:
        return self.passed

    def pause(self, seconds: float) -> None:
        """Let the time pass; do what a test wants before a look."""
        self.pauses.append(seconds)
        self.passed += seconds
        self.here.clock.now += timedelta(seconds=seconds)
        self.during.get(len(self.pauses), lambda: None)()

    def fail(self, release: Release, share: float) -> None:
        self.target.failing[slot_of(release)] = share

    def records(self, step: str) -> list[Record]:
        return [each for each in self.here.pipeline.read() if each.evidence.step == step]

    @property
    def weights(self) -> Mapping[Slot, int]:
        return self.target.routes().split.weights


@pytest.fixture
def duel(tmp_path: Path) -> Duel:
    policy = PromotePolicy(metric="none", approvals=1)
    gates = msgspec.structs.replace(CONFIG.gates, promote=policy)
    return Duel(world(tmp_path, msgspec.structs.replace(CONFIG, gates=gates)))


def test_a_challenger_that_fails_is_taken_off_and_the_reason_is_recorded(duel: Duel) -> None:
    duel.fail(duel.challenger, 0.3)
    result = duel.watch()
    assert result.verdict == "failed"
    assert duel.weights == {slot_of(duel.champion): 100}
    (record,) = duel.records("watch")
    assert result.record == record
    assert (record.evidence.release, record.evidence.verdict) == (duel.challenger, "failed")
    facts = shapes.of(record, Watched)
    assert (facts.champion, facts.share) == (str(duel.champion), 10)
    assert facts.bounds == ChallengerBounds()
    assert facts.challenger_side.failed == 0.3 * facts.challenger_side.requests
    assert duel.records("traffic")
    records = duel.here.pipeline.read()
    assert recorded_split(records) == duel.target.routes().split
    assert records.history.champion == duel.champion
    assert records.history.challenger == duel.challenger
    assert status(duel.here.pipeline).drift == ()


def test_the_report_shows_why(duel: Duel) -> None:
    duel.fail(duel.challenger, 0.3)
    reason = duel.watch().reason
    report = collect(duel.challenger, duel.here.pipeline.read())
    assert report.verdict == "failed"
    assert ("watch", (reason,)) in [(gate.name, gate.reasons) for gate in report.gates]
    text = markdown.render(report)
    assert "### On requests in production" in text
    assert "| this release | 200 | 60 | 0 |" in text


def test_a_challenger_that_does_well_keeps_its_traffic_and_nothing_is_recorded(duel: Duel) -> None:
    before = len(duel.here.pipeline.read())
    result = duel.watch(seconds=60)
    assert result.verdict == "passed"
    assert duel.weights[slot_of(duel.challenger)] == 10
    assert len(duel.here.pipeline.read()) == before


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_champion_that_fails_is_never_taken_off(duel: Duel, share: float) -> None:
    duel.fail(duel.champion, share)
    assert duel.watch(seconds=300).verdict == "passed"
    assert duel.weights == {slot_of(duel.champion): 90, slot_of(duel.challenger): 10}
    duel.fail(duel.challenger, 0.3)
    assert duel.watch(seconds=300).verdict == "passed"


def test_few_requests_decide_nothing(duel: Duel) -> None:
    duel.fail(duel.challenger, 1.0)
    duel.target.per_look = 10
    result = duel.watch(seconds=600)
    assert (result.verdict, result.record) == ("undecided", None)
    assert "too few requests" in result.reason
    assert duel.weights[slot_of(duel.challenger)] == 10


def test_a_router_that_is_started_again_takes_nobody_off(duel: Duel) -> None:
    duel.during = dict.fromkeys((3, 6, 9), duel.target.start_again)
    assert duel.watch(seconds=120).verdict == "passed"
    duel.fail(duel.challenger, 0.3)
    assert duel.watch(seconds=120).verdict == "failed"


def test_a_router_that_is_not_ready_at_a_look_is_counted_at_the_next(duel: Duel) -> None:
    duel.fail(duel.challenger, 0.3)
    hide = functools.partial(setattr, duel.target, "is_unready")
    duel.during = {look: functools.partial(hide, look % 2 == 1) for look in range(1, 13)}
    result = duel.watch(seconds=120)
    assert result.verdict == "failed"
    assert (len(duel.pauses), result.challenger_side.requests) == (4, 400)


def test_counts_that_are_lost_at_the_end_are_not_a_healthy_challenger(duel: Duel) -> None:
    duel.during = {8: lambda: setattr(duel.target, "is_silent", True)}
    with pytest.raises(UnavailableError, match=r"nothing is known .* does not say what it has"):
        duel.watch(seconds=120)
    assert duel.weights[slot_of(duel.challenger)] == 10
    assert "looking again" in duel.here.progress.notes[-1]


def test_counts_that_come_back_count(duel: Duel) -> None:
    duel.fail(duel.challenger, 0.3)
    duel.target.is_silent = True
    duel.during = {5: lambda: setattr(duel.target, "is_silent", False)}
    result = duel.watch(seconds=120)
    assert (result.verdict, result.missed) == ("failed", 5)


def test_nobody_is_watched_without_a_challenger_with_traffic(duel: Duel) -> None:
    traffic(duel.here.pipeline, {"challenger": 0})
    result = duel.watch(seconds=None)
    assert result.verdict == "undecided"
    assert result.reason == "production has no challenger with traffic"
    assert duel.pauses == []


def test_a_watch_without_an_end_ends_with_the_traffic_of_the_challenger(duel: Duel) -> None:
    duel.during = {30: lambda: traffic(duel.here.pipeline, {"challenger": 0})}
    assert duel.watch(seconds=None).reason == "production has no challenger with traffic"
    assert len(duel.pauses) == 30


def test_a_promotion_in_between_wins(duel: Duel) -> None:
    approve(duel.here.pipeline, duel.challenger, "grace@example.org")
    duel.fail(duel.challenger, 0.3)
    duel.during = {1: lambda: promote(duel.here.pipeline, duel.challenger)}
    result = duel.watch(seconds=None)
    assert result.record is None
    assert duel.weights == {slot_of(duel.challenger): 100}
    assert duel.records("watch") == []


def test_a_promotion_between_the_look_and_the_lock_wins(
    duel: Duel, monkeypatch: pytest.MonkeyPatch
) -> None:
    approve(duel.here.pipeline, duel.challenger, "grace@example.org")
    duel.fail(duel.challenger, 0.3)
    counts = duel.target.counts

    def promoting() -> Look:
        if len(duel.pauses) == 2 and not duel.records("promote"):
            promote(duel.here.pipeline, duel.challenger)
        return counts()

    monkeypatch.setattr(duel.target, "counts", promoting)
    result = duel.watch(seconds=None)
    assert result.reason == "production has no challenger with traffic"
    assert duel.records("promote")
    assert duel.records("watch") == []
    assert duel.weights == {slot_of(duel.challenger): 100}


def test_a_command_that_holds_the_lock_is_waited_for(duel: Duel) -> None:
    duel.fail(duel.challenger, 0.3)
    duel.here.locks.held.add("production")
    duel.during = {6: duel.here.locks.held.clear}
    assert duel.watch(seconds=120).verdict == "failed"
    assert len(duel.pauses) >= 6


def test_a_lock_that_is_held_to_the_end_is_an_error(duel: Duel) -> None:
    duel.fail(duel.challenger, 0.3)
    duel.here.locks.held.add("production")
    with pytest.raises(ConflictError, match="being changed by another command"):
        duel.watch(seconds=120)


def test_a_champion_without_a_replica_gets_no_more_traffic(duel: Duel) -> None:
    duel.fail(duel.challenger, 0.3)
    duel.target.kill(slot_of(duel.champion))
    with pytest.raises(UnavailableError, match="has no ready replica"):
        duel.watch(seconds=120)
    assert duel.weights[slot_of(duel.challenger)] == 10
    assert duel.records("watch") == []


@pytest.mark.parametrize("is_back", [True, False])
def test_a_champion_in_a_cluster_that_did_not_answer_at_once_is_asked_again(
    duel: Duel, monkeypatch: pytest.MonkeyPatch, is_back: bool
) -> None:
    """A look at all clusters asks each once, and setting the route for longer."""
    duel.fail(duel.challenger, 0.3)
    inspect = duel.target.inspect

    def unobserved() -> Mapping[Slot, Deployment]:
        return {
            slot: msgspec.structs.replace(each, ready=0, observed=False)
            for slot, each in inspect().items()
        }

    def unreachable(split: Split, *, expected: Revision) -> NoReturn:
        raise UnavailableError("cluster blue of production does not answer", hint="look again")

    monkeypatch.setattr(duel.target, "inspect", unobserved)
    if is_back:
        assert duel.watch(seconds=60).verdict == "failed"
        assert duel.weights == {slot_of(duel.champion): 100}
        return
    monkeypatch.setattr(duel.target, "route", unreachable)
    with pytest.raises(UnavailableError, match="cluster blue of production does not") as found:
        duel.watch(seconds=60)
    assert "no ready replica" not in found.value.message
    assert duel.weights[slot_of(duel.challenger)] == 10


def test_what_was_seen_is_kept_while_another_command_holds_the_lock(duel: Duel) -> None:
    """The requests end, so that a watch that began anew would have too few."""
    duel.fail(duel.challenger, 0.3)
    duel.here.locks.held.add("production")
    duel.during = {
        3: lambda: setattr(duel.target, "per_look", 0),
        5: duel.here.locks.held.clear,
    }
    result = duel.watch(seconds=120)
    assert (result.verdict, len(duel.pauses)) == ("failed", 5)
    assert result.challenger_side.requests == 200


def test_what_was_seen_is_kept_while_the_champion_is_not_ready(duel: Duel) -> None:
    duel.fail(duel.challenger, 0.3)
    slot = slot_of(duel.champion)
    deployment = duel.target.inspect()[slot]
    duel.target.kill(slot)

    def ready() -> None:
        duel.target.deploy(
            duel.champion,
            Artifact(kind="bundle", digest=deployment.artifact, location=""),
            slot,
            replicas=2,
        )

    duel.during = {3: lambda: setattr(duel.target, "per_look", 0), 5: ready}
    result = duel.watch(seconds=120)
    assert (result.verdict, result.missed, len(duel.pauses)) == ("failed", 0, 5)
    assert duel.weights == {slot: 100}


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [(NotFoundError, 4), (TimedOutError, 6)],
    ids=["not ready at the last moment", "not applied in time"],
)
def test_a_route_that_cannot_be_changed_is_tried_again_and_recorded_once(
    duel: Duel, monkeypatch: pytest.MonkeyPatch, error: type[MlshipError], exit_code: int
) -> None:
    duel.fail(duel.challenger, 0.3)

    def refusing(split: Split, *, expected: Revision) -> NoReturn:
        raise error("the route stays as it is", hint="look again")

    with monkeypatch.context() as patched:
        patched.setattr(duel.target, "route", refusing)
        with pytest.raises(MlshipError, match=r"is beyond a bound .* keeps its traffic") as found:
            duel.watch(seconds=60)
    assert found.value.exit_code == exit_code
    assert len(duel.records("watch")) == 1
    assert duel.watch(seconds=60).verdict == "failed"
    assert len(duel.records("watch")) == 1
    assert duel.weights == {slot_of(duel.champion): 100}


@pytest.mark.parametrize("seconds", [20, 60], ids=["at the last look", "before it"])
def test_a_route_that_is_written_and_not_confirmed_is_told_as_that(
    duel: Duel, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    duel.fail(duel.challenger, 0.3)
    route = duel.target.route

    def unconfirmed(split: Split, *, expected: Revision) -> NoReturn:
        route(split, expected=expected)
        raise UnavailableError("the router still answers by the former route", hint="look again")

    with monkeypatch.context() as patched:
        patched.setattr(duel.target, "route", unconfirmed)
        with pytest.raises(UnavailableError, match="written, not confirmed: the router") as found:
            duel.watch(seconds=seconds)
    assert "keeps its traffic" not in found.value.message
    assert duel.weights == {slot_of(duel.champion): 100}
    assert duel.watch(seconds=60).verdict == "failed"
    assert len(duel.records("watch")) == 1


def test_a_decision_that_was_not_carried_out_is_not_in_favour_of_a_champion_that_fails_now(
    duel: Duel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The champion was not ready at the last moment; then it is, and fails."""
    duel.fail(duel.challenger, 0.3)
    route, refused = duel.target.route, []

    def routing(split: Split, *, expected: Revision) -> Revision:
        if len(duel.pauses) < 4:
            refused.append(split)
            raise NotFoundError("no replica is ready", hint="look again")
        return route(split, expected=expected)

    monkeypatch.setattr(duel.target, "route", routing)
    duel.during = {4: lambda: duel.fail(duel.champion, 0.5)}
    result = duel.watch(seconds=50)
    assert len(refused) == 2
    assert result.verdict == "undecided"
    assert "keeps its traffic, because the champion loses more" in result.reason
    assert duel.weights[slot_of(duel.challenger)] == 10
    duel.fail(duel.champion, 0.0)
    assert duel.watch(seconds=300).verdict == "failed"
    assert len(duel.records("watch")) == 1


def test_a_failure_to_take_off_is_not_told_as_unknown_counts(duel: Duel) -> None:
    duel.fail(duel.challenger, 0.3)
    duel.here.locks.held.add("production")
    with pytest.raises(ConflictError, match="is beyond a bound") as found:
        duel.watch(seconds=120)
    assert "nothing is known" not in found.value.message
    assert "of the challenger's requests" in found.value.message


@pytest.mark.parametrize("share", [10, 40])
def test_a_split_that_is_set_between_the_look_and_the_lock_wins(
    duel: Duel, monkeypatch: pytest.MonkeyPatch, share: int
) -> None:
    """Also if it is the same one, set by a person who took the challenger off before."""
    duel.fail(duel.challenger, 0.3)
    counts = duel.target.counts

    def changing() -> Look:
        look = counts()
        if len(duel.pauses) == 2:
            traffic(duel.here.pipeline, {"challenger": 0})
            traffic(duel.here.pipeline, {"challenger": share}, override="a drill")
            duel.target.failing = {}
        return look

    monkeypatch.setattr(duel.target, "counts", changing)
    assert duel.watch(seconds=120).verdict == "passed"
    assert duel.weights[slot_of(duel.challenger)] == share
    assert duel.records("watch") == []


@pytest.mark.parametrize("is_other_killed", [False, True])
def test_of_two_watches_one_takes_the_challenger_off(
    duel: Duel, monkeypatch: pytest.MonkeyPatch, is_other_killed: bool
) -> None:
    duel.fail(duel.challenger, 0.3)
    counts = duel.target.counts
    others: list[str] = []

    def watching() -> Look:
        look = counts()
        if len(duel.pauses) == 2 and not others:
            others.append("began")
            with monkeypatch.context() as patched:
                if is_other_killed:
                    kill(patched, duel, "route", is_done=False)
                with suppress(KilledError):
                    others.append(duel.watch().verdict)
        return look

    monkeypatch.setattr(duel.target, "counts", watching)
    result = duel.watch(seconds=300)
    assert others == (["began"] if is_other_killed else ["began", "failed"])
    assert result.verdict == ("failed" if is_other_killed else "undecided")
    assert duel.weights == {slot_of(duel.champion): 100}
    assert len(duel.records("watch")) == 1
    assert status(duel.here.pipeline).drift == ()


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_is_set_changes_neither_the_window_nor_the_end(duel: Duel, hours: int) -> None:
    duel.fail(duel.challenger, 0.015)
    clock = duel.here.clock
    duel.during = {9: lambda: setattr(clock, "now", clock.now + timedelta(hours=hours))}
    result = duel.watch(seconds=300)
    assert (result.verdict, len(duel.pauses)) == ("passed", 30)
    assert result.challenger_side.requests == 600


class KilledError(Exception):
    """The process ends here."""


@pytest.mark.parametrize("step", ["watch", "route", "traffic"])
@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
def test_a_watch_that_is_killed_is_finished_by_the_next_one(
    duel: Duel, monkeypatch: pytest.MonkeyPatch, step: str, is_done: bool
) -> None:
    duel.fail(duel.challenger, 0.3)
    before = len(duel.records("traffic"))
    with monkeypatch.context() as patched:
        kill(patched, duel, step, is_done=is_done)
        with pytest.raises(KilledError):
            duel.watch()
    result = duel.watch()
    assert duel.weights == {slot_of(duel.champion): 100}
    assert len(duel.records("watch")) == 1
    assert len(duel.records("traffic")) == before + 1
    assert status(duel.here.pipeline).drift == ()
    if (step, is_done) != ("traffic", True):
        assert result.verdict == "failed"


def kill(patched: pytest.MonkeyPatch, duel: Duel, step: str, *, is_done: bool) -> None:
    """Let the process end before or after it wrote a record, or the route."""
    append, route = duel.here.ledger.append, duel.target.route

    def appending(evidence: Evidence, **options: Any) -> Record:
        if evidence.step != step:
            return append(evidence, **options)
        if is_done:
            append(evidence, **options)
        raise KilledError

    def routing(split: Split, *, expected: Revision) -> NoReturn:
        if is_done:
            route(split, expected=expected)
        raise KilledError

    if step == "route":
        patched.setattr(duel.target, "route", routing)
    else:
        patched.setattr(duel.here.ledger, "append", appending)


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
def test_a_watch_that_is_killed_at_the_route_leaves_no_drift(
    duel: Duel, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    duel.fail(duel.challenger, 0.3)
    with monkeypatch.context() as patched:
        kill(patched, duel, "route", is_done=is_done)
        with pytest.raises(KilledError):
            duel.watch()
    pipeline, weights = duel.here.pipeline, duel.weights
    assert status(pipeline).drift == ()
    assert drift.find(pipeline, pipeline.read()).lines == ()
    drift.restore_split(pipeline, pipeline.read())
    assert duel.weights == weights
    champion, challenger = slot_of(duel.champion), slot_of(duel.challenger)
    edited = Split(weights={champion: 50, challenger: 50})
    duel.target.route(edited, expected=duel.target.routes().revision)
    assert status(pipeline).drift != ()
    drift.restore_split(pipeline, pipeline.read())
    assert duel.weights == {champion: 100}


def test_reconcile_gives_no_traffic_back_to_a_challenger_that_is_to_be_taken_off(
    duel: Duel, monkeypatch: pytest.MonkeyPatch
) -> None:
    duel.fail(duel.challenger, 0.3)
    with monkeypatch.context() as patched:
        kill(patched, duel, "route", is_done=True)
        with pytest.raises(KilledError):
            duel.watch()
    pipeline = duel.here.pipeline
    duel.here.store.point("challenger", duel.champion)
    records = pipeline.read()
    assert drift.find(pipeline, records).lines
    drift.settle(pipeline, records, "reconcile")
    assert duel.weights == {slot_of(duel.champion): 100}


@pytest.fixture
def decided(duel: Duel, monkeypatch: pytest.MonkeyPatch) -> Duel:
    """Give a challenger that failed, and a watch that was killed before it took it off."""
    duel.fail(duel.challenger, 0.3)
    with monkeypatch.context() as patched:
        kill(patched, duel, "route", is_done=False)
        with pytest.raises(KilledError):
            duel.watch()
    duel.pauses.clear()
    return duel


def test_an_old_decision_is_not_carried_out_if_the_challenger_does_well(decided: Duel) -> None:
    """Nor later, when there are too few requests to say so again."""
    decided.fail(decided.challenger, 0.0)
    decided.during = {4: lambda: setattr(decided.target, "per_look", 1)}
    result = decided.watch(seconds=200)
    assert (result.verdict, result.record) == ("undecided", None)
    assert decided.weights[slot_of(decided.challenger)] == 10
    verdicts = [record.evidence.verdict for record in decided.records("watch")]
    assert verdicts == ["failed", "passed"]
    assert status(decided.here.pipeline).drift == ()


def test_an_old_decision_is_not_withdrawn_while_another_command_holds_the_lock(
    decided: Duel,
) -> None:
    decided.fail(decided.challenger, 0.0)
    decided.here.locks.held.add("production")
    with pytest.raises(ConflictError, match="is within its bounds, but not recorded"):
        decided.watch(seconds=60)
    decided.here.locks.held.clear()
    assert decided.weights[slot_of(decided.challenger)] == 10
    assert decided.watch(seconds=60).verdict == "passed"
    assert len(decided.records("watch")) == 2


def test_an_old_decision_is_not_in_favour_of_a_champion_that_fails_now(decided: Duel) -> None:
    decided.fail(decided.champion, 0.5)
    assert decided.watch(seconds=60).verdict != "failed"
    assert decided.weights[slot_of(decided.challenger)] == 10


def test_an_old_decision_about_a_slow_challenger_is_carried_out_beside_few_failures(
    duel: Duel, monkeypatch: pytest.MonkeyPatch
) -> None:
    duel.target.per_look = 10_000
    duel.target.milliseconds[slot_of(duel.challenger)] = 500.0
    duel.fail(duel.champion, 0.005)
    with monkeypatch.context() as patched:
        kill(patched, duel, "route", is_done=False)
        with pytest.raises(KilledError):
            duel.watch()
    assert duel.watch(seconds=60).verdict == "failed"
    assert duel.weights == {slot_of(duel.champion): 100}


def test_an_old_decision_is_carried_out_with_few_requests(decided: Duel) -> None:
    decided.target.per_look = 1
    assert decided.watch(seconds=60).verdict == "failed"
    assert len(decided.pauses) == 2
    assert decided.weights == {slot_of(decided.champion): 100}


def test_a_decision_that_is_not_carried_out_is_told_where_nothing_is_counted(
    decided: Duel,
) -> None:
    decided.target.is_silent = True
    with pytest.raises(UnavailableError, match=r"was beyond a bound .* not taken off yet") as found:
        decided.watch(seconds=60)
    assert "nothing is known" not in found.value.message


def test_a_challenger_that_got_its_traffic_back_is_watched_anew(duel: Duel) -> None:
    duel.fail(duel.challenger, 0.3)
    duel.watch()
    duel.fail(duel.challenger, 0.0)
    traffic(duel.here.pipeline, {"challenger": 20}, override="a drill")
    result = duel.watch(seconds=60)
    assert result.verdict == "passed"
    assert duel.weights[slot_of(duel.challenger)] == 20
    verdicts = [record.evidence.verdict for record in duel.records("watch")]
    assert verdicts == ["failed", "passed"]
    duel.watch(seconds=60)
    assert len(duel.records("watch")) == 2


@pytest.mark.parametrize("step", ["watch", "route"])
def test_a_person_decides_after_a_watch_that_was_killed(
    duel: Duel, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The split that the route has already is recorded too: it is a decision."""
    duel.fail(duel.challenger, 0.3)
    with monkeypatch.context() as patched:
        kill(patched, duel, step, is_done=step == "watch")
        with pytest.raises(KilledError):
            duel.watch()
    before = len(duel.records("traffic"))
    traffic(duel.here.pipeline, {"challenger": 10})
    assert len(duel.records("traffic")) == before + 1
    duel.fail(duel.challenger, 0.0)
    assert duel.watch(seconds=60).verdict == "passed"
    assert duel.weights[slot_of(duel.challenger)] == 10
    traffic(duel.here.pipeline, {"challenger": 10})
    assert len(duel.records("traffic")) == before + 1


def test_a_pass_is_recorded_under_the_lock(duel: Duel, monkeypatch: pytest.MonkeyPatch) -> None:
    duel.fail(duel.challenger, 0.3)
    duel.watch()
    duel.fail(duel.challenger, 0.0)
    traffic(duel.here.pipeline, {"challenger": 20}, override="a drill")
    append, held = duel.here.ledger.append, []

    def appending(evidence: Evidence, **options: Any) -> Record:
        held.append((evidence.step, evidence.verdict, set(duel.here.locks.held)))
        return append(evidence, **options)

    monkeypatch.setattr(duel.here.ledger, "append", appending)
    assert duel.watch(seconds=60).verdict == "passed"
    assert held == [("watch", "passed", {"production"})]


def test_a_pass_that_cannot_be_recorded_is_an_error(duel: Duel) -> None:
    duel.fail(duel.challenger, 0.3)
    duel.watch()
    duel.fail(duel.challenger, 0.0)
    traffic(duel.here.pipeline, {"challenger": 20}, override="a drill")
    duel.here.locks.held.add("production")
    with pytest.raises(ConflictError, match=r"within its bounds.* not recorded: .* being changed"):
        duel.watch(seconds=60)
    assert [each.evidence.verdict for each in duel.records("watch")] == ["failed"]


def test_the_bounds_are_those_of_production(duel: Duel) -> None:
    bounds = ChallengerBounds(errors=0.5)
    production = TargetConfig(replicas=2, challenger_bounds=bounds)
    config = duel.here.pipeline.config
    targets = {**config.targets, "production": production}
    duel.here.pipeline = dataclasses.replace(
        duel.here.pipeline, config=msgspec.structs.replace(config, targets=targets)
    )
    duel.fail(duel.challenger, 0.3)
    assert duel.watch().verdict == "passed"
    duel.fail(duel.challenger, 0.8)
    assert duel.watch().verdict == "failed"


@pytest.mark.parametrize(
    ("every", "seconds", "message"),
    [
        (0, 60, "must be above 0"),
        (10, 0, "must be above 0"),
        (float("nan"), 60, "must be above 0"),
        (31, 60, "--every 31 is too long"),
    ],
)
def test_times_that_decide_nothing_are_refused(
    duel: Duel, every: float, seconds: float, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        duel.watch(seconds=seconds, every=every)


def test_a_target_that_counts_nothing_is_refused(duel: Duel) -> None:
    plain: Target = FakeTarget()
    duel.here.targets["production"] = plain
    with pytest.raises(ConfigError, match="not counted"):
        duel.watch()


def test_the_command_prints_both_sides_and_has_an_exit_code_of_its_own(
    duel: Duel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def composed(_session: Session, **_options: object) -> Pipeline:
        return duel.here.pipeline

    monkeypatch.setattr(Session, "pipeline", composed)
    monkeypatch.setitem(watch.__kwdefaults__ or {}, "pause", duel.pause)
    monkeypatch.setitem(watch.__kwdefaults__ or {}, "timer", duel.timer)
    run = functools.partial(CliRunner().invoke, app)
    healthy = run(["watch", "--seconds", "60"])
    assert healthy.exit_code == 0
    assert f"watch {duel.challenger}: passed. 0 of " in healthy.output
    assert json.loads(run(["--json", "watch", "--seconds", "60"]).output)["verdict"] == "passed"
    duel.fail(duel.challenger, 0.3)
    failed = run(["watch"])
    assert isinstance(failed.exception, RefusedError)
    assert failed.exception.exit_code == 3
    assert "failed or were answered by another release" in failed.exception.message
    assert f"champion {duel.champion}" in failed.output
    nobody = run(["watch"])
    assert (nobody.exit_code, nobody.output) == (
        0,
        f"watch {duel.challenger}: undecided. production has no challenger with traffic\n",
    )


def test_the_result_is_plain_data(duel: Duel) -> None:
    assert json.loads(msgspec.json.encode(duel.watch(seconds=60)))["verdict"] == "passed"
