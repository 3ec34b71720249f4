"""Whether a project is on GitHub, and whether there is a token to talk to it."""

import re
from collections.abc import Mapping

_REMOTE = re.compile(r"(?:https://|git@|ssh://git@)github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?")


def look(environment: Mapping[str, str], remote: str) -> str:
    """Return the repository and whether there is a token; empty where the project is not on GitHub.

    Args:
        environment: a job has GITHUB_REPOSITORY, and GITHUB_TOKEN where it was passed on.
        remote: the address of the git remote; empty for none.
    """
    found = _REMOTE.fullmatch(remote.strip())
    repository = environment.get("GITHUB_REPOSITORY") or (found[1] if found else "")
    if not repository:
        return ""
    if environment.get("GITHUB_TOKEN", "").strip():
        return f"repository {repository}, and a token"
    needs = "comments, open-release-pr and approve --from-pull-request need it"
    return f"repository {repository}; GITHUB_TOKEN is not set: {needs}"
