"""The order of a run, and what it leaves out: on fakes, with staging's answers taken as given."""

import dataclasses
import json
from pathlib import Path

import msgspec
import pytest

from mlship.config.backends import ObservationsConfig
from mlship.config.project import GatesConfig, ImageConfig, TargetConfig
from mlship.domain import digests, shapes
from mlship.domain.deployment import slot_of
from mlship.domain.evidence import Record, Saw, Step
from mlship.domain.facts import Deployed, Verified
from mlship.domain.inputs import Inputs
from mlship.domain.release import Release
from mlship.errors import ConflictError, RefusedError
from mlship.reports.summary import summary
from mlship.steps.container import check_container
from mlship.steps.containerize import containerize
from mlship.steps.deploy import deploy_production
from mlship.steps.pipeline import Pipeline
from mlship.steps.push import push
from mlship.steps.run import names, run
from mlship.steps.train import train
from tests.fakes.engine import Served
from tests.fakes.ports import CONFIG, World, world
from tests.harness.samples import nothing

GOLDEN = {"inputs": {"x": 1.5}, "outputs": {"species": "setosa", "score": 1.0}}
IMAGES = {"staging": TargetConfig(kind="kubernetes"), "production": TargetConfig(kind="kubernetes")}
STEPS = [
    "train",
    "test",
    "containerize",
    "test-container",
    "push-to-registry",
    "deploy-staging",
    "verify-staging-workload",
    "deploy-production",
]


class Heard:
    """Hears of a run."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.reused: list[str] = []
        self.left_out: dict[str, str] = {}

    def started(self, step: str) -> None:
        self.steps.append(step)

    def finished(self, record: Record, *, reused: bool) -> None:
        if reused:
            self.reused.append(record.evidence.step)

    def skipped(self, step: str, reason: str) -> None:
        self.left_out[step] = reason


def ran(here: World, **changes: object) -> Heard:
    """Run the pipeline by settings that differ in this from the world's."""
    heard = Heard()
    config = msgspec.structs.replace(here.pipeline.config, **changes)
    run(dataclasses.replace(here.pipeline, config=config), heard)
    return heard


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = world(tmp_path, msgspec.structs.replace(CONFIG, targets=IMAGES))
    made.trainer.golden = json.dumps(GOLDEN) + "\n"
    monkeypatch.setattr("mlship.steps.replay._SETTLED", 0.01)

    def contained(pipeline: Pipeline, release: Release) -> Record:
        return check_container(pipeline, release, Served(made.engine, str(release)))

    def verified(pipeline: Pipeline, release: Release) -> Record:
        saw = Saw(policy=pipeline.policy("staging"))
        return pipeline.learn(release, "verify-staging-workload", "passed", Verified(), saw)

    monkeypatch.setattr("mlship.steps.run.check_container", contained)
    monkeypatch.setattr("mlship.steps.run.verify", verified)
    return made


def test_an_image_is_tested_before_it_is_pushed(here: World) -> None:
    assert names(here.pipeline) == tuple(STEPS)
    assert ran(here).steps == STEPS
    assert here.pipeline.read().history.champion is not None


def test_a_release_that_is_in_production_is_not_deployed_again(here: World) -> None:
    ran(here)
    again = ran(here)
    assert again.left_out["deploy-production"].startswith(
        "champion already, with 100 % of the traffic, "
    )


def test_what_was_proven_in_a_container_is_not_done_again(here: World) -> None:
    ran(here)
    assert "test-container" in ran(here).reused
    assert len(here.engine.made) == 1


def test_the_inputs_are_computed_before_and_after_a_training_and_once_where_there_is_none(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Inputs] = []
    inputs = here.trainer.inputs()

    def look() -> Inputs:
        looked.append(inputs)
        return inputs

    monkeypatch.setattr(here.trainer, "inputs", look)
    assert "train" not in ran(here).reused
    assert len(looked) == 2
    assert "train" in ran(here).reused
    assert len(looked) == 3


def test_another_image_is_tested_anew(here: World) -> None:
    ran(here)
    here.images.base = digests.of_bytes(b"another base")
    with pytest.raises(ConflictError, match="holds"):
        ran(here, image=ImageConfig(base="python:3.12-slim"))
    assert len(here.engine.made) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"image": ImageConfig(memory="300m")},
        {"image": ImageConfig(max_mb=300)},
        {"targets": IMAGES | {"staging": TargetConfig(kind="kubernetes", drain_seconds=3)}},
    ],
)
def test_by_other_bounds_it_is_tested_anew(here: World, changes: dict[str, object]) -> None:
    ran(here)
    assert "test-container" not in ran(here, **changes).reused


