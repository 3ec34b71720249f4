"""The requirements.txt for a training that a repository has: the packages that it imports."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from packaging.utils import canonicalize_name

from mlship.config import distributions, packages
from mlship.config.installation import MODULE
from mlship.templates.existing import Existing

HEADER: Final = "# What the training imports. Jobs install mlship by a line of their own.\n"
_KNOWN: Final = {"sklearn": "scikit-learn", "yaml": "PyYAML"}
"""Packages by their modules, where none is installed that has the module."""


class Required(NamedTuple):
    """What a training needs.

    Attributes:
        lines: of requirements.txt, sorted.
        unknown: the modules of which no package is known.
    """

    lines: tuple[str, ...]
    unknown: tuple[str, ...]


def of_training(folder: Path, training: Existing | None) -> Required | None:
    """Return what a training needs; `None` if its imports are not known."""
    if training is None or training.imports is None:
        return None
    return required(folder, training.imports)


def required(folder: Path, modules: Iterable[str]) -> Required:
    """Return what provides modules: as pyproject.toml asks for it, or by the name of the package.

    A name that is only guessed may be a stranger's package: it is not written.

    Args:
        folder: of the project.
        modules: at the top level.
    """
    declared = packages.dependencies(folder)
    lines: set[str] = set()
    unknown = []
    for module in sorted(set(modules) - {MODULE}):
        names = list(distributions.of_modules([module]))
        name = names[0] if len(names) == 1 else _KNOWN.get(module, module)
        line = declared.get(canonicalize_name(name), "")
        if not line and (len(names) == 1 or module in _KNOWN):
            line = name
        if line:
            lines.add(line)
        else:
            unknown.append(module)
    return Required(tuple(sorted(lines, key=str.casefold)), tuple(unknown))


def text_of(lines: Iterable[str]) -> str:
    """Return the text of requirements.txt."""
    return HEADER + "".join(f"{line}\n" for line in lines)
