"""A step that is killed at any changing call, then run again, ends as if nothing had happened."""

import copy
import dataclasses
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.domain.deployment import slot_of
from mlship.domain.evidence import Saw, Step
from mlship.domain.fence import KERNEL
from mlship.domain.policy import PromotePolicy
from mlship.domain.release import Release
from mlship.errors import ConflictError, NotFoundError, RefusedError
from mlship.steps.approve import approve
from mlship.steps.deploy import deploy_production
from mlship.steps.pipeline import Pipeline
from mlship.steps.promote import chosen, promote
from mlship.steps.retire import retire
from mlship.steps.rollback import rollback
from mlship.steps.status import status
from mlship.steps.traffic import traffic
from mlship.steps.train import train
from tests.fakes.ports import CONFIG, World, world
from tests.harness.kills import SIDES, Killed, Side, Watch, watched
from tests.harness.samples import better, nothing

Act = Callable[[Pipeline], object]
Scene = Callable[[World], Act]
"""Prepares a world and returns what is to be done in it."""


def proven(here: World, params: str) -> Release:
    here.trainer.params = params
    release = train(here.pipeline).evidence.release
    steps: tuple[Step, ...] = ("test", "verify-staging-workload")
    for step in steps:
        here.pipeline.learn(release, step, "passed", nothing(step))
    return release


def won(here: World, release: Release) -> Release:
    """Let a challenger win its duel, and somebody approve of it."""
    champion = here.pipeline.read().history.champion
    assert champion is not None
    here.pipeline.learn(release, "evaluate", "passed", better(300), Saw(champion=champion.id))
    approve(here.pipeline, release, "grace@example.org")
    return release


def first_release(here: World) -> Act:
    release = proven(here, "C=1")
    return lambda pipeline: deploy_production(pipeline, release)


def challenger(here: World) -> Act:
    deploy_production(here.pipeline, proven(here, "C=1"))
    release = proven(here, "C=2")
    return lambda pipeline: deploy_production(pipeline, release)


def replacement(here: World) -> Act:
    challenger(here)(here.pipeline)
    release = proven(here, "C=3")
    return lambda pipeline: deploy_production(pipeline, release, occupied="replace")


def promotion(here: World) -> Act:
    challenger(here)(here.pipeline)
    won(here, here.pipeline.release("challenger"))

    def act(pipeline: Pipeline) -> object:
        seen = pipeline.read()
        return promote(pipeline, chosen(pipeline, "challenger", seen), seen)

    return act


def way_back(here: World) -> Act:
    promotion(here)(here.pipeline)
    return rollback


def way_back_beside_a_challenger(here: World) -> Act:
    promotion(here)(here.pipeline)
    deploy_production(here.pipeline, proven(here, "C=3"))
    return rollback


def second_promotion(here: World) -> Act:
    act = promotion(here)
    act(here.pipeline)
    rollback(here.pipeline)
    return act


def retirement(here: World) -> Act:
    promotion(here)(here.pipeline)
    former = here.pipeline.read().history.former[0]
    return lambda pipeline: retire(pipeline, former, early=True)


def retirement_of_the_challenger(here: World) -> Act:
    challenger(here)(here.pipeline)
    release = here.pipeline.release("challenger")
    return lambda pipeline: retire(pipeline, release)


def split(here: World) -> Act:
    challenger(here)(here.pipeline)
    return lambda pipeline: traffic(pipeline, {"challenger": 35}, override="a drill")


def split_that_the_gate_allows(here: World) -> Act:
    challenger(here)(here.pipeline)
    won(here, here.pipeline.release("challenger"))
    return lambda pipeline: traffic(pipeline, {"challenger": 35})


SCENES: tuple[Scene, ...] = (
    first_release,
    challenger,
    replacement,
    promotion,
    second_promotion,
    way_back,
    way_back_beside_a_challenger,
    retirement,
    retirement_of_the_challenger,
    split,
    split_that_the_gate_allows,
)


def start(folder: Path, scene: Scene) -> tuple[World, Act]:
    gates = msgspec.structs.replace(CONFIG.gates, promote=PromotePolicy(min_labels=50))
    here = world(folder, msgspec.structs.replace(CONFIG, gates=gates))
    return here, scene(here)


class Scenery:
    """A scene that is prepared once, and copied: to prepare it takes longer than what follows."""

    def __init__(self, folder: Path, scene: Scene) -> None:
        self._folder = folder
        self._here, self.act = start(folder, scene)

    def world(self, folder: Path) -> World:
        """Return a copy of the prepared world, in a folder of its own."""
        shutil.copytree(self._folder, folder)
        here = copy.deepcopy(self._here)
        targets = here.targets
        here.pipeline = dataclasses.replace(
            here.pipeline,
            root=folder,
            state=folder / ".mlship",
            target=lambda name, fence=KERNEL: targets[name],
        )
        return here

    def undisturbed(self, folder: Path) -> tuple[list[str], dict[str, Any]]:
        """Return the calls of what is to be done, and how it ends."""
        here, watch = self.world(folder), Watch()
        self.act(watched(here.pipeline, watch))
        return watch.calls, state(here)


