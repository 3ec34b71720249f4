"""Hooks: the user's functions in a bundle's `code/`. Their errors name the function and line."""

import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlship.domain.bundle import CODE, Hooks
from mlship.errors import IntegrityError, ProjectError
from mlship.runtime import sources
from mlship.runtime.faults import text_of

Function = Callable[[Any], Any]


def open_code(code: Path) -> None:
    """Make the modules in a bundle's `code/`, an absolute path, importable before all others.

    A module of the same name that was imported from elsewhere is unloaded. So a hook always comes
    from the bundle, even if the project's working tree is on the path of this process.
    """
    if not code.is_dir():
        return

    sources.compile_anew(code)
    sys.path.insert(0, str(code))
    own = {path.stem if path.is_file() else path.name for path in code.iterdir()}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        origin = getattr(sys.modules[name], "__file__", None)
        if origin is None or not Path(origin).is_relative_to(code):
            del sys.modules[name]


class Hook:
    """A function of the user: from a DataFrame to a DataFrame with a row for each row."""

    def __init__(self, name: str, function: Function, code: Path) -> None:
        self._name = name
        self._function = function
        self._code = code

    @classmethod
    def find(cls, name: str | None, code: Path) -> "Hook | None":
        """Return the hook that the manifest names as `module:function`; `None` without a name.

        Raises:
            ProjectError: it cannot be imported.
        """
        if name is None:
            return None
        module, _, function = name.partition(":")
        try:
            loaded = getattr(importlib.import_module(module), function)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the module may call exit()
            message = f"the hook {name} cannot be imported: {_blame(error, code)}"
            hint = "add the files that it reads to `model.include`, and train again"
            raise ProjectError(message, hint=hint) from error
        return cls(name, loaded, code)

    def __call__(self, frame: Any) -> Any:
        """Apply the function to a DataFrame; the index of the result is reset.

        Raises:
            ProjectError: it raised, or did not return a DataFrame with the same rows in order.
        """
        try:
            result = self._function(frame.reset_index(drop=True))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also exit(), and the panics of libraries in Rust
            message = f"the hook {self._name} failed: {_blame(error, self._code)}"
            raise ProjectError(message, hint="correct the hook, and train again") from error
        return checked(result, frame, f"the hook {self._name}")


def checked(result: Any, frame: Any, hook: str) -> Any:
    """Return what a hook made of a DataFrame with a plain index, with the index reset.

    A DataFrame keeps the index of its rows when it is sorted or put together from parts: so the
    index tells that rows are in other places, where each would get the answer of another one.

    Raises:
        ProjectError: it is no DataFrame of as many rows, or its rows are in another order.
    """
    import pandas as pd

    if not isinstance(result, pd.DataFrame) or len(result) != len(frame):
        rows = f"{len(result)} rows" if isinstance(result, pd.DataFrame) else type(result).__name__
        message = f"{hook} returned {rows} for {len(frame)} rows"
        raise ProjectError(message, hint="return a DataFrame with one row for each input row")
    index = result.index
    # An index with a name is a column that the hook chose, and a plain one may have been reset:
    # neither says anything of places.
    if index.name is None and not index.equals(frame.index) and _is_permuted(index):
        message = f"{hook} returned the rows in another order"
        hint = "return them as they came: end the hook with `.sort_index()`"
        raise ProjectError(message, hint=hint)
    return result.reset_index(drop=True)


def _is_permuted(index: Any) -> bool:
    """Tell whether an index has each number from 0 once, but not in this order."""
    import pandas as pd

    if not pd.api.types.is_integer_dtype(index.dtype) or index.is_monotonic_increasing:
        return False
    return bool(index.sort_values().equals(pd.RangeIndex(len(index))))


def load(bundle: Path, hooks: Hooks) -> tuple[Hook | None, Hook | None]:
    """Return the pre- and the post-processing hook from the bundle's code.

    Raises:
        ProjectError: a hook cannot be imported.
    """
    code = (bundle / CODE).resolve()
    open_code(code)
    return Hook.find(hooks.preprocess, code), Hook.find(hooks.postprocess, code)


def check_types(bundle: Path, types: Sequence[str]) -> None:
    """Import the modules of the project's own types, from the bundle's code and nowhere else.

    Call it after `load`.

    Raises:
        IntegrityError: the bundle's code has no such module or type.
        ProjectError: importing the module fails.
    """
    code = (bundle / CODE).resolve()
    for full in types:
        module, _, name = full.rpartition(".")
        place = code.joinpath(*module.split("."))
        if not (place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()):
            raise _missing(full)
        try:
            loaded = importlib.import_module(module)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the module may call exit()
            message = f"the module of {full} cannot be imported: {_blame(error, code)}"
            hint = "add the files that it reads to `model.include`, and train again"
            raise ProjectError(message, hint=hint) from error
        origin = getattr(loaded, "__file__", None)
        if origin is None or not Path(origin).is_relative_to(code):
            raise _missing(full)
        # What the module has imported from elsewhere is no type of its own.
        if getattr(getattr(loaded, name, None), "__module__", None) != module:
            raise _missing(full)


def _missing(full: str) -> IntegrityError:
    message = f"the model needs {full}, which the bundle's code does not have"
    return IntegrityError(message, hint="train again")


def _blame(error: BaseException, code: Path) -> str:
    """Return the type and text of an error, with the last line of the user's code in its trace."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(code)]
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {text_of(error)}"
    where = f" ({Path(own[-1].filename).relative_to(code)}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {text_of(error)}{where}"
