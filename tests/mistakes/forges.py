"""Mistakes with GitHub: tokens, permissions, limits, pull requests; against the stand-in for it."""

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

from tests.mistakes.project import Project
from tests.mistakes.remote import Remote, RemoteMistake, proven
from tests.mistakes.starts import Starts
from tests.stand_ins.faulty import Fault, before
from tests.stand_ins.github import serving
from tests.stand_ins.github_state import State

_NAME = "ada/iris"
_HOUR = 3600


class GitHub(Remote):
    """A repository with a pull request from develop to main, and a job's environment."""

    def __init__(self, project: Project, starts: Starts) -> None:
        super().__init__(project)
        self.state = State()
        for login in ("ada", "grace"):
            self.state.add_account(login)
        self.kept = self.state.add_repository(_NAME, grace="write")
        self.state.add_token("job", "github-actions[bot]", pull_requests="write", contents="read")
        self.state.add_token("reader", "github-actions[bot]", pull_requests="read", contents="read")
        self._push()
        proven(project, "test", "verify-staging-workload")
        url = project.held.enter_context(serving(self.state))
        self.proxy = project.held.enter_context(before(url))
        project.variables |= {
            "GITHUB_API_URL": f"http://{self.proxy.host}",
            "GITHUB_SERVER_URL": url,
            "GITHUB_REPOSITORY": _NAME,
            "GITHUB_TOKEN": "job",
        }
        self.names |= {self.proxy.host: "HOST", url: "URL"}
        self.settle()

    def _push(self) -> None:
        argv = ["git", "rev-parse", "HEAD"]
        done = subprocess.run(
            argv, cwd=self.project.folder, capture_output=True, text=True, check=True
        )
        for branch, sha in (
            ("main", "b" * 40),
            ("develop", "b" * 40),
            ("develop", done.stdout.strip()),
        ):
            self.state.commit(_NAME, branch, sha, "ada@example.org")
        self._branches = dict(self.kept["branches"])

    def left(self) -> dict[str, str]:
        """Return the pull requests and the comments."""
        kept = {f"pull {one['number']}": one for one in self.state.data["pulls"]}
        kept |= {f"comment {one['id']}": one for one in self.state.data["comments"]}
        shown = ("state", "title", "body", "head", "base", "issue", "author")
        return {
            name: json.dumps({key: one[key] for key in shown if key in one})
            for name, one in kept.items()
        }

    def mend(self) -> None:
        super().mend()
        self.proxy.faults.clear()
        self.proxy.up()
        self.state.data["planned"].clear()
        self.kept["jobs_may_open_pulls"] = True
        self.kept["branches"] = dict(self._branches)


class Reviewed(GitHub):
    """The same, in the job of an open pull request."""

    def __init__(self, project: Project, starts: Starts) -> None:
        super().__init__(project, starts)
        self.state.open_pull(_NAME, "ada", head="develop", base="main", title="Petals")
        project.variables["GITHUB_REF"] = "refs/pull/1/merge"
        self.settle()


def _sets(**variables: str) -> Callable[[Remote], None]:
    return lambda remote: remote.project.variables.update(variables)


def _answers(
    status: int, message: str = "", at: str = "", **headers: str
) -> Callable[[GitHub], None]:
    body = json.dumps({"message": message}) if message else "<html>Unicorn!</html>"
    fields = {name.replace("_", "-"): value for name, value in headers.items()}

    def breaks(remote: GitHub) -> None:
        remote.proxy.faults.append(Fault(status=status, body=body, headers=fields, at=at))

    return breaks


def _spent(remote: GitHub) -> None:
    reset = str(int(time.time()) + _HOUR)
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}
    remote.proxy.faults.append(
        Fault(status=403, body='{"message": "API rate limit exceeded"}', headers=headers)
    )


def _forbids_jobs(remote: GitHub) -> None:
    remote.kept["jobs_may_open_pulls"] = False


