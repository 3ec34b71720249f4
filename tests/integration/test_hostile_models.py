"""Model files that would run code are refused with the reason, and nothing of them runs."""

import builtins
import functools
import gc
import importlib
import operator
import os
import pickle
import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
import skops.io
from pandas.io.pickle import to_pickle  # type: ignore[attr-defined]  # the stubs lack it
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import dump_svmlight_file
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from mlship.domain.bundle import Field, Model, ModelFormat
from mlship.errors import IntegrityError, MlshipError, ProjectError, RefusedError
from mlship.runtime import formats
from mlship.training.forms import skopsfile
from mlship.training.owncode import Trust
from mlship.training.train import train
from tests.harness.hostile_models import FILES, compressed, pickled, popen_by, zipped
from tests.harness.projects import InProcess, config, flowers, project, request

FORMATS: dict[str, ModelFormat] = {
    ".skops": "skops",
    ".onnx": "onnx",
    ".ubj": "xgboost",
    ".json": "xgboost",
    ".txt": "lightgbm",
}


def bring(root: Path, name: str) -> None:
    """Train by a function that names a saved model."""
    code = f"def train(data, params):\n    return {name!r}\n"
    module = project(root, code, flowers()[["length", "width", "price"]])
    train(request(root, config("price", module)), InProcess())


def serve(path: Path) -> Any:
    """Load a model file as a replica does."""
    model = Model(
        format=FORMATS[path.suffix],
        path=path.name,
        layout="matrix",
        columns=(Field(name="a", kind="number"), Field(name="b", kind="number")),
    )
    return formats.load(path, model, "regression")


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused_and_nothing_of_it_runs(name: str, tmp_path: Path) -> None:
    ending, write, reason = FILES[name]
    marker, path = tmp_path / "marker", tmp_path / f"model{ending}"
    path.write_bytes(write(marker))
    with pytest.raises(MlshipError, match=reason) as caught:
        bring(tmp_path, path.name)
    assert caught.value.hint
    if ending in FORMATS:
        with pytest.raises(IntegrityError, match=r"refused|not trusted|is not a valid"):
            serve(path)
    assert not marker.exists()


def test_there_are_enough_hostile_files() -> None:
    assert len(FILES) + len(PLACES) >= 44


def _mlflow(root: Path) -> str:
    """A logged model of MLflow that names a module to load it, and carries its code."""
    folder = root / "mlmodel"
    (folder / "code").mkdir(parents=True)
    flavors = "flavors:\n  python_function:\n    loader_module: payload\n    code: code\n"
    (folder / "MLmodel").write_text(flavors)
    payload = f"open({str(root / 'marker')!r}, 'w')\ndef _load_pyfunc(path): ...\n"
    (folder / "code/payload.py").write_text(payload)
    return "mlmodel"


def _link(root: Path) -> str:
    outside = root.parent / f"{root.name}-outside.skops"
    outside.write_bytes(skops.io.dumps(LinearRegression()))
    (root / "model.skops").symlink_to(outside)
    return "model.skops"


def _folder_link(root: Path) -> str:
    outside = root.parent / f"{root.name}-models"
    outside.mkdir()
    (outside / "model.skops").write_bytes(skops.io.dumps(LinearRegression()))
    (root / "models").symlink_to(outside)
    return "models/model.skops"


def _device(root: Path) -> str:
    os.mkfifo(root / "model.onnx")
    return "model.onnx"


