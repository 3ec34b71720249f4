import importlib.util
import json
import pickle
import py_compile
import sys
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import skops.io
import xgboost
from msgspec.structs import replace
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from mlship.domain import bundle as bundles
from mlship.domain.bundle import Bundle, Field, Hooks, Model, Schema
from mlship.domain.digests import Digest
from mlship.errors import IntegrityError, ProjectError
from mlship.runtime import formats, golden, link, worker
from mlship.runtime.jobs import Computed
from mlship.runtime.model import Model as Loaded
from tests.harness.bundles import (
    CLASSES,
    COLUMNS,
    FIELDS,
    OUTPUTS,
    SETOSA,
    VIRGINICA,
    iris_bundle,
    iris_draft,
    iris_estimator,
)

NUMBERS = np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 5.0], [4.0, 3.0], [5.0, 8.0], [6.0, 1.0]])


@pytest.fixture(autouse=True)
def _path_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "path_hooks", list(sys.path_hooks))


def sealed(folder: Path, draft: Bundle) -> Loaded:
    (folder / "model").mkdir(exist_ok=True)
    return Loaded.load(folder, bundles.seal(folder, draft))


def iris_in(folder: Path, model: Model) -> Loaded:
    return sealed(folder, replace(iris_draft(Hooks()), model=model))


def model_of(form: str, name: str, **changes: Any) -> Model:
    fields: dict[str, Any] = {
        "format": form,
        "path": f"model/{name}",
        "layout": "matrix",
        "columns": FIELDS,
        "classes": CLASSES,
    }
    return Model(**{**fields, **changes})


def test_golden_examples_come_out_as_they_went_in(tmp_path: Path) -> None:
    digest = iris_bundle(tmp_path / "iris")
    model = Loaded.load(tmp_path / "iris", digest)
    examples = golden.read(tmp_path / "iris")
    assert len(examples) == 5
    assert golden.difference(model, examples) == ""
    assert model.predict([]) == []


def test_a_changed_byte_is_found_before_anything_is_loaded(tmp_path: Path) -> None:
    iris_bundle(tmp_path / "iris", preprocess="raise SystemExit('loaded')")
    path = tmp_path / "iris" / "model" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match=r"model/model\.onnx"):
        Loaded.load(tmp_path / "iris", None)


def test_another_bundle_than_expected_is_refused(tmp_path: Path) -> None:
    iris_bundle(tmp_path / "iris")
    with pytest.raises(IntegrityError, match="has digest"):
        Loaded.load(tmp_path / "iris", Digest("sha256:" + "0" * 64))


def test_a_row_that_does_not_fit_is_the_projects_error(tmp_path: Path) -> None:
    model = Loaded.load(tmp_path / "iris", iris_bundle(tmp_path / "iris"))
    with pytest.raises(ProjectError, match=r"rows\[1\]\.petal_width: petal_width must be"):
        model.predict([SETOSA, SETOSA | {"petal_width": None}])


def test_onnx_takes_texts_and_numbers_as_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"colour": ["red", "blue"] * 3, "size": np.arange(6.0), "label": [1, 0] * 3}
    )
    encoder = ColumnTransformer([("text", OneHotEncoder(), ["colour"])], remainder="passthrough")
    fitted = make_pipeline(encoder, LogisticRegression()).fit(
        frame[["colour", "size"]], frame["label"]
    )
    types = [("colour", StringTensorType([None, 1])), ("size", FloatTensorType([None, 1]))]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "m.onnx").write_bytes(
        to_onnx(fitted, initial_types=types, options={"zipmap": False}).SerializeToString()
    )
    columns = (Field(name="colour", kind="text"), Field(name="size", kind="number"))
    outputs = (
        Field(name="label", kind="integer"),
        *(Field(name=f"probability_{label}", kind="number") for label in (0, 1)),
    )
    model = sealed(
        tmp_path,
        Bundle(
            name="colours",
            task="classification",
            target="label",
            schema=Schema(inputs=columns, outputs=outputs),
            model=model_of(
                "onnx", "m.onnx", layout="columns", columns=columns, classes=(0, 1), dtype="float32"
            ),
            hooks=Hooks(),
            metrics={},
            requirements=(),
            python="3.11",
        ),
    )
    rows: list[bundles.Row] = [{"colour": "red", "size": 1}, {"colour": "blue", "size": 2.0}]
    found = model.predict(rows)
    assert [row["label"] for row in found] == [1, 0]
    expected = fitted.predict_proba(pd.DataFrame(rows))[:, 1]
    assert [row["probability_1"] for row in found] == pytest.approx(expected, abs=1e-5)


