"""`init` in a repository that trains already."""

from pathlib import Path

import pytest

from mlship.config.installation import Installation, Origin
from mlship.config.layers import from_yaml, resolve
from mlship.templates import existing, project, shipped
from mlship.templates.existing import Existing

SCRIPT = """
import joblib
import pandas as pd
from sklearn.linear_model import LogisticRegression

data = pd.read_csv("data/train.csv")
X, y = data.drop(columns="churned"), data["churned"]
joblib.dump(LogisticRegression().fit(X, y), "models/model.joblib")
"""

INSTALLED = Installation(origin=Origin(kind="git"), source="")


def repository(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_script_its_model_its_data_and_its_target_are_found(tmp_path: Path) -> None:
    files = {"train.py": SCRIPT, "data/train.csv": "a,churned\n", "data/test.csv": "a,churned\n"}
    found = existing.find(repository(tmp_path, **files))
    assert found == Existing(
        command="python train.py",
        saved="models/model.joblib",
        train="data/train.csv",
        test="data/test.csv",
        target="churned",
    )


def test_a_stage_of_dvc_wins(tmp_path: Path) -> None:
    stages = (
        "stages:\n"
        "  prepare: {cmd: python src/prepare.py, outs: [data/all.csv]}\n"
        "  train:\n"
        "    cmd: python src/train.py --depth 3\n"
        "    outs:\n"
        "    - model.pkl: {cache: false}\n"
    )
    code = "y = frame['price'].values\n"
    files = {"dvc.yaml": stages, "src/train.py": code, "train.py": SCRIPT, "data/all.csv": "a\n"}
    found = existing.find(repository(tmp_path, **files))
    assert found is not None
    assert (found.command, found.saved) == ("python src/train.py --depth 3", "model.pkl")
    assert (found.train, found.test, found.target) == ("data/all.csv", "", "price")


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"train.py": "print('no model')"},
        {"train.py": "this is no Python ("},
        {"train.py": "open('/srv/model.pkl', 'wb')"},
        {"train.py": "open('../model.pkl', 'wb')"},
        {"dvc.yaml": "stages: [1, 2]"},
        {"dvc.yaml": "stages: {train: {cmd: [a, b], outs: [m.pkl]}}"},
        {"dvc.yaml": "stages: {train: 5, two: {cmd: x ${y}, outs: [m.pkl]}}"},
    ],
)
def test_what_saves_no_model_is_no_training(files: dict[str, str], tmp_path: Path) -> None:
    assert existing.find(repository(tmp_path, **files)) is None


@pytest.mark.parametrize("folder", ["churn", "My Model", "2024", "_"])
@pytest.mark.parametrize("test", ["", "data/te st.csv"])
def test_the_settings_that_are_written_are_valid(folder: str, test: str, tmp_path: Path) -> None:
    skeleton = shipped.files("templates/project")["mlship.yaml"].decode()
    training = Existing(
        command='python train.py --name "a: b"',
        saved="m.pkl",
        train="d.csv",
        test=test,
        target="yes",
    )
    text = existing.settings(training, tmp_path / folder, skeleton)
    config = resolve([from_yaml(text, "mlship.yaml")]).config
    assert config.model.command == training.command
    assert (config.model.saved, config.data.train) == ("m.pkl", "d.csv")
    assert config.data.test == (test or None)
    assert config.data.target == "yes"
    assert config.gates.promote.min_labels == 200


def test_init_says_what_it_took_and_writes_no_skeleton_of_a_pipeline(tmp_path: Path) -> None:
    folder = repository(tmp_path, **{"train.py": SCRIPT, "data/train.csv": "a,churned\n"})
    planned = project.plan(folder, None, installed=INSTALLED)
    names = {change.name for change in planned.changes}
    assert {"mlship.yaml", "tests/sanity/test_served_model.py"} <= names
    assert not {"pipeline.py", "tests/unit/test_pipeline.py"} & names
    said = (
        "check mlship.yaml: it trains with `python train.py`, which saves models/model.joblib, on "
        "data/train.csv, and predicts churned"
    )
    assert said in planned.next
