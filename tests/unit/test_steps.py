"""The steps on fakes: what a user would notice of each, with every backend well."""

import dataclasses
import random
import re
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from mlship import files
from mlship.cli import inspect, status_view
from mlship.config.backends import ObservationsConfig
from mlship.config.project import GatesConfig, TargetConfig
from mlship.domain import checks, digests, shapes
from mlship.domain.deployment import Restarts, Slot, Split, slot_of
from mlship.domain.evidence import Record, Saw
from mlship.domain.facts import Evaluated, Tested, Verified
from mlship.domain.history import latest
from mlship.domain.policy import Bound, Occupied, PromotePolicy
from mlship.domain.prediction import Outcome, Prediction, Spool
from mlship.domain.profiles import Column, Profile
from mlship.domain.release import Release
from mlship.domain.scores import Slices
from mlship.errors import (
    ConfigError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    ProjectError,
    RefusedError,
    UnavailableError,
)
from mlship.reports.summary import summary
from mlship.steps import test as testing
from mlship.steps import verify
from mlship.steps.approve import approve
from mlship.steps.containerize import containerize
from mlship.steps.deploy import deploy_next, deploy_production, deploy_staging
from mlship.steps.evaluate import evaluate
from mlship.steps.feedback import feedback
from mlship.steps.outcome_files import Received
from mlship.steps.pipeline import Pipeline
from mlship.steps.promote import promote
from mlship.steps.push import push
from mlship.steps.retire import retire
from mlship.steps.rollback import prospect, rollback
from mlship.steps.status import status
from mlship.steps.trace import trace
from mlship.steps.traffic import traffic
from mlship.steps.train import train
from tests.fakes.ports import CONFIG, World, world
from tests.fakes.target import FakeTarget
from tests.harness.samples import NOON, better
from tests.harness.samples import release as another_release

POLICY = PromotePolicy(min_labels=50, approvals=1)


@pytest.fixture
def here(tmp_path: Path) -> World:
    gates = GatesConfig(test={"accuracy": Bound(min=0.5)}, promote=POLICY)
    return world(tmp_path, msgspec.structs.replace(CONFIG, gates=gates))


def made(here: World, params: str = "C=1") -> Release:
    """Train and prove a release."""
    here.trainer.params = params
    release = train(here.pipeline).evidence.release
    testing.test(here.pipeline, release)
    deploy_staging(here.pipeline, release)
    here.pipeline.learn(release, "verify-staging-workload", "passed", Verified())
    return release


def duel(here: World) -> tuple[Release, Release]:
    """Put a champion and a challenger into production."""
    first, second = made(here, "C=1"), made(here, "C=2")
    deploy_production(here.pipeline, first)
    deploy_production(here.pipeline, second)
    return first, second


def test_metrics_of_rows_that_training_may_have_had_carry_a_warning(here: World) -> None:
    assert "WARNING" not in summary(testing.test(here.pipeline, made(here)))
    here.trainer.exposed, here.trainer.params = "python train.py read all.csv itself", "C=2"
    trained = train(here.pipeline)
    said = "; WARNING: python train.py read all.csv itself"
    assert [summary(each).endswith(said) for each in (trained, train(here.pipeline))] == [True] * 2
    record = testing.test(here.pipeline, trained.evidence.release)
    assert record.evidence.verdict == "passed"
    assert summary(record).endswith(said)


def predictions(here: World, release: Release, right: int, wrong: int) -> None:
    """Log predictions of a release, and give their outcomes."""
    start, digits = here.clock(), release.id[-6:]
    before = sum(one.release == release.id for one in here.observations.made)
    numbers = range(before, before + right + wrong)
    for number in numbers:
        here.observations.made.append(
            Prediction(
                id=f"{digits}-{number}.0",
                release=release.id,
                slot=slot_of(release),
                time=start,
                inputs={"x": 1.0},
                outputs={"species": "setosa", "score": 1.0},
                latency_ms=0.5,
            )
        )
    outcome = ["setosa"] * right + ["virginica"] * wrong
    random.Random(3).shuffle(outcome)
    given = zip(numbers, outcome, strict=True)
    feedback(here.pipeline, [Received(f"{digits}-{number}.0", value) for number, value in given])


def proven_duel(here: World) -> tuple[Release, Release]:
    """A duel that the challenger has won, and that somebody approved of."""
    first, second = duel(here)
    predictions(here, first, right=150, wrong=150)
    predictions(here, second, right=299, wrong=1)
    evaluate(here.pipeline)
    approve(here.pipeline, second, "grace@example.org")
    return first, second


