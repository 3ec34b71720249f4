"""Very many held-out rows: the model file answers all, the sealed bundle some."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from mlship.domain import bundle as bundles
from mlship.domain.bundle import Field, Model, Row, Task
from mlship.domain.prediction import Answer
from mlship.errors import ProjectError
from mlship.runtime import formats
from mlship.runtime.formats import Computation, Raw
from mlship.training.data import read
from mlship.training.fit import Prepared
from mlship.training.forms import convert
from mlship.training.forms.conversion import Child
from mlship.training.original import examine
from mlship.training.proof import replies
from mlship.training.proof.answers import MARGIN
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.fits
@pytest.mark.parametrize("model", [RandomForestClassifier(2), ExtraTreesClassifier(2)], ids=str)
def test_many_held_out_rows_have_the_labels_that_the_model_gives_them(
    model: Any, tmp_path: Path
) -> None:
    """Two trees often disagree: their shares are equal then, and only the model knows the label."""
    made = config(module=many(tmp_path))
    data = read(tmp_path, made.data)
    fitted = model.set_params(random_state=0).fit(data.train, data.only.train)
    prepared = Prepared(train=data.train, test=data.test, columns=data.fields)
    outputs = examine(fitted, made.model, data, prepared).ask_held_out().outputs
    assert (outputs.labels == fitted.predict(data.test)).all()
    assert (outputs.probabilities == fitted.predict_proba(data.test)).all()
    assert (outputs.margins < MARGIN).sum() > 10


@pytest.mark.slow
def test_what_answers_held_out_rows_ends_with_a_form_that_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Child[Any]] = []

    class Noted(Child[Any]):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            started.append(self)

    monkeypatch.setattr(convert, "Child", Noted)
    monkeypatch.setattr(convert, "prove", lambda _, model, *__: failed(model))
    module = many(tmp_path)
    assert train(request(tmp_path, config(module=module)), InProcess()).format == "skops"
    assert len(started) > 1
    assert [child._process for child in started] == [None] * len(started)


ALONE = """
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression

class Own(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.inner_ = LogisticRegression().fit(X, y)
        self.classes_ = self.inner_.classes_
        return self

    def predict_proba(self, X):
        if len(X) == 1:
            ALONE
        return self.inner_.predict_proba(X)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

def train(data, params):
    return Own().fit(data[["length", "width"]], data.species)
"""


@pytest.mark.fits
@pytest.mark.parametrize(
    ("alone", "message"),
    [
        ("return self.inner_.predict_proba(X)[:, ::-1]", r"alone: it (gives a prob|answers)"),
        ("X.iloc[1]", r"alone: it refuses \(IndexError"),
    ],
)
def test_a_model_that_answers_a_row_otherwise_alone_is_refused(
    alone: str, message: str, tmp_path: Path
) -> None:
    code = ALONE.replace("ALONE", alone)
    module = project(tmp_path, code, flowers(200)[["length", "width", "species"]])
    with pytest.raises(ProjectError, match=rf"answers held-out row 1 otherwise .*{message}"):
        train(request(tmp_path, config(module=module)), InProcess())


def failed(model: Model) -> dict[int, str]:
    return {0: "it differs"} if model.format == "onnx" else {}
