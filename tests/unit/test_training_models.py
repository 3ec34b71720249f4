"""Each kind of model becomes a bundle that answers as the model itself does."""

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlship.config.project import Config
from mlship.domain import bundle as bundles
from mlship.domain.bundle import Bundle, Row
from mlship.errors import IntegrityError, MlshipError, ProjectError, RefusedError
from mlship.runtime import formats
from mlship.runtime.model import Model
from mlship.training.columns import rows_of
from mlship.training.data import read
from mlship.training.forms import conversion, nativefacts
from mlship.training.train import train
from tests.harness.projects import InProcess, config, flowers, project, request

pytestmark = pytest.mark.fits

NUMBERS = 'data[["length", "width", "leaves"]]'


def make(root: Path, setting: Config, into: str = "bundle") -> Bundle:
    asked = request(root, setting, into)
    made = train(asked, InProcess())
    return bundles.read(asked.into, expected=made.bundle)


def numeric(columns: tuple[str, ...] = ("length", "width", "leaves")) -> pd.DataFrame:
    return flowers()[[*columns, "species"]]


CLASSIFIERS = {
    "logistic": ("from sklearn.linear_model import LogisticRegression as M", "M()", "onnx"),
    "forest": (
        "from sklearn.ensemble import RandomForestClassifier as M",
        "M(10, random_state=1)",
        "onnx",
    ),
    "boosting": (
        "from sklearn.ensemble import GradientBoostingClassifier as M",
        "M(n_estimators=10)",
        "onnx",
    ),
    "without probabilities": ("from sklearn.svm import LinearSVC as M", "M()", "onnx"),
    "lightgbm": (
        "from lightgbm import LGBMClassifier as M",
        "M(n_estimators=5, min_child_samples=3, verbose=-1, n_jobs=1)",
        "lightgbm",
    ),
    "no converter": (
        "from sklearn.semi_supervised import LabelSpreading as M",
        "M('knn', n_neighbors=5)",  # with the usual kernel it refuses hundreds of probes
        "skops",
    ),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier(name: str, tmp_path: Path) -> None:
    line, call, form = CLASSIFIERS[name]
    code = f"{line}\ndef train(data, params):\n    return {call}.fit({NUMBERS}, data.species)\n"
    module = project(tmp_path, code, numeric())
    bundle = make(tmp_path, config(module=module))
    assert bundle.task == "classification"
    assert bundle.model.format == form
    assert bundle.model.classes == ("iris", "rose", "tulip")
    assert float(bundle.metrics["accuracy"]) > 0.7
    names = [field.name for field in bundle.schema.outputs]
    has_probabilities = name != "without probabilities"
    assert ("probability_rose" in names) is has_probabilities
    assert ("log_loss" in bundle.metrics) is has_probabilities


MEMBERS = (
    "from sklearn.ensemble import RandomForestClassifier, StackingClassifier, VotingClassifier\n"
    "from sklearn.linear_model import LogisticRegression\n"
    "MEMBERS = [\n"
    "    ('forest', RandomForestClassifier(5, random_state=0)), ('line', LogisticRegression())\n"
    "]\n"
)
MIXED = {
    "voting": "VotingClassifier(MEMBERS)",
    "voting softly": "VotingClassifier(MEMBERS, voting='soft')",
    "stacking": "StackingClassifier(MEMBERS, cv=3)",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXED)
def test_a_forest_among_other_members(name: str, tmp_path: Path) -> None:
    code = f"{MEMBERS}def train(data, params):\n"
    code += f"    return {MIXED[name]}.fit({NUMBERS}, data.species)\n"
    bundle = make(tmp_path, config(module=project(tmp_path, code, numeric())))
    assert bundle.model.classes == ("iris", "rose", "tulip")
    assert float(bundle.metrics["accuracy"]) > 0.7


def test_scores_of_a_ranking_are_no_labels(tmp_path: Path) -> None:
    code = (
        "from lightgbm import LGBMRanker\n"
        "def train(data, params):\n"
        "    model = LGBMRanker(n_estimators=3, min_child_samples=3, verbose=-1, n_jobs=1)\n"
        f"    return model.fit({NUMBERS}, data.stars, group=[len(data)])\n"
    )
    frame = numeric().assign(stars=[0, 1, 2] * 30).drop(columns="species")
    module = project(tmp_path, code, frame)
    with pytest.raises(ProjectError, match=r"predicts .*, and stars holds") as raised:
        make(tmp_path, config("stars", module))
    assert raised.value.hint == "set model.task to regression, if the model predicts numbers"
    assert (
        make(tmp_path, config("stars", module, task="regression"), "numbers").task == "regression"
    )


REGRESSORS = {
    "ridge": ("from sklearn.linear_model import Ridge as M", "M()", "onnx"),
    "boosting": (
        "from sklearn.ensemble import GradientBoostingRegressor as M",
        "M(n_estimators=20)",
        "onnx",
    ),
    "xgboost": (
        "from xgboost import XGBRegressor as M",
        "M(n_estimators=10, n_jobs=1)",
        "xgboost",
    ),
    "lightgbm": (
        "from lightgbm import LGBMRegressor as M",
        "M(n_estimators=5, min_child_samples=3, verbose=-1, n_jobs=1)",
        "lightgbm",
    ),
}


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressor(name: str, tmp_path: Path) -> None:
    line, call, form = REGRESSORS[name]
    code = f"{line}\ndef train(data, params):\n    return {call}.fit({NUMBERS}, data.price)\n"
    module = project(tmp_path, code, flowers()[["length", "width", "leaves", "price"]])
    bundle = make(tmp_path, config("price", module))
    assert (bundle.task, bundle.model.format, bundle.model.classes) == ("regression", form, ())
    assert float(bundle.metrics["r2"]) > 0.3
    assert [field.name for field in bundle.schema.outputs] == ["price"]


def test_xgboost_with_early_stopping_answers_from_its_best_round(tmp_path: Path) -> None:
    code = (
        "from xgboost import XGBClassifier\n"
        "def train(data, params):\n"
        f"    X, y = {NUMBERS}, data.leaf\n"
        "    model = XGBClassifier(n_estimators=60, early_stopping_rounds=2, n_jobs=1)\n"
        "    return model.fit(X[:40], y[:40], eval_set=[(X[40:], y[40:])], verbose=False)\n"
    )
    frame = numeric().drop(columns="species").assign(leaf=[0, 1, 1] * 30)
    bundle = make(tmp_path, config("leaf", project(tmp_path, code, frame)))
    assert bundle.model.format == "xgboost"
    assert bundle.model.classes == (0, 1)
    assert any(line.startswith("xgboost") for line in bundle.requirements)


PIPELINE = """
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
{imports}

def train(data, params):
    columns = ColumnTransformer([
        ("numbers", StandardScaler(), ["length", "width"]),
        ("texts", OneHotEncoder(handle_unknown="ignore"), ["colour"]),
    ])
    model = Pipeline([("columns", columns), ("model", {model})])
    return model.fit(data[["length", "width", "colour"]], data.species{encode})
"""


def test_pipeline_with_texts_is_onnx_with_an_input_a_column(tmp_path: Path) -> None:
    code = PIPELINE.format(imports="", model="RandomForestClassifier(5)", encode="")
    bundle = make(tmp_path, config(module=project(tmp_path, code)))
    assert (bundle.model.format, bundle.model.layout) == ("onnx", "columns")
    assert [field.name for field in bundle.model.columns] == ["length", "width", "colour"]
    colour = next(field for field in bundle.schema.inputs if field.name == "colour")
    assert (colour.kind, colour.choices) == ("text", ("blue", "pink", "white"))
    unseen: Row = {"length": 5.0, "width": 3.0, "leaves": 3, "colour": "green", "price": 1.0}
    answer = Model.load(tmp_path / "out/bundle", None).predict([unseen])
    assert answer[0]["species"] in bundle.model.classes


def test_missing_texts_are_kept_in_skops(tmp_path: Path) -> None:
    frame = flowers()
    frame.loc[::10, "colour"] = None
    code = PIPELINE.format(imports="", model="RandomForestClassifier(5)", encode="")
    bundle = make(tmp_path, config(module=project(tmp_path, code, frame)))
    assert (bundle.model.format, bundle.model.layout) == ("skops", "frame")
    row: Row = {"length": 5.0, "width": 3.0, "leaves": 3, "colour": None, "price": 1.0}
    assert Model.load(tmp_path / "out/bundle", None).predict([row])


def test_xgboost_in_a_pipeline_is_kept_in_skops(tmp_path: Path) -> None:
    code = PIPELINE.format(
        imports="from xgboost import XGBClassifier",
        model="XGBClassifier(n_estimators=3, n_jobs=1)",
        encode='.map({"iris": 0, "rose": 1, "tulip": 2})',
    )
    code += "def post(outputs):\n    names = ['iris', 'rose', 'tulip']\n"
    code += "    return outputs.assign(species=[names[n] for n in outputs.species])\n"
    module = project(tmp_path, code)
    asked = request(tmp_path, config(module=module, postprocess=f"{module}:post"))
    made = train(asked, InProcess())
    bundle = bundles.read(asked.into)
    assert bundle.model.format == "skops"
    assert "XGBClassifier" in made.notes[0]
    assert float(bundle.metrics["accuracy"]) > 0.8
    species = next(field for field in bundle.schema.outputs if field.name == "species")
    assert species.kind == "text"
    assert any(line.startswith("xgboost") for line in bundle.requirements)


def test_missing_numbers_pass_through(tmp_path: Path) -> None:
    frame = numeric()
    frame.loc[::7, "leaves"] = None
    code = (
        "from sklearn.impute import SimpleImputer\n"
        "from sklearn.linear_model import LogisticRegression\n"
        "from sklearn.pipeline import make_pipeline\n"
        "def train(data, params):\n"
        "    model = make_pipeline(SimpleImputer(), LogisticRegression())\n"
        f"    return model.fit({NUMBERS}, data.species)\n"
    )
    bundle = make(tmp_path, config(module=project(tmp_path, code, frame)))
    leaves = next(field for field in bundle.schema.inputs if field.name == "leaves")
    assert (leaves.kind, leaves.nullable) == ("number", True)


@pytest.mark.parametrize("labels", [(0, 1), (True, False)])
def test_labels_keep_their_type(labels: tuple[int, int], tmp_path: Path) -> None:
    code = (
        "from sklearn.ensemble import RandomForestClassifier\n"
        "def train(data, params):\n"
        f"    return RandomForestClassifier(5).fit({NUMBERS}, data.big)\n"
    )
    frame = numeric().drop(columns="species")
    frame["big"] = [labels[0] if length > 7 else labels[1] for length in frame.length]
    bundle = make(tmp_path, config("big", project(tmp_path, code, frame)))
    assert [type(label) for label in bundle.model.classes] == [type(labels[0])] * 2
    golden = (tmp_path / "out/bundle/golden.jsonl").read_text()
    assert f'"big":{str(labels[0]).lower()}' in golden


def saved(root: Path, suffix: str, write: str, imports: str = "") -> str:
    return project(
        root,
        f"{imports}\nfrom pathlib import Path\nHERE = Path(__file__).parent\n"
        f"def train(data, params):\n    X, y = {NUMBERS}.astype(float), data.species\n"
        f"    path = HERE / 'model{suffix}'\n    {write}\n    return path\n",
        numeric(),
    )


def test_saved_skops_is_converted(tmp_path: Path) -> None:
    module = saved(
        tmp_path,
        ".skops",
        "sio.dump(M().fit(X, y), path)",
        "import skops.io as sio\nfrom sklearn.linear_model import LogisticRegression as M",
    )
    assert make(tmp_path, config(module=module)).model.format == "onnx"


def test_saved_onnx_is_kept(tmp_path: Path) -> None:
    module = saved(
        tmp_path,
        ".onnx",
        "path.write_bytes(to_onnx(m := M().fit(X, y), X[:1].to_numpy(),"
        " options={id(m): {'zipmap': False}}).SerializeToString())",
        "from skl2onnx import to_onnx\nfrom sklearn.linear_model import LogisticRegression as M",
    )
    bundle = make(tmp_path, config(module=module))
    assert (bundle.model.format, bundle.model.layout) == ("onnx", "matrix")
    assert bundle.model.classes == ("iris", "rose", "tulip")
    assert float(bundle.metrics["accuracy"]) > 0.8


SPECIES = ("iris", "rose", "tulip")


@pytest.mark.parametrize("suffix", [".ubj", ".json"])
def test_saved_xgboost_is_kept_with_the_labels_that_are_listed(suffix: str, tmp_path: Path) -> None:
    module = saved(
        tmp_path,
        suffix,
        "M(n_estimators=5, n_jobs=1).fit(X, y.astype('category').cat.codes).save_model(path)",
        "from xgboost import XGBClassifier as M",
    )
    bundle = make(tmp_path, config(module=module, classes=SPECIES))
    assert bundle.model.classes == SPECIES
    assert float(bundle.metrics["accuracy"]) > 0.8


def test_saved_lightgbm_is_kept(tmp_path: Path) -> None:
    module = saved(
        tmp_path,
        ".txt",
        "M(n_estimators=5, min_child_samples=3, verbose=-1, n_jobs=1).fit(X, y)"
        ".booster_.save_model(path)",
        "from lightgbm import LGBMClassifier as M",
    )
    bundle = make(tmp_path, config(module=module, classes=SPECIES))
    assert bundle.model.format == "lightgbm"
    assert float(bundle.metrics["accuracy"]) > 0.8


DAMAGED = {
    "lightgbm": (
        ".txt",
        (
            "text = M(n_estimators=2, min_child_samples=3, n_jobs=1).fit(X, data.length)"
            ".booster_.model_to_string(); text = '\\n'.join(re.sub(r'\\d+', '77777', line) "
            "if line[:13] == 'split_feature' else line for line in text.splitlines() "
            "if line[:10] != 'tree_sizes'); path.write_text(text)"
        ),
        "import re\nfrom lightgbm import LGBMRegressor as M",
        "a tree compares column 77777 of 3",
    ),
    "xgboost": (
        ".json",
        (
            "M(n_estimators=2, n_jobs=1).fit(X, data.length).save_model(path); "
            "found = json.loads(path.read_text()); "
            "trees = found['learner']['gradient_booster']['model']['trees']; "
            "trees[0]['split_indices'][0] = 9; path.write_text(json.dumps(found))"
        ),
        "import json\nfrom xgboost import XGBRegressor as M",
        "a tree compares column 9 of 3",
    ),
    "onnx": (
        ".onnx",
        (
            "path.write_bytes(convert_sklearn(M().fit(X, data.length), "
            "initial_types=[('x', FloatTensorType([1, 2]))]).SerializeToString())"
        ),
        (
            "from skl2onnx import convert_sklearn\n"
            "from skl2onnx.common.data_types import FloatTensorType\n"
            "from sklearn.linear_model import LinearRegression as M"
        ),
        "it takes a fixed number of rows: export it with a dynamic batch dimension",
    ),
}


@pytest.mark.parametrize("library", DAMAGED)
def test_saved_model_that_would_read_beyond_a_row_or_takes_one_only_is_refused(
    library: str, tmp_path: Path
) -> None:
    suffix, write, imports, said = DAMAGED[library]
    with pytest.raises(ProjectError, match=rf"model\{suffix} cannot be read: .*{said}"):
        make(tmp_path, config("length", saved(tmp_path, suffix, write, imports)))


BOOSTERS = {
    "xgboost": "M.train({'objective': 'multi:softprob', 'num_class': 3}, M.DMatrix(X, label=y), 5)",
    "lightgbm": "M.train({'objective': 'multiclass', 'num_class': 3, 'verbose': -1,"
    " 'min_data_in_leaf': 3}, M.Dataset(X, label=y), 5)",
}


@pytest.mark.slow
@pytest.mark.parametrize("library", BOOSTERS)
def test_bare_booster_needs_to_know_which_code_is_which_label(library: str, tmp_path: Path) -> None:
    code = (
        f"import {library} as M\n"
        "def train(data, params):\n"
        f"    X, y = {NUMBERS}, data.species.astype('category').cat.codes\n"
        f"    return {BOOSTERS[library]}\n"
    )
    module = project(tmp_path, code, numeric())
    with pytest.raises(ProjectError, match="counts its classes from 0 to 2") as caught:
        make(tmp_path, config(module=module), "refused")
    assert "`classes: [...]`" in caught.value.hint
    bundle = make(tmp_path, config(module=module, classes=SPECIES))
    assert bundle.model.format == library
    assert bundle.model.classes == SPECIES
    assert float(bundle.metrics["accuracy"]) > 0.8


PICKLED = "import pickle\nfrom sklearn.linear_model import LogisticRegression as M"


def test_pickle_is_refused_unless_it_is_the_one_that_was_allowed(tmp_path: Path) -> None:
    write = "path.exists() or path.write_bytes(pickle.dumps(M().fit(X, y)))"
    module = saved(tmp_path, ".pkl", write, PICKLED)
    with pytest.raises(RefusedError, match="runs its code"):
        make(tmp_path, config(module=module))
    digest = hashlib.sha256((tmp_path / "model.pkl").read_bytes()).hexdigest()
    allowed = config(module=module, allow_pickle=True, pickle_sha256=digest)
    assert make(tmp_path, allowed, "allowed").model.format == "onnx"
    (tmp_path / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch loaded'\ntR.")
    with pytest.raises(IntegrityError, match="not model"):
        make(tmp_path, allowed, "other")


MISTAKES = {
    "raises": ("raise ValueError('no good')", r"pipeline_\d+\.py:5: ValueError: no good"),
    "exits": ("raise SystemExit(1)", "SystemExit"),
    "nothing": ("pass", "returned nothing"),
    "no model": ("return {'a': 1}", "returned dict, which cannot predict"),
    "not fitted": ("return M()", "cannot predict the training rows"),
    "no such file": ("return 'model.onnx'", "there is no such file"),
    "unknown file": ("return 'model.xyz'", "has no known format"),
    "own features": (
        "return M().fit(data.assign(area=1.0)[['length', 'area']], data.species)",
        "a column area, which serving",
    ),
    "without names": (
        "return M().fit(data[['length']].to_numpy(), data.species)",
        "1 of 3 columns",
    ),
    "NaN": ("return Broken().fit(data[['length']], data.price)", "its answer is NaN or infinite"),
    "class of a function": (
        "return make_own()().fit(data[['length']], data.species)",
        "Own, defined inside a function",
    ),
    "other labels": (
        "return M().fit(data[['length']], data.species.map(len).astype(str))",
        "species holds",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_in_training_is_named(name: str, tmp_path: Path) -> None:
    body, said = MISTAKES[name]
    code = (
        "from sklearn.linear_model import LinearRegression, LogisticRegression as M\n"
        "import numpy as np\n"
        "\n"
        "def train(data, params):\n"
        f"    {body}\n"
        "def make_own():\n"
        "    class Own(M):\n"
        "        def predict(self, X):\n"
        "            return super().predict(X)\n"
        "    return Own\n"
        "class Broken(LinearRegression):\n"
        "    def predict(self, X):\n"
        "        return super().predict(X) * np.nan\n"
    )
    module = project(tmp_path, code, numeric().assign(price=1.0) if name == "NaN" else numeric())
    target = "price" if name == "NaN" else "species"
    with pytest.raises(MlshipError, match=said) as caught:
        make(tmp_path, config(target, module))
    assert isinstance(caught.value, ProjectError)
    assert caught.value.hint


def test_model_that_float32_would_change_is_not_served_in_float32(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": 1 + np.arange(60) * 1e-9, "late": [0.0] * 30 + [9.5] * 30})
    code = (
        "from sklearn.neighbors import KNeighborsRegressor\n"
        "def train(data, params):\n"
        "    return KNeighborsRegressor(1).fit(data[['x']], data.late)\n"
    )
    bundle = make(tmp_path, config("late", project(tmp_path, code, frame)))
    assert (bundle.model.format, bundle.model.dtype) != ("onnx", "float32")
    assert bundle.metrics["mae"] == 0.0


TREES = {
    "a forest": ("RandomForestClassifier(5, random_state=0)", "onnx", 1),
    "boosting": ("GradientBoostingClassifier(n_estimators=3)", "onnx", 1),
    "histograms": ("HistGradientBoostingClassifier(max_iter=3)", "skops", 0),
}


@pytest.mark.parametrize("name", TREES)
def test_trees_are_converted_in_the_precision_in_which_they_compare(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, form, conversions = TREES[name]
    made: list[object] = []

    def counted(*what: Any) -> conversion.Child[bytes]:
        made.append(what)
        return own(*what)

    own = conversion.started
    monkeypatch.setattr(conversion, "started", counted)
    frame = numeric()
    kind = model.partition("(")[0]
    code = f"from sklearn.ensemble import {kind}\n"
    code += f"def train(data, params):\n    return {model}.fit({NUMBERS}, data.species)\n"
    bundle = make(tmp_path, config(module=project(tmp_path, code, frame)))
    assert (bundle.model.format, len(made)) == (form, conversions)
    if form == "onnx":
        assert bundle.model.dtype == "float32"


@pytest.mark.parametrize(("what", "does"), [("reading", "ends"), ("a prediction", "waits")])
def test_a_saved_model_that_ends_its_process_or_never_answers_is_refused(
    what: str, does: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = saved(
        tmp_path,
        ".ubj",
        "M(n_estimators=2, n_jobs=1).fit(X, data.length).save_model(path)",
        "from xgboost import XGBRegressor as M",
    )
    if does == "waits":
        monkeypatch.setattr(conversion, "SECONDS", 2.0)  # on a busy machine, reading takes one
    place, name = (nativefacts, "of") if what == "reading" else (formats, "load")
    # Only the fork does so; what it is compared with is never reached.
    parts = {"ends": lambda *_: os._exit(9), "waits": lambda *_: time.sleep(60)}
    monkeypatch.setattr(place, name, parts[does])
    reason = "ended its process with exit code 9" if does == "ends" else "did not end within"
    with pytest.raises(ProjectError, match=rf"{what} .*model\.ubj {reason}"):
        make(tmp_path, config(module=module))


EARLY = """
from pathlib import Path

import xgboost
from xgboost import DMatrix

FEATURES = ["length", "width", "leaves"]
PLACE = Path(__file__).parent


def booster(data):
    half = len(data) // 2
    first, rest = data[:half], data[half:]
    made = DMatrix(first[FEATURES], first.weight), DMatrix(rest[FEATURES], rest.weight)
    return xgboost.train(
        {"eta": 0.9, "max_depth": 6, "nthread": 1}, made[0], 60, evals=[(made[1], "rest")],
        early_stopping_rounds=8, verbose_eval=False,
    )


def estimator(data):
    half = len(data) // 2
    first, rest = data[:half], data[half:]
    return xgboost.XGBRegressor(
        n_estimators=60, max_depth=6, learning_rate=0.9, early_stopping_rounds=8, n_jobs=1
    ).fit(first[FEATURES], first.weight, eval_set=[(rest[FEATURES], rest.weight)], verbose=False)


def train(data, params):
"""
STOPPED = {
    "a booster": ("return booster(data)", "booster"),
    "a booster's file": ("booster(data).save_model(PLACE / 'm.json')|return 'm.json'", "booster"),
    "an estimator": ("return estimator(data)", "estimator"),
    "an estimator's file": (
        "estimator(data).save_model(PLACE / 'm.ubj')|return 'm.ubj'",
        "estimator",
    ),
}


@pytest.mark.parametrize("name", STOPPED)
def test_a_booster_that_stopped_early_answers_as_what_is_returned_does(
    name: str, tmp_path: Path
) -> None:
    body, kind = STOPPED[name]
    random = np.random.default_rng(2)
    frame = flowers()[["length", "width", "leaves"]]
    frame = frame.assign(weight=frame.length * 2 + random.normal(0, 2, len(frame)))
    code = EARLY + "".join(f"    {line}\n" for line in body.split("|"))
    setting = config(module=project(tmp_path, code, frame), target="weight")
    make(tmp_path, setting)
    rows = frame[["length", "width", "leaves"]].head(20)
    served = Model.load(request(tmp_path, setting, "bundle").into, None).predict(rows_of(rows))
    names: dict[str, Any] = {"__file__": str(tmp_path / "x.py")}
    exec(code, names)  # noqa: S102 (the project's own code, as its owner would run it)
    found = read(tmp_path, setting.data)
    original = names[kind](found.train.assign(weight=found.only.train))
    assert original.best_iteration + 9 <= 60
    asked = names["DMatrix"](rows) if kind == "booster" else rows
    expected = original.predict(asked)
    assert [row["weight"] for row in served] == pytest.approx(expected.tolist(), rel=1e-5)
    if kind == "booster":
        rounds = (0, original.best_iteration + 1)
        assert not np.allclose(expected, original.predict(asked, iteration_range=rounds))
