"""The user's functions in a bundle's `code/`: found, called, and blamed by name and line."""

import importlib
import sys
import traceback
from collections.abc import Callable
from importlib.machinery import FileFinder, SourceFileLoader
from pathlib import Path
from typing import Any

from mlship.domain.bundle import CODE, Hooks
from mlship.errors import ProjectError

Function = Callable[[Any], Any]


class _CheckedSource(SourceFileLoader):
    """Compiles the source that was checked, and never a cache beside it, which was not."""

    def path_stats(self, path: str) -> dict[str, Any]:
        """Say that there is no cache to compare with."""
        raise OSError(path)


def open_code(code: Path) -> None:
    """Make the modules of a bundle's `code/`, an absolute path, importable before all others.

    A module that an earlier import took from elsewhere is forgotten, so that a hook is the
    bundle's own even in a process that has the project's working tree on its path.
    """
    if not code.is_dir():
        return

    def finder(path: str) -> FileFinder:
        if not Path(path).is_relative_to(code):
            raise ImportError(path)
        return FileFinder(path, (_CheckedSource, [".py"]))

    sys.path_hooks.insert(0, finder)
    sys.path.insert(0, str(code))
    for path in list(sys.path_importer_cache):
        if Path(path).is_relative_to(code):
            del sys.path_importer_cache[path]
    own = {path.stem if path.is_file() else path.name for path in code.iterdir()}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        origin = getattr(sys.modules[name], "__file__", None)
        if origin is None or not Path(origin).is_relative_to(code):
            del sys.modules[name]


class Hook:
    """One of the user's functions: a DataFrame in, a DataFrame of as many rows out."""

    def __init__(self, name: str, function: Function, code: Path) -> None:
        self._name = name
        self._function = function
        self._code = code

    @classmethod
    def find(cls, name: str | None, code: Path) -> "Hook | None":
        """Return the hook that the manifest names as `module:function`, or `None` for no name.

        Raises:
            ProjectError: it cannot be imported, or is no function.
        """
        if name is None:
            return None
        module, _, function = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), function)
        except (Exception, SystemExit) as error:  # the user may call exit() while it is imported
            message = f"the hook {name} cannot be imported: {_blame(error, code)}"
            hint = "name what it reads under `model.include`, and train again"
            raise ProjectError(message, hint=hint) from error
        return cls(name, found, code)

    def __call__(self, frame: Any) -> Any:
        """Return what the function makes of a DataFrame, with a plain index.

        Raises:
            ProjectError: it raised, or returned something else or another number of rows.
        """
        import pandas as pd  # noqa: PLC0415 (a bundle without hooks starts without it)

        try:
            result = self._function(frame.copy())
        except (Exception, SystemExit) as error:
            message = f"the hook {self._name} failed: {_blame(error, self._code)}"
            raise ProjectError(message, hint="correct it there, and train again") from error
        if not isinstance(result, pd.DataFrame) or len(result) != len(frame):
            got = (
                f"{len(result)} rows" if isinstance(result, pd.DataFrame) else type(result).__name__
            )
            message = f"the hook {self._name} returned {got} for {len(frame)} rows"
            raise ProjectError(message, hint="return a DataFrame with a row for each row given")
        return result.reset_index(drop=True)


def load(bundle: Path, hooks: Hooks) -> tuple[Hook | None, Hook | None]:
    """Return the functions before and after the model, from the bundle's own code.

    Raises:
        ProjectError: one of them cannot be imported.
    """
    code = (bundle / CODE).resolve()
    open_code(code)
    return Hook.find(hooks.preprocess, code), Hook.find(hooks.postprocess, code)


def _blame(error: BaseException, code: Path) -> str:
    """Return the kind and text of an error with the last line of the user's code on its way."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(code)]
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error}"
    where = f" ({Path(own[-1].filename).relative_to(code)}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{where}"
