"""Training by a command: the script that people have, and the file that it writes."""

import os
import sys
import warnings
from pathlib import Path

import msgspec
import pytest

from mlship.config import layers
from mlship.config.project import Config
from mlship.domain import bundle as bundles
from mlship.errors import ConfigError, ProjectError, RefusedError
from mlship.training.train import train
from tests.harness.projects import InProcess, config, flowers, project, request

SCRIPT = """
import sys
import joblib
import pandas as pd
from sklearn.linear_model import LogisticRegression

if __name__ == "__main__":
    data = pd.read_csv("data.csv")
    model = LogisticRegression(max_iter=500).fit(data[["length", "width"]], data["species"])
    {write}
"""

OTHER = f"env {sys.executable} train.py"
"""A program that is not Python to mlship."""


@pytest.fixture(autouse=True)
def _in_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


def by_command(root: Path, code: str, command: str = "python train.py", **model: str) -> Config:
    project(root, "", flowers().drop(columns="colour"))
    (root / "train.py").write_text(code)
    settings = {"command": command, "saved": "model.joblib", **model}
    whole = config()
    changed = msgspec.structs.replace(whole.model, train=None, **settings)
    return msgspec.structs.replace(whole, model=changed)


def test_a_script_trains_and_what_it_saved_is_served(tmp_path: Path) -> None:
    code = SCRIPT.format(write="joblib.dump(model, 'model.joblib')")
    asked = request(tmp_path, by_command(tmp_path, code))
    train(asked, InProcess())
    bundle = bundles.read(asked.into)
    assert bundle.model.format == "onnx"
    assert [field.name for field in bundle.model.columns] == ["length", "width"]


@pytest.mark.parametrize("linked", ["model.joblib", "out"])
def test_a_saved_model_behind_a_link_out_of_the_project_is_refused(
    tmp_path: Path, linked: str
) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    saved = linked if linked == "model.joblib" else "out/model.joblib"
    code = SCRIPT.format(write=f"joblib.dump(model, '{saved}')").replace(
        "data.csv", f"{inside}/data.csv"
    )
    inside.mkdir()
    outside.mkdir()
    (inside / linked).symlink_to(outside / linked if linked == "model.joblib" else outside)
    settings = by_command(inside, code.replace(f"'{saved}'", f"'{inside}/{saved}'"), saved=saved)
    with pytest.raises(RefusedError, match=r"a link to .*/outside/.*, outside of the project"):
        train(request(inside, settings), InProcess())


def test_a_script_that_exits_with_0_has_trained(tmp_path: Path) -> None:
    code = SCRIPT.format(write="joblib.dump(model, 'model.joblib'); sys.exit(0)")
    train(request(tmp_path, by_command(tmp_path, code)), InProcess())


def test_another_program_may_write_a_model_of_a_library(tmp_path: Path) -> None:
    code = SCRIPT.format(
        write="from skl2onnx import to_onnx; import pathlib; "
        "data = to_onnx(model, data[['length', 'width']].to_numpy()[:1], "
        "options={id(model): {'zipmap': False}}).SerializeToString(); "
        "pathlib.Path('model.onnx').write_bytes(data)"
    )
    settings = by_command(tmp_path, code, command=OTHER, saved="model.onnx")
    with pytest.raises(ProjectError, match="takes 2 columns"):
        train(request(tmp_path, settings), InProcess())


@pytest.mark.parametrize(
    ("write", "command", "said"),
    [
        ("pass", "python train.py", r"`python train.py` ended without writing model\.joblib"),
        ("sys.exit(3)", "python train.py", r"ended the program at train\.py:10"),
        ("1 / 0", "python train.py", r"failed at train\.py:10: ZeroDivisionError"),
        ("sys.exit(3)", OTHER, "ended with exit code 3"),
        ("pass", "no-such-program", "cannot be started"),
    ],
)
def test_a_command_that_fails_is_named(write: str, command: str, said: str, tmp_path: Path) -> None:
    settings = by_command(tmp_path, SCRIPT.format(write=write), command=command)
    with pytest.raises(ProjectError, match=said):
        train(request(tmp_path, settings), InProcess())


