"""Outcomes at the door: garbage is refused with its place, corrections are counted."""

from datetime import timedelta
from pathlib import Path

import pytest

from mlship.adapters.observations.directory import DirectoryObservations
from mlship.domain import shapes
from mlship.domain.bundle import Row, Value
from mlship.domain.facts import Evaluated
from mlship.domain.prediction import Outcome, Prediction
from mlship.domain.release import Release
from mlship.domain.truth import problem
from mlship.errors import ProjectError
from mlship.steps.evaluate import evaluate
from mlship.steps.feedback import feedback
from mlship.steps.outcome_files import Received, read
from tests.fakes.ports import World, world
from tests.harness.samples import NOON
from tests.unit.test_resume import challenger

LABELS: Row = {"species": "setosa", "probability_setosa": 0.7, "probability_virginica": 0.3}
CODES: Row = {"species": 1, "probability_0": 0.2, "probability_1": 0.8}
FLAGS: Row = {"species": True, "probability_False": 0.2, "probability_True": 0.8}
RENAMED: Row = {"species": "a rose", "probability_setosa": 0.7, "probability_virginica": 0.3}


@pytest.fixture
def here(tmp_path: Path) -> World:
    return world(tmp_path)


def test_outcomes_that_are_read_share_what_is_equal(tmp_path: Path) -> None:
    store = DirectoryObservations([tmp_path / "log"], tmp_path / "outcomes.jsonl")
    ids = [f"{'a' * 32}.{number}" for number in range(50)]
    given = [
        Outcome(prediction=id_, value=f"label {number % 2}", time=NOON)
        for number, id_ in enumerate(ids)
    ]
    store.take(given, (), scored=ids)
    kept = store.outcomes((), {"a" * 32})
    assert kept == given
    assert len({id(each.value) for each in kept}) == 2
    assert len({id(each.time) for each in kept}) == 1


def logged(here: World, release: Release, name: str, outputs: Row = LABELS) -> Prediction:
    prediction = Prediction(
        id=name,
        release=release.id,
        slot="r0",
        time=here.clock(),
        inputs={"x": 1.0},
        outputs=outputs,
        latency_ms=0.5,
    )
    here.observations.made.append(prediction)
    return prediction


def champion(here: World) -> Release:
    challenger(here)(here.pipeline)
    return here.pipeline.release("champion")


@pytest.mark.parametrize(
    ("outputs", "actual", "says"),
    [
        (LABELS, "virginica", ""),
        (LABELS, "rose", '"rose" is not a label of species: setosa, virginica'),
        (LABELS, 3, "3 is not a label of species"),
        (RENAMED, "a tulip", ""),
        (CODES, "0", ""),
        (CODES, 1.0, ""),
        (CODES, "2", '"2" is not a label of species: 0, 1'),
        (CODES, "nan", "is not a finite number"),
        (FLAGS, "false", ""),
        (FLAGS, 0, ""),
        (FLAGS, "maybe", '"maybe" is not true or false, and the prediction is true'),
        ({"species": 1.5}, "2.5", ""),
        ({"species": 1.5}, "two", '"two" is not a finite number, and the prediction is 1.5'),
        ({"species": 1.5}, "inf", "is not a finite number"),
        ({"species": 1.5}, float("nan"), "nan is not a finite number"),
        ({"species": "setosa"}, "rose", ""),
        ({}, "rose", ""),
    ],
)
def test_a_value_that_cannot_be_true_is_told(outputs: Row, actual: Value, says: str) -> None:
    found = problem(outputs, "species", actual, is_one=True, new_labels=False)
    assert says in found
    assert bool(says) == bool(found)


def test_a_new_label_is_accepted_if_somebody_says_so() -> None:
    assert problem(LABELS, "species", "rose", is_one=True, new_labels=True) == ""
    several: Row = {"sky": "a", "probability_sky_a": 0.5, "probability_sky_b": 0.5}
    assert "not a label" in problem(several, "sky", "c", is_one=False, new_labels=False)


def test_garbage_in_a_file_is_refused_with_its_line_and_nothing_is_recorded(here: World) -> None:
    logged(here, champion(here), "a.0")
    path = here.pipeline.root / "outcomes.csv"
    path.write_text("prediction_id,outcome\na.0,setosa\na.0,rose\n")
    with pytest.raises(ProjectError, match=r'outcomes\.csv:3: the outcome of a\.0: "rose"') as told:
        feedback(here.pipeline, read(path, ["species"]))
    assert "--new-labels" in told.value.hint
    assert here.observations.taken == []
    path.write_text("prediction_id,outcome\na.0,rose\n")
    assert feedback(here.pipeline, read(path, ["species"]), new_labels=True).new == 1


def test_an_outcome_from_before_its_prediction_is_refused(here: World) -> None:
    made = logged(here, champion(here), "a.0")
    path = here.pipeline.root / "outcomes.csv"
    for seconds, is_refused in ((-1, True), (1, False)):
        time = (made.time + timedelta(seconds=seconds)).isoformat()
        path.write_text(f"id,outcome,outcome_time\na.0,setosa,{time}\n")
        if is_refused:
            with pytest.raises(ProjectError, match=r"csv:2: the outcome of a\.0 was known at 20"):
                feedback(here.pipeline, read(path, ["species"]))
        else:
            assert feedback(here.pipeline, read(path, ["species"])).new == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"id": "a.0", "outcome": ["setosa"]}', r"jsonl:1: the outcome of a\.0 is not a value"),
        ('{"id": "a.0", "outcome": {"x": [1]}}', r"jsonl:1: the outcome of a\.0 is not a value"),
        ('{"id": "a.0", "outcome": 1, "outcome_time": "now"}', "jsonl:1: outcome_time is not a"),
        (
            '{"id": "a.0", "outcome": 1, "outcome_time": "2026-03-01"}',
            "not a time with a time zone",
        ),
    ],
)
def test_a_line_without_a_value_is_refused(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "outcomes.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ProjectError, match=says):
        read(path, ["species"])


def test_a_number_that_is_not_finite_is_refused(here: World) -> None:
    logged(here, champion(here), "a.0", {"species": 1.5})
    path = here.pipeline.root / "outcomes.jsonl"
    path.write_text('{"id": "a.0", "outcome": NaN}\n')
    with pytest.raises(ProjectError, match=r"jsonl:1: the outcome of a\.0: nan is not a finite"):
        feedback(here.pipeline, read(path, ["species"]))


def test_a_typed_outcome_has_no_place(here: World) -> None:
    logged(here, champion(here), "a.0")
    with pytest.raises(ProjectError, match=r'^the outcome of a\.0: "rose"'):
        feedback(here.pipeline, [Received("a.0", "rose")])


def test_an_evaluation_says_how_many_outcomes_were_corrected(here: World) -> None:
    release = champion(here)
    for name, is_corrected in (("a.0", True), ("b.0", False)):
        logged(here, release, name)
        here.observations.taken.append(
            Outcome(prediction=name, value="setosa", time=NOON, is_corrected=is_corrected)
        )
    facts = shapes.of(evaluate(here.pipeline), Evaluated)
    assert facts.corrected == 1
    assert "1 outcomes were corrected" in facts.reason