@pytest.mark.parametrize("hours", [-1, 1])
def test_an_evaluation_is_the_same_though_the_deployers_clock_is_an_hour_off(
    hours: int, here: World
) -> None:
    first = made(here, "C=1")
    deploy_production(here.pipeline, first)
    predictions(here, first, right=0, wrong=100)
    here.clock.now += timedelta(minutes=50)
    second = made(here, "C=2")
    here.clock.now += timedelta(hours=hours)
    deploy_production(here.pipeline, second)
    here.clock.now -= timedelta(hours=hours)
    predictions(here, second, right=150, wrong=150)
    predictions(here, first, right=150, wrong=150)
    facts = evaluate(here.pipeline).evidence.facts
    assert (facts["champion_n"], facts["challenger_n"]) == (300, 300)
    assert (facts["champion_mean"], facts["challenger_mean"]) == (0.5, 0.5)


def preferred(here: World, challenger: Release, champion: Release) -> None:
    """Say that a challenger is better, and that somebody approved of it; promote it."""
    here.pipeline.learn(challenger, "evaluate", "passed", better(), Saw(champion=champion.id))
    approve(here.pipeline, challenger, "grace@example.org")
    promote(here.pipeline, challenger)


def steps(here: World) -> list[str]:
    return [record.evidence.step for record in here.ledger.records()]


def aliases(here: World) -> dict[str, str]:
    return {
        alias: version.release for version in here.store.versions() for alias in version.aliases
    }


def archived(here: World) -> set[str]:
    return {version.release for version in here.store.versions() if version.archived}


def weights(here: World) -> dict[Slot, int]:
    return dict(here.targets["production"].routes().split.weights)


def test_training_again_finds_the_release_that_is_there(here: World) -> None:
    begun: list[int] = []
    pipeline = dataclasses.replace(here.pipeline, before_training=lambda: begun.append(1))
    first, again = train(pipeline), train(pipeline)
    assert first == again
    assert here.trainer.trainings == 1
    # Nothing is loaded for a training that will not run.
    assert len(begun) == 1


def test_what_a_killed_training_left_is_removed(here: World) -> None:
    bundles = here.pipeline.state / "bundles"
    (bundles / ".train-killed" / ".bundle.1.tmp").mkdir(parents=True)
    with files.temporary_folder(bundles, ".train-") as running:
        train(here.pipeline)
        assert list(bundles.glob(".train-*")) == [running]
    assert not running.exists()


def test_git_is_told_to_leave_the_state_alone(here: World) -> None:
    train(here.pipeline)
    assert (here.pipeline.state / ".gitignore").read_text() == "*\n"


def test_training_anew_gives_the_same_release_and_no_second_record(here: World) -> None:
    first, again = train(here.pipeline), train(here.pipeline, anew=True)
    assert (first, here.trainer.trainings) == (again, 2)
    assert steps(here) == ["train"]


def test_another_commit_is_another_release(here: World) -> None:
    first = train(here.pipeline).evidence.release
    here.source.sha = "b" * 40
    assert train(here.pipeline).evidence.release != first


def test_by_default_the_release_is_the_current_commits(here: World) -> None:
    release = train(here.pipeline).evidence.release
    assert here.pipeline.release() == release
    here.source.sha = "b" * 40
    with pytest.raises(NotFoundError, match="commit bbbbbbbbbbbb"):
        here.pipeline.release()


@pytest.mark.parametrize(
    ("accuracy", "failed", "verdict"),
    [(0.9, 0, "passed"), (0.4, 0, "failed"), ("nan", 0, "failed"), (0.9, 1, "failed")],
)
def test_a_release_passes_its_test_by_metrics_and_tests(
    here: World, accuracy: float | str, failed: int, verdict: str
) -> None:
    release = train(here.pipeline).evidence.release
    here.trainer.metrics = {"accuracy": accuracy}
    here.tester.failed = failed
    assert testing.test(here.pipeline, release).evidence.verdict == verdict


def test_a_gate_on_a_metric_that_does_not_exist_names_the_nearest(here: World) -> None:
    release = train(here.pipeline).evidence.release
    here.trainer.metrics = {"accurracy": 0.9}
    with pytest.raises(ConfigError) as caught:
        testing.test(here.pipeline, release)
    assert "gates.test.accuracy" in caught.value.message
    assert "accurracy" in caught.value.hint


