"""What is different in a folder from what git has: changed, new, and hidden files."""

import posixpath
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mlship.adapters.checkout.git import STATE, run

_SUBMODULE = "160000"
"""The mode of an entry in git's index that stands for a commit of another repository."""

_NEW = "?"
"""The letter of a file that is not in git's index."""

_FIELDS = {"1": 8, "u": 10, _NEW: 1}
"""How many fields `git status` writes before a path, by the letter of a line."""

_NO_COMMIT = "(initial)"
_NO_BRANCH = "(detached)"
"""What `git status` writes in place of a commit and a branch."""

_LFS = "lfs"
_NOTEBOOK = ".ipynb"

_MOST_PATHS = 500
"""The number of paths in a command."""


class Entry(NamedTuple):
    """A file in git's index.

    Attributes:
        flag: a letter: lower-case for `--assume-unchanged`, `S` for `--skip-worktree`.
        mode: of the file, in octal digits.
        digest: of the content that git knows.
        name: its path from the folder that was asked about.
    """

    flag: str
    mode: str
    digest: str
    name: str


class State(NamedTuple):
    """What a folder has checked out, and what is different in it.

    Attributes:
        sha: the commit; empty before the first one.
        branch: empty if none is checked out.
        changes: the files under the folder that are not as in the commit, by their path from there.
        has_files: whether git tracks a file under the folder.
        absent: the submodules under the folder that are not checked out.
    """

    sha: str
    branch: str
    changes: tuple[str, ...]
    has_files: bool
    absent: tuple[str, ...]


class _Status(NamedTuple):
    """What `git status` says."""

    sha: str
    branch: str
    changed: set[str]


def state(root: Path) -> State:
    """Return what a folder has checked out, and what is different in it.

    Raises:
        ProjectError: there is no git or no repository.
    """
    places = (".", f":(exclude){STATE}")
    status, entries = _status(root, *places), index(root, ".")
    own = [entry for entry in entries if PurePosixPath(entry.name).parts[0] != STATE]
    changed = status.changed | _hidden(root, own) | _filtered(root, *places)
    return State(
        sha=status.sha,
        branch=status.branch,
        changes=tuple(sorted(changed)),
        has_files=bool(entries),
        absent=tuple(_absent(root, entries)),
    )


def changed(root: Path) -> tuple[str, ...]:
    """Return the files under `root` that are not as in its commit, by their path from there.

    Raises:
        ProjectError: there is no git or no repository.
    """
    return state(root).changes


def changed_outside(root: Path, paths: Collection[str]) -> tuple[str, ...]:
    """Return those of some files outside of `root` that are not as in its commit.

    A file of a submodule counts as the submodule.

    Args:
        root: the project's folder.
        paths: of files in its repository, from there, such as `../shared/x.py`.

    Raises:
        ProjectError: there is no git or no repository.
    """
    if not paths:
        return ()
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
    return _status(root, *places).changed | _unseen(root, *places)


def _status(root: Path, *places: str) -> _Status:
    """Return what `git status` says of some places, with paths from `root`.

    The form: https://git-scm.com/docs/git-status#_porcelain_format_version_2
    """
    told = ("status", "--porcelain=v2", "--branch", "--no-ahead-behind", "-z", "--no-renames")
    fully = ("--untracked-files=all", "--ignore-submodules=none")
    lines = run(root, *told, *fully, "--", *places).split("\0")
    head = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# "))
    names = [line.split(" ", _FIELDS[line[0]])[-1] for line in lines if line and line[0] in _FIELDS]
    # They are from the top of the repository.
    above = run(root, "rev-parse", "--show-prefix").rstrip("\n") if names else ""
    return _Status(
        sha=head["branch.oid"].removeprefix(_NO_COMMIT),
        branch=head["branch.head"].removeprefix(_NO_BRANCH),
        changed={posixpath.relpath(name, above or ".") for name in names},
    )


def _unseen(root: Path, *places: str) -> set[str]:
    """Return the changed files at some places that neither `git status` nor `git diff` tells."""
    return _hidden(root, index(root, *places)) | _filtered(root, *places)


def new_and_unseen(root: Path, *places: str) -> set[str]:
    """Return the changed files at some places that `git diff` does not tell.

    These are new files that git does not ignore, and those that `git status` does not tell either.
    """
    new = ("--others", "--exclude-standard")
    entries = index(root, *places, options=new)
    hidden = _hidden(root, [entry for entry in entries if entry.flag != _NEW])
    added = {entry.name.rstrip("/") for entry in entries if entry.flag == _NEW}
    return added | hidden | _filtered(root, *places)


def index(root: Path, *places: str, options: Sequence[str] = ()) -> list[Entry]:
    """Return what git's index has at some places; options add what it has not.

    Raises:
        ProjectError: there is no git or no repository.
    """
    listed = run(root, "ls-files", "-v", "--stage", *options, "-z", "--", *places)
    return [_entry(line) for line in listed.split("\0") if line]


def _entry(line: str) -> Entry:
    """Parse `H 100644 HASH 0<tab>train.py`, or `? train.py` for a file that is not in the index."""
    if line.startswith(f"{_NEW} "):
        return Entry(_NEW, "", "", line.removeprefix(f"{_NEW} "))
    fields, _, name = line.partition("\t")
    flag, mode, digest, _stage = fields.split()
    return Entry(flag, mode, digest, name)


def _hidden(root: Path, entries: Iterable[Entry]) -> set[str]:
    """Return the changed files, of some in the index, that git was told not to look at.

    `git update-index --assume-unchanged` and `--skip-worktree` do so; the second is also how a
    sparse checkout leaves files out, which is no change. Submodules are looked at by themselves:
    these flags and `submodule.NAME.ignore` may be set in each of them.
    """
    changed: set[str] = set()
    for flag, mode, known, name in entries:
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
    status = _status(submodule, ".")
    return status.sha != known or bool(status.changed or _unseen(submodule, "."))


def _hash(root: Path, name: str) -> str:
    return run(root, "hash-object", "--", name).strip()


def _filtered(root: Path, *places: str) -> set[str]:
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


def absent_submodules(root: Path) -> list[str]:
    """Return the submodules under `root` that are not checked out, by their path from there.

    Raises:
        ProjectError: there is no git or no repository.
    """
    return _absent(root, index(root, "."))


def _absent(root: Path, entries: Iterable[Entry]) -> list[str]:
    names = [entry.name for entry in entries if entry.mode == _SUBMODULE]
    return [name for name in names if not any((root / name).glob("*"))]
