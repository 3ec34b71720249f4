"""A model that was logged in MLflow is the file inside it; a Python function is refused."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlship.config.backends import StoreConfig
from mlship.domain import bundle as bundles
from mlship.domain.bundle import Bundle
from mlship.errors import IntegrityError, ProjectError, RefusedError
from mlship.training.frameworks import mlflowmodel
from mlship.training.train import train
from tests.harness.projects import InProcess, config, flowers, project, request

pytestmark = pytest.mark.fits

NUMBERS = ["length", "width", "leaves"]


def logged(root: Path, **flavors: Any) -> Path:
    folder = root / "logged"
    folder.mkdir()
    function = {"loader_module": "mlflow.pyfunc.model", "python_version": "3.11"}
    document = {"flavors": {"python_function": function, **flavors}}
    (folder / "MLmodel").write_text(yaml.safe_dump(document))
    return folder


def make(root: Path, target: str = "price", **model: Any) -> Bundle:
    code = "def train(data, params):\n    return 'logged'\n"
    module = project(root, code, flowers()[[*NUMBERS, target]])
    asked = request(root, config(target, module, **model), into=module)
    made = train(asked, InProcess())
    return bundles.read(asked.into, expected=made.bundle)


def booster(folder: Path, name: str) -> None:
    import xgboost

    frame = flowers()
    data = xgboost.DMatrix(frame[NUMBERS], frame.price)
    xgboost.train({"max_depth": 3, "nthread": 1}, data, 5).save_model(folder / name)


@pytest.mark.parametrize("name", ["model.ubj", "model.json"])
def test_a_booster_is_read_by_its_own_reader(name: str, tmp_path: Path) -> None:
    folder = logged(tmp_path, xgboost={"data": name, "model_class": "xgboost.core.Booster"})
    booster(folder, name)
    assert make(tmp_path).model.format == "xgboost"


def test_catboosts_file_becomes_what_answers_as_it_does(tmp_path: Path) -> None:
    import catboost

    folder = logged(tmp_path, catboost={"data": "model.cb", "save_format": "cbm"})
    frame = flowers()
    model = catboost.CatBoostRegressor(
        iterations=5, verbose=0, thread_count=1, allow_writing_files=False
    )
    model.fit(frame[NUMBERS], frame.price).save_model(str(folder / "model.cb"))
    assert make(tmp_path).model.format == "onnx"


def test_a_pickle_needs_a_permission_and_its_digest(tmp_path: Path) -> None:
    import joblib
    from sklearn.linear_model import LinearRegression

    folder = logged(tmp_path, sklearn={"pickled_model": "model.pkl"})
    frame = flowers()
    joblib.dump(LinearRegression().fit(frame[NUMBERS], frame.price), folder / "model.pkl")
    with pytest.raises(RefusedError, match=r"logged/model\.pkl; loading a pickle runs its code"):
        make(tmp_path)
    with pytest.raises(IntegrityError, match=r"not model\.pickle_sha256"):
        make(tmp_path, allow_pickle=True, pickle_sha256="0" * 64)
    digest = hashlib.sha256((folder / "model.pkl").read_bytes()).hexdigest()
    assert make(tmp_path, allow_pickle=True, pickle_sha256=digest).model.format == "onnx"


def test_a_skops_file_of_the_flavor_sklearn_is_read_as_one(tmp_path: Path) -> None:
    import skops.io
    from sklearn.linear_model import LinearRegression

    folder = logged(
        tmp_path, sklearn={"pickled_model": "model.skops", "serialization_format": "skops"}
    )
    frame = flowers()
    skops.io.dump(LinearRegression().fit(frame[NUMBERS], frame.price), folder / "model.skops")
    assert make(tmp_path).model.format == "onnx"


@pytest.mark.parametrize("flavor", ["langchain", "spark", None])
def test_a_flavor_that_is_code_is_refused(flavor: str | None, tmp_path: Path) -> None:
    logged(tmp_path, **({flavor: {"data": "model"}} if flavor else {}))
    with pytest.raises(RefusedError, match=r"mlflow\.pyfunc\.model loads by running its code"):
        make(tmp_path)


@pytest.mark.parametrize("path", ["../other.ubj", "/etc/passwd", ""])
def test_a_file_outside_of_the_model_is_refused(path: str, tmp_path: Path) -> None:
    booster(tmp_path, "other.ubj")
    logged(tmp_path, xgboost={"data": path})
    with pytest.raises(RefusedError, match="its flavor xgboost names the file"):
        make(tmp_path)


def test_a_link_out_of_the_model_is_refused(tmp_path: Path) -> None:
    booster(tmp_path, "other.ubj")
    folder = logged(tmp_path, xgboost={"data": "model.ubj"})
    (folder / "model.ubj").symlink_to(tmp_path / "other.ubj")
    with pytest.raises(RefusedError, match="a link out of the model"):
        make(tmp_path)


@pytest.mark.parametrize("text", ["flavors: [1]", "flavors:\n  onnx: model.onnx", "{", "[]"])
def test_a_damaged_description_is_an_error(text: str, tmp_path: Path) -> None:
    (logged(tmp_path) / "MLmodel").write_text(text)
    with pytest.raises(ProjectError, match="logged/MLmodel cannot be read"):
        make(tmp_path)


@pytest.mark.parametrize("address", ["models:/houses@champion", "models:/houses/latest"])
def test_an_address_that_moves_is_refused(address: str) -> None:
    with (
        pytest.raises(RefusedError, match="may mean another model tomorrow"),
        mlflowmodel.local(address, StoreConfig()),
    ):
        pass


def test_an_address_needs_a_store_in_mlflow() -> None:
    with (
        pytest.raises(ProjectError, match="the project's store is directory"),
        mlflowmodel.local("models:/houses/3", StoreConfig(kind="directory")),
    ):
        pass
