"""Repositories as people have them, adopted by `mlship init`: commands and edits to a champion.

Each repository is made in a folder of its own and committed. Then the commands that the guide gives
are typed: `mlship init --yes`, the edits that `init` or the guide ask for, a commit, `mlship
doctor`, `mlship run`. Counted are the commands and the edits; the files that the repository had
must be as they were, but for those of the edits. At the end `mlship status` must show a champion.
With `--pull-request`, act then runs the generated workflow of each project for a pull request from
a feature branch, which must pass and leave a comment for each project.

    python benchmarks/adoption.py [--pull-request] [NAME ...]
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.harness.act import Runner
from tests.stand_ins.github import serving
from tests.stand_ins.github_state import State

MLSHIP = [sys.executable, "-m", "mlship"]
OWNER = "ada/homework"
IDENTITY = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
IGNORED = "__pycache__/\n.mlship/\n*.joblib\n*.pkl\n/models/*.json\nmetrics.*\n"

Edit = Callable[[Path], None]


@dataclass
class Repository:
    """A repository of somebody.

    Attributes:
        files: their texts, by path.
        folders: of its projects.
        edits: what its owner changes after `init`, by what is said about it.
    """

    files: dict[str, str]
    folders: Sequence[str] = (".",)
    edits: dict[str, Edit] = field(default_factory=dict)


def replaced(name: str, old: str, new: str) -> Edit:
    """Return an edit of a file, which must have the text."""

    def edit(root: Path) -> None:
        text = (root / name).read_text()
        assert re.search(old, text), f"{name} has no {old}:\n{text}"
        (root / name).write_text(re.sub(old, new, text, count=1))

    return edit


def flowers() -> str:
    """Return rows of three kinds of flowers."""
    random = np.random.default_rng(3)
    kinds = np.repeat(["setosa", "versicolor", "virginica"], 60)
    sizes = np.repeat([1.0, 3.0, 5.0], 60)[:, None] + random.normal(0, 0.3, (180, 2))
    frame = pd.DataFrame(sizes.round(2), columns=["length", "width"]).assign(species=kinds)
    return str(frame.sample(frac=1, random_state=0).to_csv(index=False))


def houses() -> str:
    """Return rows of houses with their prices."""
    random = np.random.default_rng(4)
    rooms, area = random.integers(1, 8, 200), random.uniform(30, 200, 200).round(1)
    price = (20_000 * rooms + 1_500 * area + random.normal(0, 4_000, 200)).round(-2)
    return str(pd.DataFrame({"rooms": rooms, "area": area, "price": price}).to_csv(index=False))


SCRIPT = """
import joblib
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

data = pd.read_csv("data/flowers.csv")
X_train, X_test, y_train, y_test = train_test_split(
    data[["length", "width"]], data["species"], random_state=1
)
y = data["species"]
model = RandomForestClassifier(20, random_state=0).fit(X_train, y_train)
joblib.dump(model, "artifacts/model.joblib")
with open("metrics.csv", "w") as file:
    file.write(f"accuracy\\n{model.score(X_test, y_test)}\\n")
"""
MAKES = "import os\nos.makedirs('artifacts', exist_ok=True)\n"
TEST = """
import joblib

def test_the_model_is_there():
    assert joblib.load("artifacts/model.joblib").predict([[1.0, 1.0]]) == ["setosa"]
"""
CI = """name: main
on: push
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - run: pytest
"""
PACKAGE = {
    "pyproject.toml": '[project]\nname = "churn"\nversion = "0.1"\n',
    "src/churn/__init__.py": "",
    "src/churn/config.py": (
        "from pathlib import Path\n\nROOT = Path(__file__).resolve().parents[2]\n"
        'DATA = ROOT / "data" / "flowers.csv"\nMODEL_DIR = ROOT / "models"\nTARGET = "species"\n'
    ),
    "src/churn/data.py": (
        "import pandas as pd\n\nfrom .config import DATA\n\n\n"
        "def load():\n    return pd.read_csv(DATA)\n"
    ),
    "src/churn/train.py": """
