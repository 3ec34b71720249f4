"""The CI job in which a command runs, and protection against commands to its runner."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import msgspec

Way = Literal["cml", "github", "summary"]
"""How a report is published: a comment by CML or by mlship, or the summary of the job."""

_PULL = re.compile(r"refs/pull/(\d+)/(?:merge|head)")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
# For the runner, \r and \n each end a line, and `##[` may be anywhere in a line.
_COMMAND = re.compile(r"(?:^|(?<=[\r\n]))(\s*)(?=::)|(?<=##)(?=\[)")
_WORD_JOINER = "\u2060"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A CI job. Outside of a job the fields are empty.

    Attributes:
        url: the page of the run, with its log and artifacts.
        pull: the number of the pull request that the job runs for.
        branch: the branch; untrusted text: escape it.
        commit: the commit.
        summary: the file for the step's summary.
        outputs: the file for the step's outputs.
    """

    url: str = ""
    pull: int | None = None
    branch: str = ""
    commit: str = ""
    summary: Path | None = None
    outputs: Path | None = None


def of(environment: Mapping[str, str]) -> Job:
    """Return the job that the environment variables describe.

    Source: https://docs.github.com/en/actions/reference/workflows-and-actions/variables
    """
    pull = _PULL.fullmatch(environment.get("GITHUB_REF", ""))
    is_branch = environment.get("GITHUB_REF_TYPE") == "branch" and not pull
    named = environment.get("GITHUB_REF_NAME", "") if is_branch else ""
    return Job(
        url=_run(environment),
        pull=int(pull[1]) if pull else None,
        branch=environment.get("GITHUB_HEAD_REF") or named,
        commit=environment.get("GITHUB_SHA", ""),
        summary=_path(environment, "GITHUB_STEP_SUMMARY"),
        outputs=_path(environment, "GITHUB_OUTPUT"),
    )


def inert(text: str) -> str:
    """Return text that contains no command for the job's runner.

    A runner parses everything that a step prints: `::set-output name=release::x` would set an
    output, and `##[add-mask]x` would mask a word in the rest of the log. A zero-width character
    prevents it.

    Source: https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs
    """
    return _COMMAND.sub(lambda match: f"{match[1] or ''}{_WORD_JOINER}", text)


def _run(environment: Mapping[str, str]) -> str:
    repository, run = environment.get("GITHUB_REPOSITORY", ""), environment.get("GITHUB_RUN_ID", "")
    if not _REPOSITORY.fullmatch(repository) or not run:
        return ""
    server = environment.get("GITHUB_SERVER_URL", "https://github.com").rstrip("/")
    return f"{server}/{repository}/actions/runs/{quote(run, safe='')}"


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    return Path(environment[name]) if environment.get(name) else None
