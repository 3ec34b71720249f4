"""Outcomes of several targets: taken in, refused, and scored by their mean."""

from pathlib import Path

import msgspec
import pytest

from mlship.domain import shapes
from mlship.domain.bundle import Row
from mlship.domain.deployment import slot_of
from mlship.domain.facts import Evaluated, Verified
from mlship.domain.policy import PromotePolicy
from mlship.domain.prediction import Prediction, Truth
from mlship.domain.release import Release
from mlship.errors import ProjectError
from mlship.steps import test as testing
from mlship.steps.deploy import deploy_production, deploy_staging
from mlship.steps.evaluate import evaluate
from mlship.steps.feedback import feedback
from mlship.steps.outcome_files import Received, parsed, read
from mlship.steps.train import train
from tests.fakes.ports import CONFIG, World, world

TARGETS = ("sky", "wet")


@pytest.fixture
def here(tmp_path: Path) -> World:
    gates = msgspec.structs.replace(CONFIG.gates, promote=PromotePolicy(min_labels=2))
    data = msgspec.structs.replace(CONFIG.data, target=TARGETS)
    return world(tmp_path, msgspec.structs.replace(CONFIG, data=data, gates=gates))


def deployed(here: World, params: str) -> Release:
    here.trainer.params = params
    release = train(here.pipeline).evidence.release
    testing.test(here.pipeline, release)
    deploy_staging(here.pipeline, release)
    here.pipeline.learn(release, "verify-staging-workload", "passed", Verified())
    deploy_production(here.pipeline, release)
    return release


def logged(here: World, release: Release, name: str, sky: str, wet: int) -> None:
    prediction = Prediction(
        id=name,
        release=release.id,
        slot=slot_of(release),
        time=here.clock(),
        inputs={"x": 1.0},
        outputs={"sky": sky, "wet": wet, "probability_sky_blue": 0.5},
        latency_ms=0.5,
    )
    here.observations.made.append(prediction)


def test_a_prediction_scores_the_mean_of_the_targets_that_are_known(here: World) -> None:
    champion, challenger = deployed(here, "C=1"), deployed(here, "C=2")
    for name in "ab":
        logged(here, champion, f"old-{name}.0", "blue", 1)
        logged(here, challenger, f"new-{name}.0", "grey", 1)
    path = here.pipeline.root / "outcomes.csv"
    path.write_text(
        "prediction_id,sky,wet\nold-a.0,grey,1\nold-b.0,blue,\nnew-a.0,grey,1\nnew-b.0,,0\n"
    )
    feedback(here.pipeline, read(path, TARGETS))
    facts = shapes.of(evaluate(here.pipeline), Evaluated)
    assert (facts.champion_n, facts.challenger_n) == (2, 2)
    assert facts.champion_mean == (0.5 + 1) / 2
    assert facts.challenger_mean == (1 + 0) / 2


def test_outcomes_as_json_are_objects(here: World) -> None:
    path = here.pipeline.root / "outcomes.jsonl"
    path.write_text(
        '{"prediction_id": "a.0", "outcome": {"sky": "blue", "wet": 1}}\n'
        '{"id": "b.0", "sky": "grey"}\n'
    )
    assert read(path, TARGETS) == [
        Received("a.0", {"sky": "blue", "wet": 1}, str(path), 1),
        Received("b.0", {"sky": "grey"}, str(path), 2),
    ]
    assert parsed('{"wet": 0}', TARGETS) == {"wet": 0}
    assert parsed('{"wet": 0}', ["species"]) == '{"wet": 0}'
    with pytest.raises(ProjectError, match="not a JSON object"):
        parsed("blue", TARGETS)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("blue", "one value, and the project has the targets sky, wet"),
        ({"sky": "blue", "snow": 1}, "is of snow"),
        ({}, "is an object"),
    ],
)
def test_outcomes_of_other_targets_are_refused(here: World, outcome: Truth, said: str) -> None:
    with pytest.raises(ProjectError, match=said):
        feedback(here.pipeline, [Received("a.0", outcome)])
    assert here.observations.taken == []


def test_an_object_is_no_outcome_of_one_target(tmp_path: Path) -> None:
    here = world(tmp_path)
    with pytest.raises(ProjectError, match="is an object, and the project predicts species"):
        feedback(here.pipeline, [Received("a.0", {"species": "setosa"})])


def test_a_line_without_any_target_is_named(here: World) -> None:
    path = here.pipeline.root / "outcomes.csv"
    path.write_text("prediction_id,sky,wet\na.0,,\n")
    with pytest.raises(ProjectError, match="outcome is missing") as caught:
        read(path, TARGETS)
    assert "sky, wet" in caught.value.hint


@pytest.mark.parametrize(
    ("metric", "outputs", "outcome", "mean"),
    [
        ("pinball[0.9]", {"sky": 5.0, "wet": 1.0, "sky_q0.9": 8.0}, {"sky": 8}, 0.0),
        ("pinball[0.9]", {"sky": 5.0, "wet": 1.0}, {"sky": 8}, 0.9 * 3),
        ("brier", {"sky": "a", "probability_sky_a": 0.8, "probability_sky_b": 0.2}, None, 0.04),
    ],
)
def test_metrics_of_a_target_look_at_its_own_outputs(
    tmp_path: Path, metric: str, outputs: Row, outcome: Truth, mean: float
) -> None:
    policy = PromotePolicy(metric=metric, min_labels=1)
    config = msgspec.structs.replace(
        CONFIG,
        data=msgspec.structs.replace(CONFIG.data, target=TARGETS),
        gates=msgspec.structs.replace(CONFIG.gates, promote=policy),
    )
    here = world(tmp_path, config)
    here.trainer.task = "classification" if metric == "brier" else "regression"
    releases = deployed(here, "C=1"), deployed(here, "C=2")
    for release in releases:
        logged(here, release, f"{release.id[-6:]}.0", "x", 1)
        here.observations.made[-1] = msgspec.structs.replace(
            here.observations.made[-1], outputs=outputs
        )
        feedback(here.pipeline, [Received(f"{release.id[-6:]}.0", outcome or {"sky": "a"})])
    facts = shapes.of(evaluate(here.pipeline), Evaluated)
    assert facts.champion_mean == pytest.approx(mean)
