"""Tell which customers will leave."""

from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

TEXTS = ["contract", "payment", "region"]
NUMBERS = ["months", "monthly_charge", "support_calls", "data_gb", "late_payments", "devices"]
SWITCHES = ["has_discount"]


def train(data, params):
    """Fit a logistic regression. `params` is from mlship.yaml: C, and the texts to use."""
    columns = ColumnTransformer(
        [
            ("texts", OneHotEncoder(handle_unknown="ignore"), params.get("texts", TEXTS)),
            ("numbers", StandardScaler(), NUMBERS),
            ("switches", "passthrough", SWITCHES),
        ]
    )
    model = make_pipeline(columns, LogisticRegression(C=params.get("C", 1.0), max_iter=1000))
    return model.fit(data[TEXTS + NUMBERS + SWITCHES], data["churned"])