@pytest.mark.parametrize(
    ("slices", "verdict", "reason"),
    [
        (Slices(metric="accuracy", judged=9), "passed", "ok: slices_worse 0, allowed up to 0"),
        (Slices(metric="accuracy", judged=9, worse=1), "failed", "NOT OK: slices_worse 1, allowed"),
        (Slices(metric="accuracy", small=9), "failed", "NOT OK: slices_worse was not measured"),
        (None, "failed", "NOT OK: slices_worse was not measured"),
    ],
)
def test_a_gate_may_bound_how_many_slices_got_worse(
    tmp_path: Path, slices: Slices | None, verdict: str, reason: str
) -> None:
    gates = GatesConfig(test={"slices_worse": Bound(max=0)})
    here = world(tmp_path, msgspec.structs.replace(CONFIG, gates=gates))
    here.trainer.slices = slices
    # The first release has no champion to be worse than.
    deploy_production(here.pipeline, made(here, "C=1"))
    record = latest_test(here, made(here, "C=2"))
    assert record.evidence.verdict == verdict
    lines = [checks.line(check) for check in shapes.of(record, Tested).checks]
    assert any(line.startswith(reason) for line in lines)


def latest_test(here: World, release: Release) -> Record:
    record = latest(here.ledger.records(), "test", release)
    assert record is not None
    return record


def profiled(rows: int, setosa: int) -> Profile:
    species = Column(name="species", kind="text", named={"setosa": setosa, "b": rows - setosa})
    return Profile(rows=rows, columns=(species,))


def test_the_training_data_are_compared_with_the_champions_by_what_was_recorded(
    here: World,
) -> None:
    here.trainer.profile = profiled(100, 50)
    here.trainer.slices = Slices(metric="accuracy", judged=3, worse=1)
    first = made(here, "C=1")
    facts = latest_test(here, first).evidence.facts
    assert (facts["shifts"], facts["slices"]) == (None, None)
    deploy_production(here.pipeline, first)
    # The champion's data are gone; what its training recorded is left.
    here.trainer.profile, here.trainer.data = profiled(300, 290), "other"
    second = train(here.pipeline).evidence.release
    facts = testing.test(here.pipeline, second).evidence.facts
    assert (facts["shifts"]["rows_before"], facts["shifts"]["rows_after"]) == (100, 300)
    assert (facts["shifts"]["told"], facts["shifts"]["same"]) == (1, False)
    assert facts["slices"]["worse"] == 1


def test_a_training_without_a_profile_is_said(here: World) -> None:
    first = made(here, "C=1")
    deploy_production(here.pipeline, first)
    here.trainer.profile = profiled(300, 290)
    second = made(here, "C=2")
    told = latest_test(here, second).evidence.facts["shifts"]["unknown"]
    assert told == "the champion's training recorded no profile of its data"


def test_a_release_of_the_commit_from_other_inputs_is_named(here: World) -> None:
    first = made(here, "C=1")
    here.trainer.params = "C=2"
    with pytest.raises(NotFoundError) as caught:
        here.pipeline.release()
    assert caught.value.message.endswith(f"{first} of this commit was made with other params")
    assert "the same --set" in caught.value.hint
    here.trainer.params = "C=1"
    assert here.pipeline.release() == first


def test_staging_runs_one_release_alone(here: World) -> None:
    first, second = made(here, "C=1"), made(here, "C=2")
    staging = here.targets["staging"]
    assert set(staging.inspect()) == {slot_of(second)}
    assert staging.routes().split.weights == {slot_of(second): 100}
    before = len(here.ledger.records())
    deploy_staging(here.pipeline, second)
    assert len(here.ledger.records()) == before
    assert first != second


def test_the_first_release_becomes_champion_the_second_challenger(here: World) -> None:
    first, second = duel(here)
    assert aliases(here) == {"champion": first.id, "challenger": second.id}
    assert weights(here) == {slot_of(first): 90, slot_of(second): 10}


def test_a_challenger_that_is_the_champions_model_is_said_to_be(here: World) -> None:
    first = made(here)
    assert "the same model" not in summary(deploy_production(here.pipeline, first))
    here.source.sha = "b" * 40
    second = made(here)
    assert second != first
    record = deploy_production(here.pipeline, second)
    assert record.evidence.verdict == "passed"
    (told,) = [note for note in here.progress.notes if "is the same model as the champion" in note]
    assert told.startswith(f"{second} is the same model as the champion, {first}: its commit")
    assert summary(record).endswith("; the same model as the champion")
    assert here.pipeline.read().history.challenger == second


