"""Tests of the served model. The fixture `client` comes from mlship."""

import pytest


@pytest.mark.parametrize(
    ("text", "mood"),
    [
        ("this camera takes great pictures and is easy to use.", "positive"),
        ("GREAT, EASY TO USE", "positive"),
        ("it stopped working after a week and support did not help.", "negative"),
    ],
)
def test_a_clear_sentence_is_understood(client, text, mood):
    assert client.predict({"text": text})["mood"] == mood


def test_unknown_words_are_no_error(client):
    assert client.predict({"text": "Ünïcödé ☃ 123"})["mood"] in ("positive", "negative")


def test_a_missing_text_is_refused_by_name(client):
    for body in ({}, {"text": None}, {"text": 5}):
        response = client.post("/predict", json=body)
        assert response.status_code == 400
        assert "text" in response.text