def test_a_model_of_a_run_before_is_not_taken(tmp_path: Path) -> None:
    settings = by_command(tmp_path, SCRIPT.format(write="joblib.dump(model, 'model.joblib')"))
    train(request(tmp_path, settings, "first"), InProcess())
    (tmp_path / "train.py").write_text(SCRIPT.format(write="pass"))
    with pytest.raises(ProjectError, match="ended without writing"):
        train(request(tmp_path, settings, "second"), InProcess())


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({}, "exactly one of `train` and `command`"),
        ({"command": "python train.py", "train": "a:b"}, "exactly one of"),
        ({"command": "python train.py"}, "must be set together"),
        ({"command": "python 'train.py", "saved": "m.skops"}, "check its quotation marks"),
        ({"command": "python t.py", "saved": "/m.skops"}, "outside the project"),
        ({"command": "python t.py", "saved": "m.skops", "params": {"C": 1}}, "not to a command"),
    ],
)
def test_settings_that_do_not_fit_are_refused(model: dict[str, object], said: str) -> None:
    values = {
        "name": "flowers",
        "data": {"train": "data.csv", "test": "test.csv"},
        "model": model,
    }
    with pytest.raises(ConfigError, match=said):
        layers.resolve([layers.Layer(name="mlship.yaml", values=values)])


@pytest.mark.parametrize(
    ("command", "is_here"),
    [
        ("python -u -W error::FutureWarning train.py", True),
        (f"python3.{sys.version_info.minor} -W error::FutureWarning -m train", True),
        (f"{sys.executable} -u -Werror::FutureWarning train.py", True),
        ("python -O -X utf8 -W error::FutureWarning train.py", False),
    ],
)
def test_options_of_python_are_those_of_the_training(
    tmp_path: Path, command: str, *, is_here: bool
) -> None:
    code = SCRIPT.format(
        write="joblib.dump(model, 'model.joblib')\n"
        "    import os, warnings\n"
        "    try: warnings.warn('old', FutureWarning)\n"
        "    except FutureWarning: warnings.warn('other', UserWarning)\n"
        "    else: raise SystemExit('the option was lost')\n"
        f"    assert os.getpid() == {os.getpid()} or not {is_here}\n"
        f"    if not {is_here}: assert False, 'the option -O was lost'"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        train(request(tmp_path, by_command(tmp_path, code, command)), InProcess())


def test_python_of_another_version_is_refused(tmp_path: Path) -> None:
    settings = by_command(tmp_path, "", "python3.4 train.py")
    with pytest.raises(ProjectError, match=r"model.command starts python3\.4, and mlship runs on"):
        train(request(tmp_path, settings), InProcess())


def test_a_program_finds_the_python_that_runs_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    code = SCRIPT.format(
        write=f"joblib.dump(model, 'model.joblib'); assert sys.prefix == {sys.prefix!r}"
    )
    train(request(tmp_path, by_command(tmp_path, code, "sh -c 'python train.py'")), InProcess())


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        ((), "install what provides the module churn, and list it in requirements.txt"),
        (("src/churn/__init__.py",), "src/churn/__init__.py: import it by its path"),
        (
            ("src/churn/__init__.py", "pyproject.toml"),
            "install it here (`pip install -e .`), and by a line `-e .` in requirements.txt",
        ),
    ],
)
def test_a_module_that_a_script_does_not_find_is_asked_for(
    tmp_path: Path, files: tuple[str, ...], hint: str
) -> None:
    settings = by_command(tmp_path, "from churn.features import COLUMNS\n")
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(ProjectError, match="No module named 'churn'") as caught:
        train(request(tmp_path, settings), InProcess())
    assert hint in str(caught.value.hint)
