"""The steps that let a job sign as itself, run by act as they are rendered."""

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from mlship.adapters.ledgers.directory import DirectoryLedger
from tests.harness import workflows
from tests.harness.act import Ran, Runner
from tests.harness.repositories import QUICK
from tests.harness.samples import record, release
from tests.harness.sigstore import Authority

pytestmark = [pytest.mark.service("act"), pytest.mark.timeout(300)]

PROJECT = """
name: iris
data: {{train: data/train.csv, test: data/test.csv}}
model: {{train: "pipeline:train"}}
ledger: {{kind: directory, uri: {ledger}}}
store: {{kind: directory}}
trust:
  root: roots.jsonl
  signers:
    main: {{workflow: ada/iris/.github/workflows/main.yml, ref: refs/heads/main}}
"""
COMMIT = (
    *("-c", "user.name=ada", "-c", "user.email=ada@example.org"),
    *("commit", "--quiet", "--allow-empty", "-m", "next"),
)
NAMES = ("make a key for this job", "attest whose key it is", "sign with the key")


class Here:
    """A repository whose workflow has the steps of a rendered job, and then adds a record."""

    def __init__(self, folder: Path) -> None:
        self.ledger, keys = folder / "ledger", folder / "sigstore"
        self.repository = folder / "iris"
        for each in (keys, self.repository / ".github" / "workflows"):
            each.mkdir(parents=True)
        (self.repository / "roots.jsonl").write_bytes(Authority.kept(keys).root())
        (self.repository / "mlship.yaml").write_text(PROJECT.format(ledger=self.ledger))
        file = self.repository / ".github" / "workflows" / "main.yml"
        file.write_text(yaml.safe_dump(self._workflow(), sort_keys=False))
        for words in (
            ("init", "--quiet", "--initial-branch=main", "."),
            ("remote", "add", "origin", "https://github.com/ada/iris.git"),
            ("add", "."),
            COMMIT,
        ):
            self.git(*words)
        made = msgspec.structs.replace(record(release(), "train").evidence, home="")
        DirectoryLedger(self.ledger).append(made)
        self.runner = Runner(self.repository, folder / "home", {"STAND_IN_SIGSTORE": str(keys)})

    def _workflow(self) -> dict[str, Any]:
        text = workflows.rendered("jobs that sign with keys of their own")
        job = yaml.safe_load(text[".github/workflows/main.yml"])["jobs"]["release"]
        checkout = {"uses": "actions/checkout@" + "0" * 40}
        steps = [step for step in job["steps"] if step["name"] in NAMES]
        assert [step["name"] for step in steps] == list(NAMES)
        signs = {"name": "record", "run": "mlship ledger sign --yes"}
        jobs = {"release": {"runs-on": "ubuntu-latest", "steps": [checkout, *steps, signs]}}
        return {"name": "main", "on": "push", "jobs": jobs}

    def git(self, *words: str) -> None:
        subprocess.run(["git", *QUICK, *words], cwd=self.repository, check=True)

    def run(self) -> Ran:
        return self.runner.run("main.yml")

    def signed(self) -> int:
        return sum(each.envelope is not None for each in DirectoryLedger(self.ledger).records())


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def test_a_job_signs_without_a_secret(here: Here) -> None:
    ran = here.run()
    assert ran.code == 0, ran.log
    assert "records of this job are signed as main" in ran.log
    assert here.signed() == 1


def test_the_same_workflow_on_another_branch_signs_nothing(here: Here) -> None:
    here.git("checkout", "--quiet", "-b", "feature")
    # act finds the branch by its commit.
    here.git(*COMMIT)
    ran = here.run()
    assert ran.code != 0
    assert ran.steps["attest whose key it is"] is True
    assert "the branch is refs/heads/feature, not refs/heads/main" in ran.log
    assert here.signed() == 0