import joblib
from sklearn.linear_model import LogisticRegression

from .config import MODEL_DIR, TARGET
from .data import load


def main():
    data = load()
    model = LogisticRegression(max_iter=500).fit(data.drop(columns=TARGET), data[TARGET])
    MODEL_DIR.mkdir(exist_ok=True)
    joblib.dump(model, MODEL_DIR / "model.joblib")


if __name__ == "__main__":
    main()
""",
    "tests/test_data.py": (
        "import sys\nsys.path.insert(0, 'src')\nfrom churn.data import load\n\n\n"
        "def test_there_are_rows():\n    assert len(load()) > 100\n"
    ),
}
COOKIECUTTER = {
    "src/__init__.py": "",
    "src/models/__init__.py": "",
    "src/models/train_model.py": """
import logging
import os
import pickle

import pandas as pd
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

PROJECT_DIR = os.path.join(os.path.dirname(__file__), os.pardir, os.pardir)


def main(input_path="data/processed/train.csv", output="models/model.pkl"):
    logging.getLogger(__name__).info("training")
    train = pd.read_csv(input_path)
    y = train.pop("species")
    model = Pipeline([("scale", StandardScaler()), ("svc", SVC(probability=True))]).fit(train, y)
    os.makedirs("models", exist_ok=True)
    with open(output, "wb") as file:
        pickle.dump(model, file)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main()
""",
    "src/models/predict_model.py": (
        "import pickle\n\n\ndef load():\n    return pickle.load(open('models/model.pkl', 'rb'))\n"
    ),
    "notebooks/1.0-exploration.ipynb": '{"cells": [], "nbformat": 4, "metadata": {}}',
}
DVC = {
    "dvc.yaml": """
stages:
  prepare:
    cmd: python src/prepare.py
    deps: [src/prepare.py, data/flowers.csv]
    outs: [data/prepared.csv]
  train:
    cmd: python src/train.py --C ${train.C}
    deps: [src/train.py, data/prepared.csv]
    params: [train.C]
    outs: [models/model.joblib]
    metrics: [metrics.json: {cache: false}]
""",
    "params.yaml": "train:\n  C: 2.0\n",
    "src/prepare.py": (
        "import pandas as pd\n\npd.read_csv('data/flowers.csv').dropna()"
        ".to_csv('data/prepared.csv', index=False)\n"
    ),
    "src/train.py": """
import argparse
import json
import os

import joblib
import pandas as pd
from sklearn.linear_model import LogisticRegression

parser = argparse.ArgumentParser()
parser.add_argument("--C", type=float, default=1.0)
options = parser.parse_args()
data = pd.read_csv("data/prepared.csv")
target = data["species"]
model = LogisticRegression(C=options.C, max_iter=500).fit(data[["length", "width"]], target)
os.makedirs("models", exist_ok=True)
joblib.dump(model, "models/model.joblib")
accuracy = model.score(data[["length", "width"]], target)
json.dump({"train_accuracy": accuracy}, open("metrics.json", "w"))
""",
}
FUNCTION = {
    "churn/__init__.py": "",
    "churn/model.py": (
        "from sklearn.tree import DecisionTreeClassifier\n\n\n"
        "def train(data, params):\n"
        '    X, y = data.drop(columns="species"), data["species"]\n'
        "    return DecisionTreeClassifier(random_state=0, **params).fit(X, y)\n"
    ),
    "tests/test_model.py": (
        "import pandas as pd\n\nfrom churn.model import train\n\n\n"
        "def test_a_tree_is_trained():\n"
        '    data = pd.DataFrame({"a": [0, 1], "species": ["x", "y"]})\n'
        '    assert train(data, {}).predict(data[["a"]])[0] == "x"\n'
    ),
}
BOOSTING = """
from pathlib import Path

import numpy as np
import pandas as pd
from xgboost import XGBRegressor

