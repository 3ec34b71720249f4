"""A challenger must accept the champion's requests and give its outputs."""

import dataclasses
from pathlib import Path

import msgspec
import pytest

from mlship.domain import bundle as bundles
from mlship.domain import checks, compatibility, shapes
from mlship.domain.bundle import Bundle, Field, Kind, Schema, Task
from mlship.domain.compatibility import Compatibility
from mlship.domain.facts import Deployed, Tested
from mlship.domain.release import Release
from mlship.errors import RefusedError
from mlship.steps.deploy import deploy_production
from mlship.steps.pipeline import Pipeline
from mlship.steps.test import test as run_tests
from mlship.steps.train import train
from tests.fakes.ports import World, world
from tests.fakes.store import tiny_bundle
from tests.harness.samples import nothing

AGE, PLAN = Field(name="age", kind="number", nullable=True), Field(name="plan", kind="text")
CHURN = Field(name="churn", kind="text")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("tiny") / "bundle"
    tiny_bundle(folder)
    return bundles.manifest(folder)


def of(
    tiny: Bundle,
    *inputs: Field,
    outputs: tuple[Field, ...] = (CHURN,),
    target: str = "churn",
    task: Task = "classification",
) -> Bundle:
    schema = Schema(inputs=inputs, outputs=outputs)
    return msgspec.structs.replace(tiny, schema=schema, target=target, task=task)


def kind(field: Field, kind: Kind) -> Field:
    return msgspec.structs.replace(field, kind=kind, nullable=False)


def test_the_same_columns_in_another_order_are_compatible(tiny: Bundle) -> None:
    assert compatibility.between(of(tiny, AGE, PLAN), of(tiny, PLAN, AGE)) == Compatibility()


@pytest.mark.parametrize(
    ("inputs", "outputs", "told"),
    [
        ((AGE, PLAN, Field(name="city", kind="text")), (CHURN,), "it needs input city"),
        ((AGE,), (CHURN,), "it refuses input plan"),
        ((AGE, kind(PLAN, "integer")), (CHURN,), "input plan is of kind integer, was text"),
        ((AGE, PLAN), (kind(CHURN, "boolean"),), "output churn is of kind boolean, was text"),
        ((AGE, PLAN), (Field(name="other", kind="text"),), "it gives no output churn"),
    ],
)
def test_what_fails_for_every_request_of_the_champion_is_named(
    tiny: Bundle, inputs: tuple[Field, ...], outputs: tuple[Field, ...], told: str
) -> None:
    found = compatibility.between(of(tiny, AGE, PLAN), of(tiny, *inputs, outputs=outputs))
    assert (found.unrelated, found.broken) == ("", (told,))


def test_another_task_is_named(tiny: Bundle) -> None:
    found = compatibility.between(of(tiny, AGE), of(tiny, AGE, task="regression"))
    assert found.broken == ("it is a regression model, the champion a classification model",)


def test_values_that_only_some_requests_have_break_nothing(tiny: Bundle) -> None:
    found = compatibility.between(of(tiny, AGE), of(tiny, kind(AGE, "integer")))
    assert found == Compatibility(partial=("null in age", "fractions in age"))
    wider = compatibility.between(of(tiny, kind(AGE, "integer")), of(tiny, AGE))
    assert wider == Compatibility()


def test_no_common_input_or_target_is_another_problem(tiny: Bundle) -> None:
    found = compatibility.between(of(tiny, AGE), of(tiny, PLAN))
    assert found.unrelated == "they have no input column in common"
    other = of(tiny, AGE, target="fraud", outputs=(Field(name="fraud", kind="text"),))
    assert compatibility.between(of(tiny, AGE), other).unrelated == "it predicts fraud, not churn"


def test_many_columns_are_not_all_listed(tiny: Bundle) -> None:
    more = (Field(name=f"c{number}", kind="number") for number in range(7))
    [told] = compatibility.between(of(tiny, AGE), of(tiny, AGE, *more)).broken
    assert told == "it needs input c0, c1, c2, c3, c4 and 2 more"


@pytest.fixture
def here(tmp_path: Path) -> World:
    return world(tmp_path)


def trained(here: World, *columns: str) -> Release:
    """Return a release with these inputs that has passed all but the test."""
    here.trainer.columns, here.trainer.params = columns, ",".join(columns)
    release = train(here.pipeline).evidence.release
    here.pipeline.learn(
        release, "verify-staging-workload", "passed", nothing("verify-staging-workload")
    )
    return release


def with_test(here: World, *columns: str) -> Release:
    release = trained(here, *columns)
    run_tests(here.pipeline, release)
    return release


def permissive(here: World) -> Pipeline:
    gates = msgspec.structs.replace(here.pipeline.config.gates, compatible=False)
    config = msgspec.structs.replace(here.pipeline.config, gates=gates)
    return dataclasses.replace(here.pipeline, config=config)


def test_the_test_fails_where_the_champions_requests_would(here: World) -> None:
    champion = with_test(here, "x")
    deploy_production(here.pipeline, champion)
    release = trained(here, "x", "z")
    record = run_tests(here.pipeline, release)
    text = f"requests for champion {champion} would fail: it needs input z"
    assert record.evidence.verdict == "failed"
    assert text in [check.text for check in checks.failed(shapes.of(record, Tested).checks)]
    before = here.targets["production"].inspect(), here.ledger.records()
    with pytest.raises(RefusedError, match=f"{release} is not fit for production.*{text}") as told:
        deploy_production(here.pipeline, release)
    assert (here.targets["production"].inspect(), here.ledger.records()) == before
    assert "gates.compatible" in told.value.hint
    assert "another `name`" in told.value.hint


def test_a_setting_accepts_other_inputs_and_is_shown(here: World) -> None:
    deploy_production(here.pipeline, with_test(here, "x"))
    release = trained(here, "x", "z")
    assert run_tests(permissive(here), release).evidence.verdict == "passed"
    record = deploy_production(permissive(here), release)
    [shown] = [check for check in shapes.of(record, Deployed).checks if check.name == "compatible"]
    assert shown.holds
    assert shown.text.endswith("it needs input z (gates.compatible is false)")


def test_the_champion_of_now_counts_not_that_of_the_test(here: World) -> None:
    champion, release = with_test(here, "x"), with_test(here, "x", "z")
    deploy_production(here.pipeline, champion)
    with pytest.raises(RefusedError, match="it needs input z"):
        deploy_production(here.pipeline, release)


def test_another_problem_is_refused_whatever_the_setting(here: World) -> None:
    champion, release = with_test(here, "x"), with_test(here, "amount")
    deploy_production(here.pipeline, champion)
    with pytest.raises(RefusedError, match=f"another problem than champion {champion}") as told:
        deploy_production(permissive(here), release)
    assert str(release) in told.value.message
