"""Very many held-out rows: the model file answers all, the sealed bundle some."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlship.domain import bundle as bundles
from mlship.domain.bundle import Field, Model, Row, Task
from mlship.domain.prediction import Answer
from mlship.errors import ProjectError
from mlship.runtime import formats
from mlship.runtime.formats import Computation, Raw
from mlship.training.proof import replies
from mlship.training.train import train
from tests.harness.projects import InProcess, config, flowers, project, request

CODE = """
from sklearn.linear_model import LogisticRegression

def train(data, params):
    return LogisticRegression().fit(data[["length", "width"]], data.species)
"""


class Counting(InProcess):
    def __init__(self) -> None:
        self.asked = 0

    def answered(self, bundle: Path, rows: Sequence[Row]) -> list[Answer]:
        self.asked += len(rows)
        return super().answered(bundle, rows)


def many(root: Path) -> str:
    return project(root, CODE, flowers(30_000)[["length", "width", "species"]])


def test_the_bundle_is_asked_some_rows_and_its_metrics_are_of_all(tmp_path: Path) -> None:
    module = many(tmp_path)
    predictor = Counting()
    made = request(tmp_path, config(module=module))
    train(made, predictor)
    assert 2_000 < predictor.asked < 6_000
    # 9,000 held-out rows: a multiple of 1 / 9,000 and of no smaller number.
    accuracy = bundles.read(made.into).metrics["accuracy"]
    assert isinstance(accuracy, float)
    assert accuracy * 9_000 == pytest.approx(round(accuracy * 9_000))
    assert accuracy > 0.8


def test_a_model_file_that_differs_on_one_row_that_the_bundle_is_not_asked_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, load = many(tmp_path), formats.load

    def faulty(path: Path, model: Model, task: Task) -> Computation:
        computation = load(path, model, task)

        def compute(data: Any) -> Raw:
            raw = computation(data)
            if len(data) != 9_000:
                return raw
            labels, probabilities = raw.labels.copy(), raw.probabilities.copy()
            labels[7] = "tulip" if labels[7] != "tulip" else "rose"
            probabilities[7] = probabilities[7, ::-1]
            return Raw(labels, probabilities)

        return compute

    monkeypatch.setattr(formats, "load", faulty)
    with pytest.raises(ProjectError, match=r"differs on 1 of 9000 held-out rows, first on row 8"):
        train(request(tmp_path, config(module=module)), InProcess())


def test_rows_at_the_edges_of_the_contract_are_asked() -> None:
    count = 50_000
    frame = pd.DataFrame({"x": np.linspace(0.1, 0.9, count), "c": ["a"] * count, "n": 1})
    frame["x"] = frame["x"].sample(frac=1, random_state=1).to_numpy()
    frame.loc[[1_001, 2_002, 3_003, 4_004], "x"] = [99.0, -99.0, np.nan, np.nan]
    frame.loc[5_005, "c"] = "b"
    fields = [
        Field(name="x", kind="number", nullable=True),
        Field(name="c", kind="text", choices=("a", "b"), is_closed=True),
        Field(name="n", kind="integer"),
    ]
    asked = replies.asked(frame, fields)
    assert {0, 1_001, 2_002, 3_003, 5_005, count - 1} <= set(asked)
    assert 2_000 <= len(asked) <= 2_010
    assert replies.asked(frame.head(1_500), fields) == list(range(1_500))
