"""Who lost a lock changes nothing: ledger and store look at it, and late records are void."""

import dataclasses
from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest

from mlship.domain import digests, evidence
from mlship.domain.evidence import Record, Step
from mlship.domain.override import Weighted
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import ConflictError
from mlship.steps.deploy import deploy_production, deploy_staging
from mlship.steps.pipeline import Pipeline
from mlship.steps.promote import promote
from mlship.steps.retire import retire
from mlship.steps.rollback import rollback
from mlship.steps.status import status
from mlship.steps.traffic import traffic
from tests.fakes.ports import FakeFence, World
from tests.harness.kills import Watch, watched
from tests.harness.samples import record, release
from tests.unit.test_steps import here, made, proven_duel

__all__ = ["here"]

Act = Callable[[Pipeline], object]
A, B, C = release("a"), release("b"), release("c")


def after_a_promotion(act: Callable[[Pipeline, Release], object]) -> Callable[[World], Act]:
    def scene(world: World) -> Act:
        champion, challenger = proven_duel(world)
        promote(world.pipeline, challenger)
        return lambda pipeline: act(pipeline, champion)

    return scene


def duelling(act: Callable[[Pipeline, Release], object]) -> Callable[[World], Act]:
    def scene(world: World) -> Act:
        _, challenger = proven_duel(world)
        return lambda pipeline: act(pipeline, challenger)

    return scene


def fresh(act: Callable[[Pipeline, Release], object]) -> Callable[[World], Act]:
    def scene(world: World) -> Act:
        first = made(world)
        return lambda pipeline: act(pipeline, first)

    return scene


def staged(world: World) -> Act:
    first, _ = made(world, "C=1"), made(world, "C=2")
    return lambda pipeline: deploy_staging(pipeline, first)


SCENES: dict[str, Callable[[World], Act]] = {
    "deploy-staging": staged,
    "deploy-production": fresh(deploy_production),
    "traffic": duelling(lambda pipeline, _: traffic(pipeline, {"challenger": 30})),
    "promote": duelling(promote),
    "rollback": after_a_promotion(lambda pipeline, _: rollback(pipeline)),
    "retire": after_a_promotion(lambda pipeline, one: retire(pipeline, one, early=True)),
}


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_after_a_take_over_neither_ledger_nor_store_is_written(
    scene: Callable[[World], Act], here: World
) -> None:
    act = scene(here)
    lock = "staging" if scene is SCENES["deploy-staging"] else "production"
    here.locks.last[lock] = 1

    def take_over(call: str) -> None:
        del call
        here.locks.last[lock] += 1

    # Another one takes over during the first call that changes something.
    watch = Watch(heard=take_over)
    with pytest.raises(ConflictError, match="was lost"):
        act(watched(here.pipeline, watch))
    kinds = [call.partition(".")[0] for call in watch.calls[1:]]
    assert "ledger" not in kinds
    assert "store" not in kinds


def test_records_of_a_holder_have_its_number(here: World) -> None:
    first = made(here)
    here.locks.last["production"] = 6
    deploy_production(here.pipeline, first)
    steps = {one.evidence.step: one.evidence.fence for one in here.ledger.records()}
    assert steps["deploy-production"] == steps["deploy-production/route"] == 7
    assert steps["train"] == 0


def added(
    about: Release,
    step: Step,
    fence: int,
    *parents: Record,
    hours: float = 0,
    role: str = "",
) -> Record:
    made_record = record(about, step, facts={"role": role}, after=timedelta(hours=hours))
    late = msgspec.structs.replace(
        made_record.evidence, fence=fence, parents=tuple(sorted(one.digest for one in parents))
    )
    return Record(digest=digests.of_bytes(evidence.encode(late)), evidence=late)


def test_status_lists_what_does_not_count(here: World) -> None:
    _, challenger = proven_duel(here)
    before = here.pipeline.read()
    here.locks.last["production"] = 6
    traffic(here.pipeline, {"challenger": 30})
    assert status(here.pipeline).void == ()
    # A former holder had read the ledger before that.
    fence = FakeFence(here.locks, "production")
    fence.number = 5
    stale = dataclasses.replace(here.pipeline, fence=fence, actor="bob at laptop")
    lost = stale.learn(challenger, "traffic", "passed", Weighted(weights={}), after=before)
    (found,) = status(here.pipeline).void
    assert (found.record, found.step, found.release) == (lost.digest, "traffic", str(challenger))
    assert (found.by, found.holder) == ("bob at laptop", 5)


def read(*records: Record) -> Records:
    stored = {one.digest: evidence.encode(one.evidence) for one in records}
    return Records.alone(evidence.in_order(stored))


@pytest.mark.parametrize("hours", [-1, 0.5, 3])
@pytest.mark.parametrize("kept", ["alone", "of"])
def test_a_record_of_a_former_holder_is_void_whatever_its_clock_says(
    hours: float, kept: str
) -> None:
    first = added(A, "deploy-production", 1, role="champion")
    second = added(B, "deploy-production", 2, first, hours=1, role="challenger")
    # Two read the second: the one who took over promotes, then the one who was stopped does.
    promoted = added(B, "promote", 4, second, hours=2)
    late = added(B, "retire", 3, second, hours=2 + hours)
    later = added(B, "retire/archive", 3, late, hours=2 + hours)
    stored = {
        one.digest: evidence.encode(one.evidence) for one in (first, second, promoted, late, later)
    }
    chain = evidence.in_order(stored)
    records = Records.alone(chain) if kept == "alone" else Records.of(chain, "iris", "")
    assert {one.digest for one in records.void} == {late.digest, later.digest}
    assert records.history.champion == B
    assert records.history.last == promoted
    # The next record joins the fork.
    assert set(records.heads) == {promoted.digest, later.digest}


def test_what_the_next_holder_has_read_is_not_void() -> None:
    first = added(A, "deploy-production", 1, role="champion")
    approved = added(B, "approve", 0, first)
    second = added(B, "deploy-production", 2, approved, role="challenger")
    third = added(B, "promote", 3, second)
    assert read(first, approved, second, third).void == ()


def test_numbers_that_began_anew_are_no_reason() -> None:
    """Where a namespace was made anew, the first holder has number 1 again."""
    first = added(A, "deploy-production", 41, role="champion")
    second = added(B, "deploy-production", 1, first, role="challenger")
    assert read(first, second).void == ()
    assert read(first, second).history.challenger == B


def test_staging_and_production_have_a_lock_each() -> None:
    first = added(A, "deploy-production", 7, role="champion")
    beside = added(B, "deploy-staging", 2)
    assert read(first, beside).void == ()


def test_other_projects_have_locks_of_their_own() -> None:
    foreign = msgspec.structs.replace(B, name="churn")
    first = added(A, "deploy-production", 1, role="champion")
    beside = added(foreign, "deploy-production", 9, role="champion")
    records = Records.of((first, beside), "iris", "")
    assert (records.void, records.others) == ((), (beside,))


def test_a_number_is_left_out_where_the_lock_has_none() -> None:
    plain = added(A, "test", 0).evidence
    assert b'"fence"' not in evidence.encode(plain)
    numbered = added(A, "promote", 3).evidence
    assert evidence.decode(evidence.encode(numbered)).evidence == numbered
