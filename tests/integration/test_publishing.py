"""The real commands against the stand-in for GitHub: comments, the pull request, approvals."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from markdown_it import MarkdownIt

from mlship.adapters.forges.cml import CmlComments
from mlship.adapters.forges.github.forge import GitHubForge
from mlship.adapters.ledgers.directory import DirectoryLedger
from mlship.domain import digests
from mlship.domain.evidence import Evidence, Step, Verdict
from mlship.domain.release import Release
from mlship.errors import ConfigError, UnavailableError
from tests.harness import asking, commands
from tests.harness.pictures import png
from tests.harness.repositories import ADA
from tests.harness.samples import NOON, release
from tests.harness.signing import at
from tests.stand_ins import github_git
from tests.stand_ins.github import serving
from tests.stand_ins.github_state import State

ROOT = Path(__file__).parents[2]
STAND_INS = ROOT / "tests" / "stand_ins"
REPOSITORY = "ada/iris"
BRANCH = 'x";touch${IFS}pwn;#'
SUBJECT = "@team `touch pwn` $(touch pwn) closes #1 ::error::x <script>alert(1)</script>"
PROJECT = """
name: iris
data: {train: train.csv, test: test.csv, target: species}
model: {train: "pipeline:train"}
store: {kind: directory}
gates: {promote: {approvals: 1}}
"""
TESTED: dict[str, Any] = {
    "task": "classification",
    "samples": 30,
    "metrics": {"accuracy": 0.97},
    "labels": ["setosa", "@team"],
    "confusion": [[15, 0], [1, 14]],
    "plots": ["confusion.png"],
}


class Desk:
    """A project's folder, a GitHub beside it, and a job's environment."""

    def __init__(self, folder: Path, state: State, url: str) -> None:
        self.folder, self.state, self.url = folder, state, url
        self.temporary = folder.parent
        git = ("git", *ADA)
        for argv in (
            ("git", "init", "-q", "-b", BRANCH),
            ("git", "add", "-A"),
            (*git, "commit", "-q", "-m", SUBJECT),
        ):
            subprocess.run(argv, cwd=folder, check=True)
        told = subprocess.run(
            ("git", "rev-parse", "HEAD"), cwd=folder, check=True, capture_output=True, text=True
        )
        self.sha = told.stdout.strip()
        self.release = self._evidence()
        state.commit(REPOSITORY, "main", "b" * 40, "ada@example.org")
        state.commit(REPOSITORY, BRANCH, "b" * 40, "ada@example.org")
        state.commit(REPOSITORY, BRANCH, self.sha, "ada@example.org")
        self.environment = {
            "PATH": f"{STAND_INS}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.temporary),
            "GITHUB_ACTIONS": "true",
            "GITHUB_API_URL": url,
            "GITHUB_SERVER_URL": url,
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_REF": "refs/heads/x",
            "GITHUB_REF_NAME": BRANCH,
            "GITHUB_REF_TYPE": "branch",
            "GITHUB_SHA": self.sha,
            "GITHUB_RUN_ID": "7",
            "GITHUB_TOKEN": "job",
            "GITHUB_STEP_SUMMARY": str(self.temporary / "summary.md"),
            "GITHUB_OUTPUT": str(self.temporary / "output"),
            "RUNNER_TEMP": str(self.temporary),
        }

    def _evidence(self) -> Release:
        commit = {"sha": self.sha, "branch": BRANCH, "author": "ada@example.org"}
        steps: list[tuple[Step, Verdict, dict[str, Any]]] = [
            ("train", "passed", {"commit": {**commit, "subject": SUBJECT, "dirty": False}}),
            ("test", "passed", TESTED),
            ("verify-staging-workload", "passed", {"requests": 3}),
        ]
        found = msgspec.structs.replace(release(), commit=self.sha)
        ledger = DirectoryLedger(self.folder / ".mlship" / "ledger", at(self.temporary))
        for step, verdict, facts in steps:
            ledger.append(
                Evidence(
                    release=found, step=step, verdict=verdict, facts=facts, actor="ci", time=NOON
                )
            )
        return found

    def mlship(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return commands.run(
            *arguments,
            folder=self.folder,
            environment={**self.environment, **changes},
            seconds=60,
        )

    def without_cml(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        path = self.environment["PATH"].removeprefix(f"{STAND_INS}{os.pathsep}")
        return self.mlship(*arguments, PATH=path)

    def comments(self) -> list[str]:
        return [str(one["body"]) for one in self.state.data["comments"]]

    def writes(self) -> int:
        return sum(call["method"] != "GET" for call in self.state.data["calls"])


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "mlship.yaml").write_text(PROJECT)
    (folder / ".gitignore").write_text(".mlship/\n")
    state = State()
    for login in ("ada", "grace"):
        state.add_account(login)
    state.add_repository(REPOSITORY, grace="write")
    state.add_token("job", "github-actions[bot]", pull_requests="write", contents="read")
    state.add_token("fork", "github-actions[bot]", pull_requests="read", contents="read")
    state.add_token("writer", "github-actions[bot]", pull_requests="write", contents="write")
    with serving(state) as url:
        yield Desk(folder, state, url)


def test_a_hostile_branch_and_subject_are_reported_and_nothing_of_them_runs(desk: Desk) -> None:
    desk.state.open_pull(REPOSITORY, "ada", head=BRANCH, base="main", title=SUBJECT)
    ways = ("--publish", "github", "--publish", "cml", "--publish", "summary")
    done = desk.mlship("report", str(desk.release), *ways)
    assert done.returncode == 0, done.stderr
    [comment] = desk.comments()
    summary = (desk.temporary / "summary.md").read_text()
    assert re.match(r"<!-- mlship report of iris .* -->\n## ✅ iris@", comment)
    for text in (comment, summary):
        assert "<script>" not in text
        assert "@team" not in text
        assert f"{desk.url}/{REPOSITORY}/actions/runs/7#artifacts" in text
    assert not list(desk.temporary.rglob("pwn"))


@pytest.mark.parametrize("way", ["github", "cml"])
def test_publishing_again_replaces_the_comment(desk: Desk, way: str) -> None:
    desk.state.open_pull(REPOSITORY, "ada", head=BRANCH, base="main", title="Petals")
    for _ in range(3):
        assert desk.mlship("report", str(desk.release), "--publish", way).returncode == 0
    assert len(desk.comments()) == 1
    assert desk.writes() == (1 if way == "github" else 3)


@pytest.mark.parametrize("way", ["github", "cml"])
def test_a_forks_job_succeeds_and_reports_on_its_page(desk: Desk, way: str) -> None:
    desk.state.add_account("mallory")
    pull = desk.state.open_pull(
        REPOSITORY,
        "mallory",
        head=BRANCH,
        base="main",
        title="From a fork",
        head_repository="mallory/iris",
        head_sha="f" * 40,
    )
    done = desk.mlship(
        *("report", str(desk.release), "--publish", way),
        GITHUB_TOKEN="fork",
        GITHUB_REF=f"refs/pull/{pull['number']}/merge",
    )
    assert done.returncode == 0, done.stderr
    assert "not posted; the token of a fork" in done.stdout
    assert "## ✅ iris@" in (desk.temporary / "summary.md").read_text()
    assert desk.comments() == []


@pytest.mark.parametrize("way", ["github", "cml"])
def test_a_token_without_the_permission_is_told_which(desk: Desk, way: str) -> None:
    desk.state.open_pull(REPOSITORY, "ada", head=BRANCH, base="main", title="Petals")
    done = desk.mlship("report", str(desk.release), "--publish", way, GITHUB_TOKEN="fork")
    assert done.returncode == 2
    assert "pull-requests: write" in done.stderr
    assert "::error title=mlship::" in done.stderr


def test_without_cml_on_the_path_mlship_posts_and_says_so(desk: Desk) -> None:
    desk.state.open_pull(REPOSITORY, "ada", head=BRANCH, base="main", title="Petals")
    done = desk.without_cml("report", str(desk.release), "--publish", "cml")
    assert done.returncode == 0, done.stderr
    assert "posted by mlship instead of CML: the program cml is not on PATH" in done.stdout
    notices = [line for line in done.stderr.splitlines() if line.startswith("::notice")]
    assert len(notices) == 1
    assert "the program cml is not on PATH" in notices[0]
    assert len(desk.comments()) == 1


def test_the_one_comment_is_updated_whoever_posted_it(desk: Desk) -> None:
    desk.state.open_pull(REPOSITORY, "ada", head=BRANCH, base="main", title="Petals")
    by_cml = ("report", str(desk.release), "--publish", "cml")
    assert desk.mlship(*by_cml).returncode == 0
    assert desk.comments()[0].endswith('"CML watermark mlship iris")')
    assert "cml: updated: " in desk.without_cml(*by_cml).stdout
    [comment] = desk.comments()
    assert not comment.endswith('"CML watermark mlship iris")')
    assert desk.mlship(*by_cml).returncode == 0
    assert desk.mlship("report", str(desk.release), "--publish", "github").returncode == 0
    assert desk.mlship(*by_cml).returncode == 0
    assert len(desk.comments()) == 1


def handed_over(desk: Desk) -> Path:
    """Write the report with its picture, as the job that runs the project's code; return it."""
    plots = desk.folder / ".mlship" / "plots" / digests.short(desk.release.bundle)
    plots.mkdir(parents=True)
    (plots / "confusion.png").write_bytes(png())
    report = desk.temporary / "report"
    done = desk.mlship("report", str(desk.release), "--to", str(report), GITHUB_TOKEN="")
    assert done.returncode == 0, done.stderr
    elsewhere = desk.temporary / "elsewhere"
    elsewhere.mkdir()
    desk.folder = elsewhere
    return report


