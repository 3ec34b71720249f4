"""Slices of the held-out rows: a planted fault is found, chance and strange data are not."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from mlship.domain.bundle import Field, Kind, Task
from mlship.domain.scores import Slices
from mlship.errors import ConfigError
from mlship.training.data import Data, Target
from mlship.training.scoring import slices


def data_of(target: list[Any], **columns: list[Any]) -> Data:
    """Return held-out rows as `data.read` makes them; a column's kind is that of its values."""
    kinds = {name: _kind(values) for name, values in columns.items()}
    frame = pd.DataFrame(
        {
            name: pd.Series(
                values, dtype="float64" if kinds[name] in ("number", "integer") else object
            )
            for name, values in columns.items()
        }
    )
    truth = pd.Series(target, name="y")
    return Data(
        train=frame,
        test=frame,
        targets=(Target(train=truth, test=truth, kind=_kind(target), place=0),),
        fields=tuple(Field(name=name, kind=kind) for name, kind in kinds.items()),
    )


def _kind(values: list[Any]) -> Kind:
    given = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in given):
        return "boolean"
    if all(isinstance(value, str) for value in given):
        return "text"
    return "number"


def found(slices_: Slices) -> dict[tuple[str, str], Any]:
    return {(one.column, one.value): one for one in slices_.listed}


def worse(slices_: Slices) -> list[tuple[str, str]]:
    return [(one.column, one.value) for one in slices_.listed if one.is_worse]


def compare(
    task: Task, data: Data, pair: tuple[list[Any], list[Any]], wanted: Sequence[str] = ()
) -> Slices:
    return slices.compare(task, data, ({"y": pair[0]}, {"y": pair[1]}), wanted)


REGIONS = ["north", "south"] * 100
TRUTH = ["a", "a", "b", "b"] * 50


def flipped(rows: range) -> list[str]:
    """Return predictions that are wrong in these rows."""
    return [("b" if t == "a" else "a") if row in rows else t for row, t in enumerate(TRUTH)]


def test_a_release_that_is_worse_on_one_value_only_is_found_there() -> None:
    data = data_of(TRUTH, region=REGIONS, size=[float(row) for row in range(200)])
    # 30 rows of the north are wrong now, and 30 others of the south no more: equal on average.
    pair = flipped(range(0, 60, 2)), flipped(range(1, 60, 2))
    compared = compare("classification", data, pair)
    assert worse(compared) == [("region", "north")]
    north = compared.listed[0]
    assert (north.samples, north.release, north.champion) == (100, 0.7, 1.0)
    assert north.difference.low < -0.3 < north.difference.high < 0
    assert found(compared)["region", "south"].difference.low > 0
    assert compared.metric == "accuracy"
    assert (compared.judged, compared.worse) == (2 + 4 + 2, 1)


def test_a_class_that_is_recognised_less_is_found() -> None:
    data = data_of(TRUTH, region=REGIONS)
    always = ["b"] * 200
    assert worse(compare("classification", data, (always, TRUTH))) == [
        ("y", "a"),
        ("region", "north"),
        ("region", "south"),
    ]


def test_errors_of_numbers_are_worse_where_they_grow() -> None:
    generator = np.random.default_rng(3)
    truth = generator.normal(size=400)
    where = np.arange(400) % 4 == 0
    champion = truth + generator.normal(size=400)
    release = truth + generator.normal(size=400) * np.where(where, 4.0, 1.0)
    data = data_of(truth.tolist(), quarter=[str(row % 4) for row in range(400)])
    compared = compare("regression", data, (release.tolist(), champion.tolist()))
    assert compared.metric == "mae"
    assert ("quarter", "0") in worse(compared)
    assert not {("quarter", str(other)) for other in (1, 2, 3)} & set(worse(compared))
    assert compared.listed[0].difference.low > 0


def test_few_rows_are_counted_and_not_judged() -> None:
    data = data_of(TRUTH[:40], region=["north"] * 11 + ["south"] * 29)
    all_wrong = flipped(range(40))[:40]
    compared = compare("classification", data, (all_wrong, TRUTH[:40]), ["region"])
    assert (compared.judged, compared.small, compared.listed) == (0, 2, ())


def test_more_slices_ask_for_more_proof() -> None:
    pair = flipped(range(0, 24, 2)), TRUTH
    alone = compare("classification", data_of(TRUTH, region=REGIONS), pair, ["region"])
    noise: dict[str, list[Any]] = {
        f"c{place}": list(np.random.default_rng(place).permutation(list("pqrs") * 50))
        for place in range(49)
    }
    among = compare("classification", data_of(TRUTH, region=REGIONS, **noise), pair)
    one, other = (found(found_)["region", "north"].difference for found_ in (alone, among))
    assert one.estimate == other.estimate
    assert other.high - other.low > one.high - one.low
    assert worse(alone) == [("region", "north")]
    assert other.high > 0


