"""Tests of the served model. The fixture `client` comes from mlship."""

import pytest

SETOSA = {"sepal_length": 5.0, "sepal_width": 3.6, "petal_length": 1.4, "petal_width": 0.2}
VIRGINICA = {"sepal_length": 7.7, "sepal_width": 3.0, "petal_length": 6.1, "petal_width": 2.3}


@pytest.mark.parametrize(("flower", "species"), [(SETOSA, "setosa"), (VIRGINICA, "virginica")])
def test_a_typical_flower_is_recognised(client, flower, species):
    assert client.predict(flower)["species"] == species


def test_probabilities_add_up_to_one(client):
    answer = client.predict(SETOSA)
    names = ["probability_setosa", "probability_versicolor", "probability_virginica"]
    assert sum(answer[name] for name in names) == pytest.approx(1.0, abs=1e-5)


def test_every_answer_has_an_id_of_its_own(client):
    assert client.predict(SETOSA)["id"] != client.predict(SETOSA)["id"]


def test_a_missing_measurement_is_refused_by_name(client):
    without = {name: size for name, size in SETOSA.items() if name != "petal_width"}
    response = client.post("/predict", json=without)
    assert 400 <= response.status_code < 500
    assert "petal_width" in response.text


def test_text_for_a_number_is_refused_by_name(client):
    response = client.post("/predict", json={**SETOSA, "sepal_length": "long"})
    assert 400 <= response.status_code < 500
    assert "sepal_length" in response.text
