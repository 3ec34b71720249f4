"""Models that were fitted on columns of pandas categories."""

import hashlib
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from msgspec.structs import replace

from mlship.config.data import ReadConfig
from mlship.config.project import Config
from mlship.domain import bundle as bundles
from mlship.errors import ProjectError
from mlship.training.columns import rows_of
from mlship.training.train import train
from tests.harness.projects import InProcess, config, project, request

pytestmark = pytest.mark.fits

ROWS = pd.DataFrame({"city": ["a", "a", "b", "b"], "x": [-1.0, 1.0, -1.0, 1.0]})


def cities(count: int = 200) -> pd.DataFrame:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"city": random.choice(["a", "b", "c"], count)})
    frame["x"] = random.normal(size=count)
    frame["y"] = frame.x * 2 + (frame.city == "a") * 5
    return frame


def features(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[["city", "x"]].astype({"city": "category"})


def as_categories(settings: Config) -> Config:
    read = ReadConfig(dtype={"city": "category"})
    return replace(settings, data=replace(settings.data, read=read))


def of_lightgbm() -> Any:
    model = lightgbm.LGBMRegressor(n_estimators=5, min_child_samples=3, verbose=-1, n_jobs=1)
    return model.fit(features(cities()), cities().y)


def of_xgboost() -> Any:
    model = xgboost.XGBRegressor(n_estimators=5, n_jobs=1, enable_categorical=True)
    return model.fit(features(cities()), cities().y)


def saved_joblib(model: Any, root: Path) -> dict[str, Any]:
    path = root / "model.joblib"
    joblib.dump(model, path)
    return {"allow_pickle": True, "pickle_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def saved_text(model: Any, root: Path) -> dict[str, Any]:
    model.booster_.save_model(root / "model.txt")
    return {}


def saved_binary(model: Any, root: Path) -> dict[str, Any]:
    model.save_model(root / "model.ubj")
    return {}


SAVED = {
    "model.joblib": (of_lightgbm, saved_joblib, "lightgbm"),
    "model.txt": (of_lightgbm, saved_text, "lightgbm"),
    "model.ubj": (of_xgboost, saved_binary, "xgboost"),
}


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_model_of_categories_answers_as_it_does_or_says_how_to_read_them(
    name: str, tmp_path: Path
) -> None:
    fit, save, form = SAVED[name]
    model = fit()
    allowed = save(model, tmp_path)
    code = f"def train(data, params):\n    return {name!r}\n"
    settings = config("y", project(tmp_path, code, cities()), **allowed)
    with pytest.raises(ProjectError, match=r"categor") as raised:
        train(request(tmp_path, settings, "as text"), InProcess())
    assert "`dtype: {city: category}` under data.read" in raised.value.hint
    asked = request(tmp_path, as_categories(settings))
    train(asked, InProcess())
    assert bundles.read(asked.into).model.format == form
    answers = InProcess().predict(asked.into, rows_of(ROWS))
    wanted = model.predict(features(ROWS))
    assert [answer["y"] for answer in answers] == pytest.approx(wanted, rel=1e-5)


def test_an_estimator_that_refuses_the_columns_is_named_with_the_method_that_raised(
    tmp_path: Path,
) -> None:
    code = (
        "from lightgbm import LGBMClassifier as Model\n"
        "def train(data, params):\n"
        "    rows = data[['city', 'x']].astype({'city': 'category'})\n"
        "    return Model(n_estimators=3, verbose=-1, n_jobs=1).fit(rows, data.y)\n"
    )
    frame = cities().assign(y=np.where(cities().y > 2, "high", "low"))
    module = project(tmp_path, code, frame)
    with pytest.raises(ProjectError) as raised:
        train(request(tmp_path, config("y", module)), InProcess())
    assert raised.value.message.startswith(
        f"the model of {module}:train cannot predict the training rows: predict raises ValueError: "
    )
    assert "dtype: {city: category}" in raised.value.hint


def test_a_category_that_training_did_not_have_is_refused_whatever_the_library_does(
    tmp_path: Path,
) -> None:
    unknown = pd.DataFrame({"city": ["oslo"], "x": [1.0]})
    missing = features(unknown.assign(city=pd.Categorical([None], categories=["a", "b", "c"])))
    model = of_lightgbm()
    assert model.predict(features(unknown)) == pytest.approx(model.predict(missing))
    with pytest.raises(xgboost.core.XGBoostError, match="not in the training set"):
        of_xgboost().predict(features(unknown))
    saved_text(model, tmp_path)
    module = project(tmp_path, "def train(data, params):\n    return 'model.txt'\n", cities())
    asked = request(tmp_path, as_categories(config("y", module)))
    train(asked, InProcess())
    [answer] = InProcess().answered(asked.into, rows_of(unknown))
    assert answer.refusal == 'city "oslo" is not a value that the model knows'
