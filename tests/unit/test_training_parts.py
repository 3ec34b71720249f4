"""The parts of fitted models."""

import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlship.training import parts

FRAME = pd.DataFrame(
    {"length": [1.0, 2.0, 4.0], "width": [3.0, 1.0, 2.0], "note": ["red", "blue", "red"]}
)
TARGET = [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["length"], True),
        ("note", True),
        ([0], False),
        (slice(0, 1), False),
        ([True, False, False], False),
    ],
)
def test_columns_that_are_picked_by_name_are_told_from_places(
    columns: object, expected: bool
) -> None:
    step = CountVectorizer() if isinstance(columns, str) else StandardScaler()
    chosen = ColumnTransformer([("chosen", step, columns)]).fit(FRAME)
    assert parts.selects_by_name(chosen) is expected


def test_a_selection_within_a_pipeline_is_seen() -> None:
    chosen = ColumnTransformer([("chosen", StandardScaler(), ["width"])])
    model = make_pipeline(chosen, LinearRegression()).fit(FRAME, TARGET)
    assert parts.selects_by_name(model)
    assert not parts.selects_by_name(make_pipeline(StandardScaler()).fit(FRAME[["width"]]))
