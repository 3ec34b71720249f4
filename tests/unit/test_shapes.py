"""The facts of steps as values, and checks as words for people."""

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.domain import checks, shapes
from mlship.domain.checks import Check
from mlship.domain.deployment import Slot
from mlship.domain.evidence import STEPS, Step
from mlship.domain.facts import Approved, Contained, Crowned, Evaluated, Part, Routed, Tested
from mlship.errors import IntegrityError
from tests.fakes.ports import world
from tests.harness.samples import better, nothing, record, release

ONE = release()


def test_every_step_has_facts_of_its_own() -> None:
    assert set(shapes.SHAPES) == STEPS


@pytest.mark.parametrize("step", sorted(STEPS))
def test_facts_come_back_from_a_ledger_as_they_went_in(step: Step, tmp_path: Path) -> None:
    here = world(tmp_path)
    written = here.pipeline.learn(ONE, step, "passed", nothing(step))
    assert here.ledger.records()[-1] == written
    assert shapes.read(written) == nothing(step)


def test_a_step_cannot_record_the_facts_of_another(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="approve records Approved, not Routed"):
        world(tmp_path).pipeline.learn(ONE, "approve", "passed", Routed())


def test_facts_are_not_read_as_those_of_another_step() -> None:
    with pytest.raises(TypeError, match="approve records Approved"):
        shapes.of(record(ONE, "approve"), Routed)


def test_a_number_that_is_not_finite_is_kept_as_text_and_comes_back() -> None:
    stored = shapes.stored("evaluate", msgspec.structs.replace(better(), low=math.nan))
    assert stored["low"] == "nan"
    assert shapes.of(record(ONE, "evaluate", facts=stored), Evaluated).low == "nan"


def test_facts_that_this_version_does_not_know_are_left_out() -> None:
    newer = record(ONE, "approve", facts={"by": "grace", "stamp": 3})
    assert shapes.of(newer, Approved) == Approved(by="grace")


def test_a_fact_of_another_type_is_named_with_its_record() -> None:
    wrong = record(ONE, "test", facts={"samples": "many"})
    with pytest.raises(IntegrityError, match=r"\(test, mlship .*samples") as caught:
        shapes.of(wrong, Tested)
    assert caught.value.hint == "update mlship"


@pytest.mark.parametrize(
    ("step", "facts", "expected"),
    [
        ("promote/route", {"operation": "x", "weights": {"r1": 100}, "shadow": None}, "x"),
        ("promote", {"operation": "x", "from": "a", "to": "b"}, "x"),
        ("approve", {"by": "grace"}, ""),
        ("traffic", {"weights": {"r1": 100}}, ""),
    ],
)
def test_what_belongs_to_a_transition_names_it(
    step: Step, facts: dict[str, Any], expected: str
) -> None:
    assert shapes.operation(record(ONE, step, facts=facts)) == expected


def test_a_promotion_is_stored_by_the_words_from_and_to() -> None:
    stored = shapes.stored("promote", Crowned(old="iris@1", new="iris@2", operation="x"))
    assert (stored["from"], stored["to"], stored["operation"]) == ("iris@1", "iris@2", "x")
    assert isinstance(shapes.read(record(ONE, "promote", facts=stored)), Part)


def test_a_route_without_weights_tells_no_split() -> None:
    assert Routed().split is None
    split = Routed(weights={Slot("r1"): 100}).split
    assert split is not None
    assert split.weights == {"r1": 100}


@pytest.mark.parametrize("holds", [True, False])
def test_a_check_is_a_line_for_people_and_comes_back_from_it(holds: bool) -> None:
    check = Check(name="", holds=holds, text="accuracy 0.9, needs at least 0.7")
    assert checks.line(check) == ("ok: " if holds else "NOT OK: ") + check.text
    assert checks.read(checks.line(check)) == check


def test_a_line_without_a_mark_does_not_hold() -> None:
    assert not checks.read("looks good to me").holds


def test_checks_win_over_the_lines_of_older_evidence() -> None:
    both = {"checks": [{"name": "size", "holds": False, "text": "big"}], "reasons": ["ok: all"]}
    found = shapes.of(record(ONE, "test-container", "failed", facts=both), Contained).checks
    assert found == (Check(name="size", holds=False, text="big"),)
