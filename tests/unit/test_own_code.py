"""What a model may be made of: an exact list, the project's own code, and what it vouches for."""

import importlib
import sys
from pathlib import Path

import pytest

from mlship.config.project import Config
from mlship.domain import bundle as bundles
from mlship.domain.bundle import Bundle
from mlship.domain.scores import Trained
from mlship.errors import ConfigError, IntegrityError, ProjectError
from mlship.runtime import archive, hooks, trust
from mlship.training.owncode import Trust
from mlship.training.train import train
from tests.harness.hostile_models import crafted, listed, mapped, node, plain, regression
from tests.harness.projects import InProcess, config, flowers, project, request
from tests.harness.trusted import names

pytestmark = pytest.mark.slow

IMPORTS = """
import functools
import numpy as np
import pandas as pd
import scipy.stats
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
"""


def make(root: Path, setting: Config, into: str = "bundle") -> Bundle:
    return made(root, setting, into)[0]


def made(root: Path, setting: Config, into: str = "bundle") -> tuple[Bundle, Trained]:
    asked = request(root, setting, into)
    trained = train(asked, InProcess())
    return bundles.read(asked.into, expected=trained.bundle), trained


def fitted(model: str, imports: str = "") -> str:
    return (
        f"{IMPORTS}{imports}\ndef train(data, params):\n    X = data[['length', 'width']]\n"
        f"    return ({model}).fit(X, data.price)\n"
    )