PLACES: dict[str, tuple[Callable[[Path], str], str]] = {
    "a model of MLflow with a loader": (_mlflow, "payload loads by running its code"),
    "a link out of the project": (_link, "outside of the project"),
    "a file in a linked folder": (_folder_link, "outside of the project"),
    "a pipe": (_device, "no such file"),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_hostile_path_is_refused(name: str, tmp_path: Path) -> None:
    write, reason = PLACES[name]
    with pytest.raises((RefusedError, ProjectError), match=reason):
        bring(tmp_path, write(tmp_path))
    assert not (tmp_path / "marker").exists()


def naive(data: bytes) -> Any:
    """Load a skops file as its own documentation does at first."""
    return skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("loader", ["ListNode", "ConstructorFromReduceNode", "LossNode"])
def test_the_files_run_code_where_nobody_looks_at_them(loader: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    model = naive(popen_by(loader)(marker))
    assert model.coef_.wait(60) == 0
    assert marker.exists()


@pytest.mark.parametrize("write", [pickled, compressed])
def test_the_pickles_run_code_where_nobody_looks_at_them(write: Any, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "model.skops"
    path.write_bytes(write(marker))
    joblib.load(path)
    assert marker.exists()
    assert zipped(marker)


def stepped(function: Any, **options: Any) -> Any:
    fitted = LinearRegression().fit(np.ones((3, 2)), np.arange(3.0))
    return make_pipeline(FunctionTransformer(function, **options), fitted)


def text(marker: Path) -> str:
    return f"touch {marker}"


def rows(marker: Path) -> pd.DataFrame:
    return pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})


def code(marker: Path) -> str:
    return f"open({str(marker)!r}, 'w').close()"


def script(marker: Path) -> str:
    path = marker.with_name("script_of_the_test.py")
    path.write_text(code(marker))
    return str(path)


def pickle_file(marker: Path) -> str:
    path = marker.with_name("payload.pkl")
    path.write_bytes(pickled(marker))
    return str(path)


def targets(function: Any) -> Any:
    model = TransformedTargetRegressor(LinearRegression(), func=np.log1p, inverse_func=np.expm1)
    model.fit(np.ones((3, 2)), np.arange(3.0))
    model.transformer_.inverse_func = function
    return model


TRICKS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any], str]] = {
    "os.system": (lambda m: stepped(os.system), text, r"posix\.system"),
    "subprocess.getoutput": (
        lambda m: stepped(subprocess.getoutput),
        text,
        r"subprocess\.getoutput",
    ),
    "a class that is called": (
        lambda m: stepped(subprocess.Popen, kw_args={"shell": True}),
        text,
        r"subprocess\.Popen",
    ),
    "exec": (lambda m: stepped(builtins.exec), code, r"builtins\.exec"),
    "eval": (lambda m: stepped(builtins.eval), code, r"builtins\.eval"),
    "pandas.read_pickle": (
        lambda m: stepped(pd.read_pickle),
        pickle_file,
        r"pandas\.io\.pickle\.read_pickle",
    ),
    "pandas.to_pickle": (
        lambda m: stepped(to_pickle, kw_args={"filepath_or_buffer": str(m)}),
        rows,
        r"pandas\.io\.pickle\.to_pickle",
    ),
    "pandas.eval": (
        lambda m: stepped(pd.eval, kw_args={"local_dict": {"a": np.ones(1)}, "engine": "python"}),
        lambda m: f"a.tofile({str(m)!r})",
        r"pandas\.core\.computation\.eval\.eval",
    ),
    "joblib.load": (lambda m: stepped(joblib.load), pickle_file, r"joblib\.numpy_pickle\.load"),
    "pickle.loads": (lambda m: stepped(pickle.loads), pickled, r"_pickle\.loads"),
    "numpy.load": (
        lambda m: stepped(np.load, kw_args={"allow_pickle": True}),
        pickle_file,
        r"numpy\.load",
    ),
    "numpy.save by partial": (
        lambda m: stepped(functools.partial(np.save, str(m) + ".npy")),
        rows,
        r"numpy\.save",
    ),
    "numpy.savetxt by partial": (
        lambda m: stepped(functools.partial(np.savetxt, str(m))),
        rows,
        r"numpy\.savetxt",
    ),
    "scipy.io.mmwrite by partial": (
        lambda m: stepped(functools.partial(scipy.io.mmwrite, str(m) + ".mtx")),
        lambda m: np.eye(2),
        r"scipy\.io\..*mmwrite",
    ),
    "scipy.sparse.save_npz": (
        lambda m: stepped(functools.partial(scipy.sparse.save_npz, str(m) + ".npz")),
        lambda m: scipy.sparse.eye(2),
        r"scipy\.sparse\..*save_npz",
    ),
    "scikit-learn's own writer": (
        lambda m: stepped(dump_svmlight_file, kw_args={"y": [0, 1], "f": str(m)}),
        rows,
        r"sklearn\.datasets\._svmlight_format_io\.dump_svmlight_file",
    ),
    "a partial of a partial": (
        lambda m: stepped(functools.partial(functools.partial(os.system))),
        text,
        r"posix\.system",
    ),
    "a function among the arguments of a partial": (
        lambda m: stepped(functools.partial(functools.reduce, initial=None)),
        text,
        r"_functools\.reduce|functools\.reduce",
    ),
    "operator.methodcaller": (
        lambda m: stepped(operator.methodcaller("to_csv", str(m))),
        rows,
        r"operator\.methodcaller",
    ),
    "operator.attrgetter": (
        lambda m: stepped(operator.attrgetter("values")),
        rows,
        r"operator\.attrgetter",
    ),
    "a bound method": (
        lambda m: stepped(m.write_text),
        text,
        r"PosixPath\.write_text",
    ),
    "numpy.vectorize": (
        lambda m: stepped(np.vectorize(os.system, otypes=["i8"])),
        lambda m: np.array([text(m)]),
        r"vectorize",
    ),
    "importlib.import_module": (
        lambda m: stepped(importlib.import_module),
        lambda m: "antigravity_of_the_test",
        r"importlib\.import_module",
    ),
    "runpy.run_path": (lambda m: stepped(runpy.run_path), script, r"runpy\.run_path"),
    "an inverse of the target": (
        lambda m: targets(lambda_free_system),
        lambda m: np.ones((1, 2)),
        r"lambda_free_system",
    ),
    "a tokenizer": (
        lambda m: CountVectorizer(tokenizer=os.system, token_pattern=None, vocabulary={"a": 0}),
        lambda m: [text(m)],
        r"posix\.system",
    ),
    "a vectorizer that opens files": (
        lambda m: CountVectorizer(input="filename", vocabulary={"a": 0}),
        lambda m: ["/etc/hostname"],
        r"CountVectorizer\(input='filename'\)",
    ),
    "an analyzer": (
        lambda m: HashingVectorizer(analyzer=subprocess.getoutput, n_features=4),
        lambda m: [text(m)],
        r"subprocess\.getoutput",
    ),
}
"""By name: the estimator, what it is given, and how the refusal names the function."""

