"""CatBoost's models are served as ONNX where that answers equally, or else in their own format."""

from pathlib import Path
from typing import Any

import catboost
import pandas as pd
import pytest

from mlship.config.project import Config
from mlship.domain import bundle as bundles
from mlship.domain.bundle import Bundle
from mlship.errors import ProjectError, RefusedError
from mlship.runtime.model import Model
from mlship.training.frameworks import catboostfile
from mlship.training.train import train
from tests.harness.projects import InProcess, config, flowers, project, request

pytestmark = pytest.mark.slow

OPTIONS = "iterations=12, depth=3, verbose=0, thread_count=1, allow_writing_files=False"
NUMBERS = 'data[["length", "width", "leaves"]]'
CODE = """
import pandas as pd
from catboost import CatBoost, CatBoostClassifier, CatBoostRegressor


def train(data, params):
    {body}
"""


def make(root: Path, setting: Config, into: str = "bundle") -> Bundle:
    asked = request(root, setting, into)
    made = train(asked, InProcess())
    return bundles.read(asked.into, expected=made.bundle)


def classified(root: Path, body: str, frame: pd.DataFrame | None = None, **model: Any) -> Bundle:
    module = project(root, CODE.format(body=body), numeric() if frame is None else frame)
    return make(root, config(module=module, **model))


def numeric(*others: str) -> pd.DataFrame:
    return flowers()[["length", "width", "leaves", *(others or ["species"])]]


def test_numbers_are_served_as_onnx(tmp_path: Path) -> None:
    body = f"return CatBoostClassifier({OPTIONS}).fit({NUMBERS}, data.species)"
    bundle = classified(tmp_path, body)
    assert bundle.model.format == "onnx"
    assert "catboost" not in "".join(bundle.requirements)
    assert set(bundle.model.classes) == set(flowers().species)


def test_the_same_training_gives_the_same_bytes(tmp_path: Path) -> None:
    body = f"return CatBoostClassifier({OPTIONS}).fit({NUMBERS}, data.species)"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = (classified(tmp_path / name, body) for name in ("one", "two"))
    assert one.files["model/model.onnx"] == two.files["model/model.onnx"]


def test_the_own_file_is_the_same_after_another_training() -> None:
    frame = flowers()
    files = [
        catboostfile.to_file(
            catboost.CatBoostClassifier(
                iterations=3, verbose=0, thread_count=1, allow_writing_files=False
            ).fit(frame[["length", "width"]], frame.species)
        )
        for _ in range(2)
    ]
    assert files[0] == files[1]


def test_columns_of_categories_stay_in_the_own_format(tmp_path: Path) -> None:
    frame = numeric("colour", "species")
    body = (
        f"return CatBoostClassifier(cat_features=['colour'], {OPTIONS})"
        ".fit(data.drop(columns='species'), data.species)"
    )
    bundle = classified(tmp_path, body, frame)
    assert (bundle.model.format, bundle.model.layout) == ("catboost", "frame")
    assert any(line.startswith("catboost==") for line in bundle.requirements)
    model = Model.load(tmp_path / "out" / "bundle", None)
    row = {field.name: field.example for field in bundle.schema.inputs}
    assert model.predict([row, {**row, "colour": "never seen"}])


def test_a_pipeline_keeps_the_library_and_the_same_bytes(tmp_path: Path) -> None:
    body = "from sklearn.pipeline import make_pipeline\n"
    body += "    from sklearn.preprocessing import StandardScaler\n"
    body += f"    model = make_pipeline(StandardScaler(), CatBoostClassifier({OPTIONS}))\n"
    body += f"    return model.fit({NUMBERS}, data.species)"
    one, two = (classified(tmp_path / name, body) for name in ("one", "two"))
    assert one.model.format == "skops"
    assert one.files["model/model.skops"] == two.files["model/model.skops"]


def test_a_threshold_of_its_own_decides_the_label(tmp_path: Path) -> None:
    """ONNX knows no threshold: the form that would answer otherwise is not taken."""
    frame = numeric()
    frame["species"] = (frame.species == "tulip").astype(int)
    body = (
        f"model = CatBoostClassifier({OPTIONS}).fit({NUMBERS}, data.species)\n"
        "    model.set_probability_threshold(0.9)\n    return model"
    )
    bundle = classified(tmp_path, body, frame)
    assert bundle.model.format == "catboost"


LOSSES = {"RMSE": "onnx", "Quantile:alpha=0.8": "onnx", "Poisson": "catboost"}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_regression_answers_as_the_library_does(loss: str, tmp_path: Path) -> None:
    """CatBoost answers the exponent for counts, and its ONNX file what the trees say."""
    body = f"return CatBoostRegressor(loss_function={loss!r}, {OPTIONS})"
    body += ".fit(data[['length', 'width', 'leaves']], data.price)"
    module = project(tmp_path, CODE.format(body=body), numeric("price"))
    bundle = make(tmp_path, config("price", module))
    assert (bundle.task, bundle.model.format) == ("regression", LOSSES[loss])


@pytest.mark.parametrize(
    "body", ["return {}", "{}.save_model(params['root'] + '/m.cbm'); return 'm.cbm'"]
)
def test_a_bare_model_and_a_saved_one_know_their_classes(body: str, tmp_path: Path) -> None:
    call = f"CatBoost(dict(loss_function='MultiClass', {OPTIONS})).fit({NUMBERS}, data.species)"
    bundle = classified(tmp_path, body.format(call), params={"root": str(tmp_path)})
    assert (bundle.task, bundle.model.format) == ("classification", "onnx")
    assert set(bundle.model.classes) == set(flowers().species)


def test_another_file_with_the_ending_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.cbm").write_bytes(b"\x80\x04N.")
    with pytest.raises(RefusedError, match="a pickle, which runs code"):
        classified(tmp_path, "return 'm.cbm'")


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.cbm").write_bytes(b"CBM1" + bytes(200))
    with pytest.raises(ProjectError, match="cannot be loaded"):
        classified(tmp_path, "return 'm.cbm'")


def test_several_targets_are_refused(tmp_path: Path) -> None:
    body = f"return CatBoostRegressor(loss_function='MultiRMSE', {OPTIONS}).fit("
    body += f"{NUMBERS}, data[['price', 'leaves']])"
    module = project(tmp_path, CODE.format(body=body), numeric("price"))
    with pytest.raises(ProjectError, match=r"predicts \(2,\) values"):
        make(tmp_path, config("price", module))