def test_an_image_that_fails_goes_no_further(here: World) -> None:
    here.engine.size = 10**9
    assert ran(here).steps == STEPS[:4]
    assert not here.images.registry


def test_a_container_test_that_is_not_asked_for_is_told_by_run_and_evidence(here: World) -> None:
    heard = ran(here, gates=GatesConfig(container=False))
    assert heard.left_out == {"test-container": "gates.container is false"}
    assert heard.steps == [step for step in STEPS if step != "test-container"]
    assert not here.engine.made
    deployed = here.ledger.records()[-1]
    assert deployed.evidence.step == "deploy-production"
    assert "not required (gates.container is false)" in " ".join(texts(deployed))


def texts(record: Record) -> list[str]:
    return [check.text for check in shapes.of(record, Deployed).checks]


@pytest.mark.parametrize("kinds", [("local", "kubernetes"), ("kubernetes", "local")])
def test_one_target_of_images_is_enough_to_test_them(here: World, kinds: tuple[str, str]) -> None:
    targets = {
        name: TargetConfig(kind=kind)  # type: ignore[arg-type]
        for name, kind in zip(("staging", "production"), kinds, strict=True)
    }
    assert "test-container" in ran(here, targets=targets).steps


def test_where_bundles_run_nothing_is_said_of_images(here: World) -> None:
    heard = ran(here, targets={})
    assert heard.steps == [step for step in STEPS if step not in STEPS[2:5]]
    assert not heard.left_out
    assert not any("container" in text for text in texts(here.ledger.records()[-1]))


def proven(here: World) -> Release:
    """Prove a release and push its image, without a test in a container."""
    release = train(here.pipeline).evidence.release
    steps: tuple[Step, ...] = ("test", "verify-staging-workload")
    for step in steps:
        here.pipeline.learn(release, step, "passed", nothing(step))
    containerize(here.pipeline, release)
    push(here.pipeline, release)
    return release


def contain(here: World, release: Release) -> Record:
    return check_container(here.pipeline, release, Served(here.engine, str(release)))


def test_production_refuses_an_image_that_was_not_tested_and_names_the_command(
    here: World,
) -> None:
    release = proven(here)
    with pytest.raises(RefusedError, match=r"test-container of image .*: never run") as caught:
        deploy_production(here.pipeline, release)
    assert caught.value.hint == f"`mlship test --container {release}`"
    assert not here.targets["production"].inspect()
    contain(here, release)
    assert deploy_production(here.pipeline, release).evidence.verdict == "passed"


def test_an_image_that_was_pushed_after_the_test_of_another_is_refused(here: World) -> None:
    release = proven(here)
    contain(here, release)
    here.images.tool = "2"
    containerize(here.pipeline, release)
    push(here.pipeline, release)
    with pytest.raises(RefusedError, match="never run"):
        deploy_production(here.pipeline, release)


def test_what_runs_in_production_is_brought_back_whatever_the_gate_asks_for_by_now(
    here: World,
) -> None:
    release = proven(here)
    contain(here, release)
    deploy_production(here.pipeline, release)
    here.engine.size = 10**9
    assert contain(here, release).evidence.verdict == "failed"
    deploy_production(here.pipeline, release)
    assert here.targets["production"].inspect()[slot_of(release)].ready


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({}, True),
        ({"observations": ObservationsConfig(kind="postgres", url="postgresql://db/iris")}, False),
        ({"targets": {}}, False),
    ],
)
def test_whose_predictions_go_with_the_pods_is_told(
    here: World, changes: dict[str, object], lost: bool
) -> None:
    ran(here, **changes)
    told = [note for note in here.progress.notes if "lost when its pods stop" in note]
    assert len(told) == lost
    assert ("lost when its pods stop" in summary(here.ledger.records()[-1])) == lost


def test_whoever_may_ask_production_without_a_key_is_told(here: World) -> None:
    ran(here)
    (told,) = [note for note in here.progress.notes if "without an API key" in note]
    assert told.startswith("warning: target production: ")
    assert "targets.production.kubernetes.api_keys_secret" in told


def test_a_target_on_this_machine_is_not_open_to_others(here: World) -> None:
    ran(here, targets={})
    assert not [note for note in here.progress.notes if "without an API key" in note]
