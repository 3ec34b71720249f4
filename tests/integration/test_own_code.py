"""Classes and functions of the project's own travel with the model, and nothing else does."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlship.adapters.checkout.predictor import ChildPredictor
from mlship.adapters.checkout.trainer import ChildTrainer
from mlship.domain import bundle as bundles
from mlship.domain.bundle import Bundle, Row
from mlship.errors import IntegrityError, MlshipError
from tests.harness.projects import config, flowers

ROWS: list[Row] = [{"length": 5.0, "width": 3.0}, {"length": 9.0, "width": 2.2}]
IMPORTS = """
import functools
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
"""
SHAPES = """
import numpy as np
from sklearn.linear_model import LinearRegression
from deeper.numbers import LIMIT

def ratio(rows):
    return rows.assign(ratio=(rows.length / rows.width).clip(upper=LIMIT))

class Rounded(LinearRegression):
    def predict(self, X):
        return np.round(super().predict(X), 1)
"""

CLIPS = """
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import validate_data

class Clip(TransformerMixin, BaseEstimator):
    def __init__(self, share=0.9):
        self.share = share

    def fit(self, X, y=None):
        self.most_ = np.quantile(validate_data(self, X), self.share, axis=0)
        return self

    def transform(self, X):
        return np.minimum(np.asarray(X), self.most_)
"""


class Notes:
    def note(self, text: str) -> None: ...


def write(root: Path, body: str) -> Path:
    root.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    (root / "pipeline.py").write_text(IMPORTS + body)
    (root / "shapes.py").write_text(SHAPES)
    (root / "deeper").mkdir()
    # A folder without __init__.py is a package, too.
    (root / "deeper/clips.py").write_text(CLIPS)
    (root / "deeper/numbers.py").write_text("LIMIT = 3.0\n")
    flowers()[["length", "width", "price"]].to_csv(root / "data.csv", index=False)
    return root


def train(root: Path, **model: Any) -> Bundle:
    made = ChildTrainer(root, config("price", **model), Notes()).train(root / "out/bundle")
    return bundles.read(root / "out/bundle", expected=made.bundle)


TRAIN = """
import shapes
from deeper.clips import Clip
from shapes import Rounded

def times(rows, number):
    return rows * number

def train(data, params):
    double = FunctionTransformer(functools.partial(times, number=2))
    model = make_pipeline(FunctionTransformer(shapes.ratio), double, Clip(), Rounded())
    return model.fit(data[["length", "width"]], data.price)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("own") / "project", TRAIN)


@pytest.fixture(scope="module")
def made(root: Path) -> Bundle:
    return train(root)


@pytest.fixture
def folder(root: Path, made: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(root / "out/bundle", tmp_path / "bundle"))


def test_own_code_travels_with_the_model(made: Bundle, folder: Path) -> None:
    types = ("deeper.clips.Clip", "pipeline.times", "shapes.Rounded", "shapes.ratio")
    assert (made.model.format, made.model.types) == ("skops", types)
    modules = {"code/pipeline.py", "code/shapes.py", "code/deeper/numbers.py"}
    assert modules <= set(made.files)
    first, second = ChildPredictor().predict(folder, ROWS)
    assert first["price"] != second["price"]


def test_a_saved_model_of_own_classes_travels_too(tmp_path: Path) -> None:
    code = (
        "import skops.io\nfrom pathlib import Path\n"
        "from deeper.clips import Clip\nfrom shapes import Rounded\n"
        "def train(data, params):\n"
        "    model = make_pipeline(Clip(), Rounded()).fit(data[['length', 'width']], data.price)\n"
        "    path = Path(__file__).parent / 'model.skops'\n"
        "    skops.io.dump(model, path)\n    return path\n"
    )
    bundle = train(write(tmp_path / "project", code))
    assert bundle.model.types == ("deeper.clips.Clip", "shapes.Rounded")


def resealed(folder: Path, made: Bundle, **changes: Any) -> None:
    model = msgspec.structs.replace(made.model, **changes)
    bundles.seal(folder, msgspec.structs.replace(made, model=model))


def test_a_type_comes_from_the_code_of_the_bundle_and_nowhere_else(
    root: Path, made: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where the module lies on the path of the process that serves, it is not the bundle's.
    monkeypatch.setenv("PYTHONPATH", str(root))
    (folder / "code/shapes.py").unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        ChildPredictor().predict(folder, ROWS)
    resealed(folder, made)
    with pytest.raises(IntegrityError, match=r"the model needs shapes\.Rounded"):
        ChildPredictor().predict(folder, ROWS)
    resealed(folder, made, types=())
    with pytest.raises(IntegrityError, match=r"not trusted: .*shapes\.Rounded"):
        ChildPredictor().predict(folder, ROWS)
    resealed(folder, made, types=("os.system", "posix.system"))
    with pytest.raises(MlshipError, match=r"the model needs os\.system"):
        ChildPredictor().predict(folder, ROWS)
