"""The project's code: which files count, what imports what, and which distributions it needs."""

import ast
import json
import os
import sys
from collections.abc import Collection, Iterable, Sequence
from importlib.metadata import Distribution
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from mlship.adapters.checkout import dvc, git
from mlship.adapters.checkout.differences import ignored_checks
from mlship.config import commands, distributions, packages
from mlship.config.check_files import check_files
from mlship.config.installation import MODULE
from mlship.config.project import Config
from mlship.config.requirements import REQUIREMENTS
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.errors import ProjectError

_PICKLES = ("*.pkl", "*.pickle", "*.joblib", "*.pt", "*.pth", "*.pt2")
_MODELS = ("*.onnx", "*.skops", "*.ubj", "*.cbm", "*.keras", "*.safetensors", *_PICKLES)
_BUILT = "_version.py"
"""What setuptools-scm and its like write when the project is built, as they call it."""

_STANDARD = sys.stdlib_module_names
_COUNTS = ("*.py", REQUIREMENTS, *_MODELS)


def files_of(root: Path, config: Config) -> dict[str, Digest]:
    """Return the digests of the project's code, by the path in the project.

    That is each Python or saved model file of the project that git tracks or would add, except
    its tests; its requirements.txt; and the files that `model.include` names.

    Raises:
        ProjectError: there is no git or no repository, an included file is missing, or the name
            of a file is not UTF-8.
    """
    tests = [root / path for path in (*config.tests.paths("unit"), *config.tests.paths("sanity"))]
    listed = [
        path
        for path in git.list_files(root, _COUNTS)
        if not any(path.is_relative_to(folder) for folder in tests)
    ]
    files = {path.relative_to(root).as_posix(): path for path in listed}
    files |= dict(included(root, config.model.include))
    for name in files:
        _check_name(name)
    return {name: digests.of_file(path) for name, path in sorted(files.items())}


def _check_name(name: str) -> None:
    """Refuse a name that no record can have, because it is not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        raise ProjectError(
            f"the name of the file {shown} is not UTF-8, and a release names its files",
            hint="rename it, and commit",
        ) from error


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
    named = commands.sources_of(model.command or "")
    scripts = [root / packages.source_of(root, path) for path in named]
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
        **_without(config.data, {"train", "test", "slices", "batch_rows"}),
        **_without(model, {"params", "allow_pickle", "pickle_sha256", "quantiles"}),
        # A key that a project does not use leaves its digest as it was before there was the key.
        **({"quantiles": model.quantiles} if model.quantiles else {}),
        **({"batch_rows": config.data.batch_rows} if config.data.batch_rows else {}),
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
    """Return the files of the project that modules such as `pkg.hooks` are made of, sorted.

    Raises:
        ProjectError: a file is not Python.
    """
    return sorted(set(sources(root, modules).values()))


def sources(root: Path, modules: Iterable[str]) -> dict[str, Path]:
    """Return the files of the project that modules are made of, by the path that their names give.

    That is `pkg/hooks.py` for `pkg.hooks`, also where the file is in `src/`. Each import statement
    is followed, wherever it stands; what is imported by a computed name is not seen and belongs
    under `model.include`.

    Raises:
        ProjectError: a file is not Python.
    """
    folders = packages.folders(root)
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        for place, path in _files_of(folders, waiting.pop()).items():
            if place not in found:
                found[place] = path
                waiting.extend(_imports(path, root, PurePosixPath(place).parent.parts))
    return dict(sorted(found.items()))


def source_of(root: Path, module: str) -> Path | None:
    """Return the file of a module of the project; `None` if it has none.

    What a distribution provides is not the project's, except in the project's folder itself.
    """
    found = _files_of(packages.folders(root), module)
    name = module.replace(".", "/")
    return found.get(f"{name}/__init__.py") or found.get(f"{name}.py")


def folder_of(root: Path, module: str) -> Path:
    """Return the folder from which a module of the project is imported: its own, or `src/`."""
    file = source_of(root, module)
    folders = packages.folders(root)
    return next((each for each in folders if file in packages.files_of(each, module)), root)


def hint_of_copy(root: Path, module: str) -> str:
    """Return what to do where Python reads an installed copy of a module that the project has.

    Empty if the project has no such module.
    """
    if source_of(root, module) or not any(
        packages.files_of(folder, module) for folder in packages.folders(root)
    ):
        return ""
    return (
        f"the project has the module {module} itself, and Python reads an installed one: "
        "`pip install -e .` here, and a line `-e .` in requirements.txt"
    )


def third_party(root: Path, files: Iterable[Path]) -> set[str]:
    """Return the installed distributions that files of a project import directly."""
    folders = packages.folders(root)
    names = {name for path in files for name in _imports(path, root)}
    own = {name.partition(".")[0] for name in names if _files_of(folders, name)}
    return distributions.of_modules({name.partition(".")[0] for name in names} - own - _STANDARD)


def _files_of(folders: Sequence[Path], module: str) -> dict[str, Path]:
    """Return the files of a module and its packages, by the path from the folder of both.

    The project's folder is the first place in which Python looks, and `src/` the last one: what is
    installed has precedence over it.
    """
    for folder in folders:
        files = {
            path.relative_to(folder).as_posix(): path for path in packages.files_of(folder, module)
        }
        if files and (folder == folders[0] or not _is_elsewhere(module.partition(".")[0], folders)):
            return files
    return {}


def _is_elsewhere(name: str, folders: Sequence[Path]) -> bool:
    """Return whether Python has a top-level module of its own, or of an installed distribution.

    A project that is installed as editable is read where it is.
    """
    if name in _STANDARD or name == MODULE:
        return True
    installed = distributions.installed().get(name, ())
    return any(not _is_in_place(distribution, folders) for distribution in installed)


def _is_in_place(distribution: Distribution, folders: Sequence[Path]) -> bool:
    """Return whether the modules of a distribution are read from the folder of its project.

    Source: https://packaging.python.org/en/latest/specifications/direct-url/
    """
    url = json.loads(distribution.read_text("direct_url.json") or "{}")
    is_editable = bool(url.get("dir_info", {}).get("editable"))
    return is_editable or Path(str(distribution.locate_file(""))).resolve() in folders


def _imports(path: Path, root: Path, package: tuple[str, ...] | None = None) -> set[str]:
    """Return the modules that a file may import; `from a import b` gives `a` and `a.b`.

    Args:
        path: of the file.
        root: the project's folder, for messages.
        package: of the file; without it, relative imports are left out.
    """
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        reason = getattr(error, "msg", None) or error
        message = f"{path.relative_to(root)}:{line}: not Python: {reason}"
        raise ProjectError(message, hint="correct the file there") from error
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not (node.level and package is None):
            around = package or ()
            above = around[: len(around) - node.level + 1] if node.level else ()
            origin = ".".join((*above, *([node.module] if node.module else [])))
            names |= {origin} - {""}
            names |= {f"{origin}.{alias.name}".lstrip(".") for alias in node.names}
    return names
