"""Detection of the GitHub repository of a project, and of the token for it."""

import re
from collections.abc import Mapping

_REMOTE = re.compile(r"(?:https://|git@|ssh://git@)github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?")


def look(environment: Mapping[str, str], remote: str) -> str:
    """Return the repository and whether there is a token; empty if the project is not on GitHub.

    Args:
        environment: a job has GITHUB_REPOSITORY, and GITHUB_TOKEN if it was passed.
        remote: the URL of the git remote; empty if there is none.
    """
    match = _REMOTE.fullmatch(remote.strip())
    repository = environment.get("GITHUB_REPOSITORY") or (match[1] if match else "")
    if not repository:
        return ""
    if environment.get("GITHUB_TOKEN", "").strip():
        return f"repository {repository}, GITHUB_TOKEN is set"
    needs = "comments, open-release-pr and reviews need it"
    return f"repository {repository}; GITHUB_TOKEN is not set: {needs}"