def test_a_champion_that_runs_elsewhere_is_named_before_anything_is_deployed(here: World) -> None:
    first, second = made(here), made(here, "C=2")
    deploy_production(here.pipeline, first)
    target = here.targets["production"]
    target.route(Split(weights={}), expected=target.routes().revision)
    target.remove(slot_of(first))
    with pytest.raises(NotFoundError, match="comes from another machine or another proj") as caught:
        deploy_production(here.pipeline, second)
    assert f"{first} of commit {first.commit[:12]}, which " in caught.value.message
    assert "another `name`" in caught.value.hint
    assert not target.inspect()
    deploy_production(here.pipeline, first)
    deploy_production(here.pipeline, second)
    assert weights(here) == {slot_of(first): 90, slot_of(second): 10}


def test_what_was_not_proven_stays_out_of_production(here: World) -> None:
    release = train(here.pipeline).evidence.release
    with pytest.raises(RefusedError, match="test: never run"):
        deploy_production(here.pipeline, release)
    assert not here.targets["production"].inspect()


def test_a_dirty_tree_stays_out_of_production(here: World) -> None:
    here.source.dirty = True
    with pytest.raises(RefusedError, match="with uncommitted changes"):
        deploy_production(here.pipeline, made(here))


def test_a_second_challenger_waits_or_replaces(here: World) -> None:
    first, second = duel(here)
    third = made(here, "C=3")
    with pytest.raises(RefusedError, match="is already challenger"):
        deploy_production(here.pipeline, third)
    deploy_production(here.pipeline, third, occupied="replace")
    assert set(here.targets["production"].inspect()) == {slot_of(first), slot_of(third)}
    assert archived(here) == {second.id}
    assert here.pipeline.read().history.challenger == third


def test_a_killed_supervisor_is_told_although_all_replicas_are_ready(here: World) -> None:
    first, _ = proven_duel(here)
    deploy_staging(here.pipeline, first)
    assert not status(here.pipeline).drift
    for target in here.targets.values():
        assert isinstance(target, FakeTarget)
        target.unsupervise()
    text = "the supervisor of {0} is not running, so that nothing starts again what ends: run "
    assert set(status(here.pipeline).drift) == {
        text.format("production") + "`mlship deploy-production champion` to start it",
        text.format("staging") + f"`mlship deploy-staging {first}` to start it",
    }


@pytest.mark.parametrize("policy", ["wait", "queue"])
def test_a_release_waits_for_the_challengers_place(here: World, policy: Occupied) -> None:
    first, second = proven_duel(here)
    third, fourth = made(here, "C=3"), made(here, "C=4")
    for release in (third, fourth):
        record = deploy_production(here.pipeline, release, occupied=policy)
        assert record.evidence.step == "await-production"
        assert deploy_production(here.pipeline, release, occupied=policy) == record
    waiting = [third, fourth] if policy == "queue" else [fourth]
    assert list(here.pipeline.read().history.waiting) == waiting
    assert status(here.pipeline).waiting == tuple(map(str, waiting))
    assert not status(here.pipeline).drift
    assert deploy_next(here.pipeline) is None, "the challenger still runs"
    assert set(here.targets["production"].inspect()) == {slot_of(first), slot_of(second)}
    promote(here.pipeline, second)
    deployed = deploy_next(here.pipeline)
    assert deployed is not None
    assert here.pipeline.read().history.challenger == waiting[0]
    assert list(here.pipeline.read().history.waiting) == waiting[1:]
    before = len(here.ledger.records())
    assert deploy_next(here.pipeline) is None
    assert len(here.ledger.records()) == before


def test_a_release_that_is_not_fit_does_not_wait(here: World) -> None:
    duel(here)
    here.trainer.params = "C=3"
    release = train(here.pipeline).evidence.release
    with pytest.raises(RefusedError, match="test: never run"):
        deploy_production(here.pipeline, release, occupied="wait")
    assert not here.pipeline.read().history.waiting


def test_nobody_waits_where_the_place_is_free(here: World) -> None:
    first = made(here, "C=1")
    assert deploy_production(here.pipeline, first, occupied="wait").evidence.step == (
        "deploy-production"
    )
    assert deploy_next(here.pipeline) is None


def test_a_challenger_that_a_rollback_deposed_gives_way_unless_it_gets_traffic(
    here: World,
) -> None:
    first, second = proven_duel(here)
    promote(here.pipeline, second)
    rollback(here.pipeline)
    assert here.pipeline.read().history.challenger == second
    third = made(here, "C=3")
    traffic(here.pipeline, {"challenger": 20})
    with pytest.raises(RefusedError, match="is already challenger"):
        deploy_production(here.pipeline, third)
    traffic(here.pipeline, {"challenger": 0})
    deploy_production(here.pipeline, third)
    history = here.pipeline.read().history
    assert (history.champion, history.challenger) == (first, third)
    assert second in history.retired
    assert set(here.targets["production"].inspect()) == {slot_of(first), slot_of(third)}


