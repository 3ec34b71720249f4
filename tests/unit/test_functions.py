"""`doctor` finds functions that are not there, or are none, without importing the project."""

from pathlib import Path

import pytest

from mlship.adapters.checkout import functions
from mlship.config.layers import from_yaml, resolve
from mlship.errors import ProjectError


def check(root: Path, code: str, model: str = 'train: "train:train"', more: str = "") -> int:
    (root / "train.py").write_text(code)
    text = f"name: iris\ndata: {{train: a.csv, test: b.csv}}\nmodel: {{{model}}}\n{more}"
    return functions.check(root, resolve([from_yaml(text, "mlship.yaml")]).config)


@pytest.mark.parametrize(
    "code",
    [
        "def train(data, params): ...",
        "def train(data, params, seed=0, *, quick=False): ...",
        "def train(*arguments): ...",
        "train = functools.partial(fit, depth=3)",
        "train = lambda data, params: None",
        "from elsewhere import train",
        "from elsewhere import fit as train",
        "from elsewhere import *",
        "class train: ...",
        "try:\n    from a import train\nexcept ImportError:\n    def train(data, params): ...",
        "if True:\n    def train(data, params): ...",
        "def train(): ...\ndef train(data, params): ...",
        "raise SystemExit('it is not run')\ndef train(data, params): ...",
    ],
)
def test_a_function_that_may_be_called_is_accepted(code: str, tmp_path: Path) -> None:
    assert check(tmp_path, code) == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("model.fit(x)", "train.py has no train$"),
        ("def main():\n    def train(data, params): ...", "train.py has no train$"),
        ("train = 0.8", "train.py:1: train is no function, and mlship.yaml: model.train names it"),
        ("\ntrain: list = [1]", "train.py:2: train is no function"),
        (
            "def train(data): ...",
            r"train.py:1: mlship calls train\(data, params\), and train takes",
        ),
        ("def train(data, params, seed): ...", "takes other parameters"),
        ("def train(data, params, *, seed): ...", "takes other parameters"),
    ],
)
def test_what_is_no_function_is_named(code: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=reason):
        check(tmp_path, code)


def test_each_function_that_the_settings_name_is_looked_for(tmp_path: Path) -> None:
    code = "def train(data, params): ...\ndef clean(rows): ...\ndef cost(truth, outputs): ...\n"
    hooks = 'train: "train:train", preprocess: "train:clean"'
    assert check(tmp_path, code, hooks, 'metrics: {cost: "train:cost", auc: roc_auc}\n') == 3
    with pytest.raises(ProjectError, match=r"metrics.cost names train:price, and train.py has no"):
        check(tmp_path, code, hooks, 'metrics: {cost: "train:price"}\n')
    with pytest.raises(ProjectError, match=r"names src.hooks:clean, and there is no src/hooks.py"):
        check(tmp_path, code, 'train: "train:train", preprocess: "src.hooks:clean"')
    assert check(tmp_path, "", "command: python train.py, saved: model.pkl") == 0


def test_a_module_of_an_installed_library_is_taken_as_it_is(tmp_path: Path) -> None:
    assert check(tmp_path, "", 'train: "sklearn.datasets:load_iris"') == 1


def test_a_package_is_a_module(tmp_path: Path) -> None:
    (tmp_path / "churn").mkdir()
    (tmp_path / "churn" / "__init__.py").write_text("def train(data, params): ...")
    assert check(tmp_path, "", 'train: "churn:train"') == 1


def test_a_function_in_src_is_looked_for_there(tmp_path: Path) -> None:
    (tmp_path / "src" / "bikes").mkdir(parents=True)
    (tmp_path / "src" / "bikes" / "features.py").write_text("def add(rows): ...")
    code = "def train(data, params): ..."
    own = 'train: "train:train", preprocess: "bikes.features:{}"'
    assert check(tmp_path, code, own.format("add")) == 2
    with pytest.raises(ProjectError, match=r"src/bikes/features\.py has no subtract"):
        check(tmp_path, code, own.format("subtract"))
