"""The git repository around a folder: whether the folder belongs to it, and where others get it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from mlship.adapters.checkout import git
from mlship.domain import home as homes
from mlship.errors import ProjectError

_STEP = re.compile(r"\bmlship (?:train|deploy-|evaluate|promote|rollback|retire)")
_EMAIL, _WORKTREE = "user.email", "core.worktree"
_SETTINGS = r"^(user\.email|core\.worktree|remote\..*\.url)$"
_SSH = re.compile(r"(?:ssh://)?(?:[\w.-]+@)?(github\.com|gitlab\.com|bitbucket\.org)[:/](.+)")


def top_of(folder: Path) -> Path | None:
    """Return the top of the git repository that a folder belongs to, be the folder there or not.

    A folder that git ignores does not belong to the repository around it: what is written there
    reaches nobody by it.
    """
    here = folder.resolve()
    top = next((path for path in (here, *here.parents) if (path / ".git").exists()), None)
    if top is None or top == here:
        return top
    inside = here.relative_to(top).as_posix()
    try:
        if git.run(top, "ls-files", "-z", "--", f"./{inside}", check=False):
            return top
        is_ignored = git.run(top, "check-ignore", "--", f"./{inside}/", check=False)
    except ProjectError:  # git is not installed
        return top
    return None if is_ignored else top


def not_ignored(top: Path | None, paths: Sequence[str]) -> Sequence[str]:
    """Return those of some paths that git does not ignore: all, without git or a repository."""
    if top is None:
        return paths
    try:
        return git.not_ignored(top, paths)
    except ProjectError:
        return paths


def settings(root: Path) -> dict[str, str]:
    """Return git's settings that `email` and `home` read; none without git."""
    try:
        listed = git.run(root, "config", "-z", "--get-regexp", _SETTINGS, check=False)
    except ProjectError:  # git is not installed
        return {}
    pairs = (entry.partition("\n") for entry in listed.split("\0") if entry)
    return {key: value for key, _, value in pairs}


def email(known: Mapping[str, str]) -> str:
    """Return the email address of the user by git's settings; empty if they have none."""
    return known.get(_EMAIL, "").encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def home(root: Path, known: Mapping[str, str] | None = None) -> str:
    """Return the home of the project in a folder, see `mlship.domain.home`.

    It is of the remote `origin`, or of the only remote.

    Args:
        root: the folder.
        known: git's settings there; without them, git is asked.
    """
    known = settings(root) if known is None else known
    remotes = {
        key.removeprefix("remote.").removesuffix(".url"): value
        for key, value in known.items()
        if key.startswith("remote.")
    }
    remote = remotes.get("origin") or (next(iter(remotes.values())) if len(remotes) == 1 else "")
    return homes.of(remote, _place(root, known))


def _place(root: Path, known: Mapping[str, str]) -> str:
    """Return the path of a folder in its repository; empty for the top, or without one."""
    has_own = all((root / ".git" / name).exists() for name in ("HEAD", "objects", "refs"))
    if has_own and _WORKTREE not in known:
        return ""
    try:
        return git.run(root, "rev-parse", "--show-prefix", check=False).removesuffix("\n")
    except ProjectError:  # git is not installed
        return ""


def workflows_of(top: Path) -> dict[str, str]:
    """Return the texts of a repository's workflows by their path from its top."""
    folder = top / ".github" / "workflows"
    paths = sorted((*folder.glob("*.yml"), *folder.glob("*.yaml")))
    return {
        path.relative_to(top).as_posix(): path.read_text("utf-8", "replace")
        for path in paths
        if path.is_file()
    }


def ignored_workflows(top: Path | None) -> list[str]:
    """Return the workflows with steps of mlship that git ignores: GitHub runs what is committed.

    Raises:
        ProjectError: there is no git or no repository.
    """
    if top is None:
        return []
    own = [path for path, text in workflows_of(top).items() if _STEP.search(text)]
    kept = git.not_ignored(top, own)
    return [path for path in own if path not in kept]


def published(folder: Path) -> str:
    """Return what a folder of a repository is installed from by others: git+ADDRESS@COMMIT.

    Only what the remotes are known to have is looked at; nothing is fetched.

    Raises:
        ProjectError: the folder is in no repository, has changes, or no remote that others can
            reach is known to have its commit.
    """
    inside = git.run(folder, "rev-parse", "--show-prefix").strip().rstrip("/")
    commit = git.run(folder, "rev-parse", "--verify", "HEAD").strip()
    if git.run(folder, "status", "--porcelain", "--untracked-files=normal", "--", "."):
        raise ProjectError(f"{folder} has changes that are in no commit")
    branches = git.run(
        folder, "for-each-ref", "--contains", commit, "--format=%(refname)", "refs/remotes"
    )
    remotes = dict.fromkeys(line.split("/")[2] for line in branches.splitlines())
    addresses = {
        remote: git.run(folder, "remote", "get-url", remote, check=False).strip()
        for remote in sorted(remotes, key=lambda name: name != "origin")
    }
    if not addresses:
        raise ProjectError(f"commit {commit[:12]} of {folder} is on no remote that git knows of")
    for address in addresses.values():
        if url := _reachable(address):
            return f"git+{url}@{commit}" + (f"#subdirectory={inside}" if inside else "")
    shown = ", ".join(addresses)
    raise ProjectError(f"jobs cannot reach the remote {shown} of {folder} by HTTPS")


def _reachable(address: str) -> str:
    """Return the HTTPS address of a remote, without user and password; empty for none."""
    ssh = _SSH.fullmatch(address)
    if ssh:
        return f"https://{ssh[1]}/{ssh[2].lstrip('/')}"
    parts = urlsplit(address)
    if parts.scheme != "https":
        return ""
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
