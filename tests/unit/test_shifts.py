"""Profiles of training data and what differs between two: found where it is, and not by chance."""

import math
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from mlship.domain import shifts
from mlship.domain.bundle import Field, Kind, Task
from mlship.domain.profiles import NAMED_FROM, Profile
from mlship.domain.shifts import Shifts, between
from mlship.training.data import Data, Target
from mlship.training.profile import profile_of

KINDS: dict[Kind, str] = {"number": "float64", "integer": "int64", "text": "object"}


def profile(
    task: Task = "classification", target: list[Any] | None = None, /, **columns: tuple[Kind, Any]
) -> Profile:
    """Return the profile of columns given as kind and values, as a training makes it."""
    frame = pd.DataFrame(
        {
            name: pd.Series(list(values), dtype=KINDS.get(kind, "object"))
            for name, (kind, values) in columns.items()
        }
    )
    rows = len(frame)
    truth = pd.Series(target if target is not None else ["a"] * rows, name="y")
    data = Data(
        train=frame,
        test=frame,
        targets=(
            Target(
                train=truth, test=truth, kind="number" if task == "regression" else "text", place=0
            ),
        ),
        fields=tuple(Field(name=name, kind=kind) for name, (kind, _) in columns.items()),
    )
    # As it comes back from the ledger.
    return msgspec.json.decode(msgspec.json.encode(profile_of(data, task)), type=Profile)


def told(found: Shifts) -> list[str]:
    return [shift.column for shift in found.listed if shift.is_told]


def normal(mean: float, count: int = 2_000, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(mean, 1, count)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e12])
def test_numbers_that_moved_are_told_and_a_new_draw_of_the_same_is_not(scale: float) -> None:
    before = profile(x=("number", scale * normal(5)), z=("number", scale * normal(0)))
    after = profile(
        x=("number", scale * normal(6, 3_000, 1)), z=("number", scale * normal(0, 3_000, 2))
    )
    found = between(before, after)
    assert told(found) == ["x"]
    assert (found.rows_before, found.rows_after) == (2_000, 3_000)
    # A normal that moves by its deviation has an index of 1.
    assert found.listed[0].psi == pytest.approx(1.0, abs=0.2)
    assert all(shift.psi <= shift.chance for shift in found.listed[1:])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([5.0] * 100, [7.0] * 100),
        ([0.0] * 95 + [1.0] * 5, [0.0] * 50 + [1.0] * 50),
        (np.linspace(5.1, 5.2, 100), np.linspace(0, 1e6, 100)),
        (np.linspace(0, 1, 100), np.linspace(1e9, 1e9 + 1, 100)),
        (np.linspace(0, 1, 100), np.linspace(-1e300, 1e300, 100)),
        ([1.0] * 100, [math.nan] * 50 + [1.0] * 50),
        ([1.0] * 100, [math.nan] * 100),
        ([1e-310] * 100, [1.0] * 100),
    ],
)
def test_strange_numbers_that_differ_are_told(before: Any, after: Any) -> None:
    one, other = profile(x=("number", before)), profile(x=("number", after))
    assert told(between(one, other)) == ["x"]
    assert told(between(other, one)) == ["x"]
    assert not told(between(one, one))
    assert not told(between(other, other))


def test_years_and_other_integers_are_compared_value_by_value() -> None:
    before = profile(year=("integer", [2020, 2021, 2022] * 100))
    after = profile(year=("integer", [2021, 2022, 2023] * 100))
    (shift,) = [one for one in between(before, after).listed if one.column == "year"]
    assert shift.is_told
    assert (shift.group, shift.before, shift.after) in [
        ("below 2021", pytest.approx(1 / 3), 0.0),
        ("from 2023 on", 0.0, pytest.approx(1 / 3)),
    ]


def test_the_balance_of_classes_and_texts_is_compared_by_value() -> None:
    before = profile("classification", ["a"] * 100 + ["b"] * 100, c=("text", ["p", "q"] * 100))
    after = profile("classification", ["a"] * 160 + ["b"] * 40, c=("text", ["p", "q"] * 100))
    found = between(before, after)
    assert told(found) == ["y"]
    assert (found.listed[0].before, found.listed[0].after) in [(0.5, 0.8), (0.5, 0.2)]
    # By hand: (0.8 - 0.5) ln(0.8 / 0.5) + (0.2 - 0.5) ln(0.2 / 0.5).
    assert found.listed[0].psi == pytest.approx(0.416, abs=0.01)


