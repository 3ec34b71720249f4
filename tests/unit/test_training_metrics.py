"""Metrics and the interval of a difference."""

import math
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss

from mlship.domain.bundle import Row, Value
from mlship.training.scoring import metrics, plots


def answers(labels: list[str], sure: float = 0.8) -> list[Row]:
    names = ["a", "b"]
    return [
        {"y": label, **{f"probability_{n}": sure if n == label else 1 - sure for n in names}}
        for label in labels
    ]


def values(numbers: np.ndarray) -> list[Row]:
    return [{"y": float(number)} for number in numbers]


TRUTH: list[Value] = ["a", "b"] * 50


def test_metrics_are_those_of_scikit_learn() -> None:
    found = ["a", "b", "b", "b"] * 25
    measured = metrics.measure("classification", TRUTH, answers(found), "y")
    assert measured["accuracy"] == 0.75
    assert measured["f1_macro"] == pytest.approx(f1_score(TRUTH, found, average="macro"))
    table = [[0.8, 0.2] if label == "a" else [0.2, 0.8] for label in found]
    assert measured["log_loss"] == pytest.approx(log_loss(TRUTH, table))


def test_log_loss_is_left_out_where_a_class_has_no_probability() -> None:
    rows = [{"y": row["y"]} for row in answers(["a", "b"] * 50)]
    assert "log_loss" not in metrics.measure("classification", TRUTH, rows, "y")


def test_r2_of_equal_values_is_not_a_number() -> None:
    measured = metrics.measure("regression", [1.0, 1.0], [{"y": 1.0}, {"y": 2.0}], "y")
    assert measured["mae"] == 0.5
    assert math.isnan(measured["r2"])


def test_a_better_model_has_an_interval_above_zero_and_an_equal_one_around_it() -> None:
    generator = np.random.default_rng(1)
    worse = [t if keep else "b" for t, keep in zip(TRUTH, generator.random(100) < 0.6, strict=True)]
    good, bad = answers([str(t) for t in TRUTH]), answers([str(w) for w in worse])
    found = metrics.differences("classification", TRUTH, (good, bad), "y")
    assert found["accuracy"].low > 0
    assert found["log_loss"].high < 0
    for name, interval in found.items():
        assert interval.low <= interval.estimate <= interval.high, name
    same = metrics.differences("classification", TRUTH, (bad, bad), "y")
    assert all((entry.low, entry.high) == (0, 0) for entry in same.values())


@pytest.mark.slow
def test_intervals_cover_the_true_difference_as_often_as_they_say() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(60):
        truth = generator.normal(size=80)
        one = values(truth + generator.normal(0, 1.0, 80))
        two = values(truth + generator.normal(0, 1.2, 80))
        found = metrics.differences("regression", truth.tolist(), (one, two), "y")
        covered += found["mse"].low <= 1.0 - 1.44 <= found["mse"].high
    assert 51 <= covered <= 60


def test_all_regression_metrics_have_an_interval_around_their_difference() -> None:
    generator = np.random.default_rng(5)
    truth = generator.normal(size=200)
    one = values(truth + generator.normal(0, 0.3, 200))
    two = values(truth + generator.normal(0, 0.6, 200))
    found = metrics.differences("regression", truth.tolist(), (one, two), "y")
    assert set(found) == {"mae", "mse", "rmse", "r2"}
    assert found["r2"].low > 0 > found["rmse"].high
    for interval in found.values():
        assert interval.low < interval.estimate < interval.high


@pytest.mark.slow
def test_bootstrap_of_many_rows_is_quick() -> None:
    generator = np.random.default_rng(5)
    truth = generator.integers(0, 10, 20_000).tolist()
    rows: list[Row] = [{"y": value} for value in generator.integers(0, 10, 20_000).tolist()]
    begun = time.process_time()
    metrics.differences("classification", truth, (rows, rows[::-1]), "y")
    assert time.process_time() - begun < 8


def test_confusion_counts_true_in_rows() -> None:
    labels = metrics.labels_of(["a", "b"], ["b", "c"])
    assert labels == ["a", "b", "c"]
    found = metrics.confusion(["a", "b", "b"], ["b", "b", "c"], labels)
    assert found == ((0, 1, 0), (0, 1, 1), (0, 0, 0))


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_plots_are_pictures_and_equal_for_equal_numbers(task: str, tmp_path: Path) -> None:
    truth: list[Value] = ["a", "b"] if task == "classification" else [1.0, 2.0]
    sides = [plots.Side(name="this release", predicted={"y": truth[::-1]})] * 2
    for folder in ("one", "two"):
        names = plots.draw(task, {"y": truth}, sides, tmp_path / folder)  # type: ignore[arg-type]
    one, two = ((tmp_path / folder / names[0]).read_bytes() for folder in ("one", "two"))
    assert one.startswith(b"\x89PNG")
    assert one == two