def test_a_rollback_is_shown_before_it_is_made(here: World) -> None:
    with pytest.raises(NotFoundError, match="no former champion"):
        prospect(here.pipeline, None, here.pipeline.read())
    first, second = proven_duel(here)
    promote(here.pipeline, second)
    before = len(here.ledger.records())
    found = prospect(here.pipeline, None, here.pipeline.read())
    assert (found.champion, found.deposed) == (str(first), str(second))
    assert found.ready == found.wanted == 2
    assert len(here.ledger.records()) == before
    assert weights(here) == {slot_of(second): 100}
    rollback(here.pipeline)
    again = prospect(here.pipeline, None, here.pipeline.read())
    assert (again.champion, again.deposed) == (str(first), None)


def test_deploying_again_writes_nothing(here: World) -> None:
    _, second = duel(here)
    before = len(here.ledger.records())
    deploy_production(here.pipeline, second)
    assert len(here.ledger.records()) == before


def test_a_shadow_answers_nobody(tmp_path: Path) -> None:
    targets = {"staging": TargetConfig(), "production": TargetConfig(shadow=True)}
    here = world(tmp_path, msgspec.structs.replace(CONFIG, targets=targets))
    first, second = duel(here)
    split = here.targets["production"].routes().split
    assert (split.weights, split.shadow) == ({slot_of(first): 100}, slot_of(second))


def test_a_promotion_moves_route_alias_and_archive(here: World) -> None:
    first, second = proven_duel(here)
    promote(here.pipeline, second)
    assert weights(here) == {slot_of(second): 100}
    assert aliases(here) == {"champion": second.id}
    assert archived(here) == {first.id}
    assert set(here.targets["production"].inspect()) == {slot_of(first), slot_of(second)}
    sub_steps = ["gate", "capacity", "route", "alias", "archive"]
    assert steps(here)[-6:] == [*(f"promote/{name}" for name in sub_steps), "promote"]


def test_a_promotion_twice_is_one(here: World) -> None:
    _, second = proven_duel(here)
    record = promote(here.pipeline, second)
    assert promote(here.pipeline, second) == record
    assert steps(here).count("promote") == 1


def test_without_evaluation_and_approval_nothing_moves(here: World) -> None:
    first, second = duel(here)
    with pytest.raises(RefusedError, match=r"evaluate: never run.*0 of 1 approvals"):
        promote(here.pipeline, second)
    assert weights(here) == {slot_of(first): 90, slot_of(second): 10}
    assert "promote/gate" not in steps(here)


def test_only_a_challenger_is_promoted(here: World) -> None:
    duel(here)
    with pytest.raises(ConflictError, match="is not a challenger"):
        promote(here.pipeline, made(here, "C=3"))


def test_while_one_command_changes_production_another_is_refused(here: World) -> None:
    _, second = proven_duel(here)
    with here.locks.exclusive("production"), pytest.raises(ConflictError):
        promote(here.pipeline, second)


def test_a_rollback_undoes_a_promotion_and_it_can_be_promoted_again(here: World) -> None:
    first, second = proven_duel(here)
    promote(here.pipeline, second)
    rollback(here.pipeline)
    assert weights(here) == {slot_of(first): 100}
    assert aliases(here) == {"champion": first.id, "challenger": second.id}
    assert not archived(here)
    promote(here.pipeline, second)
    assert here.pipeline.read().history.champion == second
    assert steps(here).count("promote") == 2


def test_a_rollback_twice_is_one(here: World) -> None:
    _, second = proven_duel(here)
    promote(here.pipeline, second)
    assert rollback(here.pipeline) == rollback(here.pipeline)


def test_without_a_former_champion_there_is_nothing_to_go_back_to(here: World) -> None:
    duel(here)
    with pytest.raises(NotFoundError, match="no former champion"):
        rollback(here.pipeline)


def test_a_former_champion_stays_warm_for_its_time(here: World) -> None:
    first, second = proven_duel(here)
    promote(here.pipeline, second)
    with pytest.raises(RefusedError, match="is kept for a rollback until"):
        retire(here.pipeline)
    here.clock.now += timedelta(hours=2)
    retire(here.pipeline)
    assert set(here.targets["production"].inspect()) == {slot_of(second)}
    assert here.pipeline.read().history.role(first) == "retired"
    with pytest.raises(NotFoundError):
        rollback(here.pipeline)


