"""What a checkout has that a commit has not, among all that a test or a verification may depend on.

Files that git ignores are in no commit: those that decide on tests count as well.
"""

import os
import posixpath
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from mlship.adapters.checkout import changes, git
from mlship.config.check_files import CONFTEST, CheckFiles

_PLACE: Final = ("--show-cdup", "--show-prefix")
"""Asks for the way up to the top of the repository, then for the way down."""

_NO_CODE: Final = (".*", "__pycache__", "venv", "node_modules", "build", "dist", "CVS", "*.egg")
"""Folders in which pytest looks for no tests."""

_ENVIRONMENT: Final = ("pyvenv.cfg", "conda-meta/history")
"""What marks a folder as a Python environment."""


def differences(
    root: Path, commit: str, checks: CheckFiles, beside: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the files under `root` that are not as in a commit, by their path from there.

    Check files outside of `root` count, too, such as tests in a folder that projects share.

    Args:
        root: the project's folder.
        commit: its full name.
        checks: of the project.
        beside: other files of the repository outside of `root`, by their path from there.

    Raises:
        ProjectError: there is no git or no repository.
    """
    known = git.run(root, "rev-parse", f"{commit}^{{commit}}", *_PLACE, check=False)
    sha, _, place = known.partition("\n")
    if sha != commit:
        return (f"commit {commit[:12]} itself, which this clone does not have",)
    ups, _, above = place.partition("\n")
    top = (root / ups).resolve()
    inside, strange = _outside(root, top, (*checks.settings, *checks.suites, *beside))
    places = (".", f":(exclude){git.STATE}", *(f":(literal){place}" for place in inside))
    asked = ("-c", "diff.autoRefreshIndex=true", "diff", "--name-only", "-z", "--no-relative")
    fully = ("--no-renames", "--no-ext-diff", "--ignore-submodules=none")
    changed = git.run(root, *asked, *fully, commit, "--", *places).split("\0")
    prefix = above.rstrip("\n")
    own = {posixpath.relpath(f"/{name}", f"/{prefix}") for name in changed if name}
    others = changes.new_and_unseen(root, *places)
    return tuple(sorted({*own, *others, *strange, *_ignored_checks(root, top, checks)}))


def ignored_checks(root: Path, checks: CheckFiles) -> list[str]:
    """Return the check files that git ignores: a clone has none of them.

    Of a folder of tests, these are the Python files where pytest would look for tests.

    Raises:
        ProjectError: there is no git or no repository.
    """
    return _ignored_checks(root, _top(root), checks)


def _ignored_checks(root: Path, top: Path, checks: CheckFiles) -> list[str]:
    base = root.resolve()
    suites = [(root / suite).resolve() for suite in checks.suites]
    single = [(root / path).resolve() for path in checks.settings]
    above = [folder / CONFTEST for suite in suites for folder in suite.parents]
    files = [*single, *above, *(path for suite in suites for path in _tests(suite))]
    present = {path for path in files if path.is_relative_to(top) and path.is_file()}
    names = {Path(os.path.relpath(path, base)).as_posix() for path in present}
    return sorted(names - set(git.not_ignored(root, names)))


def _tests(suite: Path) -> Iterator[Path]:
    """Return the Python files below a folder, or the file itself, that pytest may load."""
    if suite.is_file():
        yield suite
    for place, folders, names in os.walk(suite):
        folders[:] = [name for name in folders if not _is_left_out(Path(place, name))]
        yield from (Path(place, name) for name in names if name.endswith(".py"))


def _is_left_out(folder: Path) -> bool:
    is_environment = any((folder / mark).is_file() for mark in _ENVIRONMENT)
    return is_environment or any(fnmatch(folder.name, glob) for glob in _NO_CODE)


def _outside(root: Path, top: Path, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the files outside of `root` that are in its repository, and those in none.

    A link in the project counts as what it points to. What is in a submodule stands for it.
    """
    base, inside, strange = root.resolve(), [], []
    for name in names:
        place = (root / name).resolve()
        if place.is_relative_to(base) or not place.exists():
            continue
        if not place.is_relative_to(top):
            strange.append(name)
            continue
        submodules = [folder for folder in place.parents if (folder / ".git").exists()]
        inner = [folder for folder in submodules if folder != top and folder.is_relative_to(top)]
        place = inner[-1] if inner else place
        inside.append(os.path.relpath(place, base))
    return inside, strange


def _top(root: Path) -> Path:
    return Path(git.run(root, "rev-parse", "--show-toplevel").rstrip("\n")).resolve()
