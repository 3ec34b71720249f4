"""skops files as mlship writes them: what skops itself writes, without addresses and times."""

import copy
import functools
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from mlship.runtime import formats
from mlship.training.forms import skopsfile
from mlship.training.owncode import Trust

ROWS = 80


def fitted(name: str) -> BaseEstimator:
    """Return a copy of a model: a fit of all takes a third of a second."""
    return copy.deepcopy(_fitted()[name])


@functools.cache
def _fitted() -> dict[str, BaseEstimator]:
    """Return models that hold arrays, sparse arrays, tuples, functions, texts and bytes."""
    random = np.random.default_rng(0)
    data, labels = random.normal(size=(ROWS, 3)), np.arange(ROWS) % 2
    texts = [f"word{n % 7} other{n % 3}" for n in range(ROWS)]
    columns = ColumnTransformer([("one", OneHotEncoder(), [0])], remainder="passthrough")
    clip = FunctionTransformer(functools.partial(np.clip, a_min=-1, a_max=1))
    return {
        "boosting": HistGradientBoostingClassifier(max_iter=9).fit(data, labels),
        "several classes": HistGradientBoostingClassifier(max_iter=9).fit(
            data, np.arange(ROWS) % 3
        ),
        "columns": make_pipeline(columns, clip, SGDClassifier()).fit(data.round(), labels),
        "detector": IsolationForest(n_estimators=5, random_state=0).fit(data),
        "sparse": KNeighborsClassifier(algorithm="brute").fit(sparse.csr_matrix(data), labels),
        "texts": make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), SGDClassifier()).fit(
            texts, labels
        ),
    }


MODELS = ["boosting", "several classes", "columns", "detector", "sparse", "texts"]


def members(data: bytes) -> tuple[list[bytes], Any]:
    """Return the members of a skops file beside its schema, and that without addresses."""

    def plain(node: Any) -> Any:
        if isinstance(node, list):
            return [plain(item) for item in node]
        if not isinstance(node, dict):
            return node
        return {
            key: plain(value)
            for key, value in node.items()
            if key not in ("__id__", "file", "_stop_words_id")
        }

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name for name in archive.namelist() if name != "schema.json"]
        contents = sorted(archive.read(name) for name in names)
        return contents, plain(json.loads(archive.read("schema.json")))


@pytest.mark.parametrize("name", MODELS)
def test_a_file_holds_what_skops_writes(name: str, tmp_path: Path) -> None:
    """Its own way of saving neither loses a member nor changes a node."""
    model = fitted(name)
    ours = skopsfile.from_estimator(model, Trust(root=tmp_path)).data
    assert members(ours) == members(skops.io.dumps(model))


@pytest.mark.parametrize("name", [name for name in MODELS if name != "detector"])
def test_the_same_model_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    """A copy has other addresses; one of a tree has other bytes between the fields of its nodes."""
    trust, model = Trust(root=tmp_path), fitted(name)
    data = skopsfile.from_estimator(model, trust).data
    again = skopsfile.to_estimator(data, "model.skops", trust)
    assert skopsfile.from_estimator(again, trust).data == data


@pytest.mark.parametrize("name", ["boosting", "several classes"])
def test_a_boosted_model_sums_its_trees_once_for_labels_and_probabilities(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers are the model's own; it is asked anew for another table."""
    model = fitted(name)
    asked: list[int] = []
    sums = HistGradientBoostingClassifier._raw_predict

    def counted(self: Any, rows: Any, *args: Any) -> Any:
        asked.append(len(rows))
        return sums(self, rows, *args)

    random = np.random.default_rng(1)
    tables = [random.normal(size=(size, 3)) for size in (50, 40)]
    wanted = [(model.predict(table), model.predict_proba(table)) for table in tables]
    monkeypatch.setattr(HistGradientBoostingClassifier, "_raw_predict", counted)
    once = formats.summed_once(model)
    for table, (labels, shares) in zip(tables, wanted, strict=True):
        assert (once.predict(table) == labels).all()
        assert (once.predict_proba(table) == shares).all()
    assert asked == [50, 40]
    # One that is changed meanwhile was given again: nothing is kept beyond the second call.
    tables[0][:] = tables[0][::-1].copy()
    assert (once.predict_proba(tables[0]) == wanted[0][1][::-1]).all()


def test_a_label_is_of_the_sums_and_not_of_the_probabilities() -> None:
    """Different sums may have the same probabilities, or another order of them by rounding."""
    model = fitted("several classes")
    table = np.zeros((1, 3))
    sums = np.array([[50.0, 90.0, 91.0]])
    model._raw_predict = lambda *_: sums
    model._loss.predict_proba = lambda _: np.array([[1.0, 0.0, 0.0]])
    once = formats.summed_once(model)
    assert once.predict(table).tolist() == [2]
    assert once.predict_proba(table).tolist() == [[1.0, 0.0, 0.0]]


def test_other_estimators_are_left_alone() -> None:
    """Only a boosted classifier of scikit-learn is known to make both of the same sums."""
    model = fitted("detector")
    assert formats.summed_once(model) is model
