"""A tiny bundle with a column of each kind, and the model that it was made from."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from mlship.domain import bundle as bundles
from mlship.domain.bundle import Bundle, Field, Hooks, Model, Row, Schema
from mlship.domain.digests import Digest

FIELDS = (
    Field(name="city", kind="text", example="Linz"),
    Field(name="age", kind="number", nullable=True, example=41.5, limit=1e6),
    Field(name="visits", kind="integer", example=3, limit=1e6),
    Field(name="member", kind="boolean", example=True),
)
CLASSES = ("leaves", "returns")
ROWS: tuple[Row, ...] = (
    {"city": "Linz", "age": 41.5, "visits": 3, "member": True},
    {"city": "Graz", "age": None, "visits": 0, "member": False},
    {"city": "Wörgl", "age": 19.25, "visits": 12, "member": True},
)


@functools.cache
def estimator() -> Any:
    """Return a classifier of customers, fitted once on invented ones."""
    random = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "city": random.choice(["Linz", "Graz", "Wörgl"], 90),
            "age": random.uniform(18, 80, 90),
            "visits": random.integers(0, 20, 90),
            "member": random.choice([True, False], 90),
        }
    )
    frame.loc[::9, "age"] = np.nan
    labels = np.where(frame["visits"] + 5 * frame["member"] > 10, "returns", "leaves")
    prepared = ColumnTransformer(
        [
            ("city", OneHotEncoder(handle_unknown="ignore"), ["city"]),
            ("age", SimpleImputer(), ["age"]),
            ("rest", "passthrough", ["visits", "member"]),
        ]
    )
    return make_pipeline(prepared, LogisticRegression(max_iter=1000)).fit(frame, labels)


def probabilities(rows: list[Row]) -> Any:
    """Return what the original model says: shape (rows, classes)."""
    frame = pd.DataFrame(rows).astype({"age": float, "member": bool, "visits": int})
    return estimator().predict_proba(frame)


def mixed_bundle(folder: Path) -> Digest:
    """Write a skops bundle of the classifier."""
    (folder / "model").mkdir(parents=True)
    skops.io.dump(estimator(), folder / "model" / "model.skops")
    outputs = (
        Field(name="future", kind="text", choices=CLASSES),
        *(Field(name=f"probability_{label}", kind="number") for label in CLASSES),
    )
    draft = Bundle(
        name="customers",
        task="classification",
        target="future",
        schema=Schema(inputs=FIELDS, outputs=outputs),
        model=Model(
            format="skops",
            path="model/model.skops",
            layout="frame",
            columns=FIELDS,
            classes=CLASSES,
        ),
        hooks=Hooks(),
        metrics={},
        requirements=("scikit-learn==1.9.1",),
        python="3.11",
    )
    return bundles.seal(folder, draft)