def _forgets_main(remote: GitHub) -> None:
    del remote.kept["branches"]["main"]


def _merged(remote: GitHub) -> None:
    remote.kept["branches"]["main"] = remote.kept["branches"]["develop"]


def _opens(name: str, breaks: Callable[[Any], object], **more: Any) -> RemoteMistake:
    return RemoteMistake(
        name=name,
        on="trained",
        at=GitHub,
        breaks=breaks,
        command=("open-release-pr",),
        **{"code": 4, **more},
    )


def _comments(name: str, breaks: Callable[[Any], object], **more: Any) -> RemoteMistake:
    return RemoteMistake(
        name=name,
        on="trained",
        at=Reviewed,
        breaks=breaks,
        command=("report", "--publish", "github"),
        **{"code": 4, **more},
    )


FORGES = (
    _opens(
        "no GitHub token",
        _sets(GITHUB_TOKEN=""),
        code=2,
        says="GITHUB_TOKEN is not set",
        hints="env of the step",
    ),
    _opens(
        "a GitHub token that is no more",
        _sets(GITHUB_TOKEN="old"),
        code=2,
        says="does not accept the token",
        hints="secrets.GITHUB_TOKEN",
    ),
    _opens(
        "a GitHub token without the permission",
        _sets(GITHUB_TOKEN="reader"),
        code=2,
        says="may not open a pull request from develop to main",
        hints="pull-requests: write",
    ),
    _comments(
        "a GitHub token that may not comment",
        _sets(GITHUB_TOKEN="reader"),
        code=2,
        says="may not comment on pull request 1",
        hints="pull-requests: write",
    ),
    _opens(
        "GitHub's limit of requests",
        _spent,
        says="rate limit of GitHub is exceeded until",
        hints="after that",
    ),
    _comments(
        "GitHub's limit of comments",
        _answers(403, "You have exceeded a secondary rate limit", "^POST", Retry_After="120"),
        says="rate limit of GitHub is exceeded until",
        hints="after that",
    ),
    _opens("GitHub is in trouble", _answers(502), says="status 502", hints="run the command again"),
    _comments(
        "GitHub is in trouble when it is to comment",
        _answers(502, at="^POST"),
        says="could not comment on pull request 1: status 502",
        hints="run the command again",
    ),
    _opens(
        "GitHub cannot be reached",
        lambda remote: remote.proxy.down(),
        says="cannot reach",
        is_slow=True,
        hints="githubstatus.com",
    ),
    _opens(
        "GitHub does not answer",
        lambda remote: remote.proxy.faults.append(Fault(status=0)),
        says="timed out",
        is_slow=True,
        hints="githubstatus.com",
    ),
    _opens(
        "an address that is no GitHub's",
        _answers(200),
        says="invalid response from GitHub",
        is_slow=True,
        hints="GITHUB_API_URL",
    ),
    _opens(
        "a repository that the token does not see",
        _sets(GITHUB_REPOSITORY="ada/iri"),
        code=5,
        says="GitHub cannot list the pull requests of ada/iri",
        is_slow=True,
        hints="repository",
    ),
    _opens(
        "GitHub's setting forbids jobs to open pull requests",
        _forbids_jobs,
        code=2,
        says="does not allow jobs to open pull requests",
        hints="allow GitHub Actions",
    ),
    _opens(
        "GitHub has no such branch",
        _forgets_main,
        code=5,
        says="or main does not exist on GitHub",
        is_slow=True,
        hints="push both branches",
    ),
    _opens(
        "nothing to bring to main",
        _merged,
        code=3,
        says="develop has no commits that main lacks",
        is_slow=True,
        hints="nothing to release",
    ),
    _comments(
        "a pull request that does not exist",
        _sets(GITHUB_REF="refs/pull/77/merge"),
        code=5,
        says="pull request 77",
        is_slow=True,
        hints="number",
    ),
)
