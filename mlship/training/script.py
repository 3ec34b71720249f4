"""Training by a command that the project has anyway, such as `python train.py`."""

import os
import re
import runpy
import shlex
import subprocess
import sys
import types
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from mlship.adapters.checkout import shadows
from mlship.config import commands
from mlship.config.commands import PythonCall
from mlship.config.project import ModelConfig
from mlship.errors import ProjectError, RefusedError
from mlship.training.blame import called

_NO_EFFECT: Final = ("-u", "-B", "-q", "-d")
"""Options of Python that change how it starts or writes, and not what a script does."""
PICKLES = (".joblib", ".pkl", ".pickle", ".pt", ".pth", ".pt2")


def run(root: Path, config: ModelConfig, command: str, saved: str) -> Any:
    """Run a command in the project's folder; return the estimator or the path that it saved.

    A Python script runs in this process, so that the classes that it defines exist when its model
    is loaded; with options that a running Python cannot take (`-O`, `-X`), by a process of its own.
    Its pickle needs no permission: it was written by the code that just ran.

    Args:
        root: the project's folder.
        config: names the command for messages.
        command: the program and its arguments; no shell reads it.
        saved: the file that the command writes, a path in the project.

    Raises:
        ProjectError: the command fails, or does not write the file.
        RefusedError: the file is a link out of the project.
    """
    path = root / saved
    before = _identity(path)
    argv = shlex.split(command)
    call = commands.python_call(argv)
    if call is not None and _is_this_python(root, call.program):
        if all(map(_is_applied, call.options)):
            _apply(call.options)
            _run_python(root, config.source, call)
        else:
            _run_program(root, config.source, [sys.executable, *argv[1:]])
    else:
        _run_program(root, config.source, argv)
    after = _identity(path)
    if after is None or after == before:
        message = f"`{config.source}` ended without writing {saved}"
        hint = "save the fitted model there, or correct model.saved in mlship.yaml"
        raise ProjectError(message, hint=hint)
    check_link(root, config, path)
    if path.suffix not in PICKLES:
        return saved
    return called(root, f"loading {saved}", lambda: _unpickled(path))


def check_link(root: Path, config: ModelConfig, path: Path) -> None:
    """Refuse the path of a saved model in the project that leads out of it.

    Raises:
        RefusedError: it is a link to something outside, or below such a link.
    """
    is_inside = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))  # noqa: PTH100 (links are kept)
    if (is_inside or path.is_symlink()) and not path.resolve().is_relative_to(root.resolve()):
        message = f"{config.source} returned {path.name}, a link to {path.resolve()}, "
        message += "outside of the project"
        raise RefusedError(message, hint="copy the file into the project")


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _unpickled(path: Path) -> Any:
    if path.suffix.startswith(".pt"):
        from mlship.training.frameworks import torchnet

        return torchnet.from_file(path.read_bytes(), path.name)
    import joblib

    return joblib.load(path)


def _is_this_python(root: Path, program: str) -> bool:
    """Return whether a command's Python is the one that runs here.

    Raises:
        ProjectError: it is one of another version.
    """
    if "/" in program:
        here = os.path.abspath(sys.executable)  # noqa: PTH100 (a link is another environment)
        return os.path.abspath(root / program) == here  # noqa: PTH100
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if program not in ("python", "python3", f"python{version}"):
        message = f"model.command starts {program}, and mlship runs on Python {version}"
        hint = "write python: a model is trained and served by the Python that runs mlship; in "
        raise ProjectError(message, hint=f"{hint}jobs it is that of workflows.python")
    return True


def _is_applied(option: str) -> bool:
    """Return whether an option of Python can be applied to a Python that runs already."""
    return option in _NO_EFFECT or option.startswith("-W")


def _apply(options: Sequence[str]) -> None:
    """Apply the options `-W` of Python, of which a later one wins."""
    for option in options:
        if option.startswith("-W"):
            _filter_warnings(option.removeprefix("-W"))


def _filter_warnings(value: str) -> None:
    """Apply `action:message:category:module:line`, as Python does at its start.

    Source: https://docs.python.org/3/library/warnings.html#describing-warning-filters
    """
    action, message, category, module, line = (f"{value}::::").split(":")[:5]
    actions = ("default", "error", "ignore", "always", "module", "once")
    known = next((name for name in actions if action and name.startswith(action)), "")
    place, _, name = category.rpartition(".")
    kind = getattr(sys.modules.get(place or "builtins"), name or "Warning", None)
    if not known or not isinstance(kind, type) or not (line or "0").isdecimal():
        print(f"Invalid -W option ignored: {value}", file=sys.stderr)  # noqa: T201 (Python's own)
        return
    warnings.filterwarnings(
        known,  # type: ignore[arg-type]
        message=re.escape(message),
        category=kind,
        module=rf"{re.escape(module)}\Z" if module else "",
        lineno=int(line or 0),
    )


def _run_python(root: Path, name: str, call: PythonCall) -> None:
    """Run a script or a module as `__main__`, which stays so for the classes in its model.

    Raises:
        ProjectError: it fails, or Python has loaded another module in place of one of its own.
    """
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    place = root
    if call.script:
        place = (root / call.script).parent
        main.__file__ = str(root / call.script)
    sys.argv = [call.script or call.module, *call.arguments]
    shadows.check_loaded(place, [Path(call.script).stem if call.script else call.module])
    sys.path.insert(0, str(place))

    def execute() -> None:
        if call.module:
            names = runpy.run_module(call.module, run_name="__main__", alter_sys=False)
            vars(main).update(names)
            return
        source = Path(main.__file__ or "").read_bytes()
        exec(compile(source, main.__file__ or "", "exec"), vars(main))  # noqa: S102

    try:
        called(root, name, execute)
    except ProjectError as error:
        if isinstance(error.__cause__, SystemExit) and error.__cause__.code in (None, 0):
            return
        raise


def _run_program(root: Path, name: str, argv: list[str]) -> None:
    try:
        done = subprocess.run(argv, cwd=root, check=False, env=_environment())
    except OSError as error:
        message = f"`{name}` cannot be started: {error.strerror or error}"
        raise ProjectError(message, hint="correct model.command in mlship.yaml") from error
    if done.returncode != 0:
        message = f"`{name}` ended with exit code {done.returncode}"
        raise ProjectError(message, hint="correct what it printed above, then train again")


def _environment() -> dict[str, str]:
    """Return the variables of a program: its `python` is the one that runs here."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join(part for part in (here, os.environ.get("PATH", "")) if part)
    return {**os.environ, "PATH": path}
