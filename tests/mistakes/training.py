"""Mistakes in data and in training code."""

from collections.abc import Callable

from tests.mistakes.mistake import Mistake
from tests.mistakes.project import Project

TRAIN = "data/train.csv"
TEST = "data/test.csv"
SETTINGS = "mlship.yaml"


def data(text: str | bytes) -> Callable[[Project], None]:
    """Replace the training data."""
    return lambda project: project.write(TRAIN, text)


def code(body: str) -> Callable[[Project], None]:
    """Replace the training function's body."""
    text = "import os, sys\n\nfrom sklearn.dummy import DummyClassifier\n\n\n"
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return lambda project: project.write("pipeline.py", f"{text}def train(data, params):\n{lines}")


def replaced(name: str, old: str, new: str) -> Callable[[Project], None]:
    """Change one place of a file."""
    return lambda project: project.edit(name, old, new)


def written(name: str, text: str) -> Callable[[Project], None]:
    """Write a file."""
    return lambda project: project.write(name, text)


def _renamed_in_test(project: Project) -> None:
    header = project.read(TEST).splitlines()[0]
    project.edit(TEST, header, header.replace("petal_width", "petal_wide"))


def _text_among_numbers(project: Project) -> None:
    lines = project.read(TRAIN).splitlines()
    cells = lines[7].split(",")
    lines[7] = ",".join(["wide", *cells[1:]])
    project.write(TRAIN, "\n".join(lines) + "\n")


def _missing_targets(project: Project) -> None:
    lines = project.read(TRAIN).splitlines()
    lines[3] = lines[3].rpartition(",")[0] + ","
    project.write(TRAIN, "\n".join(lines) + "\n")


def _pickle(project: Project) -> None:
    code(
        "import joblib\n"
        "model = DummyClassifier().fit(data.drop(columns='species'), data['species'])\n"
        "joblib.dump(model, '.mlship/model.pkl')\n"
        "return '.mlship/model.pkl'"
    )(project)


def _pickle_of_another(project: Project) -> None:
    _pickle(project)
    allowed = f"allow_pickle: true\n  pickle_sha256: {'a' * 64}\n  train: pipeline:train "
    project.edit(SETTINGS, "train: pipeline:train ", allowed)


def _predicting_nan(project: Project) -> None:
    project.edit(SETTINGS, "target: species", "target: petal_width")
    code(
        "from sklearn.dummy import DummyRegressor\n"
        "model = DummyRegressor(strategy='constant', constant=0.0)\n"
        "model.fit(data[['sepal_length']], data['petal_width'])\n"
        "model.constant_[:] = float('nan')\n"
        "return model"
    )(project)


_FEATURES = "features: [sepal_length, sepal_width]\n    #"
_RAISING_HOOK = "\n\ndef broken(rows):\n    raise KeyError('no such column')\n"


def _hook(place: str) -> Callable[[Project], None]:
    def do(project: Project) -> None:
        project.write("pipeline.py", project.read("pipeline.py") + _RAISING_HOOK)
        project.edit(SETTINGS, f"# {place}: pipeline:{place}", f"{place}: pipeline:broken")

    return do


DATA = (
    Mistake(
        name="features name a column that is not there",
        do=replaced(SETTINGS, _FEATURES, "features: [sepal_length, sepal_wide]\n    #"),
        code=2,
        says="pipeline:train",
        hints="mlship.yaml",
    ),
    Mistake(
        name="data.target is misspelt",
        do=replaced(SETTINGS, "target: species", "target: specie"),
        code=2,
        says="data/train.csv has no column specie",
        hints="did you mean species?",
    ),
    Mistake(
        name="data.target is left out",
        do=replaced(SETTINGS, "  target: species\n", ""),
        code=2,
        says="has no column target",
        hints="species",
        is_rare=True,
    ),
    Mistake(
        name="the test file has another column",
        do=_renamed_in_test,
        code=2,
        says="petal_width",
        hints="did you mean petal_wide?",
    ),
    Mistake(
        name="a row has no target",
        do=_missing_targets,
        code=2,
        says="data/train.csv: 1 rows have no species, first row 3",
        hints="fill",
        is_rare=True,
    ),
    Mistake(
        name="a text among numbers",
        do=_text_among_numbers,
        code=2,
        says="where 'wide' stands",
        hints="text among the numbers",
        is_rare=True,
    ),
    Mistake(
        name="the data file does not exist",
        do=replaced(SETTINGS, "train: data/train.csv", "train: data/trian.csv"),
        code=2,
        says="no data file data/trian.csv",
        hints="data.train",
        is_rare=True,
    ),
    Mistake(
        name="an empty CSV", do=data(""), code=2, says="data/train.csv is empty", hints="header"
    ),
    Mistake(
        name="a CSV with a header only",
        do=data("sepal_length,sepal_width,petal_length,petal_width,species\n"),
        code=2,
        says="data/train.csv has no rows",
        hints="data",
        is_rare=True,
    ),
    Mistake(
        name="a CSV that is binary",
        do=data(bytes(range(256)) * 8),
        code=2,
        says="data/train.csv is not in utf-8",
        hints="encoding",
    ),
    Mistake(
        name="a CSV with one field too many",
        do=data("a,species\n1,x\n2,y,z\n3,x\n"),
        code=2,
        says="data/train.csv cannot be read",
        hints="CSV",
        is_rare=True,
    ),
)

