"""Faults planted into conversions: probes find each of them, held-out rows find none."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from skl2onnx.sklapi import CastTransformer
from sklearn.pipeline import Pipeline

from mlship.domain.bundle import Dtype, Layout
from mlship.training import train
from mlship.training.data import Data
from mlship.training.forms import conversion, convert, onnxfile
from mlship.training.original import Original
from mlship.training.proof import boundaries, probes, trial
from mlship.training.proof.probes import ProbeKind, Probes
from tests.harness.projects import InProcess, config, project, request

pytestmark = pytest.mark.slow

Plant = Callable[[Any], Any]
"""Makes of a fitted estimator one that answers otherwise, which is converted in its place."""

_TRAIN = """
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBRegressor

def train(data, params):
    return {model}.fit(data.drop(columns="target"), data["target"])
"""


@dataclass(frozen=True)
class _Fault:
    """A project whose model is served as `form`, and what goes wrong in its conversion.

    Attributes:
        plant: `None` for a fault that the converter has by itself.
    """

    name: str
    model: str
    frame: Callable[[], tuple[pd.DataFrame, pd.DataFrame]]
    plant: Plant | None
    form: str = "onnx"


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _rare() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return rows with four classes, of which only two are held out."""
    random = _random(1)
    size = np.round(random.uniform(0, 40, 200), 2)
    noise = random.random(200) < 0.15
    code = np.where(size < 20, size // 10, np.where(noise, 5 - size // 10, size // 10))
    frame = pd.DataFrame({"size": size, "target": np.array([*"abcd"])[code.astype(int)]})
    return frame, frame[frame["size"] < 20].head(40)


def _gaps() -> tuple[pd.DataFrame, pd.DataFrame]:
    random = _random(2)
    frame = pd.DataFrame({"a": random.normal(5, 1, 200), "b": random.normal(2, 1, 200)})
    frame["target"] = 3 * frame.a + frame.b
    frame.loc[::9, "a"] = np.nan
    return frame, frame.dropna().head(40)


def _sentinel() -> tuple[pd.DataFrame, pd.DataFrame]:
    train_rows, test_rows = _gaps()
    return train_rows.fillna(-999.0), test_rows


def _steps() -> tuple[pd.DataFrame, pd.DataFrame]:
    random = _random(3)
    frame = pd.DataFrame({"size": np.round(random.uniform(0, 9, 200), 2)})
    frame["target"] = np.where((frame["size"] % 3) < 1.5, "low", "high")
    return frame, frame.head(40)


def _moments() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return seconds since 1970: held out are some that single precision has."""
    random = _random(4)
    frame = pd.DataFrame({"second": 1_700_000_000.0 + random.integers(0, 100_000, 200)})
    frame["target"] = (frame.second - 1_700_000_000) / 1000
    held_out = frame.assign(second=(frame.second // 128) * 128).head(40)
    return frame, held_out.assign(target=(held_out.second - 1_700_000_000) / 1000)


def _categories() -> tuple[pd.DataFrame, pd.DataFrame]:
    random = _random(5)
    frame = pd.DataFrame({"grade": random.choice([*"pqrst"], 200), "n": random.normal(0, 1, 200)})
    frame["target"] = frame.grade.map({"p": 1, "q": 2, "r": 9, "s": 5, "t": 7}) + frame.n
    return frame, frame[frame.grade.isin(["p", "q"])].head(40)


def _centred() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return rows whose column b has the mean 0; those that are held out have a 0 there."""
    random = _random(6)
    half = np.round(random.uniform(1, 30, 100))
    frame = pd.DataFrame({"a": random.normal(0, 1, 200), "b": [*half, *-half]})
    frame["target"] = frame.a + frame.b / 5
    return frame, frame.assign(b=0.0, target=frame.a).head(40)


def _counts() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return numbers, some of them with fractions; those that are held out have none."""
    random = _random(7)
    frame = pd.DataFrame({"n": random.integers(0, 90, 200), "m": random.integers(0, 9, 200) / 2})
    frame["target"] = frame.n / 10 + frame.m
    return frame, frame[frame.m % 1 == 0].head(40)


def _cities() -> tuple[pd.DataFrame, pd.DataFrame]:
    random = _random(8)
    cities = random.choice(["Oslo", "lyon", "porto"], 200)
    frame = pd.DataFrame({"city": cities, "n": random.normal(0, 1, 200)})
    frame["target"] = frame.city.map({"Oslo": 1, "lyon": 2, "porto": 9}) + frame.n
    return frame, frame[frame.city.str.islower()].head(40)


def _codes() -> tuple[pd.DataFrame, pd.DataFrame]:
    random = _random(9)
    frame = pd.DataFrame({"zip": random.choice([10, 20, 30], 200), "n": random.normal(0, 1, 200)})
    frame["target"] = frame.zip / 10 + frame.n
    return frame, frame.head(40)


def _swapped(*order: int) -> Plant:
    def plant(model: Any) -> Any:
        model.classes_ = model.classes_[list(order)]
        return model

    return plant


def _wrong_probability(model: Any) -> Any:
    values = model.tree_.value
    for node in range(model.tree_.node_count):
        best = int(values[node, 0].argmax())
        if best >= 2:  # the other of the two rare classes, and the first class
            values[node, 0, [5 - best, 0]] = values[node, 0, [0, 5 - best]]
    return model


def _one_ulp(model: Any) -> Any:
    tree = model.tree_
    inner = tree.children_left >= 0
    single = np.nextafter(np.float32(tree.threshold[inner]), np.float32(np.inf))
    tree.threshold[inner] = np.nextafter(single, np.float32(np.inf))
    return model


def _cast(dtype: Any) -> Plant:
    there, back = CastTransformer(dtype=dtype), CastTransformer(dtype=np.float64)
    return lambda model: Pipeline([("there", there), ("back", back), ("model", model)])


def _without(step: str) -> Plant:
    def plant(model: Any) -> Any:
        return Pipeline([(name, part) for name, part in model.steps if name != step])

    return plant


def _filled_with_zero(model: Any) -> Any:
    model.steps[0][1].statistics_[:] = 0
    return model


def _one_column_unscaled(model: Any) -> Any:
    model.steps[0][1].scale_[1] = 1
    return model


def _wrong_order(model: Any) -> Any:
    encoder = model.steps[0][1].transformers_[0][1]
    encoder.categories_ = [encoder.categories_[0][[0, 1, 4, 3, 2]]]
    return model


def _ignoring(model: Any) -> Any:
    model.steps[0][1].transformers_[0][1].handle_unknown = "ignore"
    return model


def _lowercased(model: Any) -> Any:
    encoder = model.steps[0][1].transformers_[0][1]
    lower = [str(text).lower() for text in encoder.categories_[0]]
    encoder.categories_ = [np.array(lower, dtype=object)]
    return model


_ENCODED = "make_pipeline(ColumnTransformer([('e', {}, [0])], remainder='passthrough'), {})"
_TREE = "DecisionTreeClassifier(max_depth=5, random_state=0)"
_IMPUTED = "make_pipeline(SimpleImputer(), LinearRegression())"

FAULTS = [
    _Fault("two classes are swapped", _TREE, _rare, _swapped(0, 1, 3, 2)),
    _Fault("classes are off by one", _TREE, _rare, _swapped(0, 1, 3, 3)),
    _Fault("a probability is that of another class", _TREE, _rare, _wrong_probability),
    _Fault("thresholds are one unit off", _TREE, _steps, _one_ulp),
    _Fault("the imputer is dropped", _IMPUTED, _gaps, _without("simpleimputer")),
    _Fault("a null becomes 0", _IMPUTED, _gaps, _filled_with_zero),
    _Fault(
        "the number for missing values is lost",
        "XGBRegressor(n_estimators=5, missing=-999.0)",
        _sentinel,
        None,
        form="xgboost",
    ),
    _Fault("numbers are rounded", "LinearRegression()", _moments, _cast(np.float32)),
    _Fault("fractions are cut off", "LinearRegression()", _counts, _cast(np.int64)),
    _Fault(
        "categories are in another order",
        _ENCODED.format("OrdinalEncoder()", "LinearRegression()"),
        _categories,
        _wrong_order,
    ),
    _Fault(
        "a column is not scaled",
        "make_pipeline(StandardScaler(), LinearRegression())",
        _centred,
        _one_column_unscaled,
    ),
    _Fault(
        "texts are lowercased",
        _ENCODED.format("OneHotEncoder(handle_unknown='ignore')", "LinearRegression()"),
        _cities,
        _lowercased,
    ),
    _Fault(
        "unknown categories become zeros",
        _ENCODED.format("OneHotEncoder()", "LinearRegression()"),
        _codes,
        _ignoring,
    ),
]


def _trained(fault: _Fault, root: Path) -> str:
    train_rows, test_rows = fault.frame()
    code = _TRAIN.format(model=fault.model)
    module = project(root, code, train_rows)
    test_rows.to_csv(root / "test.csv", index=False)
    settings = config(target="target", module=module)
    data = msgspec.structs.replace(settings.data, test="test.csv", split=None)
    settings = msgspec.structs.replace(settings, data=data)
    return train.train(request(root, settings), InProcess()).format


def _plant(monkeypatch: pytest.MonkeyPatch, fault: _Fault) -> None:
    """Convert the faulty estimator in place of the model."""
    if fault.form == "xgboost":
        monkeypatch.setattr(convert, "replace", lambda model, **_: model)
        return
    plant = fault.plant
    if plant is None:
        return

    def onnx_of(original: Original, layout: Layout, dtype: Dtype) -> bytes:
        faulty = plant(copy.deepcopy(original.estimator))
        return onnxfile.from_estimator(replace(original, estimator=faulty), layout, dtype)

    monkeypatch.setattr(conversion, "onnx_of", onnx_of)


def _compare_held_out_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    own = trial.prepared

    def prepared(original: Original, data: Data, prepare: Any) -> Any:
        count = len(data.test)
        kind: ProbeKind = "held-out row"
        rows = Probes(data.test, (kind,) * count, ("",) * count, (0,) * count)
        monkeypatch.setattr(probes, "make", lambda *_: rows)
        monkeypatch.setattr(boundaries, "make", lambda *_, **__: None)
        return own(original, data, prepare)

    monkeypatch.setattr(trial, "prepared", prepared)


def _kept(made: list[trial.Trial]) -> Callable[..., trial.Trial]:
    """Return what makes the first trial, keeps it, and returns it for the same model again."""
    own = trial.prepared

    def prepared(*what: Any) -> trial.Trial:
        if not made:
            made.append(own(*what))
        return made[0]

    return prepared


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_form_is_used_without_the_fault_only(
    fault: _Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "prepared", _kept([]))
    assert _trained(fault, tmp_path / "without") == fault.form
    _plant(monkeypatch, fault)
    assert _trained(fault, tmp_path / "with") == "skops"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_held_out_rows_alone_do_not_find_the_fault(
    fault: _Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plant(monkeypatch, fault)
    _compare_held_out_rows_only(monkeypatch)
    assert _trained(fault, tmp_path) == fault.form
