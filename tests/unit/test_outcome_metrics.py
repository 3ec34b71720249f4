"""The score of one prediction by each metric, and an outcome in the type of its prediction."""

import math

import numpy as np
import pytest
import sklearn.metrics

from mlship.domain import outcome_metrics
from mlship.domain.bundle import Row, Value
from mlship.domain.policy import PromotePolicy


def scored(metric: str, outputs: Row, actual: Value) -> float:
    named = outcome_metrics.of(PromotePolicy(metric=metric))
    return outcome_metrics.score(named, outputs, "species", actual)


def score(metric: str, predicted: Value, actual: Value) -> float:
    return scored(metric, {"species": predicted}, actual)


@pytest.mark.parametrize(
    ("predicted", "actual", "agree"),
    [
        ("setosa", "setosa", True),
        ("setosa", "virginica", False),
        (1, "1", True),
        (1, 1.0, True),
        (1, "2", False),
        (1, "one", False),
        ("1", 1, True),
        ("1", 1.0, True),
        ("1", "1.0", False),
        (True, "true", True),
        (True, 1, True),
        (False, "False", True),
        (False, "true", False),
        (0.5, "0.5", True),
        (None, "setosa", False),
        (math.nan, 1, False),
    ],
)
def test_an_outcome_is_read_as_the_type_of_the_prediction(
    predicted: Value, actual: Value, agree: bool
) -> None:
    assert score("accuracy", predicted, actual) == float(agree)
    if agree:
        assert repr(outcome_metrics.typed(predicted, actual)) == repr(predicted)


@pytest.mark.parametrize(("metric", "error"), [("mae", 3.0), ("mse", 9.0)])
def test_an_error_is_a_distance(metric: str, error: float) -> None:
    assert score(metric, 5, "2") == error
    assert score(metric, 2.0, 5) == error


@pytest.mark.parametrize(
    ("metric", "predicted", "actual"),
    [
        ("accuracy", "setosa", None),
        ("mae", 1.0, None),
        ("mae", None, 1.0),
        ("mse", 1.0, "much"),
        ("mse", "much", 1.0),
        ("mae", math.nan, 1.0),
        ("mae", math.inf, 1.0),
    ],
)
def test_what_cannot_be_scored_is_not_finite(metric: str, predicted: Value, actual: Value) -> None:
    assert not math.isfinite(score(metric, predicted, actual))


SHARES = np.random.default_rng(4).dirichlet([1.0, 1.0, 1.0], 50)
NAMES = ["setosa", "virginica", "versicolor"]
ACTUAL = [NAMES[place % 3] for place in range(50)]


def of_flower(shares: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Row:
    named = {f"probability_{name}": float(s) for name, s in zip(NAMES, shares, strict=True)}
    return {"species": NAMES[int(shares.argmax())], **named}


def test_the_mean_of_log_losses_is_that_of_scikit_learn() -> None:
    losses = [scored("log_loss", of_flower(s), y) for s, y in zip(SHARES, ACTUAL, strict=True)]
    order = np.argsort(NAMES)
    expected = sklearn.metrics.log_loss(ACTUAL, SHARES[:, order], labels=sorted(NAMES))
    assert np.mean(losses) == pytest.approx(expected)


def test_the_brier_score_of_two_classes_is_the_usual_one_and_of_more_stays_below_one() -> None:
    def of_loan(share: float) -> Row:
        return {"species": int(share > 0.5), "probability_0": 1 - share, "probability_1": share}

    shares = [0.1, 0.6, 0.9, 1.0]
    truth: list[Value] = ["0", 1, 0.0, "1"]
    found = [scored("brier", of_loan(s), y) for s, y in zip(shares, truth, strict=True)]
    assert np.mean(found) == pytest.approx(sklearn.metrics.brier_score_loss([0, 1, 0, 1], shares))
    flowers = [scored("brier", of_flower(s), y) for s, y in zip(SHARES, ACTUAL, strict=True)]
    hot = np.array([[name == y for name in NAMES] for y in ACTUAL])
    assert np.mean(flowers) == pytest.approx(((SHARES - hot) ** 2).sum(axis=1).mean() / 2)
    assert all(0 <= x <= 1 for x in flowers)


@pytest.mark.parametrize(
    ("predicted", "certain", "actual"),
    [("yes", "yes", "yes"), (1, "1", "1.0"), (1.0, "1.0", 1), (True, "True", "true")],
)
def test_a_certain_and_right_prediction_costs_nothing_and_a_wrong_one_the_most(
    predicted: Value, certain: str, actual: Value
) -> None:
    right: Row = {"species": predicted, f"probability_{certain}": 1.0, "probability_other": 0.0}
    wrong: Row = {"species": predicted, f"probability_{certain}": 0.0, "probability_other": 1.0}
    assert (scored("brier", right, actual), scored("log_loss", right, actual)) == (0, 0)
    assert scored("brier", wrong, actual) == 1
    assert scored("log_loss", wrong, actual) == pytest.approx(34.54, abs=0.01)


def test_a_class_that_the_model_does_not_know_had_no_probability() -> None:
    row: Row = {"species": "a", "probability_a": 0.5, "probability_b": 0.5}
    assert scored("brier", row, "c") == pytest.approx(0.75)
    assert scored("log_loss", row, "c") == pytest.approx(34.54, abs=0.01)


@pytest.mark.parametrize("metric", ["brier", "log_loss"])
@pytest.mark.parametrize(
    "row",
    [
        {"species": "a"},
        {"species": "a", "probability_a": 0.9},
        {"species": "a", "probability_a": 1.5, "probability_b": -0.5},
        {"species": "a", "probability_a": None, "probability_b": 1.0},
        {"species": "a", "probability_a": math.nan, "probability_b": 1.0},
    ],
    ids=str,
)
def test_without_probabilities_that_add_up_to_one_there_is_no_score(metric: str, row: Row) -> None:
    assert math.isnan(scored(metric, row, "a"))


def test_the_mean_of_pinball_losses_is_that_of_scikit_learn() -> None:
    chance = np.random.default_rng(2)
    truth, found = chance.normal(size=40), chance.normal(size=40)
    for quantile in (0.1, 0.5, 0.95):
        metric = f"pinball[{quantile}]"
        losses = [score(metric, float(f), float(t)) for f, t in zip(found, truth, strict=True)]
        expected = sklearn.metrics.mean_pinball_loss(truth, found, alpha=quantile)
        assert np.mean(losses) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predicted", "actual", "typed"),
    [
        ("no", "yes", "yes"),
        (3, "4", 4),
        (3, "4.5", 4.5),
        (3.0, "4", 4.0),
        (True, "false", False),
        (True, "maybe", None),
        (3, "much", None),
        (3, "inf", None),
        (3.0, None, None),
    ],
)
def test_an_outcome_gets_the_type_of_its_prediction(
    predicted: Value, actual: Value, typed: Value
) -> None:
    assert repr(outcome_metrics.typed(predicted, actual)) == repr(typed)
