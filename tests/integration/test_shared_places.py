"""Two projects on one tracking server and in one ledger: none takes what is the other's."""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness import commands, tracking
from tests.harness.projects import flowers
from tests.harness.team import git

CODE = """
from sklearn.linear_model import LogisticRegression


def train(data, params):
    return LogisticRegression(**params).fit(data[["length", "width"]], data.species)
"""


class Project:
    """A folder of a repository with a project, and what people do in it."""

    def __init__(self, folder: Path, name: str, server: str, **settings: Any) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "pipeline.py").write_text(CODE)
        flowers().to_csv(folder / "data.csv", index=False)
        values = {
            "name": name,
            "data": {"train": "data.csv", "target": "species", "split": {"stratify": "species"}},
            "model": {"train": "pipeline:train"},
            "gates": {"baseline": False, "min_rows": 1},
            "store": {"uri": server},
            "targets": {"production": {"replicas": 1}},
        }
        (folder / "mlship.yaml").write_text(yaml.safe_dump(values | settings))

    def run(self, *arguments: str) -> tuple[int, Any]:
        environment = {"HOME": os.environ["HOME"], "PATH": os.environ["PATH"]}
        done = commands.run("--json", *arguments, folder=self.folder, environment=environment)
        return done.returncode, json.loads(done.stdout)

    def passed(self, *arguments: str) -> Any:
        code, told = self.run(*arguments)
        assert code == 0, told
        return told


def committed(top: Path, remote: str = "") -> None:
    (top / ".gitignore").write_text(".mlship/\n__pycache__/\n")
    git("init", "-q", "-b", "main", at=top)
    if remote:
        git("remote", "add", "origin", remote, at=top)
    git("add", "-A", at=top)
    git("commit", "-q", "-m", "Begin", at=top)


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tracking.server(tmp_path_factory.mktemp("mlflow-server")) as url:
        yield url


@pytest.fixture
def name() -> str:
    return f"iris-{uuid.uuid4().hex[:8]}"


def test_a_copy_of_a_project_on_one_server_is_refused_before_it_takes_a_champion(
    tmp_path: Path, mlflow_server: str, name: str
) -> None:
    ledger = {"ledger": {"kind": "mlflow"}}
    ada = Project(tmp_path / "ada", name, mlflow_server, **ledger)
    committed(ada.folder, "git@github.com:ada/iris.git")
    first = ada.passed("train")
    eve = Project(tmp_path / "eve", name, mlflow_server, **ledger)
    committed(eve.folder, "https://github.com/eve/iris")
    code, told = eve.run("train")
    assert code == 8
    assert (
        "at the top of github.com/ada/iris; this one is at the top of github.com/eve/iris"
        in (told["message"])
    )
    assert 'home: "github.com/ada/iris"' in told["hint"]
    status = eve.passed("status")
    assert status["releases"] == []
    assert status["others"] == [f"{name}, at the top of github.com/ada/iris: 1 record"]
    assert [one["release"] for one in ada.passed("status")["releases"]] == [first["release"]]
    assert ada.passed("status")["others"] == []
    # With a ledger of its own it would still write to the other's model.
    code, told = eve.run("--set", "ledger.kind=directory", "train")
    assert (code, told["error"]) == (8, "ConflictError")
    assert f"experiment {name} of MLflow" in told["message"]


def test_two_projects_of_one_repository_share_a_server_under_their_own_names(
    tmp_path: Path, mlflow_server: str, name: str
) -> None:
    shared = {"ledger": {"kind": "directory", "uri": str(tmp_path / "ledger")}}
    churn = Project(tmp_path / "top" / "churn", name, mlflow_server, **shared)
    fraud = Project(tmp_path / "top" / "fraud", f"{name}-b", mlflow_server, **shared)
    committed(tmp_path / "top")
    try:
        for project in (churn, fraud):
            project.passed("run")
        for project, other in ((churn, f"{name}-b"), (fraud, name)):
            status = project.passed("status")
            assert [one["role"] for one in status["releases"]] == ["champion"]
            assert status["releases"][0]["release"].startswith(f"{status['name']}@")
            assert status["drift"] == []
            assert [line.partition(",")[0] for line in status["others"]] == [other]
    finally:
        for project in (churn, fraud):
            project.passed("down")


def test_a_project_that_moved_goes_on_with_its_former_home(
    tmp_path: Path, mlflow_server: str, name: str
) -> None:
    before = Project(tmp_path / "top" / "churn", name, mlflow_server, ledger={"kind": "mlflow"})
    committed(tmp_path / "top")
    release = before.passed("train")["release"]
    git("mv", "churn", "moved", at=tmp_path / "top")
    after = before
    after.folder = tmp_path / "top" / "moved"
    assert after.run("train")[0] == 8
    settings = after.folder / "mlship.yaml"
    settings.write_text(settings.read_text() + 'home: "//churn"\n')
    git("add", "-A", at=tmp_path / "top")
    git("commit", "-q", "-m", "Move", at=tmp_path / "top")
    after.passed("train")
    assert release in [one["release"] for one in after.passed("status")["releases"]]
