"""The user's functions: found by name, called, and blamed by file and line."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pandas as pd
import pytest

from mlship.adapters.checkout.children import Ended, Fault, answer_of
from mlship.errors import ProjectError
from mlship.training import fit, seal
from mlship.training.data import read
from tests.harness.projects import config, flowers, project


def prepared(root: Path, body: str) -> fit.Prepared:
    code = f"import pandas as pd\nimport numpy as np\ndef pre(rows):\n    {body}\n"
    module = project(root, code, flowers()[["length", "width", "colour", "species"]])
    setting = config(module=module)
    return fit.prepare(root, read(root, setting.data), f"{module}:pre")


def test_preprocess_makes_the_models_columns(tmp_path: Path) -> None:
    found = prepared(tmp_path, "return rows.assign(area=rows.length * rows.width)")
    assert [field.name for field in found.columns] == ["length", "width", "colour", "area"]
    assert len(found.train) == 63


MISTAKES = {
    "get_dummies": ("return pd.get_dummies(rows)", "returns other columns for a row alone"),
    "mean": (
        "return rows.assign(length=rows.length - rows.length.mean())",
        "returns length = 0.0 for a row alone",
    ),
    "nothing": ("return None", "returned NoneType for 63 rows"),
    "fewer rows": ("return rows[:2]", "returned 2 rows for 63 rows"),
    # The first rows, which are prepared alone too, stay in their places.
    "parts": (
        "return pd.concat([rows[:3], rows[10:], rows[3:10].assign(length=0.0)])",
        "returned the rows in another order",
    ),
    "parts without an index": (
        "return pd.concat([rows[:3], rows[10:], rows[3:10]], ignore_index=True)",
        "for a row in another place",
    ),
    "sorted": (
        "return rows.sort_values('length', ignore_index=True)",
        "for a row (alone|in another place)",
    ),
    "lists": (
        "return rows.assign(both=[[a, b] for a, b in zip(rows.length, rows.width)])",
        "column both holds values of type list",
    ),
    "raises": ("return rows.lenght", r"pipeline_\d+\.py:4: AttributeError"),
    "target": ("return rows.assign(species='rose')", "returns a column species"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_preprocess_that_serving_could_not_repeat_is_refused(name: str, tmp_path: Path) -> None:
    body, said = MISTAKES[name]
    with pytest.raises(ProjectError, match=said) as caught:
        prepared(tmp_path, body)
    assert caught.value.hint


def test_preprocess_may_reset_an_index(tmp_path: Path) -> None:
    rows = pd.DataFrame({"length": [1.0, 2.0, 3.0]}, index=[2, 0, 1])
    for hook in (pd.DataFrame.copy, lambda frame: frame.reset_index(drop=True)):
        assert list(fit.call_hook(tmp_path, "own:pre", hook, rows)["length"]) == [1.0, 2.0, 3.0]


def test_preprocess_may_not_change_the_data_of_others(tmp_path: Path) -> None:
    found = prepared(tmp_path, "rows['length'] = 0.0; return rows")
    assert set(found.train["length"]) == {0.0}


def test_functions_are_found_or_the_nearest_is_named(tmp_path: Path) -> None:
    module = project(tmp_path, "def train(data, params):\n    pass\n")
    assert callable(fit.find(tmp_path, f"{module}:train"))
    with pytest.raises(ProjectError, match="has no function trian") as caught:
        fit.find(tmp_path, f"{module}:trian")
    assert caught.value.hint == "did you mean train?"
    with pytest.raises(ProjectError, match=f"has no module {module}x") as caught:
        fit.find(tmp_path, f"{module}x:train")
    assert caught.value.hint == f"did you mean {module}?"


def test_a_module_in_src_is_found_and_travels_by_its_own_name(tmp_path: Path) -> None:
    package = f"own_{tmp_path.name}"
    files = {"near.py": "", "hooks.py": "from .near import __name__ as near\ndef pre(rows): ..."}
    module = project(tmp_path, "", files={f"src/{package}/{name}": files[name] for name in files})
    hook = fit.find(tmp_path, f"{package}.hooks:pre")
    assert hook.__globals__["near"] == f"{package}.near"
    assert sys.path[-1] == str(tmp_path / "src")
    making: Any = SimpleNamespace(
        root=tmp_path,
        config=config(module=module, preprocess=f"{package}.hooks:pre"),
        converted=SimpleNamespace(model=SimpleNamespace(types=())),
    )
    seal._write_code(making, tmp_path / "bundle")
    code = tmp_path / "bundle" / "code"
    names = {path.relative_to(code).as_posix() for path in code.rglob("*.py")}
    assert names == {f"{package}/near.py", f"{package}/hooks.py"}


IMPORTS = {
    "syntax": ("def train(:\n", r"pipeline_\d+\.py:1: SyntaxError"),
    "missing library": ("import not_installed_here\n", r"pipeline_\d+\.py:1: ModuleNotFoundError"),
    "raises": ("x = 1\n1 / 0\n", r"pipeline_\d+\.py:2: ZeroDivisionError"),
}


@pytest.mark.parametrize("name", IMPORTS)
def test_a_module_that_cannot_be_imported_is_blamed_by_line(name: str, tmp_path: Path) -> None:
    code, said = IMPORTS[name]
    module = project(tmp_path, code)
    with pytest.raises(ProjectError, match=said):
        fit.find(tmp_path, f"{module}:train")


def test_params_and_seeds_are_given(tmp_path: Path) -> None:
    code = (
        "import random\nimport numpy as np\n"
        "def train(data, params):\n"
        "    return [params['C'], random.random(), np.random.rand(), list(data.columns)[-1]]\n"
    )
    module = project(tmp_path, code)
    setting = config(module=module, params={"C": 3})
    data = read(tmp_path, setting.data)
    plain = fit.prepare(tmp_path, data, None)
    first = fit.fit(tmp_path, setting, data, plain)
    assert first == fit.fit(tmp_path, setting, data, plain)
    assert (first[0], first[3]) == (3, "species")


class Odd(BaseException):
    def __str__(self) -> str:
        raise ValueError


RAISED = {
    "interrupt": ("raise KeyboardInterrupt", r"train failed at .*\.py:2: KeyboardInterrupt$"),
    "without a text": (
        "from tests.unit.test_training_fit import Odd; raise Odd",
        r"train failed at .*\.py:2: Odd$",
    ),
    "surrogate": (r"raise ValueError('\ud800')", r"train failed at .*\.py:2: ValueError"),
}


def fitted(root: Path, code: str) -> object:
    setting = config(module=project(root, code))
    data = read(root, setting.data)
    return fit.fit(root, setting, data, fit.prepare(root, data, None))


@pytest.mark.parametrize("name", RAISED)
def test_whatever_train_raises_is_blamed_by_line(name: str, tmp_path: Path) -> None:
    body, said = RAISED[name]
    with pytest.raises(ProjectError, match=said) as caught:
        fitted(tmp_path, f"def train(data, params):\n    {body}\n")
    assert msgspec.json.encode(Fault.of(caught.value))


@pytest.mark.parametrize(
    "code",
    [
        "import os\ndef train(data, params):\n    os.fork()\n    return 1\n",
        "import os\nos.fork()\ndef train(data, params):\n    return 1\n",
    ],
)
def test_of_processes_that_the_code_forks_one_goes_on(code: str, tmp_path: Path) -> None:
    own = os.getpid()
    try:
        model = fitted(tmp_path, code)
    finally:
        if os.getpid() != own:
            os._exit(99)
    assert model == 1
    _, status = os.wait()
    assert os.waitstatus_to_exitcode(status) == 1


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (signal.SIGSEGV, "compiled library"),
        (signal.SIGKILL, "out of memory"),
        (signal.SIGTERM, "what sends the signal"),
    ],
)
def test_the_hint_of_a_killed_training_fits_its_signal(
    number: int, hint: str, tmp_path: Path
) -> None:
    ended = Ended(code=-number, tail=())
    with pytest.raises(ProjectError) as caught:
        answer_of(tmp_path / "none", ended, "train", int)
    assert hint in caught.value.hint


HARMLESS = {
    "float32": "return pd.DataFrame(rows[['length', 'width']].to_numpy('float32') @ "
    "np.random.default_rng(0).normal(size=(2, 8)).astype('float32'))",
    "missing": "return rows.assign(length=rows.length.astype('Float64').where(rows.length > 2))",
    "words": "return rows.assign(length=rows.length.astype('string'))",
    "twice": "return pd.concat([rows, rows], axis=1).set_axis([*'abcdef'], axis=1)",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_preprocess_of_each_row_by_itself_is_taken_whatever_it_returns(
    name: str, tmp_path: Path
) -> None:
    assert len(prepared(tmp_path, HARMLESS[name]).train) == 63


def test_a_value_in_place_of_a_missing_one_is_a_difference(tmp_path: Path) -> None:
    body = "return rows.assign(length=rows.length.round().astype('Int64').shift())"
    with pytest.raises(ProjectError, match="returns length = "):
        prepared(tmp_path, body)