def regression(**changes: Any) -> Bundle:
    columns = (Field(name="a", kind="number", nullable=True), Field(name="b", kind="integer"))
    fields: dict[str, Any] = {
        "name": "house",
        "task": "regression",
        "target": "price",
        "schema": Schema(inputs=columns, outputs=(Field(name="price", kind="number"),)),
        "model": model_of("skops", "m.skops", layout="frame", columns=columns, classes=()),
        "hooks": Hooks(),
        "metrics": {},
        "requirements": (),
        "python": "3.11",
    }
    return Bundle(**{**fields, **changes})


def test_skops_gives_a_regression_a_number(tmp_path: Path) -> None:
    frame = pd.DataFrame(NUMBERS, columns=["a", "b"])
    (tmp_path / "model").mkdir()
    skops.io.dump(LinearRegression().fit(frame, frame["a"] * 10), tmp_path / "model" / "m.skops")
    model = sealed(tmp_path, regression())
    (found,) = model.predict([{"a": 7.0, "b": 2}])
    assert found == {"price": pytest.approx(70.0)}
    with pytest.raises(ProjectError, match="the model of house failed: ValueError"):
        model.predict([{"a": None, "b": 2}])


def test_skops_with_a_foreign_type_is_named_and_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    fitted = make_pipeline(FunctionTransformer(json.dumps), LinearRegression())
    skops.io.dump(fitted, tmp_path / "model" / "m.skops")
    with pytest.raises(IntegrityError, match=r"not trusted: json\.dumps"):
        sealed(tmp_path, regression())


def test_a_model_that_gives_nan_is_an_error_that_names_the_field(tmp_path: Path) -> None:
    frame = pd.DataFrame(NUMBERS, columns=["a", "b"])
    fitted = LinearRegression().fit(frame, frame["a"])
    fitted.intercept_ = np.nan
    (tmp_path / "model").mkdir()
    skops.io.dump(fitted, tmp_path / "model" / "m.skops")
    with pytest.raises(ProjectError, match=r"outputs\[0\]\.price is nan"):
        sealed(tmp_path, regression()).predict([{"a": 1.0, "b": 1}])


def test_a_pickle_is_loaded_where_the_manifest_names_it(tmp_path: Path) -> None:
    estimator, _ = iris_estimator()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "m.pkl").write_bytes(pickle.dumps(estimator))
    model = iris_in(tmp_path, model_of("pickle", "m.pkl"))
    assert [row["species"] for row in model.predict([SETOSA, VIRGINICA])] == ["setosa", "virginica"]


class Threads:
    """A regression whose answer is the number of threads that it may have for `n_jobs=2`."""

    def predict(self, rows: Any) -> Any:
        """Return it for each row."""
        return np.full(len(rows), joblib.effective_n_jobs(2))


def test_an_estimator_starts_no_threads_of_its_own_for_a_request(tmp_path: Path) -> None:
    assert Threads().predict(NUMBERS[:1]) == [2]
    joblib.dump(Threads(), tmp_path / "m.joblib")
    model = model_of("pickle", "m.joblib")
    compute = formats.load(tmp_path / "m.joblib", model, "regression")
    assert compute([SETOSA, VIRGINICA]).labels.tolist() == [1, 1]
    assert joblib.effective_n_jobs(2) == 2, "only while it computes"


def test_a_pickle_named_as_another_format_is_not_unpickled(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "m.onnx").write_bytes(pickle.dumps({}))
    with pytest.raises(IntegrityError, match=r"m\.onnx was refused: it is not an ONNX model"):
        iris_in(tmp_path, model_of("onnx", "m.onnx"))


