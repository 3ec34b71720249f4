"""The real command line killed by SIGKILL and run again, and two promotions at one moment."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from mlship.adapters.targets.local import locks
from mlship.domain import bundle
from mlship.domain.bundle import Hooks
from mlship.domain.evidence import Saw, Step
from mlship.domain.release import Release
from mlship.domain.versions import Run
from mlship.steps.approve import approve
from tests.harness.bundles import iris_bundle, iris_draft
from tests.harness.kills import Point, Project, Side, overtaken, race
from tests.harness.samples import better, nothing
from tests.harness.samples import release as sample

CONFIG = """
name: iris
data: {train: train.csv, test: test.csv, target: species}
model: {train: "pipeline:train"}
gates: {promote: {min_labels: 50}}
targets:
  production: {kind: local, replicas: 1, drain_seconds: 3}
store: {kind: directory}
"""


def proven(project: Project, accuracy: float) -> Release:
    """Record a release with a bundle that really serves, as training and staging would."""
    pipeline = project.pipeline()
    folder = project.folder / f"bundle-{accuracy}"
    iris_bundle(folder)
    draft = msgspec.structs.replace(iris_draft(Hooks()), metrics={"accuracy": accuracy})
    digest = bundle.seal(folder, draft)
    release = msgspec.structs.replace(sample(str(accuracy)), bundle=digest)
    pipeline.store.record(Run(release=release, bundle=folder))
    steps: tuple[Step, ...] = ("train", "test", "verify-staging-workload")
    for step in steps:
        pipeline.learn(release, step, "passed", nothing(step))
    return release


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Give a project with a champion and a challenger that has won and was approved of."""
    made = Project(tmp_path_factory.mktemp("project"))
    (made.folder / "mlship.yaml").write_text(CONFIG)
    champion, challenger = proven(made, 0.8), proven(made, 0.9)
    try:
        made.plain("deploy-production", str(champion))
        made.plain("deploy-production", str(challenger))
        pipeline = made.pipeline()
        pipeline.learn(challenger, "evaluate", "passed", better(), Saw(champion=champion.id))
        approve(pipeline, challenger, "grace@example.org")
        yield made
    finally:
        made.plain("down")


def killed_and_run_again(project: Project, point: Point, *arguments: str) -> None:
    """Check that nothing is left to clear away, and that each thing is recorded once."""
    before = project.steps()
    project.run(*arguments, point=point)
    assert not locks.is_held(project.folder / ".mlship" / "locks" / "production.lock")
    project.plain(*arguments)
    gained = project.steps() - before
    assert set(gained.values()) == {1}, gained
    assert gained[arguments[0]] == 1


def whole(project: Project, *arguments: str) -> tuple[list[str], dict[str, Any]]:
    """Run a command undisturbed; return its changing calls and the state after it."""
    calls = project.run(*arguments)
    state = project.observed()
    assert state["drift"] == []
    return calls, state


def at(side: Side, calls: list[str], name: str) -> Point:
    return side, calls.index(name) + 1


def test_a_killed_promotion_and_a_killed_rollback_are_completed_by_running_them_again(
    project: Project,
) -> None:
    promotion, promoted = whole(project, "promote", "challenger")
    rollback, rolled_back = whole(project, "rollback")
    assert promoted["champion"] != rolled_back["champion"]
    rounds: list[tuple[Point, Point]] = [
        (("before", 1), ("after", 1)),
        (at("after", promotion, "target.route"), at("after", rollback, "store.point champion")),
        (at("after", promotion, "store.archive"), at("before", rollback, "target.route")),
        (("after", len(promotion)), ("before", len(rollback))),
    ]
    for there, back in rounds:
        killed_and_run_again(project, there, "promote", "challenger")
        assert project.differences(promoted) == []
        killed_and_run_again(project, back, "rollback")
        assert project.differences(rolled_back) == []


def test_a_killed_deployment_is_completed_by_running_it_again(project: Project) -> None:
    challenger = str(project.pipeline().read().history.challenger)
    project.plain("retire", "challenger")
    calls, deployed = whole(project, "deploy-production", challenger)
    points: list[Point] = [
        at("after", calls, "target.deploy"),
        at("after", calls, "target.route"),
        ("after", len(calls)),
    ]
    for point in points:
        project.plain("retire", "challenger")
        killed_and_run_again(project, point, "deploy-production", challenger)
        assert project.differences(deployed) == []


def test_of_two_promotions_at_one_moment_one_wins_and_the_other_is_told(project: Project) -> None:
    for _ in range(3):
        before = project.steps()["promote"]
        ended = sorted(race(project, "promote", "challenger"))
        assert [code for code, _ in ended] == [0, 8], ended
        assert project.steps()["promote"] == before + 1
        project.plain("rollback")


def test_a_promotion_that_another_overtakes_is_told_of_it(project: Project) -> None:
    before = project.steps()["promote"]
    code, said = overtaken(project, "promote", "challenger")
    assert code == 8, said
    assert "was completed in the meantime" in said
    assert project.steps()["promote"] == before + 1
    project.plain("promote", "challenger")
    assert project.steps()["promote"] == before + 1
    project.plain("rollback")