STOPS = {
    "a lambda": (
        fitted("make_pipeline(FunctionTransformer(lambda X: X * 2), LinearRegression())"),
        r"a lambda, of pipeline_\d+ \(at steps\[0\]\[1\]\.func\)",
    ),
    "a closure": (
        "def make():\n    def inner(X): return X\n    return inner\n"
        + fitted("make_pipeline(FunctionTransformer(make()), LinearRegression())"),
        r"inner, defined inside a function or class, of pipeline_",
    ),
    "a closure of the name of a function": (
        "def make():\n    def inner(X): return X\n    return inner\ninner_of_make = make()\n"
        "def inner(X): return X * 2\n"
        + fitted("make_pipeline(FunctionTransformer(make()), LinearRegression())"),
        r"inner, defined inside a function or class, of pipeline_",
    ),
    "a function of pandas": (
        fitted("make_pipeline(FunctionTransformer(pd.isna), LinearRegression())"),
        r"not trusted: pandas\.core\.dtypes\.missing\.isna \(at steps\[0\]\[1\]\.func\)",
    ),
    "distributions of scipy": (
        fitted("make_pipeline(FunctionTransformer(np.log1p), "
               "RandomizedSearchCV(Ridge(), {'alpha': scipy.stats.uniform(0.1, 1)}, n_iter=2))"),
        r"not trusted: scipy\.stats\._",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STOPS)
def test_what_cannot_be_named_or_trusted_stops_the_training(name: str, tmp_path: Path) -> None:
    code, reason = STOPS[name]
    with pytest.raises(ProjectError, match=reason) as caught:
        make(tmp_path, config("price", project(tmp_path, code, flowers())))
    assert caught.value.hint
    if name == "distributions of scipy":
        assert "best_estimator_" in caught.value.hint


def test_a_project_vouches_by_exact_names(tmp_path: Path) -> None:
    steps = "FunctionTransformer(np.fix), HistGradientBoostingRegressor(max_iter=3)"
    module = project(tmp_path, fitted(f"make_pipeline({steps})"))
    for number, others in enumerate(([], ["numpy.fi"], ["numpy.fix.fix"])):
        with pytest.raises(ProjectError, match=r"not trusted: numpy\.fix \(at"):
            make(tmp_path, config("price", module, trust=others), str(number))
    setting = config("price", module, trust=["numpy.fix", "numpy.unused"])
    bundle, trained = made(tmp_path, setting)
    assert trained.notes[-1] == "the project vouches for numpy.fix (model.trust)"
    assert (bundle.model.types, bundle.model.trusted) == ((), ("numpy.fix",))


@pytest.mark.parametrize("name", ["numpy", "numpy.*", "numpy.fix()", ""])
def test_a_name_to_vouch_for_is_exact(name: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.trust"):
        config(trust=[name])


def test_the_list_has_what_the_installed_libraries_have() -> None:
    missing = {use: each - trust.listed()[use] for use, each in names().items()}
    assert not any(missing.values()), "run python -m tests.harness.trusted"


@pytest.mark.parametrize(
    ("use", "name"),
    [
        ("ObjectNode", "scipy.stats._continuous_distns.norm_gen"),
        ("ObjectNode", "joblib.memory.Memory"),
        ("FunctionNode", "pandas.core.computation.eval.eval"),
        ("FunctionNode", "numpy.load"),
        ("FunctionNode", "numpy.apply_along_axis"),
        ("FunctionNode", "numpy.frompyfunc"),
        ("TypeNode", "builtins.eval"),
        ("TypeNode", "builtins.getattr"),
        ("OperatorFuncNode", "operator.methodcaller"),
        ("NdArrayNode", "numpy.memmap"),
    ],
)
def test_the_list_has_nothing_that_runs_or_reads_what_it_is_given(use: str, name: str) -> None:
    assert name not in trust.listed()[use]
    assert "MethodNode" not in trust.listed()


def test_own_and_vouched_names_are_not_called_while_a_file_is_loaded() -> None:
    """A hostile file may name the project's own code, too, but only as a part of the model."""
    name = "pipeline.delete"
    made = listed(plain("data"), name=name)
    constructed = node("ConstructorFromReduceNode", name, content=listed())
    keyed = mapped({"data": plain(1)}, node("TypeNode", name))
    missing = {"main": mapped({}), "default_factory": node("TypeNode", name)}
    factory = node("DefaultDictNode", "collections.defaultdict", content=missing)
    for part in (made, constructed, keyed, factory):
        parts = archive.read(crafted(regression(coef_=part)), "model.skops")
        assert [each.full for each in trust.untrusted(parts, {name})] == [name]
    kept = node("TypeNode", name)
    assert trust.untrusted(archive.read(crafted(regression(a=kept)), "m"), {name}) == []


HARMLESS = {
    "lightgbm": "make_pipeline(StandardScaler(), "
    "lightgbm.LGBMRegressor(n_estimators=3, verbose=-1, n_jobs=1))",
    "xgboost": "make_pipeline(StandardScaler(), xgboost.XGBRegressor(n_estimators=3, n_jobs=1))",
    "a search": "GridSearchCV(xgboost.XGBRegressor(n_estimators=3, n_jobs=1), "
    "{'max_depth': [1, 2]})",
    "a function of numpy": "make_pipeline(FunctionTransformer(np.log1p), "
    "HistGradientBoostingRegressor(max_iter=3))",
    "categories": "HistGradientBoostingRegressor(max_iter=3, categorical_features=['width'])",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_parts_of_libraries_are_on_the_list(name: str, tmp_path: Path) -> None:
    module = project(tmp_path, fitted(HARMLESS[name], "import lightgbm, xgboost"))
    bundle = make(tmp_path, config("price", module))
    assert (bundle.model.format, bundle.model.types) == ("skops", ())


def named(root: Path, name: str) -> None:
    """Admit a model file, made elsewhere, that names a function or class as its attribute."""
    module, _, function = name.rpartition(".")
    part = node("FunctionNode", name, content=f"{module}.{function}")
    parts = archive.read(crafted(regression(func=part)), "m.skops")
    Trust(root=root).admit(parts, live=False)


@pytest.mark.parametrize("line", ["from joblib import load", "from os import system as load"])
def test_what_an_own_module_imports_is_not_its_own(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = project(tmp_path, f"{line}\ndef own(x): return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module(module)
    named(tmp_path, f"{module}.own")
    with pytest.raises(ProjectError, match=rf"not trusted: {module}\.load"):
        named(tmp_path, f"{module}.load")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "code").symlink_to(tmp_path)
    with pytest.raises(IntegrityError, match=r"the bundle's code does not have"):
        hooks.check_types(tmp_path / "bundle", [f"{module}.load"])


def test_a_model_file_imports_no_module_that_the_training_did_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    module = project(tmp_path, f"open({str(marker)!r}, 'w').close()\ndef own(x): return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ProjectError, match=rf"has not imported {module}") as caught:
        named(tmp_path, f"{module}.own")
    assert not marker.exists()
    assert f"name {module}.own in model.trust" in caught.value.hint
    part = node("FunctionNode", f"{module}.own", content=f"{module}.own")
    parts = archive.read(crafted(regression(func=part)), "m.skops")
    Trust(root=tmp_path, names=(f"{module}.own",)).admit(parts, live=False)
    assert marker.exists()


@pytest.mark.parametrize(
    ("file", "module", "place"),
    [
        ("shared/steps.py", "shared.steps", "shared"),
        ("lone_steps.py", "lone_steps", "lone_steps.py"),
    ],
)
def test_code_from_above_the_project_is_linked_into_it(
    file: str, module: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "models" / "churn"
    root.mkdir(parents=True)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("def own(x): return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, module, importlib.import_module(module))
    part = node("FunctionNode", f"{module}.own", content=f"{module}.own")
    parts = archive.read(crafted(regression(func=part)), "m.skops")
    for vouched in ((), (f"{module}.own",)):
        with pytest.raises(ProjectError, match=rf"{place} is outside of the project") as caught:
            Trust(root, vouched).admit(parts, live=False)
        assert f"`ln -s ../../{place} {place}`" in caught.value.hint
    (root / place).symlink_to(f"../../{place}")
    assert Trust(root).admit(parts, live=False).types == (f"{module}.own",)
