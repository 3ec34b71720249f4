"""Real children tell the variables that they got: none of the command's credentials."""

import json
import subprocess
from pathlib import Path

import pytest

from mlship.adapters.checkout.predictor import ChildPredictor
from mlship.adapters.checkout.tester import PytestTester
from mlship.adapters.checkout.trainer import ChildTrainer
from mlship.domain.bundle import Row
from tests.harness.places import place
from tests.harness.projects import config, flowers
from tests.harness.samples import release
from tests.unit.test_environment import CREDENTIALS

CODE = """
import json, os
from pathlib import Path
from sklearn.linear_model import LogisticRegression

def tell(name):
    Path({root!r}, name).write_text(json.dumps(dict(os.environ)))

def preprocess(rows):
    tell("predicted.json")
    return rows[["length", "width"]]

def train(data, params):
    tell("trained.json")
    return LogisticRegression().fit(data[["length", "width"]], data.species)
"""
TEST = """
import json, os
from pathlib import Path

def test_tell():
    Path({root!r}, "tested.json").write_text(json.dumps(dict(os.environ)))
"""


class Notes:
    def note(self, text: str) -> None: ...


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("DATA_KEY", "for the data")
    monkeypatch.setenv("PGPASSWORD", "for the database")


def told(root: Path, name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((root / name).read_text())
    return found


@pytest.mark.cold
def test_training_hooks_and_tests_get_no_credentials(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "pipeline.py").write_text(CODE.format(root=str(tmp_path)))
    (tmp_path / "tests/unit").mkdir(parents=True)
    (tmp_path / "tests/unit/test_x.py").write_text(TEST.format(root=str(tmp_path)))
    flowers().to_csv(tmp_path / "data.csv", index=False)
    settings = config(preprocess="pipeline:preprocess", environment=["DATA_KEY"])
    bundle = tmp_path / ".mlship/bundle"
    ChildTrainer(tmp_path, settings, Notes()).train(bundle)
    tested = PytestTester(tmp_path, settings).test("unit", bundle=None, server=None)
    assert tested is not None
    assert tested.failures == ()
    for name in ("trained.json", "tested.json"):
        variables = told(tmp_path, name)
        assert not set(variables) & {*CREDENTIALS, "PGPASSWORD"}, name
        assert variables["DATA_KEY"] == "for the data"
        assert variables["OMP_NUM_THREADS"] == "1"
    row: Row = {"length": 5.0, "width": 3.0, "leaves": 3, "colour": "blue", "price": 1.0}
    ChildPredictor().predict(bundle, [row])
    variables = told(tmp_path, "predicted.json")
    assert not set(variables) & {*CREDENTIALS, "PGPASSWORD", "DATA_KEY"}
    assert variables["PATH"]


@pytest.mark.cold
def test_replicas_proxy_and_supervisor_get_no_credentials(tmp_path: Path) -> None:
    with place(tmp_path) as local:
        local.deploy(release("one"), replicas=2)
        pids = [process.pid for process in local.processes()]
        assert len(pids) == 3
        for pid in (*pids, local.supervisor):
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            names = {line.partition(b"=")[0].decode() for line in variables}
            assert "PATH" in names
            assert not names & {*CREDENTIALS, "DATA_KEY"}
            assert ("PGPASSWORD" in names) is (pid == local.supervisor)
