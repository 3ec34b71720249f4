"""Modules of a project that have the name of another: one would silently stand for the other."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Final

from packaging.utils import canonicalize_name

import mlship
from mlship.adapters.checkout import code, lock
from mlship.config import commands, distributions
from mlship.config.installation import DISTRIBUTION
from mlship.config.project import ModelConfig
from mlship.errors import ProjectError

_ROOTS: Final = (*lock.TRAINING, f"{DISTRIBUTION}[train]")
"""What training, scoring and tests import, whatever the project is."""

_COMMON: Final = frozenset(("tests", "test", "docs", "examples", "scripts", "benchmarks"))
"""Folders that distributions install by mistake, and that nothing imports from them."""


def check_names(root: Path, model: ModelConfig) -> None:
    """Refuse a module of the project with the name of one that mlship needs.

    Training has loaded that one before, and tests find the project's first.

    Raises:
        ProjectError: there is one, in the project's folder or in that of its training script.
    """
    call = commands.python_call(commands.words(model.command or ""))
    script = call.script if call else ""
    for path in _modules({root, (root / script).parent if script else root}):
        name = path.name.partition(".")[0]
        known = distributions.of_modules([name]) if name not in _COMMON else ()
        owners = {canonicalize_name(owner) for owner in known}
        if owners and not _is_mlship(path):
            needed = {pin.partition("==")[0] for pin in lock.closure(_ROOTS)}
            if own := sorted(owners & needed):
                place = path.relative_to(root)
                message = f"{place} has the name of the module {name} of {own[0]}, which mlship "
                raise ProjectError(message + "needs", hint=f"rename {place}, and what imports it")


def check_loaded(folder: Path, modules: Iterable[str]) -> None:
    """Refuse modules of a folder in whose place this process has loaded Python's own.

    Args:
        folder: where the modules are looked for first.
        modules: that are imported next, with all that they import.

    Raises:
        ProjectError: there is such a module.
    """
    files: list[Path] = []
    with suppress(ProjectError):  # what is not Python is told when it is imported
        files = code.closure(folder, modules)
    for file in files:
        place = file.relative_to(folder)
        name = place.parts[0].removesuffix(".py")
        origin = getattr(sys.modules.get(name), "__file__", None) or ""
        is_own = not origin or Path(origin).resolve().is_relative_to(folder.resolve())
        if name in sys.modules and name in sys.stdlib_module_names and (not origin or not is_own):
            message = f"{place} is not imported: Python has its own module {name}, loaded before"
            raise ProjectError(message, hint=f"rename {place.parts[0]}, and what imports it")


def _modules(folders: Iterable[Path]) -> Iterator[Path]:
    """Return the files and the packages that can be imported from folders."""
    suffixes = tuple(all_suffixes())
    for folder in sorted(folders):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.name.endswith(suffixes) or (path / "__init__.py").is_file():
                yield path


def _is_mlship(path: Path) -> bool:
    return path.resolve() == Path(mlship.__file__).resolve().parent
