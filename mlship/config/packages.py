"""The folders of a project that Python imports its modules from.

These are the project's folder itself and, once it is installed by `pip install -e .`, the folder of
its packages: `src/`, or what pyproject.toml names for Poetry, setuptools, Hatch, PDM or uv.
"""

import functools
import posixpath
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from packaging.utils import canonicalize_name

from mlship import files
from mlship.domain.outputs import is_inside

SETTINGS: Final = "pyproject.toml"
_COMMON: Final = "src"
_LARGEST: Final = 1_000_000
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def folders(root: Path) -> tuple[Path, ...]:
    """Return the folders with modules, the project's own first. A package is none of them."""
    named = [*_named(_document(root)), _COMMON]
    inside = [posixpath.normpath(name) for name in named if is_inside(name)]
    places = [root / name for name in inside if name != "."]
    own = [place for place in places if place.is_dir() and not (place / "__init__.py").is_file()]
    return tuple(dict.fromkeys((root, *own)))


def files_of(folder: Path, module: str) -> list[Path]:
    """Return the file of a module in a folder, and the `__init__.py` of each package around it."""
    if "/" in module:  # a model file may name anything
        return []
    parts = module.split(".")
    around = [folder.joinpath(*parts[: n + 1], "__init__.py") for n in range(len(parts))]
    return [
        path for path in (*around, folder.joinpath(*parts).with_suffix(".py")) if _is_file(path)
    ]


def source_of(root: Path, path: str) -> str:
    """Return where the project has a Python file that a command names: src/flowers/train.py.

    Args:
        root: the project's folder.
        path: of a script, or the one that a module has in its folder: flowers/train.py.
    """
    beside = f"{path.removesuffix('.py')}/__main__.py"
    for folder in folders(root):
        for name in (path, beside):
            if _is_file(folder / name):
                return (folder / name).relative_to(root).as_posix()
    return path


def name_of(root: Path) -> str:
    """Return the name of the distribution that a pyproject.toml describes; empty without one."""
    return next(_texts([_inner(_document(root), "project", "name")]), "")


def dependencies(root: Path) -> dict[str, str]:
    """Return the packages that a pyproject.toml asks for, as lines of pip by canonical names.

    The conditions of Poetry on versions have another form, and are left out.
    """
    document = _document(root)
    lines = [*_texts(_listed(document, "project", "dependencies"))]
    poetry = _inner(document, "tool", "poetry", "dependencies")
    lines += [name for name in poetry if name != "python"] if isinstance(poetry, dict) else []
    named = ((_NAME.match(line.strip()), line.strip()) for line in lines)
    return {canonicalize_name(match[0]): line for match, line in named if match}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except ValueError:  # a null character
        return False


def _document(root: Path) -> dict[str, Any]:
    """Return what pyproject.toml says, read once for a state of the file.

    So what a training process has asked before the project's code starts opens no file later, which
    would count as one that the training reads.
    """
    path = root / SETTINGS
    try:
        status = path.stat()
    except (OSError, ValueError):
        return {}
    return _parsed(path, (status.st_mtime_ns, status.st_size, status.st_ino))


@functools.lru_cache(maxsize=64)
def _parsed(path: Path, _state: tuple[int, int, int]) -> dict[str, Any]:
    try:
        return tomllib.loads(files.read_regular(path, _LARGEST).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def _named(settings: dict[str, Any]) -> Iterator[str]:
    """Yield the folders of packages that the settings of a build tool name.

    Sources: https://python-poetry.org/docs/pyproject/#packages,
    https://setuptools.pypa.io/en/latest/userguide/pyproject_config.html,
    https://hatch.pypa.io/latest/config/build/#packages,
    https://backend.pdm-project.org/build_config/,
    https://docs.astral.sh/uv/reference/settings/#build-backend
    """
    tool = settings.get("tool")
    for entry in _listed(tool, "poetry", "packages"):
        yield from _texts([_inner(entry, "from")])
    yield from _texts([_inner(tool, "setuptools", "package-dir", "")])
    yield from _texts(_listed(tool, "setuptools", "packages", "find", "where"))
    for entry in _texts(_listed(tool, "hatch", "build", "targets", "wheel", "packages")):
        yield posixpath.dirname(entry.rstrip("/")) or "."
    yield from _texts([_inner(tool, "pdm", "build", "package-dir")])
    yield from _texts([_inner(tool, "uv", "build-backend", "module-root")])


def _inner(section: object, *keys: str) -> object:
    for key in keys:
        section = section.get(key) if isinstance(section, dict) else None
    return section


def _listed(section: object, *keys: str) -> Sequence[object]:
    found = _inner(section, *keys)
    return found if isinstance(found, list) else ()


def _texts(values: Sequence[object]) -> Iterator[str]:
    return (value for value in values if isinstance(value, str) and value)