def test_retiring_twice_takes_one_former_champion_away(here: World) -> None:
    first, second = duel(here)
    preferred(here, second, first)
    third = made(here, "C=3")
    deploy_production(here.pipeline, third)
    preferred(here, third, second)
    assert here.pipeline.read().history.former == (first, second)
    record = retire(here.pipeline, early=True)
    assert record.evidence.release == first
    assert retire(here.pipeline, early=True) == record
    assert here.pipeline.read().history.former == (second,)
    assert retire(here.pipeline, second, early=True).evidence.release == second


def test_retiring_a_challenger_gives_its_traffic_back(here: World) -> None:
    first, second = duel(here)
    retire(here.pipeline, second)
    assert weights(here) == {slot_of(first): 100}
    assert aliases(here) == {"champion": first.id}


def test_a_slot_that_a_failed_deployment_left_is_retired(here: World) -> None:
    first, second = duel(here)
    third = made(here, "C=3")
    production = here.targets["production"]
    with pytest.raises(NotFoundError, match="is not running in production"):
        retire(here.pipeline, third)
    artifact = here.pipeline.artifact(third, "production", here.pipeline.read())
    production.deploy(third, artifact, slot_of(third), replicas=1)
    (line,) = status(here.pipeline).drift
    assert line.endswith(f"run `mlship retire {third}` to remove it")
    retire(here.pipeline, third)
    assert set(production.inspect()) == {slot_of(first), slot_of(second)}
    assert aliases(here) == {"champion": first.id, "challenger": second.id}
    assert status(here.pipeline).drift == ()
    records = len(here.pipeline.read())
    retire(here.pipeline, third)
    assert len(here.pipeline.read()) == records


def test_the_champion_is_not_retired(here: World) -> None:
    first, _ = duel(here)
    with pytest.raises(RefusedError, match="is champion"):
        retire(here.pipeline, first)


def test_traffic_is_set_by_role(here: World) -> None:
    first, second = duel(here)
    traffic(here.pipeline, {"challenger": 35}, override="a drill")
    assert weights(here) == {slot_of(first): 65, slot_of(second): 35}
    with pytest.raises(ConfigError):
        traffic(here.pipeline, {"challenger": 101})
    with pytest.raises(ConfigError):
        traffic(here.pipeline, {"champoin": 50})


def test_an_approval_by_the_author_is_refused_and_a_second_one_is_no_other(here: World) -> None:
    release = made(here)
    with pytest.raises(RefusedError, match="wrote commit"):
        approve(here.pipeline, release, "ADA@example.org")
    first = approve(here.pipeline, release, "grace@example.org")
    assert approve(here.pipeline, release, "Grace@example.org") == first


def test_too_few_outcomes_are_undecided(here: World) -> None:
    _, second = duel(here)
    predictions(here, second, right=40, wrong=0)
    assert evaluate(here.pipeline).evidence.verdict == "undecided"


def test_a_worse_challenger_fails(here: World) -> None:
    first, second = duel(here)
    predictions(here, first, right=299, wrong=1)
    predictions(here, second, right=150, wrong=150)
    assert evaluate(here.pipeline).evidence.verdict == "failed"


@pytest.mark.parametrize("metric", ["mae", "mse", "pinball[0.5]"])
def test_a_metric_of_numbers_is_refused_for_labels(here: World, metric: str) -> None:
    _, second = duel(here)
    with pytest.raises(ConfigError, match=rf"is {re.escape(metric)}, and {second} predicts labels"):
        evaluate(by_cost(here, metric=metric, better=None, range=None))


def by_cost(here: World, **terms: object) -> Pipeline:
    """Return the pipeline with a metric of the project's own."""
    own = {"metric": "pipeline:cost", "better": "lower", "range": (0.0, 5.0)} | terms
    promote = msgspec.structs.replace(here.pipeline.config.gates.promote, **own)
    gates = msgspec.structs.replace(here.pipeline.config.gates, promote=promote)
    config = msgspec.structs.replace(here.pipeline.config, gates=gates)
    return dataclasses.replace(here.pipeline, config=config)


def test_a_metric_of_the_projects_own_decides(here: World) -> None:
    first, second = duel(here)
    predictions(here, first, right=150, wrong=150)
    predictions(here, second, right=299, wrong=1)
    record = evaluate(by_cost(here))
    facts = shapes.of(record, Evaluated)
    assert record.evidence.verdict == "passed"
    assert (facts.metric, facts.champion_mean) == ("pipeline:cost", 2.5)
    assert "empirical-Bernstein" in facts.method
    assert evaluate(by_cost(here, better="higher")).evidence.verdict == "failed"
    assert "asymptotic" in shapes.of(evaluate(by_cost(here, range=None)), Evaluated).method