def test_xgboost_gives_classes_and_probabilities(tmp_path: Path) -> None:
    data, codes = load_iris(return_X_y=True)
    fitted = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(data, codes)
    (tmp_path / "model").mkdir()
    fitted.get_booster().save_model(tmp_path / "model" / "m.ubj")
    model = iris_in(tmp_path, model_of("xgboost", "m.ubj", dtype="float32"))
    found = model.predict([SETOSA, VIRGINICA])
    assert [row["species"] for row in found] == ["setosa", "virginica"]
    given = fitted.predict_proba(np.array([[SETOSA[name] for name in COLUMNS]]))[0]
    assert [found[0][field.name] for field in OUTPUTS[1:]] == pytest.approx(given, abs=1e-6)


def test_lightgbm_gives_two_classes(tmp_path: Path) -> None:
    data, codes = load_iris(return_X_y=True)
    dataset = lightgbm.Dataset(data, (codes == 2).astype(int))
    parameters = {"objective": "binary", "verbose": -1, "num_threads": 1}
    lightgbm.train(parameters, dataset, 10).save_model(tmp_path / "m.txt")
    (tmp_path / "model").mkdir()
    (tmp_path / "m.txt").rename(tmp_path / "model" / "m.txt")
    outputs = (
        Field(name="species", kind="boolean"),
        *(Field(name=f"probability_{label}", kind="number") for label in (False, True)),
    )
    draft = replace(
        iris_draft(Hooks()),
        model=model_of("lightgbm", "m.txt", classes=(False, True)),
        schema=Schema(inputs=FIELDS, outputs=outputs),
    )
    found = sealed(tmp_path, draft).predict([SETOSA, VIRGINICA])
    assert [row["species"] for row in found] == [False, True]
    for row in found:
        chances = [row["probability_False"], row["probability_True"]]
        assert sum(chances) == pytest.approx(1.0)  # type: ignore[arg-type]


IDENTITY = "def preprocess(rows):\n    return rows"


def test_hooks_shape_what_goes_in_and_comes_out(tmp_path: Path) -> None:
    iris_bundle(
        tmp_path / "iris",
        preprocess="def preprocess(rows):\n    return rows.assign(petal_width=9.9)",
        postprocess=(
            "def postprocess(outputs):\n"
            "    sure = outputs['probability_virginica'] > 0.5\n"
            "    return pd.DataFrame({'species': outputs['species'], 'sure': sure})"
        ),
    )
    model = Loaded.load(tmp_path / "iris", None)
    assert model.predict([VIRGINICA]) == [{"species": "virginica", "sure": True}]


@pytest.mark.parametrize(
    ("preprocess", "postprocess", "message"),
    [
        (
            "def preprocess(rows):\n    return rows.drop(columns='colour')",
            "",
            r"the hook shaping:preprocess failed: KeyError: .*\(shaping\.py:4\)",
        ),
        ("def preprocess(rows):\n    return rows.head(1)", "", "returned 1 rows for 2 rows"),
        ("def preprocess(rows):\n    return None", "", "returned NoneType for 2 rows"),
        (
            "def preprocess(rows):\n    return rows.iloc[::-1]",
            "",
            "the hook shaping:preprocess returned the rows in another order",
        ),
        (
            IDENTITY,
            "def postprocess(o):\n    return o.sort_values('probability_setosa')",
            "the hook shaping:postprocess returned the rows in another order",
        ),
        ("def preprocess(rows):\n    exit(1)", "", "failed: SystemExit"),
        (
            "class Panic(BaseException): ...\n\ndef preprocess(rows):\n    raise Panic('bounds')",
            "",
            r"failed: Panic: bounds \(shaping.py:",
        ),
        (
            "def preprocess(rows):\n    raise ValueError('\\ud800' + 5000 * 'x')",
            "",
            r"failed: ValueError: \\ud800x{999} \(shaping.py:",
        ),
        (
            "class Odd(Exception):\n    __str__ = None\n\ndef preprocess(rows):\n    raise Odd",
            "",
            r"failed: Odd:  \(shaping.py:",
        ),
        ("def preprocess(rows):\n    return rows[['sepal_width']]", "", "has no column sepal_len"),
        (
            IDENTITY,
            "def postprocess(o):\n    return o[['probability_setosa']]",
            "no column species",
        ),
        (IDENTITY, "def postprocess(o):\n    return o.assign(x=float('nan'))", r"\[0\]\.x is nan"),
        (
            IDENTITY,
            "def postprocess(o):\n    return o.assign(id='mine')",
            "returned a column id, the name of each prediction's id",
        ),
        (
            IDENTITY,
            "def postprocess(o):\n    return pd.concat([o, o[['species']]], axis=1)",
            "two columns are named 'species'",
        ),
        (
            IDENTITY,
            "def postprocess(o):\n    return o.assign(x=None)",
            r"no value in outputs\[0\].x",
        ),
        (
            IDENTITY,
            "def postprocess(o):\n    return o.assign(x=pd.Timestamp(0))",
            "which JSON does not have",
        ),
    ],
)
def test_a_hook_that_fails_is_named_with_its_line(
    tmp_path: Path, preprocess: str, postprocess: str, message: str
) -> None:
    iris_bundle(tmp_path / "iris", preprocess=preprocess, postprocess=postprocess)
    with pytest.raises(ProjectError, match=message):
        Loaded.load(tmp_path / "iris", None).predict([SETOSA, VIRGINICA])


