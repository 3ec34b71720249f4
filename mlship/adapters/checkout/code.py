"""The project's code: which files count, what imports what, and which distributions it needs."""

import ast
import functools
import importlib.metadata
import inspect
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import msgspec

from mlship.adapters.checkout import dvc, git
from mlship.adapters.checkout.differences import ignored_checks
from mlship.config import commands
from mlship.config.check_files import check_files
from mlship.config.installation import DISTRIBUTION, MODULE
from mlship.config.project import Config
from mlship.config.requirements import REQUIREMENTS
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.errors import ProjectError

_PICKLES = ("*.pkl", "*.pickle", "*.joblib", "*.pt", "*.pth", "*.pt2")
_MODELS = ("*.onnx", "*.skops", "*.ubj", "*.cbm", "*.keras", "*.safetensors", *_PICKLES)
_BUILT = "_version.py"
"""What setuptools-scm and its like write when the project is built, as they call it."""

_COUNTS = ("*.py", REQUIREMENTS, *_MODELS)


def files_of(root: Path, config: Config) -> dict[str, Digest]:
    """Return the digests of the project's code, by the path in the project.

    That is each Python or saved model file of the project that git tracks or would add, except
    its tests; its requirements.txt; and the files that `model.include` names.

    Raises:
        ProjectError: there is no git or no repository, or an included file is missing.
    """
    tests = [root / path for path in (*config.tests.paths("unit"), *config.tests.paths("sanity"))]
    listed = [
        path
        for path in git.list_files(root, _COUNTS)
        if not any(path.is_relative_to(folder) for folder in tests)
    ]
    files = {path.relative_to(root).as_posix(): path for path in listed}
    files |= dict(included(root, config.model.include))
    return {name: digests.of_file(path) for name, path in sorted(files.items())}


def ignored(root: Path, read: Iterable[str]) -> tuple[str, ...]:
    """Return the settings and code that git ignores, among the files that a training read.

    A version file that a build of the project wrote is none of it.

    Raises:
        ProjectError: there is no git or no repository.
    """
    own = {path for path in read if path.endswith(".py") and Path(path).name != _BUILT}
    there = [
        path for path in ("mlship.yaml", REQUIREMENTS, *sorted(own)) if (root / path).is_file()
    ]
    kept = git.not_ignored(root, there)
    return tuple(path for path in dict.fromkeys(there) if path not in kept)


def left_out(root: Path, config: Config) -> list[str]:
    """Return the settings, training code, tests and data of a project that git ignores.

    Data that DVC keeps, or that is at an address, is elsewhere for a clone too.

    Raises:
        ProjectError: there is no git or no repository, or a file is not Python.
    """
    model = config.model
    scripts = [root / path for path in commands.sources_of(model.command or "")]
    hooks = (model.train, model.preprocess, model.postprocess)
    modules = [name.partition(":")[0] for name in hooks if name]
    files = closure(root, modules)
    for script in scripts:
        # A script finds the modules beside it first, and those of the project's folder.
        beside = {*closure(script.parent, [script.stem])}
        names = [path.relative_to(root).with_suffix("").as_posix() for path in beside]
        files += sorted(beside.union(closure(root, (name.replace("/", ".") for name in names))))
    texts = [text for text in (config.data.train, config.data.test) if text and "://" not in text]
    data = [text for text in texts if dvc.pointer_to(root, root / text) is None]
    data = [text for text in data if not dvc.output_of(root, root / text)]
    inside = [path for path in data if (root / path).resolve().is_relative_to(root.resolve())]
    kept = git.not_ignored(root, inside)
    absent = [path for path in inside if path not in kept]
    code = ignored(root, [path.relative_to(root).as_posix() for path in files])
    return list(dict.fromkeys([*code, *ignored_checks(root, check_files(config)), *absent]))


