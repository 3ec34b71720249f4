"""Modules that are compiled from their source each time, and never read from a cached file.

Python takes a file in `__pycache__` for the source that has its time in seconds and its size, or
unseen if it says so: code that is not that of the commit, and that no digest covers.
"""

import os
import sys
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from pathlib import Path
from typing import Any, Final

_INSTALLED: Final = frozenset(("site-packages", "dist-packages"))


class _Source(SourceFileLoader):
    """Compiles the source, and neither reads nor writes a cached file."""

    def path_stats(self, path: str) -> dict[str, Any]:
        """Raise OSError, which disables the cache."""
        raise OSError(path)


def compile_anew(folder: Path, *, is_project: bool = False) -> None:
    """Import modules below a folder from their sources from now on.

    Args:
        folder: an absolute path.
        is_project: import its extension modules too, and leave packages that are installed in it,
            such as those of a virtual environment, to Python.
    """
    folders = {str(folder), os.path.realpath(folder)}
    loaders: list[tuple[Any, list[str]]] = [(_Source, [".py"])]
    if is_project:
        loaders.insert(0, (ExtensionFileLoader, EXTENSION_SUFFIXES))

    def is_own(path: str) -> bool:
        place = Path(os.path.abspath(path))  # noqa: PTH100 (links stay what they are)
        is_below = any(map(place.is_relative_to, folders))
        return is_below and not (is_project and _is_installed(place, folders))

    def finder(path: str) -> FileFinder:
        if not is_own(path):
            raise ImportError(path)
        return FileFinder(path, *loaders)

    sys.path_hooks.insert(0, finder)
    for path in list(sys.path_importer_cache):
        if is_own(path):
            del sys.path_importer_cache[path]


def _is_installed(place: Path, folders: set[str]) -> bool:
    """Tell whether a folder of a project is one of packages, or of Python itself."""
    return not _INSTALLED.isdisjoint(place.parts) or any(
        place.is_relative_to(prefix) and any(map(Path(prefix).is_relative_to, folders))
        for prefix in (sys.prefix, sys.base_prefix)
    )
