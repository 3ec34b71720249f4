import pandas as pd
from pipeline import train

REVIEWS = pd.DataFrame(
    {
        "text": ["a great phone", "great sound", "a bad phone", "bad sound"] * 3,
        "mood": ["positive", "positive", "negative", "negative"] * 3,
    }
)


def test_it_learns_which_words_praise():
    model = train(REVIEWS, {})
    assert list(model.predict(["great", "bad"])) == ["positive", "negative"]


def test_pairs_of_words_count_if_asked_for():
    model = train(REVIEWS, {"words": 2})
    assert "great phone" in model[0].vocabulary_
