"""Tests of the served model. The fixture `client` comes from mlship."""


def test_the_model_is_ready(client):
    assert client.get("/v2/health/ready").status_code == 200


def test_nonsense_is_refused(client):
    answer = client.post("/predict", json={"no such column": 1})
    assert answer.status_code in (400, 422)