def test_the_sign_is_decided_by_the_exact_test_on_rows_where_they_differ() -> None:
    data = data_of(["a"] * 60, region=["north"] * 60)
    for lost in range(1, 12):
        release = ["b" if row < lost else "a" for row in range(60)]
        found_ = compare("classification", data, (release, ["a"] * 60), ["region"])
        exact = bool(binomtest(0, lost).pvalue < 0.05 * 0.9)
        assert bool(worse(found_)) is exact, lost


def test_equal_predictions_leave_an_interval_around_zero() -> None:
    compared = compare("classification", data_of(TRUTH, r=REGIONS), (TRUTH, TRUTH))
    for one in compared.listed:
        assert one.difference.estimate == 0
        assert -0.1 < one.difference.low < 0 < one.difference.high < 0.1


def test_numbers_are_cut_into_quarters_and_missing_ones_are_a_slice() -> None:
    numbers: list[Any] = [None if row % 5 == 0 else float(row) for row in range(200)]
    data = data_of(TRUTH, size=numbers, few=[row % 3 for row in range(200)])
    compared = compare("classification", data, (TRUTH, TRUTH), ["size", "few"])
    names = [value for column, value in found(compared) if column == "size"]
    assert names == [
        "up to 49",
        "above 49 to 99",
        "above 99 to 149",
        "above 149",
        "(missing)",
    ]
    assert sum(one.samples for one in compared.listed if one.column == "size") == 200
    assert [value for column, value in found(compared) if column == "few"] == ["0", "1", "2"]


def test_values_beyond_the_most_are_left_out_and_counted() -> None:
    many = [f"v{row % 50:02}" for row in range(5_000)]
    data = data_of(["a"] * 5_000, many=many, id=[f"id{row}" for row in range(5_000)])
    same = ["a"] * 5_000
    compared = compare("classification", data, (same, same))
    assert compared.judged == 1 + slices.VALUES
    assert compared.left_out == 30 + 5_000 - slices.VALUES
    wide = data_of(TRUTH, **{f"c{place}": REGIONS for place in range(60)})
    compared = compare("classification", wide, (TRUTH, TRUTH))
    assert compared.left_out == 61 - slices.COLUMNS
    assert len(compared.listed) == slices.LISTED < compared.judged


def test_unknown_columns_are_refused_with_the_nearest() -> None:
    data = data_of(TRUTH, region=REGIONS)
    slices.check_names(data, ["region", "y"])
    with pytest.raises(ConfigError, match=r"data\.slices names regoin") as refused:
        slices.check_names(data, ["regoin"])
    assert refused.value.hint == "did you mean region?"


@pytest.mark.slow
def test_equal_models_are_seldom_told_apart_by_chance() -> None:
    """200 slices, each 95 % by itself, would nearly always find one."""
    generator = np.random.default_rng(11)
    alarms = 0
    for _ in range(20):
        truth = generator.choice(["a", "b"], 800).tolist()
        columns = {f"c{place}": generator.choice(list("pqrs"), 800).tolist() for place in range(50)}
        data = data_of(truth, **columns)
        pair = [
            [
                t if right else "c"
                for t, right in zip(truth, generator.random(800) < 0.8, strict=True)
            ]
            for _ in range(2)
        ]
        alarms += bool(compare("classification", data, (pair[0], pair[1])).worse)
    assert alarms <= 1


WEIRD = st.one_of(
    st.lists(st.one_of(st.none(), st.floats(allow_infinity=False)), min_size=70, max_size=70),
    st.lists(st.one_of(st.none(), st.text(max_size=300)), min_size=70, max_size=70),
    st.lists(st.one_of(st.none(), st.booleans()), min_size=70, max_size=70),
    st.just([None] * 70),
    st.just([1e308, -1e308] * 35),
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(column=WEIRD, name=st.text(max_size=100), task=st.sampled_from(["accuracy", "mae"]))
def test_weird_data_never_raise_and_stay_small(column: list[Any], name: str, task: str) -> None:
    kind: Task = "classification" if task == "accuracy" else "regression"
    target: list[Any] = ["a", "b"] * 35 if task == "accuracy" else [1e308, 0.0] * 35
    given_ = [math.nan if value is None else value for value in column]
    numbers = _kind(column) == "number"
    data = data_of(target, **{f"x{name}": given_ if numbers else column})
    compared = compare(kind, data, (target, list(reversed(target))))
    for one in compared.listed:
        assert len(one.column) <= 60
        assert len(one.value) <= 60
        one.value.encode()
        assert math.isfinite(one.difference.low)
        assert one.difference.low <= one.difference.estimate <= one.difference.high
