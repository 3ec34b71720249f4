"""Git, by its own program: the files of a folder, and what changed in them."""

import os
import posixpath
import shlex
import subprocess
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

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
_SUBMODULE = "160000"
"""The mode of an entry in git's index that stands for a commit of another repository."""

_LFS = "lfs"
_NOTEBOOK = ".ipynb"

_LABELS = ("yours", "generated before", "generated now")
"""The names of the texts of a merge, in the marks of a conflict."""

_MOST_PATHS = 500
"""The number of paths in a command."""

_MOST_CONFLICTS = 127
"""The greatest exit code of `git merge-file` that is a number of conflicts."""

_NONE = 1
"""The exit code of `git check-ignore` for paths of which none is ignored."""

_BEGIN = "git init && git add -A && git commit"


def changes(root: Path) -> tuple[str, ...]:
    """Return the files under `root` that are not as in its commit, by their path from there.

    Raises:
        ProjectError: there is no git or no repository.
    """
    return tuple(sorted(_changes(root, ".", f":(exclude){STATE}")))


def changes_outside(root: Path, paths: Iterable[str]) -> tuple[str, ...]:
    """Return those of some files outside of `root` that are not as in its commit.

    A file of a submodule counts as the submodule.

    Args:
        root: the project's folder.
        paths: of files in its repository, from there, such as `../shared/x.py`.

    Raises:
        ProjectError: there is no git or no repository.
    """
    above = run(root, "rev-parse", "--show-cdup").strip()
    places = sorted({_in_repository(root, path, above) for path in paths})
    changed: set[str] = set()
    for start in range(0, len(places), _MOST_PATHS):
        some = places[start : start + _MOST_PATHS]
        changed |= _changes(root, *(f":(literal){place}" for place in some))
    return tuple(sorted(changed))


def _in_repository(root: Path, path: str, above: str) -> str:
    """Return a path, or that of the submodule that it is in."""
    parts = PurePosixPath(path).parts
    names = ["/".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]
    ups = above.rstrip("/")
    inner = (name for name in names if not ups.startswith(name))
    return next((name for name in inner if (root / name / ".git").exists()), path)


def _changes(root: Path, *places: str) -> set[str]:
    """Return the changed files at some places, by their path from `root`."""
    told = ("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all")
    listed = run(root, *told, "--ignore-submodules=none", "--", *places)
    changed = unseen_changes(root, *places)
    if listed:
        above = run(root, "rev-parse", "--show-prefix").rstrip("\n")
        # Each is two letters of state, a space, and the path from the top of the repository.
        names = (entry[3:] for entry in listed.split("\0") if entry)
        changed |= {posixpath.relpath(name, above or ".") for name in names}
    return changed


def unseen_changes(root: Path, *places: str) -> set[str]:
    """Return the changed files at some places that neither `git status` nor `git diff` tells."""
    return _hidden_changes(root, *places) | _filtered_changes(root, *places)


def _hidden_changes(root: Path, *places: str) -> set[str]:
    """Return the changed files at some places that git was told not to look at.

    `git update-index --assume-unchanged` and `--skip-worktree` do so; the second is also how a
    sparse checkout leaves files out, which is no change. Submodules are looked at by themselves:
    these flags and `submodule.NAME.ignore` may be set in each of them.
    """
    entries = run(root, "ls-files", "-v", "--stage", "-z", "--", *places).split("\0")
    changed: set[str] = set()
    # Such as `H 100644 HASH 0<tab>train.py`; a lower-case letter is `--assume-unchanged`.
    for fields, _, name in (entry.partition("\t") for entry in entries if entry):
        flag, mode, known, _stage = fields.split()
        if mode == _SUBMODULE:
            differs = (root / name / ".git").exists() and _is_changed(root / name, known)
        elif flag.islower() or flag == "S":
            differs = (root / name).is_file() and _hash(root, name) != known
        else:
            continue
        if differs:
            changed.add(name)
    return changed


def _is_changed(submodule: Path, known: str) -> bool:
    """Return whether a submodule is not as in the commit that its repository is to have."""
    return run(submodule, "rev-parse", "HEAD").strip() != known or bool(_changes(submodule, "."))


def _hash(root: Path, name: str) -> str:
    return run(root, "hash-object", "--", name).strip()


def _filtered_changes(root: Path, *places: str) -> set[str]:
    """Return the files at some places of which a filter of git's configuration hides a change.

    git compares what a clean filter makes of a file. What counts is the file itself: it must be as
    a checkout would write it. Filters of Git LFS are left out, whose contents are compared by
    digests; so are notebooks, whose outputs filters take away.
    """
    asked = ("config", "--name-only", "--get-regexp", r"^filter\..*\.(clean|process)$")
    keys = run(root, *asked, check=False).split("\n")
    filters = {key.partition(".")[2].rpartition(".")[0] for key in keys if key} - {_LFS}
    if not filters:
        return set()
    tracked = run(root, "ls-files", "-z", "--", *places)
    fields = run(root, "check-attr", "-z", "--stdin", "filter", given=tracked).split("\0")
    names = [
        name
        for name, value in zip(fields[::3], fields[2::3], strict=False)
        if value in filters and not name.endswith(_NOTEBOOK) and (root / name).is_file()
    ]
    return {name for name in names if _lines(root, name) != _checked_out(root, name)}


def _lines(root: Path, name: str) -> list[str]:
    return (root / name).read_bytes().decode("utf-8", "surrogateescape").splitlines()


def _checked_out(root: Path, name: str) -> list[str]:
    """Return the lines of a tracked file as a checkout would write it now."""
    return run(root, "cat-file", "--filters", f":./{name}", check=False).splitlines()


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


def absent_submodules(root: Path) -> list[str]:
    """Return the submodules under `root` that are not checked out, by their path from there.

    Raises:
        ProjectError: there is no git or no repository.
    """
    listed = run(root, "ls-files", "-z", "--stage", "--", ".").split("\0")
    names = [entry.partition("\t")[2] for entry in listed if entry.startswith(f"{_SUBMODULE} ")]
    return [name for name in names if not any((root / name).glob("*"))]


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