def test_a_score_outside_the_declared_range_names_its_prediction(here: World) -> None:
    first, second = duel(here)
    predictions(here, first, right=299, wrong=1)
    predictions(here, second, right=300, wrong=0)
    here.trainer.cost = 7.0
    with pytest.raises(ProjectError, match=rf"returned 7 for prediction {first.id[-6:]}-\d+\.0"):
        evaluate(by_cost(here))
    assert "evaluate" not in steps(here)


def test_an_evaluation_on_other_terms_does_not_promote(here: World) -> None:
    _, second = proven_duel(here)
    with pytest.raises(RefusedError, match=r"terms of gates\.promote"):
        promote(by_cost(here), second)
    promote(here.pipeline, second)


def test_what_the_champion_predicted_before_the_duel_does_not_count(here: World) -> None:
    first = made(here, "C=1")
    deploy_production(here.pipeline, first)
    predictions(here, first, right=0, wrong=300)
    deploy_production(here.pipeline, made(here, "C=2"))
    assert evaluate(here.pipeline).evidence.facts["champion_n"] == 0


def spool(release: Release, *, rows: int = 0, silent_seconds: float = 1) -> Spool:
    return Spool(
        name="r1-ab",
        slot="r1",
        release=release.id,
        rows=rows,
        since=NOON if rows else None,
        silent_seconds=silent_seconds,
    )


@pytest.mark.parametrize(
    ("rows", "silent", "reason"),
    [
        (412, 1.0, "412 predictions are still on their way to the database (r1, since 20"),
        (0, 300.0, "a replica of r1 has not reported for 300 s and may have more predictions"),
    ],
)
def test_what_is_still_on_its_way_keeps_a_challenger_from_passing(
    here: World, rows: int, silent: float, reason: str
) -> None:
    first, second = proven_duel(here)
    stranger = another_release("stranger")
    here.observations.spooled = [spool(first), spool(stranger, rows=7)]
    assert evaluate(here.pipeline).evidence.verdict == "passed"
    for late in (first, second):
        here.observations.spooled = [spool(late, rows=rows, silent_seconds=silent)]
        record = evaluate(here.pipeline)
        assert record.evidence.verdict == "undecided"
        facts = shapes.of(record, Evaluated)
        assert reason in facts.reason
        assert facts.undelivered == rows
    with pytest.raises(RefusedError):
        promote(here.pipeline, second)
    here.observations.spooled = []
    assert evaluate(here.pipeline).evidence.verdict == "passed"


def test_status_tells_what_is_still_on_its_way_where_replicas_spool(here: World) -> None:
    first, _ = proven_duel(here)
    stranger = another_release("stranger")
    here.observations.spooled = [spool(first, rows=3), spool(stranger, rows=7)]
    assert status(here.pipeline).undelivered == ()
    settings = ObservationsConfig(kind="postgres", url="postgresql://db/iris", when_away="spool")
    config = msgspec.structs.replace(here.pipeline.config, observations=settings)
    pipeline = dataclasses.replace(here.pipeline, config=config)
    (told,) = status(pipeline).undelivered
    assert told.startswith("3 predictions are still on their way")


def test_status_agrees_when_all_is_well(here: World) -> None:
    duel(here)
    found = status(here.pipeline)
    assert found.drift == ()
    assert [(seen.role, seen.weight) for seen in found.seen if seen.target == "production"] == [
        ("champion", 90),
        ("challenger", 10),
    ]


def test_status_lists_the_champion_first_whatever_its_id_is(here: World) -> None:
    first, second = proven_duel(here)
    for champion, other in ((first, second), (second, first)):
        in_production = [
            each.release for each in status(here.pipeline).seen if each.target == "production"
        ]
        assert in_production == [str(champion), str(other)]
        if champion == first:
            promote(here.pipeline, second)