HARMLESS_ALONE = (
    "a function among the arguments of a partial",
    "operator.attrgetter",
    "a vectorizer that opens files",
    "importlib.import_module",
    "an inverse of the target",
)
"""Tricks that need a second step of the attacker, and are refused before it."""


def lambda_free_system(values: Any) -> Any:
    return os.system(f"true {values}")  # noqa: S605


def marked(marker: Path) -> bool:
    return any(each.name.startswith("marker") for each in marker.parent.iterdir())


@pytest.mark.parametrize("name", TRICKS)
def test_a_function_from_elsewhere_is_refused_everywhere(name: str, tmp_path: Path) -> None:
    make, _, reason = TRICKS[name]
    marker, path = tmp_path / "marker", tmp_path / "model.skops"
    estimator = make(marker)
    path.write_bytes(skops.io.dumps(estimator))
    with pytest.raises(ProjectError, match=reason):
        skopsfile.from_estimator(estimator, Trust(tmp_path))
    with pytest.raises(ProjectError, match=reason):
        bring(tmp_path, path.name)
    with pytest.raises(IntegrityError, match=reason):
        serve(path)
    assert not marked(marker)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in TRICKS if name not in HARMLESS_ALONE])
def test_the_trick_works_where_nobody_looks_at_the_file(name: str, tmp_path: Path) -> None:
    make, give, _ = TRICKS[name]
    marker = tmp_path / "marker"
    model = naive(skops.io.dumps(make(marker)))
    given = give(marker)
    try:
        answer = model.predict(given) if hasattr(model, "predict") else model.transform(given)
    except Exception as error:  # noqa: BLE001 (the second step is given nonsense)
        answer = repr(error)
    # A process that was started may take a moment.
    subprocess.run(["sleep", "0.3"], check=True)
    assert marked(marker), answer
    # A process that the trick left is freed here, where its warning is ignored.
    del answer, model
    gc.collect()


def test_there_are_enough_tricks() -> None:
    assert len(TRICKS) - len(HARMLESS_ALONE) >= 20
