"""The installed distributions, by the modules that they provide."""

import functools
import importlib.metadata
import inspect
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import Distribution

from mlship.config import installation
from mlship.config.installation import DISTRIBUTION, MODULE


def of_modules(modules: Iterable[str]) -> set[str]:
    """Return the installed distributions that top-level modules come from: xgboost-cpu.

    `mlship` comes from this one, whatever else is installed that provides a module of that name.
    """
    asked = set(modules)
    wanted = asked - {MODULE}
    known = installed() if wanted else {}
    ours = {DISTRIBUTION} if MODULE in asked else set()
    return ours | {each.name for name in wanted for each in known.get(name, ())}


def installed() -> Mapping[str, Sequence[Distribution]]:
    """Return the distributions of each top-level module that Python finds."""
    return _installed(tuple(sys.path))


def others() -> tuple[str, ...]:
    """Return the installed distributions that provide `mlship` and are not this one."""
    providers = [distribution.name for distribution in installed().get(MODULE, ())]
    commands = importlib.metadata.entry_points(group="console_scripts", name=MODULE)
    scripts = [(script.name, script.dist.name) for script in commands if script.dist is not None]
    return installation.others({MODULE: providers}, scripts)


@functools.lru_cache(maxsize=4)
def _installed(path: tuple[str, ...]) -> Mapping[str, Sequence[Distribution]]:
    """Return the distributions of each top-level module, for a search path."""
    found: dict[str, list[Distribution]] = {}
    for folder in path:
        for name, provide in _of_folder(os.path.abspath(folder)).items():  # noqa: PTH100 (quick)
            found.setdefault(name, []).extend(provide)
    return found


@functools.cache
def _of_folder(folder: str) -> Mapping[str, Sequence[Distribution]]:
    """Return the distributions of each top-level module in a folder, which is read once.

    As `importlib.metadata.packages_distributions` does, which parses each line of each list of
    files and the metadata of all distributions, and takes ten times as long.
    """
    found: dict[str, list[Distribution]] = {}
    for distribution in importlib.metadata.distributions(path=[folder]):
        for name in _top_level(distribution):
            found.setdefault(name, []).append(distribution)
    return found


def _top_level(distribution: Distribution) -> set[str]:
    """Return the modules that a distribution says it has, or has files of."""
    declared = distribution.read_text("top_level.txt")
    if declared:
        return set(declared.split())
    record = distribution.read_text("RECORD")
    files = map(str, distribution.files or ()) if record is None else record.splitlines()
    first = {file.partition(",")[0].partition("/")[0] for file in files}
    # A module of one file: six.py, or an extension such as _cffi.cpython-311-x86_64-linux-gnu.so.
    names = {name if name.isidentifier() else inspect.getmodulename(name) for name in first}
    return {name for name in names if name}
