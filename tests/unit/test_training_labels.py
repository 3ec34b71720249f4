"""Estimators that were fitted on the codes of labels."""

from pathlib import Path

import numpy as np
import pytest

from mlship.domain import bundle as bundles
from mlship.errors import ProjectError
from mlship.training.columns import rows_of
from mlship.training.train import train
from tests.harness.projects import InProcess, config, flowers, project, request

CODE = """
CODES = {{"rose": 0, "iris": 1, "tulip": 2}}
NUMBERS = ["length", "width", "leaves"]

def train(data, params):
    {imported} as Model
    return Model({options}).fit(data[NUMBERS], data.species.map({codes}))
"""
MODELS = {
    "xgboost": ("from xgboost import XGBClassifier", "n_estimators=5, n_jobs=1"),
    "lightgbm": (
        "from lightgbm import LGBMClassifier",
        "n_estimators=5, min_child_samples=3, verbose=-1, n_jobs=1",
    ),
    "onnx": ("from sklearn.linear_model import LogisticRegression", ""),
    "skops": (
        "from sklearn.semi_supervised import LabelSpreading",
        "kernel='knn', n_neighbors=5",
    ),
    "onnx without probabilities": ("from sklearn.svm import LinearSVC", ""),
}
SPECIES = ("rose", "iris", "tulip")


def code(name: str, codes: str = "CODES") -> str:
    imported, options = MODELS[name]
    return CODE.format(imported=imported, options=options, codes=codes)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_classes_name_the_labels_of_an_estimator_that_counts_them(
    name: str, tmp_path: Path
) -> None:
    frame = flowers()[["length", "width", "leaves", "species"]]
    asked = request(tmp_path, config(module=project(tmp_path, code(name), frame), classes=SPECIES))
    train(asked, InProcess())
    bundle = bundles.read(asked.into)
    assert bundle.model.format == name.split(maxsplit=1)[0]
    assert bundle.model.classes == SPECIES
    assert float(bundle.metrics["accuracy"]) > 0.6
    rows = rows_of(frame.drop(columns="species"))
    outputs = InProcess().predict(asked.into, rows)
    right = [out["species"] == label for out, label in zip(outputs, frame.species, strict=True)]
    assert sum(right) > 0.6 * len(right)
    for out in outputs:
        if "probability_rose" in out:
            shares = [float(out[f"probability_{label}"] or 0) for label in SPECIES]
            assert out["species"] == SPECIES[int(np.argmax(shares))]


@pytest.mark.fits
def test_labels_that_are_not_coded_leave_no_key_in_the_manifest(tmp_path: Path) -> None:
    frame = flowers()[["length", "width", "leaves", "species"]]
    own = code("onnx", "lambda label: label")
    asked = request(tmp_path, config(module=project(tmp_path, own, frame), classes=SPECIES))
    train(asked, InProcess())
    assert bundles.read(asked.into).model.classes == ("iris", "rose", "tulip")
    assert b"is_coded" not in (asked.into / bundles.MANIFEST).read_bytes()


@pytest.mark.fits
@pytest.mark.parametrize(
    ("codes", "classes", "message"),
    [
        ("CODES", (), "predicts .*, and species holds"),
        ("CODES", ("rose", "iris"), "model.classes has 2 classes, and the model has 3"),
        ("lambda label: label", ("red", "blue", "white"), "LogisticRegression of .* knows 'iris'"),
    ],
)
def test_classes_that_do_not_fit_the_estimator(
    codes: str, classes: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    frame = flowers()[["length", "width", "leaves", "species"]]
    module = project(tmp_path, code("onnx", codes), frame)
    with pytest.raises(ProjectError, match=message) as raised:
        train(request(tmp_path, config(module=module, classes=classes)), InProcess())
    assert ("model.classes" in raised.value.hint) == (len(classes) != 2)
