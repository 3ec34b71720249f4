"""Git, by its own program."""

import os
import shlex
import subprocess
import tempfile
from collections.abc import Collection
from pathlib import Path

from mlship.domain.commit import Merged
from mlship.errors import ProjectError

STATE = ".mlship"
"""The folder of mlship's own state in a project; it never counts as a change."""

_OF_ANOTHER_REPOSITORY = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
)

_LABELS = ("yours", "generated before", "generated now")
"""The names of the texts of a merge, in the marks of a conflict."""

_MOST_CONFLICTS = 127
"""The greatest exit code of `git merge-file` that is a number of conflicts."""

_NONE = 1
"""The exit code of `git check-ignore` for paths of which none is ignored."""

_BEGIN = "git init && git add -A && git commit"


def not_ignored(root: Path, paths: Collection[str]) -> list[str]:
    """Return those of some paths, from `root` or absolute, that git tracks or would add.

    A path in a submodule or behind a link is one: git does not tell what it is.

    Raises:
        ProjectError: there is no git.
    """
    ignored = _ignored(root, list(paths)) if paths else set()
    return [path for path in paths if path not in ignored]


def _ignored(root: Path, paths: list[str]) -> set[str]:
    asked = "".join(f"{path}\0" if path.startswith("/") else f"./{path}\0" for path in paths)
    done = _called(root, "check-ignore", "-z", "--stdin", given=asked)
    if done.returncode <= _NONE:
        told = done.stdout.decode("utf-8", "surrogateescape").split("\0")
        return {name.removeprefix("./") for name in told if name}
    if len(paths) == 1:
        return set()
    # One path that git refuses ends the answer for all.
    middle = len(paths) // 2
    return _ignored(root, paths[:middle]) | _ignored(root, paths[middle:])


def list_files(root: Path, patterns: tuple[str, ...]) -> list[Path]:
    """Return the files under `root` that git tracks or would add, by globs such as `*.py`.

    Raises:
        ProjectError: there is no git or no repository.
    """
    wanted = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = run(root, *wanted, "--", *patterns)
    names = sorted({name for name in listed.split("\0") if name})
    paths = [root / name for name in names if Path(name).parts[0] != STATE]
    return [path for path in paths if path.is_file()]


def merge(root: Path, yours: str, base: str, theirs: str) -> Merged:
    """Return the three-way merge of texts: the changes from `base` to `theirs`, made in `yours`.

    The marks of a conflict are in the style that the repository is set to (`merge.conflictStyle`).

    Raises:
        ProjectError: there is no git or no such folder, or git cannot merge the texts.
    """
    with tempfile.TemporaryDirectory(prefix="mlship-merge-") as folder:
        paths = [Path(folder) / name for name in ("yours", "base", "theirs")]
        for path, text in zip(paths, (yours, base, theirs), strict=True):
            path.write_bytes(text.encode("utf-8", "surrogateescape"))
        labels = [part for label in _LABELS for part in ("-L", label)]
        done = _called(root, "merge-file", "-p", *labels, *map(str, paths))
    if done.returncode > _MOST_CONFLICTS:
        raise _fault(root, done.stderr.decode("utf-8", "replace").strip())
    text = done.stdout.decode("utf-8", "surrogateescape")
    return Merged(text=text, conflicts=done.returncode)


def run(root: Path, *arguments: str, check: bool = True, given: str = "") -> str:
    """Run a git command in a folder and return its output, or `""` where it may fail and does.

    Args:
        root: the folder.
        arguments: the command.
        check: raise where it fails.
        given: what it reads from its stdin.

    Raises:
        ProjectError: there is no git or no such folder; or it failed and `check` is set.
    """
    done = _called(root, *arguments, given=given)
    if done.returncode == 0:
        return done.stdout.decode("utf-8", "surrogateescape")
    if not check:
        return ""
    raise _fault(root, done.stderr.decode("utf-8", "replace").strip())


def succeeds(root: Path, *arguments: str) -> bool:
    """Return whether a git command in a folder succeeds.

    Raises:
        ProjectError: there is no git or no such folder.
    """
    return _called(root, *arguments).returncode == 0


def _called(root: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[bytes]:
    """Run a git command in a folder to its end, however it ends.

    Raises:
        ProjectError: there is no git or no such folder.
    """
    environment = {
        name: value for name, value in os.environ.items() if name not in _OF_ANOTHER_REPOSITORY
    }
    # LC_ALL: messages are read below. The lock would make a look at the state a change of it.
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        return subprocess.run(
            ["git", "-c", "core.fsmonitor=false", *arguments],
            cwd=root,
            env=environment,
            input=given.encode("utf-8", "surrogateescape"),
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        if not root.is_dir():
            message = f"no folder {root}"
            raise ProjectError(message, hint="run mlship in the folder of mlship.yaml") from error
        message = "the program git is not installed"
        raise ProjectError(message, hint="install git, then: " + _BEGIN) from error


def cd(folder: Path) -> str:
    """Return the command of a shell that goes to a folder."""
    return f"cd {shlex.quote(str(folder))}"


def _fault(root: Path, said: str) -> ProjectError:
    if "dubious ownership" in said:
        message = f"git does not trust {root}: it belongs to another user"
        return ProjectError(
            message, hint=f"git config --global --add safe.directory {shlex.quote(str(root))}"
        )
    if "not a git repository" in said:
        message = f"{root} is not in a git repository"
        return ProjectError(message, hint=f"{cd(root)} && {_BEGIN}")
    message = f"git failed in {root}: {said.splitlines()[-1] if said else 'no error message'}"
    return ProjectError(message, hint="run `git status` there and fix what it reports")
