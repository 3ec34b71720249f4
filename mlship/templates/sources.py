"""The files of a repository that `mlship init` looks at: regular ones, with names in UTF-8."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mlship import files
from mlship.config import packages
from mlship.config.installation import DISTRIBUTION
from mlship.config.projects import LEFT_OUT, SETTINGS

DATA: Final = (".csv", ".csv.gz", ".tsv", ".parquet", ".jsonl")
_MOST: Final = 500
_SHOWN: Final = 3


def listed(folder: Path, suffix: str, *, tests: bool = False) -> list[str]:
    """Return the regular files with a suffix, or the tests among them."""
    found: list[str] = []
    for name in _walked(folder, tests=tests):
        last = name.rpartition("/")[2]
        is_wanted = last.endswith(suffix) and _is_test(last) is tests and last != "conftest.py"
        # A pipe would never end.
        if is_wanted and is_utf8(name) and (folder / name).is_file():
            found.append(name)
        if len(found) == _MOST:
            break
    return found


def _walked(folder: Path, *, tests: bool) -> Iterator[str]:
    """Yield the paths of files, and of folders with names that are not UTF-8.

    Folders of virtual environments, of other projects and of mlship itself are left out.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if name not in LEFT_OUT
            and (tests or name not in ("tests", "test"))
            and not name.startswith(".")
            and not (Path(place, name, "pyvenv.cfg").exists())
            and not (Path(place, name, SETTINGS).exists())
            and not _is_mlship(Path(place, name))
        )
        misnamed = [name for name in folders if not is_utf8(name)]
        folders[:] = [name for name in folders if is_utf8(name)]
        for name in (*misnamed, *sorted(names)):
            yield Path(place, name).relative_to(folder).as_posix()


def _is_mlship(folder: Path) -> bool:
    """Return whether a folder is a copy of mlship, from which jobs install it."""
    return packages.name_of(folder) == DISTRIBUTION


def misnamed(folder: Path) -> list[str]:
    """Ask for other names of what cannot be written into mlship.yaml."""
    names = (name for name in _walked(folder, tests=True) if not is_utf8(name))
    kinds = (".py", ".ipynb", *DATA, *(f"{suffix}.dvc" for suffix in DATA))
    return [
        f"{shown(name)} was not looked at, as its name is not UTF-8: rename it, then `mlship init` "
        "again"
        for name in names
        if name.endswith(kinds) or (folder / name).is_dir()
    ][:_SHOWN]


def is_utf8(name: str) -> bool:
    """Return whether a path can be written into a file of UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(name: str) -> str:
    """Return a path with escapes for the bytes that are not UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_test(name: str) -> bool:
    return name.endswith(".py") and (name.startswith("test_") or name.endswith("_test.py"))


def has(path: Path, data: bytes) -> bool:
    """Return whether a file is there with this content."""
    try:
        return files.read_regular(path, len(data) + 1) == data
    except OSError:
        return False