@pytest.mark.parametrize("way", ["github", "cml"])
def test_a_job_without_the_project_posts_the_report_of_another_with_its_pictures(
    desk: Desk, way: str
) -> None:
    desk.state.open_pull(REPOSITORY, "ada", head=BRANCH, base="main", title="Petals")
    post = ("report", "--from", str(handed_over(desk)), "--publish", way, "--pictures")
    for _ in range(2):
        done = desk.mlship(*post, GITHUB_TOKEN="writer")
        assert done.returncode == 0, done.stderr
        assert "::notice" not in done.stderr
    [comment] = desk.comments()
    address = f"{desk.url}/{REPOSITORY}/blob/mlship-reports/iris/1/1/confusion.png?raw=true"
    assert f"![confusion.png]({address})" in comment
    files = github_git.files(desk.state, REPOSITORY, "mlship-reports")
    assert files["iris/1/1/confusion.png"] == png()
    assert list(desk.folder.iterdir()) == []


def test_without_the_right_to_write_contents_the_comment_is_text_and_the_job_succeeds(
    desk: Desk,
) -> None:
    desk.state.open_pull(REPOSITORY, "ada", head=BRANCH, base="main", title="Petals")
    done = desk.mlship("report", "--from", str(handed_over(desk)), "--publish", "cml", "--pictures")
    assert done.returncode == 0, done.stderr
    assert "without pictures: the token in GITHUB_TOKEN may not write pictures" in done.stdout
    assert done.stderr.count("::notice") == 1
    [comment] = desk.comments()
    assert "confusion.png" not in comment
    assert "| **setosa** | 🟩 15 (100%) |" in comment


