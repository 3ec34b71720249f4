"""Other checkouts of the project, whose code a training may read instead of the project's.

`pip install -e .` in one work tree lets Python import from it in all others: what runs is then not
what the commit of the project says.
"""

import importlib.util
import os
import shlex
from collections.abc import Collection, Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Final

from mlship.domain.commit import named
from mlship.domain.inputs import SCRIPT

_PROJECTS: Final = ("pyproject.toml", "setup.py", "setup.cfg")
_INSTALLED: Final = frozenset(("site-packages", "dist-packages", "node_modules", ".git"))


class Copies:
    """Tells which files belong to another checkout of the project.

    That is another work tree of its repository; and a folder, of another repository or of none, of
    which Python reads a module that the project has itself.

    Args:
        root: the project's folder.
        top: the top folder of its repository.
        libraries: folders of what is installed, which belongs to no checkout.
    """

    def __init__(self, root: Path, top: Path, libraries: Collection[str] = ()) -> None:
        self._root, self._top, self._libraries = root.resolve(), top.resolve(), libraries
        self._common = _common(self._top / ".git")
        self._trees: dict[Path, Path | None] = {}
        self._is_copy: dict[Path, bool] = {}
        self._others: set[str] = set()

    def of(self, place: str) -> Path | None:
        """Return the folder of the other checkout that a file belongs to; `None` for none.

        A link in the project to data elsewhere is the project's own; one to code is not.
        """
        is_code, beside = place.endswith(SCRIPT), os.path.dirname(place)  # noqa: PTH120 (quick)
        if not is_code and beside in self._others:
            return None
        path = Path(os.path.realpath(place) if is_code else place)
        is_installed = not _INSTALLED.isdisjoint(path.parts)
        if is_installed or any(path.is_relative_to(folder) for folder in self._libraries):
            if not is_code and not _INSTALLED.isdisjoint(path.parent.parts):
                self._others.add(beside)
            return None
        tree = self._tree(path.parent)
        if tree == self._top:
            if not is_code:
                self._others.add(beside)
            return None
        if tree is not None and tree not in self._is_copy:
            common = _common(tree / ".git")
            self._is_copy[tree] = common is not None and common == self._common
        package = _outermost(path)
        folder = tree or package
        if not self._is_copy.get(folder, False) and not self._stands_in(path, tree, package):
            return None
        self._is_copy[folder] = True
        return folder

    def path_of(self, place: str) -> str:
        """Return the path of a file outside of the project from its folder: ../other/src/x.py.

        Raises:
            UnicodeEncodeError: git and JSON cannot name it.
        """
        path = os.path.relpath(place, self._root)
        path.encode()
        return path.replace(os.sep, "/")

    def code(self, paths: Iterable[str]) -> list[str]:
        """Return the modules of other checkouts, among files by their path from the project."""
        scripts = (path for path in paths if path.endswith(SCRIPT))
        return [path for path in scripts if self.of(os.path.normpath(self._root / path))]

    def own(self, paths: Iterable[str]) -> list[str]:
        """Return the files of the project's own repository, by their path from the project."""
        places = {path: os.path.normpath(self._root / path) for path in paths}
        return [path for path, place in places.items() if Path(place).is_relative_to(self._top)]

    def has(self, file: str) -> bool:
        """Return whether code is of another checkout that a file was found to belong to."""
        copies = (folder for folder, is_copy in self._is_copy.items() if is_copy)
        return any(Path(file).is_relative_to(folder) for folder in copies)

    def is_read_no_more(self, path: str) -> bool:
        """Return whether Python now finds a module elsewhere, by `pip install -e .` for example.

        What only the project's own code puts on the path of Python is not known here.

        Args:
            path: of a file of another checkout, from the project's folder.
        """
        place = Path(os.path.realpath(self._root / path))
        name = place.relative_to(_outermost(place)).parts[0].removesuffix(SCRIPT)
        try:
            spec = PathFinder.find_spec(name, [str(self._root)]) or importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return False
        if spec is None:
            return False
        places = map(os.path.realpath, filter(None, (spec.origin, *_folders(spec))))
        return not any(place.is_relative_to(found) for found in places)

    def notes(self, paths: Iterable[str]) -> Iterator[str]:
        """Say which files are of other checkouts, and what makes Python read this one.

        Args:
            paths: of such files, from the project's folder.
        """
        files: dict[tuple[Path, str], list[str]] = {}
        for path in paths:
            place = Path(os.path.realpath(self._root / path))
            if folder := self.of(str(place)):
                files.setdefault((folder, self._remedy(place, folder)), []).append(path)
        for (folder, remedy), names in files.items():
            yield (
                f"training read {named(names)} of {folder}, another checkout, and not what this "
                f"commit has: {remedy}; then train again"
            )

    def _remedy(self, path: Path, folder: Path) -> str:
        tree = self._tree(path.parent)
        above = [up for up in path.parents if tree is None or up.is_relative_to(tree)]
        built = next((up for up in above if any((up / name).is_file() for name in _PROJECTS)), None)
        if built is None:
            return f"take {_outermost(path)} out of PYTHONPATH and out of sys.path"
        here = self._top / built.relative_to(folder) if built.is_relative_to(folder) else self._root
        here = here if here.is_dir() else self._root
        return f"cd {shlex.quote(str(here))} && pip install -e ."

    def _stands_in(self, path: Path, tree: Path | None, package: Path) -> bool:
        """Return whether Python reads a file in the place of one of the project."""
        if path.suffix != SCRIPT or path.is_relative_to(self._top):
            return False
        module = path.relative_to(package)
        own = [up / source / module for up in (self._root, self._top) for source in ("", "src")]
        if tree is not None:
            own.append(self._top / path.relative_to(tree))
        return any(file.is_file() for file in own)

    def _tree(self, folder: Path) -> Path | None:
        """Return the top of the work tree that a folder is in, as git finds it."""
        if folder not in self._trees:
            if (folder / ".git").exists():
                self._trees[folder] = self._top if folder.samefile(self._top) else folder
            else:
                above = folder.parent
                self._trees[folder] = None if above == folder else self._tree(above)
        return self._trees[folder]


def _folders(spec: ModuleSpec) -> Iterable[str]:
    return spec.submodule_search_locations or ()


def _outermost(path: Path) -> Path:
    """Return the folder that a module is imported from: that around its outermost package."""
    folder = path.parent
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        folder = folder.parent
    return folder


def _common(git: Path) -> Path | None:
    """Return the folder that all work trees of a repository share.

    In all but the first, `.git` is a file which names a folder with a file `commondir`.
    The form: https://git-scm.com/docs/gitrepository-layout
    """
    try:
        if git.is_file():
            named = git.read_text("utf-8", "surrogateescape").strip().removeprefix("gitdir:")
            git = git.parent / named.strip()
        shared = git / "commondir"
        if shared.is_file():
            git = git / shared.read_text("utf-8", "surrogateescape").strip()
        return git.resolve() if git.is_dir() else None
    except OSError:
        return None
