import pandas as pd
import pytest
from pipeline import MEASUREMENTS, TARGET, postprocess, preprocess, train


@pytest.fixture
def flowers():
    """Two flowers of each species, far apart."""
    return pd.DataFrame(
        [
            [5.1, 3.5, 1.4, 0.2, "setosa"],
            [4.9, 3.0, 1.4, 0.2, "setosa"],
            [6.0, 2.7, 4.2, 1.3, "versicolor"],
            [5.7, 2.8, 4.1, 1.3, "versicolor"],
            [7.2, 3.2, 6.0, 1.8, "virginica"],
            [7.7, 3.0, 6.1, 2.3, "virginica"],
        ],
        columns=[*MEASUREMENTS, TARGET],
    )


def test_it_learns_flowers_that_are_far_apart(flowers):
    model = train(flowers, {"C": 10.0})
    assert list(model.predict(flowers[MEASUREMENTS])) == list(flowers[TARGET])


def test_it_looks_only_at_the_chosen_features(flowers):
    model = train(flowers, {"features": ["sepal_length", "sepal_width"]})
    other_petals = flowers.assign(petal_length=99.0, petal_width=99.0)
    before = model.predict_proba(flowers[MEASUREMENTS])
    assert (before == model.predict_proba(other_petals[MEASUREMENTS])).all()


def test_a_feature_that_does_not_exist_is_refused(flowers):
    with pytest.raises(ValueError, match="petal_colour"):
        train(flowers, {"features": ["petal_colour"]})


def test_measurements_are_rounded_to_the_millimetre():
    assert preprocess(pd.DataFrame({"sepal_length": [5.14]}))["sepal_length"][0] == 5.1


def test_a_close_call_is_not_certain():
    outputs = pd.DataFrame({"probability_setosa": [0.9, 0.5], "probability_virginica": [0.1, 0.5]})
    assert list(postprocess(outputs)["certain"]) == [True, False]