MODELS = Path("models")
data = pd.read_csv("data/houses.csv")
X, y = data[["rooms", "area"]], data["price"]
MODELS.mkdir(exist_ok=True)
XGBRegressor(n_estimators=40, max_depth=3).fit(X, y).save_model(MODELS / "model.json")
"""
OPTIONS = """
import argparse

import joblib
import pandas as pd
from sklearn.ensemble import GradientBoostingRegressor


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="out/model.joblib")
    options = parser.parse_args()
    data = pd.read_csv(options.data)
    y = data["price"]
    model = GradientBoostingRegressor(random_state=0).fit(data.drop(columns=["price"]), y)
    joblib.dump(model, options.model)


if __name__ == "__main__":
    main()
"""
NOTEBOOK = {
    "Homework.ipynb": json.dumps(
        {
            "cells": [
                {
                    "cell_type": "code",
                    "execution_count": None,
                    "metadata": {},
                    "outputs": [],
                    "source": "import pandas as pd\ndata = pd.read_csv('data/flowers.csv')\n",
                }
            ],
            "metadata": {},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
    )
}


def write_script(root: Path) -> None:
    """Do what `init` asks of a notebook's owner: a script that saves the model."""
    (root / "train.py").write_text(MAKES + SCRIPT)


FLOWERS, HOUSES = {"data/flowers.csv": flowers()}, {"data/houses.csv": houses()}
REPOSITORIES = {
    "a script and a test": Repository(
        {"train.py": MAKES + SCRIPT, "test_model.py": TEST, ".github/workflows/ci.yml": CI}
        | FLOWERS
    ),
    "a package in src": Repository(PACKAGE | FLOWERS),
    "cookiecutter data science": Repository(COOKIECUTTER | {"data/processed/train.csv": flowers()}),
    "stages of DVC": Repository(DVC | FLOWERS | {"data/prepared.csv": flowers()}),
    "a function": Repository(FUNCTION | FLOWERS),
    "XGBoost's own file": Repository({"train.py": BOOSTING} | HOUSES),
    "a script with options": Repository(
        {"src/train.py": "import os\nos.makedirs('out', exist_ok=True)\n" + OPTIONS} | HOUSES,
        edits={
            "the option --data": replaced(
                "mlship.yaml",
                "command: python src/train.py",
                "command: python src/train.py --data data/houses.csv",
            )
        },
    ),
    "a notebook": Repository(
        NOTEBOOK | FLOWERS, edits={"a script that saves the model": write_script}
    ),
    "two projects": Repository(
        {
            f"models/{name}/{path}": text
            for name in ("churn", "fraud")
            for path, text in ({"train.py": MAKES + SCRIPT} | FLOWERS).items()
        },
        folders=("models/churn", "models/fraud"),
    ),
    "workflows of its own": Repository(
        {
            "train.py": MAKES + SCRIPT,
            ".github/workflows/main.yml": CI,
            ".github/workflows/release.yml": CI,
        }
        | FLOWERS
    ),
}


@dataclass
class Counted:
    """What it took: `why` is what went wrong, empty for nothing."""

    commands: int = 0
    edits: int = 0
    why: str = ""