def test_what_another_job_handed_over_is_data(desk: Desk) -> None:
    desk.state.open_pull(REPOSITORY, "ada", head=BRANCH, base="main", title="Petals")
    report = handed_over(desk)
    values = json.loads((report / "report.json").read_text())
    values |= {
        "title": SUBJECT,
        "staging": "https://evil.example",
        "endpoint": "https://evil.example",
    }
    values["trained"]["attachments"] = {
        "files": [{"path": "x.csv", "digest": "sha256:0", "size": 1, "cells": [[SUBJECT]]}] * 1_000,
        "missing": [SUBJECT] * 1_000,
    }
    values["tested"]["plots"] = ["../../secret.png", "x](javascript:alert(1)).png"]
    (desk.temporary / "secret.png").write_bytes(png(grey=3))
    (report / "plots" / "x](javascript:alert(1)).png").write_bytes(png())
    (report / "report.json").write_text(json.dumps(values))
    (report / "report.md").write_text("<script>not read</script>")
    post = ("report", "--from", str(report), "--publish", "github", "--pictures")
    assert desk.mlship(*post, GITHUB_TOKEN="writer").returncode == 0
    [comment] = desk.comments()
    page = str(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(comment))
    assert "<script" not in page
    assert "evil" not in comment
    assert "@team" not in comment
    assert page.count("x.csv") == 10
    assert re.findall(r'<img src="([^"]*)"', page) == [
        f"{desk.url}/{REPOSITORY}/blob/mlship-reports/iris/1/1/x-javascript-alert-1.png?raw=true"
    ]
    (report / "report.json").write_text('{"title": "x"}')
    refused = desk.mlship(*post, GITHUB_TOKEN="writer")
    assert refused.returncode == 7
    assert "is not a report" in refused.stderr


