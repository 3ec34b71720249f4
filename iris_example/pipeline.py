"""Predict the species of an iris from the size of its leaves."""

from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

TARGET = "species"
MEASUREMENTS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]


def train(data, params):
    """Fit a logistic regression. `params` is from mlship.yaml: C and the features to use."""
    features = params.get("features", MEASUREMENTS)
    model = Pipeline(
        [
            # Scales the chosen columns and drops the others: requests always have all four.
            ("scale", ColumnTransformer([("chosen", StandardScaler(), list(features))])),
            ("classify", LogisticRegression(C=params.get("C", 1.0), max_iter=1000)),
        ]
    )
    return model.fit(data[MEASUREMENTS], data[TARGET])


# The two hooks below can be enabled in mlship.yaml. They are bundled with the model.


def preprocess(rows):
    """Round to the millimetre, before training and serving."""
    return rows.round(1)


def postprocess(outputs):
    """Add a column to the response: is one species clearly more likely than the others?"""
    probabilities = outputs.filter(like="probability_")
    return outputs.assign(certain=probabilities.max(axis=1) >= 0.8)
