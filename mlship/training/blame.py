"""The user's code as it is called: whatever it raises names the line that raised it."""

import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from mlship.adapters.checkout.children import full_disk_named
from mlship.errors import MlshipError, ProjectError

Result = TypeVar("Result")

_OWN = Path(__file__).parents[1]
_STANDARD = sysconfig.get_path("stdlib")
_TOOLS = frozenset(("msgspec", "numpy", "pandas"))


def blame(error: BaseException, root: Path) -> str:
    """Say what was raised, after the user's last line on its way: `pipeline.py:12: `."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}: SyntaxError: {error.msg}"
    own = [frame for frame in frames if _is_own(Path(frame.filename), root)]
    place = f"{Path(own[-1].filename).relative_to(root)}:{own[-1].lineno}: " if own else ""
    try:
        text = str(error).strip()
    except Exception:  # noqa: BLE001 (an exception of the user's own may fail at this as well)
        text = ""
    return f"{place}{type(error).__name__}" + (f": {text}" if text else "")


def _is_own(path: Path, root: Path) -> bool:
    return path.is_relative_to(root) and "site-packages" not in path.parts


@contextmanager
def one_process(name: str) -> Iterator[None]:
    """Let only the process itself come out of the user's code, not those that it forked."""
    own = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != own:
            raised = sys.exc_info()[1]
            why = f": {raised}" if raised else ""
            sys.stderr.write(f"{name} also ended in a process that it forked{why}\n")
            sys.stderr.flush()
            os._exit(1)


@contextmanager
def proven(root: Path, source: str) -> Iterator[None]:
    """Name the model, its method and the line where a model raises while it is proven.

    Args:
        root: the project's folder.
        source: where the model comes from, for the message.

    Raises:
        ProjectError: something that mlship calls raised; what mlship itself raises stays as it is.
        UnavailableError: the disk is full.
    """
    try:
        with full_disk_named(str(root)), one_process(source):
            yield
    except MlshipError:
        raise
    except Exception as error:  # whatever the model's library, or a class of the project, raises
        method = _method(error)
        if method is None:
            raise
        message = f"the model of {source} cannot be proven, {method} fails at {blame(error, root)}"
        hint = "let the model answer or refuse each row by itself; see "
        raise ProjectError(message, hint=f"{hint}`mlship guide your-own-model`") from error


def _method(error: Exception) -> str | None:
    """Return what of a model mlship called last when this was raised; `None` for its own fault."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [Path(frame.filename) for frame in frames]
    own = [number for number, path in enumerate(places) if path.is_relative_to(_OWN)]
    first = own[-1] + 1 if own else 0
    is_own = all(map(_is_tool, places[first:]))
    return None if is_own else frames[first].name


def _is_tool(path: Path) -> bool:
    """Tell whether a file is of what mlship itself computes with, rather than of a model."""
    if _TOOLS & set(path.parts):
        return True
    return path.is_relative_to(_STANDARD) and "site-packages" not in path.parts


def called(root: Path, name: str, call: Callable[[], Result]) -> Result:
    """Return what a function of the user's returns.

    Raises:
        ProjectError: it raised or exited; the message has the user's last line on the way.
        UnavailableError: the disk is full.
    """
    try:
        with full_disk_named(str(root)), one_process(name):
            return call()
    except MlshipError:
        raise
    except MemoryError as error:
        message = f"{name} ran out of memory: {blame(error, root)}"
        raise ProjectError(message, hint="train on fewer rows, or on a larger machine") from error
    except SystemExit as error:
        message = f"{name} ended the program at {blame(error, root)}"
        raise ProjectError(
            message, hint="remove the call of exit(), then run the command again"
        ) from error
    except BaseException as error:  # the user's code may raise anything
        message = f"{name} failed at {blame(error, root)}"
        hint = "correct the code there, or what mlship.yaml gives it, then run the command again"
        if isinstance(error, ModuleNotFoundError) and error.name:
            hint = hint_of_missing(root, error.name)
        raise ProjectError(message, hint=hint) from error


def hint_of_missing(root: Path, module: str) -> str:
    """Return what to do about a module that is not found: it may be a file of the project."""
    name = module.partition(".")[0]
    own = [*root.glob(f"*/{name}.py"), *root.glob(f"*/{name}/__init__.py")]
    if not own:
        return f"install what provides the module {module}, and list it in requirements.txt"
    hint = f"the project has {own[0].relative_to(root)}: "
    if any((root / setup).is_file() for setup in ("pyproject.toml", "setup.py", "setup.cfg")):
        return (
            f"{hint}install it here (`pip install -e .`), and by a line `-e .` in requirements.txt"
        )
    return f"{hint}import it by its path from the project's folder"