def test_a_way_that_there_is_not_is_told(desk: Desk) -> None:
    done = desk.mlship("report", str(desk.release), "--publish", "fax")
    assert done.returncode == 2
    assert "cml, github, summary" in done.stderr


@pytest.mark.parametrize("way", ["cml", "github"])
def test_on_a_laptop_the_way_to_see_the_report_is_named(desk: Desk, way: str) -> None:
    laptop = {"GITHUB_REPOSITORY": "", "GITHUB_ACTIONS": ""}
    of_release = desk.mlship("report", str(desk.release), "--publish", way, **laptop)
    folder = handed_over(desk)
    of_folder = desk.mlship("report", "--from", str(folder), "--publish", way, **laptop)
    for done in (of_release, of_folder):
        assert done.returncode == 2
        error, hint = done.stderr.splitlines()
        assert "comments on a pull request, from a workflow on GitHub" in error
        assert "`mlship report --markdown`" in hint
    assert desk.writes() == 0


def test_from_the_pull_request_to_an_approval_and_each_command_twice(desk: Desk) -> None:
    opened = desk.mlship("open-release-pr", str(desk.release), "--head", BRANCH)
    assert opened.returncode == 0, opened.stderr
    assert opened.stdout.startswith(f"{desk.url}/{REPOSITORY}/pull/1 (created)")
    assert f"{desk.url}/{REPOSITORY}/pull/1" in (desk.temporary / "output").read_text()
    before = desk.writes()
    again = desk.mlship("open-release-pr", str(desk.release), "--head", BRANCH)
    assert "(unchanged)" in again.stdout
    assert desk.writes() == before
    take = ("approve", str(desk.release), "--from-pull-request", "1")
    refused = desk.mlship(*take)
    assert refused.returncode == 3
    assert "0 of 1 approvals" in refused.stderr
    desk.state.add_review(REPOSITORY, 1, "grace", "APPROVED", body=SUBJECT)
    approved = desk.mlship(*take, "--json")
    assert approved.returncode == 0, approved.stderr
    assert json.loads(approved.stdout)["people"] == ["grace"]
    kept = len(DirectoryLedger(desk.folder / ".mlship" / "ledger").records())
    assert desk.mlship(*take).returncode == 0
    assert len(DirectoryLedger(desk.folder / ".mlship" / "ledger").records()) == kept
    desk.state.add_review(REPOSITORY, 1, "grace", "DISMISSED")
    dismissed = desk.mlship(*take)
    assert dismissed.returncode == 3
    assert "grace: dismissed" in dismissed.stderr
    assert len(DirectoryLedger(desk.folder / ".mlship" / "ledger").records()) == kept + 1


def test_cml_is_called_without_a_third_party_and_with_little_of_the_environment(
    desk: Desk, tmp_path: Path
) -> None:
    spy = tmp_path / "bin" / "cml"
    spy.parent.mkdir()
    spy.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "json.dump([sys.argv[1:], dict(os.environ)], open(os.environ['RUNNER_TEMP'] + '/c', 'w'))\n"
        "print('https://github.com/ada/iris/pull/3#issuecomment-1')\n"
    )
    spy.chmod(0o755)
    environment = {
        **desk.environment,
        "PATH": str(spy.parent),
        "MLFLOW_TRACKING_PASSWORD": "secret",
        "GOOGLE_APPLICATION_CREDENTIALS": "secret",
    }
    get = GitHubForge(environment, "iris").get
    posted = CmlComments("iris", environment, get).comment(3, "text")
    assert posted.url == "https://github.com/ada/iris/pull/3#issuecomment-1"
    argv, seen = json.loads((tmp_path / "c").read_text())
    assert argv[:4] == ["comment", "update", "--target", "pr/3"]
    assert "--publish=false" in argv
    assert argv[argv.index("--watermark-title") + 1] == "mlship iris"
    assert (seen["REPO_TOKEN"], seen["ITERATIVE_DO_NOT_TRACK"]) == ("job", "1")
    assert "secret" not in seen.values()


