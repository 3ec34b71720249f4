"""The CI job that a command runs in, as GitHub's environment variables tell it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import msgspec

Way = Literal["cml", "github", "summary"]
"""How a report is published: a comment by CML or by us, or the page of the job."""

_PULL = re.compile(r"refs/pull/(\d+)/(?:merge|head)")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A CI job. Outside of one the fields are empty.

    Attributes:
        url: the page of the run, with its log and artifacts.
        pull: the number of the pull request that the job runs for.
        branch: that is built; made by a user: escape it.
        commit: that is built.
        summary: the file that becomes the step's summary.
        outputs: the file that takes the step's outputs.
    """

    url: str = ""
    pull: int | None = None
    branch: str = ""
    commit: str = ""
    summary: Path | None = None
    outputs: Path | None = None


def of(environment: Mapping[str, str]) -> Job:
    """Return the job that an environment tells of.

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


def _run(environment: Mapping[str, str]) -> str:
    repository, run = environment.get("GITHUB_REPOSITORY", ""), environment.get("GITHUB_RUN_ID", "")
    if not _REPOSITORY.fullmatch(repository) or not run:
        return ""
    server = environment.get("GITHUB_SERVER_URL", "https://github.com").rstrip("/")
    return f"{server}/{repository}/actions/runs/{quote(run, safe='')}"


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    return Path(environment[name]) if environment.get(name) else None
