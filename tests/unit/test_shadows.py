"""Modules of a project that have the name of another are refused, not silently left out."""

import importlib
import sys
from pathlib import Path

import pytest

import mlship
from mlship.adapters.checkout.shadows import check_loaded, check_names
from mlship.config.project import ModelConfig
from mlship.errors import ProjectError

TRAIN = ModelConfig(train="pipeline:train")
SCRIPT = ModelConfig(command="python src/train.py", saved="model.joblib")


def write(root: Path, name: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mlship/__init__.py", "mlship has the name of the module mlship of mlship-cd"),
        ("pandas.py", "pandas.py has the name of the module pandas of pandas"),
        ("sklearn/__init__.py", "sklearn has the name of the module sklearn of scikit-learn"),
        ("onnx/__init__.py", "onnx has the name of the module onnx of onnx"),
        ("pytest.py", "pytest.py has the name of the module pytest of pytest"),
        ("src/numpy.py", "src/numpy.py has the name of the module numpy of numpy"),
    ],
)
def test_a_module_with_the_name_of_one_that_mlship_needs_is_refused(
    tmp_path: Path, name: str, says: str
) -> None:
    write(tmp_path, name)
    with pytest.raises(ProjectError) as caught:
        check_names(tmp_path, SCRIPT)
    assert caught.value.message.startswith(says)
    assert caught.value.hint.startswith(f"rename {name.removesuffix('/__init__.py')}, and")


@pytest.mark.parametrize(
    "name", ["pipeline.py", "onnx/model.onnx", "src/pandas/notes.py", "lib/pandas.py", "code.py"]
)
def test_other_names_are_the_projects_own(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    check_names(tmp_path, TRAIN)


def test_the_project_may_be_mlship_itself() -> None:
    check_names(Path(mlship.__file__).parents[1], TRAIN)


def test_a_module_in_whose_place_python_has_its_own_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "json.py")
    write(tmp_path, "pipeline_of_shadows.py")
    check_loaded(tmp_path, ["pipeline_of_shadows"])
    (tmp_path / "pipeline_of_shadows.py").write_text("import json\nimport pandas\n")
    with pytest.raises(
        ProjectError, match=r"json.py is not imported: Python has its own"
    ) as caught:
        check_loaded(tmp_path, ["pipeline_of_shadows"])
    assert caught.value.hint == "rename json.py, and what imports it"


def test_what_was_loaded_from_the_project_itself_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "imghdr.py")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "imghdr", raising=False)
    monkeypatch.setitem(sys.modules, "imghdr", importlib.import_module("imghdr"))
    check_loaded(tmp_path, ["imghdr"])
