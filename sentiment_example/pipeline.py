"""Tell whether a sentence of a review is a praise or a complaint."""

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline


def train(data, params):
    """Fit a logistic regression on weighted words. `params` is from mlship.yaml."""
    words = TfidfVectorizer(ngram_range=(1, params.get("words", 1)), min_df=2)
    classify = LogisticRegression(C=params.get("C", 1.0), max_iter=1000)
    return make_pipeline(words, classify).fit(data["text"], data["mood"])