def test_a_cml_that_fails_is_told_with_its_last_line(desk: Desk) -> None:
    environment = {**desk.environment, "GITHUB_REPOSITORY": "ada/other"}
    get = GitHubForge(environment, "iris").get
    with pytest.raises(UnavailableError, match="Not Found"):
        CmlComments("iris", environment, get).comment(1, "text")
    with pytest.raises(ConfigError, match="GITHUB_TOKEN is not set"):
        CmlComments("iris", {**environment, "GITHUB_TOKEN": ""}, get).comment(1, "text")


@pytest.mark.parametrize(
    "arguments",
    [
        ["comment", "update", "--colour", "red", "report.md"],
        ["comment", "update"],
        ["comment", "delete", "report.md"],
        ["comment", "update", "--pr", "--target", "pr/1", "report.md"],
        ["comment", "update", "--rm-watermark", "report.md"],
        ["comment", "update", "--driver", "gitea", "report.md"],
        ["comment", "update", "--target", "nothing", "--publish=false", "report.md"],
        ["comment", "create", "report.md"],
    ],
)
def test_the_stand_in_for_cml_refuses_what_cml_refuses(desk: Desk, arguments: list[str]) -> None:
    (desk.folder / "report.md").write_text("![plot](plot.png)")
    done = subprocess.run(
        [str(STAND_INS / "cml"), "--repo", f"{desk.url}/{REPOSITORY}", *arguments],
        cwd=desk.folder,
        env={**desk.environment, "REPO_TOKEN": "job"},
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert desk.writes() == 0


def test_the_stand_in_for_github_runs_as_a_program_on_a_real_repository(tmp_path: Path) -> None:
    work, bare, kept = tmp_path / "work", tmp_path / "iris.git", tmp_path / "github.json"
    git = ("git", "-C", str(work), *ADA)
    for argv in (
        ("git", "init", "-q", "-b", "main", str(work)),
        (*git, "commit", "-q", "--allow-empty", "-m", "begin"),
        (*git, "switch", "-q", "-c", "develop"),
        (*git, "commit", "-q", "--allow-empty", "-m", "change"),
        ("git", "clone", "-q", "--bare", str(work), str(bare)),
    ):
        subprocess.run(argv, check=True)
    state = State(file=kept)
    for login in ("ada", "grace"):
        state.add_account(login)
    state.add_repository(REPOSITORY, git=bare, grace="write")
    state.add_token("job", "github-actions[bot]", pull_requests="write", contents="read")
    state.add_token("of-grace", "grace", pull_requests="write", contents="write")
    state.save()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = [sys.executable, "-m", "tests.stand_ins.github", "--port", str(port)]
    process = subprocess.Popen(
        [*program, "--state", str(kept)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        url = process.stdout.readline().strip()
        environment = {
            "GITHUB_API_URL": f"{url}/api/v3",
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_TOKEN": "job",
        }
        forge = GitHubForge(environment, "iris")
        assert forge.open("develop", "main", "Release", "body").change == "created"
        headers = {"Authorization": "Bearer of-grace"}
        pulls = f"{url}/repos/{REPOSITORY}/pulls/1"
        asking.post(f"{pulls}/reviews", json={"event": "APPROVE"}, headers=headers)
        merged = asking.put(f"{pulls}/merge", headers=headers).json()["sha"]
        found = forge.reviews(1)
        assert (found.pull.state, found.contents) == ("merged", (found.pull.commit, merged))
        assert [one.by for one in found.latest if one.may_write] == ["grace"]
        told = subprocess.run(
            ("git", "-C", str(bare), "rev-parse", "main"),
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.strip() == merged
    finally:
        process.terminate()
        process.communicate(timeout=10)
    assert json.loads(kept.read_text())["calls"]