@pytest.mark.parametrize(
    "index",
    [
        "rows.index[::-1].rename('place')",
        "range(5, 5 + len(rows))",
        "[0] * len(rows)",
        "['b', 'a']",
    ],
)
def test_a_hook_may_give_rows_an_index_of_its_own(tmp_path: Path, index: str) -> None:
    preprocess = f"def preprocess(rows):\n    return rows.set_axis({index}, axis=0)"
    iris_bundle(tmp_path / "iris", preprocess=preprocess)
    answers = Loaded.load(tmp_path / "iris", None).predict([SETOSA, VIRGINICA])
    assert [row["species"] for row in answers] == ["setosa", "virginica"]


OWN_CLASSES = """
import enum

class Text(str):
    pass

class Number(float):
    pass

class Count(int):
    pass

class Colour(str, enum.Enum):
    RED = "red"

class Level(enum.IntEnum):
    LOW = 1

def postprocess(rows):
    values = {"a": Text("x"), "b": Number(0.5), "c": Count(3), "d": Colour.RED, "e": Level.LOW}
    return rows.assign(**{n: pd.Series([v] * len(rows), dtype="object") for n, v in values.items()})
"""


@pytest.mark.parametrize("number", [1, 9])
def test_values_of_classes_of_a_hook_are_plain_values(tmp_path: Path, number: int) -> None:
    iris_bundle(tmp_path / "iris", postprocess=OWN_CLASSES)
    model = Loaded.load(tmp_path / "iris", None)
    columns = [[value] * number for value in SETOSA.values()]
    message = worker.message_of(worker.answers(model, [columns], 1))
    [report] = link.Frames().reports(message)
    assert isinstance(report, link.Answers)
    [answer] = report.answers
    assert isinstance(answer, Computed)
    assert answer.outputs().rows()[-1].items() >= {
        ("a", "x"),
        ("b", 0.5),
        ("c", 3),
        ("d", "red"),
        ("e", 1),
    }


def test_a_hook_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    iris_bundle(tmp_path / "iris", preprocess="import nowhere_to_be_found")
    with pytest.raises(ProjectError, match=r"cannot be imported: ModuleNotFoundError.*py:3"):
        Loaded.load(tmp_path / "iris", None)


def test_the_bundles_code_wins_over_a_module_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "tree"
    elsewhere.mkdir()
    (elsewhere / "shaping.py").write_text("def preprocess(rows):\n    raise ValueError")
    monkeypatch.syspath_prepend(elsewhere)
    __import__("shaping")
    iris_bundle(tmp_path / "iris", preprocess=IDENTITY)
    assert Loaded.load(tmp_path / "iris", None).predict([SETOSA])[0]["species"] == "setosa"


def test_a_compiled_file_beside_the_code_is_not_run(tmp_path: Path) -> None:
    iris_bundle(tmp_path / "iris", preprocess=IDENTITY)
    source = tmp_path / "iris" / "code" / "shaping.py"
    evil = tmp_path / "evil.py"
    evil.write_text("raise SystemExit('a cache was run that no digest covers')")
    cache = importlib.util.cache_from_source(str(source))
    py_compile.compile(
        str(evil), cache, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    with pytest.raises(IntegrityError, match="__pycache__"):
        Loaded.load(tmp_path / "iris", None)