def adopt(repository: Repository, root: Path, *, pulled: bool) -> Counted:
    """Make a repository and adopt it; where `pulled`, offer it in a pull request too."""
    for name, text in (repository.files | {".gitignore": IGNORED}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    commit(root, "begin")
    counted = Counted()
    try:
        for folder in repository.folders:
            project(repository, root, root / folder, counted)
        if pulled:
            pull_request(root, len(repository.folders))
    except AssertionError as error:
        counted.why = str(error)
    for name, text in repository.files.items():
        if (root / name).read_text() != text:
            counted.why = f"{name} was changed"
    return counted


def project(repository: Repository, root: Path, folder: Path, counted: Counted) -> None:
    """Adopt one project, from `init` to a champion."""
    source = f"workflows.mlship=git+https://example.org/mlship@{'c0ffee' * 7:.40}"
    asked = ["--set", source, "init", "--yes"]
    mlship(folder, counted, *asked)
    for said, edit in repository.edits.items():
        edit(folder)
        counted.edits += 1
        if "script" in said:
            mlship(folder, counted, *asked)  # it looks again
    commit(root, "mlship")
    mlship(folder, counted, "doctor")
    mlship(folder, counted, "run")
    try:
        status = json.loads(mlship(folder, counted, "--json", "status"))
        assert [row["role"] for row in status["releases"]] == ["champion"], status["releases"]
        assert not status["drift"], status["drift"]
    finally:
        subprocess.run([*MLSHIP, "down"], cwd=folder, capture_output=True, check=False)


def pull_request(root: Path, projects: int) -> None:
    """Run what GitHub would for a pull request to develop; each project must leave a comment."""
    address = f"https://github.com/{OWNER}.git"
    subprocess.run(["git", "remote", "add", "origin", address], cwd=root, check=True)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()
    state = State()
    state.add_account("ada")
    state.add_token("job", "github-actions[bot]", pull_requests="write", contents="write")
    state.add_repository(OWNER)
    for branch in ("main", "develop", "feature/mlship"):
        state.commit(OWNER, branch, "b" * 40, "ada@example.org")
    state.commit(OWNER, "feature/mlship", commit, "ada@example.org")
    pull = state.open_pull(
        OWNER, "ada", head="feature/mlship", base="develop", title="mlship", body=""
    )
    head = {"ref": "feature/mlship", "sha": commit, "repo": {"full_name": OWNER}}
    base = {"ref": "develop", "repo": {"full_name": OWNER}}
    event = {
        "action": "opened",
        "number": pull["number"],
        "pull_request": {"number": pull["number"], "head": head, "base": base},
    }
    with tempfile.TemporaryDirectory(prefix="runner-") as home, serving(state) as url:
        runner = Runner(root, Path(home) / "home", {"GITHUB_API_URL": url})
        payload = Path(home) / "event.json"
        payload.write_text(json.dumps(event))
        workflows = sorted((root / ".github" / "workflows").glob("*feature.yml"))
        for file in workflows:
            secrets = {"GITHUB_TOKEN": "job"}
            ran = runner.run(
                file.name, "pull_request", payload=payload, secrets=secrets, seconds=600
            )
            assert ran.code == 0, f"{file.name}: {ran.code}\n{ran.log[-3000:]}"
    assert len(workflows) == projects, workflows
    assert len(state.data["comments"]) == projects, state.data["comments"]


def mlship(folder: Path, counted: Counted, *arguments: str) -> str:
    """Run a command, which must succeed; return what it printed."""
    counted.commands += 1
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLSHIP")}
    done = subprocess.run(
        [*MLSHIP, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = f"mlship {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
    assert done.returncode == 0, said[-1500:]
    return done.stdout


def commit(root: Path, message: str) -> None:
    """Commit all files."""
    if not (root / ".git").exists():
        subprocess.run(["git", "init", "-q", "-b", "develop"], cwd=root, check=True)
    for argv in (["add", "-A"], [*IDENTITY, "commit", "-q", "--allow-empty", "-m", message]):
        subprocess.run(["git", *argv], cwd=root, check=True)


def main(arguments: Sequence[str]) -> int:
    """Adopt the repositories and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a repository; default: all")
    parser.add_argument("--pull-request", action="store_true", help="and one, run by act")
    options = parser.parse_args(arguments)
    failed = 0
    print(f"{'repository':28} commands edits")
    for name in options.names or REPOSITORIES:
        with tempfile.TemporaryDirectory(prefix="adopted-") as folder:
            counted = adopt(REPOSITORIES[name], Path(folder), pulled=options.pull_request)
        good = "champion, green" if options.pull_request else "champion"
        print(f"{name:28} {counted.commands:8} {counted.edits:5} {counted.why or good}")
        sys.stdout.flush()
        failed += bool(counted.why)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