def test_status_shows_the_rest_where_one_target_cannot_be_asked(
    here: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = duel(here)

    def refuse() -> None:
        raise UnavailableError("context a does not accept the credentials", hint="log in again")

    assert status(here.pipeline).silent == {}
    monkeypatch.setattr(here.targets["staging"], "inspect", refuse)
    found = status(here.pipeline)
    assert {seen.target for seen in found.seen} == {"production"}
    assert list(found.endpoints) == ["production"]
    assert found.silent["staging"].hint == "log in again"
    status_view.show_status(found, everything=False)
    assert str(first) in capsys.readouterr().out
    with pytest.raises(UnavailableError, match="target staging: context a does not") as caught:
        inspect.raise_silence(found)
    assert caught.value.hint == "log in again"
    assert caught.value.facts["seen"] == found.seen


def test_status_shows_what_was_started_again_and_why(
    here: World, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = duel(here)
    target = here.targets["production"]
    assert isinstance(target, FakeTarget)
    target.restart(
        slot_of(first),
        Restarts(workers=3, hung=1, reasons=("a worker of replica 1 did not answer",)),
    )
    target.restart(slot_of(second), Restarts(replicas=2, unknown="restarts of workers in pods"))
    found = status(here.pipeline)
    production = {seen.release: seen for seen in found.seen if seen.target == "production"}
    restarts = production[str(first)].restarts
    assert restarts is not None
    assert (restarts.workers, restarts.hung) == (3, 1)
    status_view.show_status(found, everything=False)
    text = capsys.readouterr().out
    assert "workers: 3 (1 hung)" in text
    assert "pods: 2" in text
    assert f"production: {first}: a worker of replica 1 did not answer, and was" in text
    assert "production: not known: restarts of workers in pods" in text


def test_status_has_no_column_of_restarts_where_there_were_none(
    here: World, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = duel(here)
    target = here.targets["production"]
    assert isinstance(target, FakeTarget)
    target.restart(slot_of(first), Restarts(workers=0, hung=0))
    status_view.show_status(status(here.pipeline), everything=False)
    assert "restarts" not in capsys.readouterr().out


def test_status_tells_an_alias_and_a_route_that_somebody_moved(here: World) -> None:
    first, second = duel(here)
    here.store.point("champion", second)
    target = here.targets["production"]
    split = msgspec.structs.replace(target.routes().split, weights={slot_of(second): 100})
    target.route(split, expected=target.routes().revision)
    drift = " ".join(status(here.pipeline).drift)
    assert "alias champion points to" in drift
    assert f"no traffic to champion {first}" in drift


def test_a_prediction_leads_to_all_that_is_behind_it(here: World) -> None:
    first, _ = duel(here)
    predictions(here, first, right=1, wrong=0)
    found = trace(here.pipeline, here.observations.made[0].id, reproduce=True)
    assert (found.release, found.role) == (first, "champion")
    assert found.outcome is not None
    assert [record.evidence.step for record in found.evidence][:2] == ["train", "test"]
    assert found.attached == {}
    containerize(here.pipeline, first)
    push(here.pipeline, first)
    found = trace(here.pipeline, here.observations.made[0].id)
    assert {"sbom", "provenance"} <= found.attached.keys()
    here.predictor.shift = 0.5
    with pytest.raises(IntegrityError, match=r"score is 1\.5, was 1\.0"):
        trace(here.pipeline, here.observations.made[0].id, reproduce=True)


def test_predictions_of_other_projects_count_for_nothing(here: World) -> None:
    first, _ = duel(here)
    predictions(here, first, right=2, wrong=0)
    own = here.observations.made[0]
    foreign = digests.of_bytes(b"of another project")
    # Two projects that one service asks for one request have the id in common.
    here.observations.made.insert(0, msgspec.structs.replace(own, release=foreign))
    here.observations.made.append(msgspec.structs.replace(own, id="b.0", release=foreign))
    here.observations.taken.append(Outcome(prediction="b.0", value="setosa", time=NOON))
    with pytest.raises(ConflictError):
        feedback(here.pipeline, [Received("b.0", "setosa")])
    assert shapes.of(evaluate(here.pipeline), Evaluated).outcomes == 2
    assert [trace(here.pipeline, own.id).release, trace(here.pipeline, own.id).shadow] == [
        first,
        None,
    ]
    with pytest.raises(NotFoundError, match=f"{foreign} of prediction b.0 is not in the ledger"):
        trace(here.pipeline, "b.0")
    requests = verify._recorded(here.pipeline, 5, here.pipeline.read())
    assert {request.name for request in requests} == {
        f"recorded {one.id}" for one in here.observations.made if one.release == first.id
    }


def test_an_unknown_prediction_is_not_found(here: World) -> None:
    with pytest.raises(NotFoundError):
        trace(here.pipeline, "nobody.0")


def test_evidence_carries_actor_and_time(here: World) -> None:
    record: Record = train(here.pipeline)
    assert record.evidence.actor == "ada"
    assert record.evidence.time > NOON


def test_a_named_release_is_tested_on_its_own_data_only(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = train(here.pipeline).evidence.release
    testing.check_data(here.pipeline, release)
    others = msgspec.structs.replace(here.trainer.inputs(), data=digests.of_bytes(b"others"))
    monkeypatch.setattr(here.trainer, "inputs", lambda: others)
    with pytest.raises(IntegrityError, match="was trained with other data") as caught:
        testing.check_data(here.pipeline, release)
    assert release.commit[:12] in caught.value.hint