def test_missing_values_and_new_values_are_shifts() -> None:
    before = profile(c=("text", ["p", "q"] * 100), d=("text", ["p", "q"] * 100))
    after = profile(c=("text", ["p", None] * 100), d=("text", ["p", "new"] * 100))
    found = {shift.column: shift for shift in between(before, after).listed}
    assert found["c"].is_told
    assert (found["c"].missing_before, found["c"].missing_after) == (0.0, 0.5)
    assert found["d"].is_told


def test_columns_that_come_go_or_change_type_are_named() -> None:
    before = profile(a=("number", [1.0] * 50), b=("integer", [1] * 50), c=("text", ["p"] * 50))
    after = profile(a=("number", [1.0] * 50), b=("number", [1.0] * 50), d=("text", ["p"] * 50))
    found = between(before, after)
    assert (found.added, found.removed) == (("d",), ("c",))
    assert [(one.column, one.before, one.after) for one in found.retyped] == [
        ("b", "integer", "number")
    ]
    assert found.compared == 2


def test_a_column_beyond_the_most_is_not_said_to_be_gone() -> None:
    wide = {f"c{place:03}": ("integer", [1] * 20) for place in range(80)}
    before = profile(**wide)  # type: ignore[arg-type]
    after = profile(first=("integer", [1] * 20), **wide)  # type: ignore[arg-type]
    found = between(before, after)
    assert (found.added, found.removed) == ((), ())
    assert found.left_out == 81 - 49
    assert len(found.listed) == shifts.LISTED


@pytest.mark.slow
def test_few_rows_differ_by_chance_and_that_is_no_shift() -> None:
    """The control: by the customary threshold alone nearly every comparison would tell one."""
    alarms = customary = 0
    for round_ in range(40):
        generator = np.random.default_rng(round_)
        one, other = (
            profile(
                **{f"n{place}": ("number", generator.normal(size=60)) for place in range(5)},
                **{f"c{place}": ("text", generator.choice(list("pqrs"), 60)) for place in range(5)},
            )
            for _ in range(2)
        )
        found = between(one, other)
        alarms += bool(found.told)
        customary += any(shift.psi >= shifts.SOME for shift in found.listed)
    assert alarms <= 4
    assert customary > 32


def test_a_profile_holds_no_rare_value_and_no_number_of_the_data() -> None:
    names = [f"patient {row}" for row in range(200 - NAMED_FROM)] + ["common"] * NAMED_FROM
    weights = np.random.default_rng(0).normal(70, 10, 200).round(3)
    text = msgspec.json.encode(profile(name=("text", names), kg=("number", weights))).decode()
    assert "common" in text
    assert "patient" not in text
    assert not [weight for weight in weights if f"{weight}" in text]


def test_a_profile_is_small() -> None:
    generator = np.random.default_rng(0)
    columns = {f"n{place}": ("number", generator.normal(size=5_000)) for place in range(100)}
    assert len(msgspec.json.encode(profile(**columns))) < 12_000  # type: ignore[arg-type]


def test_the_target_of_a_regression_is_counted_in_bins() -> None:
    found = profile("regression", [float(row) for row in range(100)], x=("integer", [1] * 100))
    assert found.columns[0].bins is not None
    assert sum(found.columns[0].bins.counts) == 100
    assert found.columns[0].named == {}


@pytest.mark.parametrize("degrees", [1, 2, 5, 10])
@pytest.mark.parametrize("error", [0.05, 0.001])
def test_the_bound_by_chance_is_that_of_chi_squared(degrees: int, error: float) -> None:
    found = shifts.chi_squared(degrees, error)
    assert found == pytest.approx(chi2.isf(error, degrees), rel=0.04)


NUMBERS = st.lists(st.floats(allow_infinity=False), min_size=1, max_size=60)
TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=100)), min_size=1, max_size=60)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(one=st.one_of(NUMBERS, TEXTS), other=st.one_of(NUMBERS, TEXTS), name=st.text(max_size=99))
def test_any_two_profiles_can_be_compared(one: list[Any], other: list[Any], name: str) -> None:
    kinds: list[Kind] = [
        "number" if any(isinstance(value, float) for value in values) else "text"
        for values in (one, other)
    ]
    before, after = (
        profile(**{f"x{name}": (kind, values)})
        for kind, values in zip(kinds, (one, other), strict=True)
    )
    found = between(before, after)
    for shift in found.listed:
        assert math.isfinite(shift.psi)
        assert shift.psi >= 0
        assert math.isfinite(shift.chance)
        assert 0 <= shift.before <= 1
        assert 0 <= shift.after <= 1
    assert not between(before, before).told