def settings_of(config: Config) -> Digest:
    """Return the digest of the settings of data and model that shape a training.

    These are all but the paths of the data and the parameters, whose digests are others, and the
    slices, which only the scoring reads; and what reports include, because it is taken when a
    training ends. A pickle's sha256 counts where pickles are allowed.
    """
    model = config.model
    shaping = {
        **_without(config.data, {"train", "test", "slices"}),
        **_without(model, {"params", "allow_pickle", "pickle_sha256", "quantiles"}),
        # A key that a project does not use leaves its digest as it was before there was the key.
        **({"quantiles": model.quantiles} if model.quantiles else {}),
        **({"report": config.report.include} if config.report.include else {}),
        "name": config.name,
        "pickle_sha256": model.pickle_sha256 if model.allow_pickle else None,
    }
    return digests.of_value(shaping)


def _without(section: Any, names: Collection[str]) -> dict[str, Any]:
    values = msgspec.to_builtins(section)
    return {name: value for name, value in values.items() if name not in names}


def included(root: Path, patterns: Sequence[str]) -> list[tuple[str, Path]]:
    """Return the files that globs name below `root`, by their path in the project.

    Raises:
        ProjectError: a glob names nothing, or something outside of the project.
    """
    found: dict[str, Path] = {}
    for pattern in patterns:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            message = f"mlship.yaml: model.include names {pattern}, outside of the project"
            raise ProjectError(message, hint="copy the file into the project")
        paths = [path for path in root.glob(pattern) if path.is_file()]
        if not paths:
            message = f"mlship.yaml: model.include names {pattern}, and no file matches it"
            raise ProjectError(message, hint="correct the glob; `**/` matches any folders")
        found |= {path.relative_to(root).as_posix(): path for path in paths}
    return sorted(found.items())


def closure(root: Path, modules: Iterable[str]) -> list[Path]:
    """Return the files below `root` that modules such as `pkg.hooks` are made of, sorted.

    Each import statement is followed, wherever it stands; what is imported by a computed name
    is not seen and belongs under `model.include`.

    Raises:
        ProjectError: a file is not Python.
    """
    found: set[Path] = set()
    waiting = [path for module in modules for path in _files_of(root, module)]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            names = _imports(path, root)
            waiting.extend(file for name in names for file in _files_of(root, name))
    return sorted(found)


def third_party(root: Path, files: Iterable[Path]) -> set[str]:
    """Return the installed distributions that files of a project import directly."""
    modules = {name.partition(".")[0] for path in files for name in _imports(path, root)}
    foreign = {
        name
        for name in modules
        if name not in sys.stdlib_module_names and not _files_of(root, name)
    }
    return distributions_of(foreign)


def distributions_of(modules: Iterable[str]) -> set[str]:
    """Return the installed distributions that top-level modules come from: xgboost-cpu.

    `mlship` comes from this one, whatever else is installed that provides a module of that name.
    """
    asked = set(modules)
    wanted = asked - {MODULE}
    known = _installed(tuple(sys.path)) if wanted else {}
    ours = {DISTRIBUTION} if MODULE in asked else set()
    return ours | {installed.name for name in wanted for installed in known.get(name, ())}


@functools.lru_cache(maxsize=4)
def _installed(_path: tuple[str, ...]) -> Mapping[str, Sequence[Distribution]]:
    """Return the distributions of each top-level module, read once for a search path.

    As `importlib.metadata.packages_distributions` does, which parses each line of each list of
    files and the metadata of all distributions, and takes ten times as long.
    """
    found: dict[str, list[Distribution]] = {}
    for distribution in importlib.metadata.distributions():
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


def _files_of(root: Path, module: str) -> list[Path]:
    """Return the file of a module and the `__init__.py` of each package around it."""
    parts = module.split(".")
    packages = [root.joinpath(*parts[: n + 1], "__init__.py") for n in range(len(parts))]
    files = [*packages, root.joinpath(*parts).with_suffix(".py")]
    return [path for path in files if path.is_file()]


def _imports(path: Path, root: Path) -> set[str]:
    """Return the modules that a file may import; `from a import b` gives `a` and `a.b`."""
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        reason = getattr(error, "msg", None) or error
        message = f"{path.relative_to(root)}:{line}: not Python: {reason}"
        raise ProjectError(message, hint="correct the file there") from error
    package = path.relative_to(root).parent.parts
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join((*above, *([node.module] if node.module else [])))
            names |= {origin} - {""}
            names |= {f"{origin}.{alias.name}".lstrip(".") for alias in node.names}
    return names