CODE = (
    Mistake(
        name="train raises",
        do=code("raise ValueError('the petals are missing')"),
        code=2,
        says="pipeline.py:7: ValueError: the petals are missing",
        hints="correct the code",
        mend=lambda project: project.git("checkout", "pipeline.py"),
    ),
    Mistake(
        name="train returns None",
        do=code("DummyClassifier()"),
        code=2,
        says="pipeline:train returned nothing",
        hints="return the fitted estimator",
    ),
    Mistake(
        name="train returns something without predict",
        do=code("return {'weights': [1, 2]}"),
        code=2,
        says="pipeline:train returned dict, which cannot predict",
        hints="return a fitted estimator",
        is_rare=True,
    ),
    Mistake(
        name="train returns an estimator that is not fitted",
        do=code("return DummyClassifier()"),
        code=2,
        says="pipeline:train",
        hints="fit",
        is_rare=True,
    ),
    Mistake(
        name="the model predicts NaN",
        do=_predicting_nan,
        code=2,
        says="its answer is NaN or infinite",
        hints="row",
    ),
    Mistake(
        name="train calls sys.exit",
        do=code("sys.exit(0)"),
        code=2,
        says="pipeline.py:7: SystemExit",
        hints="exit",
    ),
    Mistake(
        name="train calls os._exit",
        do=code("os._exit(0)"),
        code=2,
        says="the training process",
        hints="exit",
        is_rare=True,
    ),
    Mistake(
        name="train crashes in a compiled library",
        do=code("import signal\nos.kill(os.getpid(), signal.SIGSEGV)"),
        code=2,
        says="SIGSEGV",
        hints="compiled library",
    ),
    Mistake(
        name="the module does not import",
        do=lambda project: project.write("pipeline.py", "import pandas_is_not_called_so\n"),
        code=2,
        says="pandas_is_not_called_so",
        hints="install what provides the module pandas_is_not_called_so",
    ),
    Mistake(
        name="the module has a syntax error",
        do=lambda project: project.write("pipeline.py", "def train(data, params)\n    pass\n"),
        code=2,
        says="pipeline.py:1",
        hints="correct",
    ),
    Mistake(
        name="the module does not exist",
        do=replaced(SETTINGS, "train: pipeline:train", "train: pipelin:train"),
        code=2,
        says="pipelin",
        hints="pipeline",
        is_rare=True,
    ),
    Mistake(
        name="the function does not exist",
        do=replaced(SETTINGS, "train: pipeline:train", "train: pipeline:trane"),
        code=2,
        says="pipeline has no function trane",
        hints="did you mean train?",
        is_rare=True,
    ),
    Mistake(
        name="preprocess raises",
        do=_hook("preprocess"),
        code=2,
        says="pipeline:broken",
        hints="correct",
    ),
    Mistake(
        name="postprocess raises",
        do=_hook("postprocess"),
        code=2,
        says="pipeline:broken",
        hints="correct",
        is_rare=True,
    ),
    Mistake(
        name="a pickle without permission",
        do=_pickle,
        code=3,
        says=".mlship/model.pkl",
        hints="model.allow_pickle",
        leaves=("model.pkl",),
        is_rare=True,
    ),
    Mistake(
        name="a pickle with another sha256",
        do=_pickle_of_another,
        code=7,
        says=".mlship/model.pkl has sha256",
        hints="nothing was loaded",
        leaves=("model.pkl",),
    ),
    Mistake(
        name="requirements.txt names what is not installed",
        do=lambda project: project.write("requirements.txt", "a-package-that-nobody-made\n"),
        code=2,
        says="a-package-that-nobody-made is not installed",
        hints="pip install",
    ),
)