def state(here: World) -> dict[str, Any]:
    """Return all that a user can see: who runs, who gets traffic, names, roles, evidence."""
    target, history = here.targets["production"], here.pipeline.read().history
    records = here.ledger.records()
    return {
        "runs": dict(target.inspect()),
        "route": target.routes().split,
        "aliases": {version.release: version.aliases for version in here.store.versions()},
        "archived": [version.release for version in here.store.versions() if version.archived],
        "roles": {one.evidence.release.id: history.role(one.evidence.release) for one in records},
        "reigns": [(reign.release, reign.by, reign.until is None) for reign in history.reigns],
        "drift": status(here.pipeline).drift,
        "evidence": [
            (
                record.evidence.step,
                record.evidence.release,
                {
                    name: fact
                    for name, fact in record.evidence.facts.items()
                    if name not in ("operation", "seconds")
                },
            )
            for record in records
        ],
    }


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("scene", SCENES)
def test_a_step_killed_at_any_call_and_run_again_ends_the_same(
    scene: Scene, side: Side, tmp_path: Path
) -> None:
    prepared = Scenery(tmp_path / "prepared", scene)
    calls, expected = prepared.undisturbed(tmp_path / "whole")
    assert expected["drift"] == ()
    for number, call in enumerate(calls, start=1):
        here = prepared.world(tmp_path / str(number))
        with pytest.raises(Killed):
            prepared.act(watched(here.pipeline, Watch(point=(side, number))))
        prepared.act(here.pipeline)
        assert state(here) == expected, f"killed {side} {number}, {call}"


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_a_step_killed_again_and_again_ends_the_same(scene: Scene, tmp_path: Path) -> None:
    prepared = Scenery(tmp_path / "prepared", scene)
    calls, expected = prepared.undisturbed(tmp_path / "whole")
    for seed in range(3):
        chance = random.Random(seed)
        here = prepared.world(tmp_path / str(seed))
        for _ in range(6):
            point = chance.choice(SIDES), chance.randint(1, len(calls))
            try:
                prepared.act(watched(here.pipeline, Watch(point=point)))
            except Killed:
                continue
        prepared.act(here.pipeline)
        assert state(here) == expected, f"seed {seed}"


def test_a_kill_before_the_end_leaves_something_to_do_and_status_says_what(tmp_path: Path) -> None:
    calls, expected = Scenery(tmp_path / "prepared", promotion).undisturbed(tmp_path / "whole")
    here, act = start(tmp_path / "killed", promotion)
    with pytest.raises(Killed):
        act(watched(here.pipeline, Watch(point=("before", len(calls)))))
    assert state(here) != expected
    challenger = here.pipeline.read().history.challenger
    assert any(f"`mlship promote {challenger}`" in line for line in status(here.pipeline).drift)


def test_a_replacement_that_was_begun_is_resumed_without_being_told_again(tmp_path: Path) -> None:
    here, act = start(tmp_path, replacement)
    with pytest.raises(Killed):
        act(watched(here.pipeline, Watch(point=("after", 4))))
    third = here.ledger.records()[-1].evidence.release
    deploy_production(here.pipeline, third)
    assert here.pipeline.read().history.challenger == third


def test_a_gate_that_was_passed_before_the_route_moved_is_asked_again(tmp_path: Path) -> None:
    here, act = start(tmp_path, promotion)
    calls, _ = Scenery(tmp_path / "prepared", promotion).undisturbed(tmp_path / "whole")
    route = calls.index("target.route") + 1
    with pytest.raises(Killed):
        act(watched(here.pipeline, Watch(point=("before", route))))
    here.pipeline.learn(
        here.pipeline.release("challenger"), "evaluate", "failed", nothing("evaluate")
    )
    with pytest.raises(RefusedError, match="evaluate: failed"):
        act(here.pipeline)


def test_a_promotion_whose_route_has_moved_is_completed_whatever_was_learnt_since(
    tmp_path: Path,
) -> None:
    here, act = start(tmp_path, promotion)
    calls, _ = Scenery(tmp_path / "prepared", promotion).undisturbed(tmp_path / "whole")
    route = calls.index("target.route") + 1
    with pytest.raises(Killed):
        act(watched(here.pipeline, Watch(point=("after", route))))
    here.pipeline.learn(
        here.pipeline.release("challenger"), "evaluate", "undecided", nothing("evaluate")
    )
    act(here.pipeline)
    assert status(here.pipeline).drift == ()


def test_who_comes_second_is_told_so_even_when_the_first_is_done(tmp_path: Path) -> None:
    here, act = start(tmp_path, promotion)
    seen = here.pipeline.read()
    release = chosen(here.pipeline, "challenger", seen)
    act(here.pipeline)
    with pytest.raises(
        ConflictError, match=r"promote of iris@\w+ by ada was completed in the meantime"
    ):
        promote(here.pipeline, chosen(here.pipeline, "challenger", seen), seen)
    assert here.targets["production"].routes().split.weights == {slot_of(release): 100}


def test_after_a_rollback_challenger_means_the_one_that_fell(tmp_path: Path) -> None:
    here, _ = start(tmp_path, second_promotion)
    seen = here.pipeline.read()
    assert chosen(here.pipeline, "challenger", seen) == seen.history.challenger


def test_without_a_promotion_there_is_no_challenger_to_promote_again(tmp_path: Path) -> None:
    here, act = start(tmp_path, first_release)
    act(here.pipeline)
    with pytest.raises(NotFoundError, match="no challenger"):
        chosen(here.pipeline, "challenger", here.pipeline.read())
