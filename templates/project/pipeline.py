"""The model of this repository. mlship calls `train`; mlship.yaml names it."""

from sklearn.linear_model import LogisticRegression

TARGET = "target"


def train(data, params):
    """Return a fitted estimator. `data` is a DataFrame, `params` is from mlship.yaml."""
    features = data.drop(columns=[TARGET])
    return LogisticRegression(max_iter=1000, **params).fit(features, data[TARGET])
