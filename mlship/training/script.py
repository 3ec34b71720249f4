"""Training by a command that the project has anyway, such as `python train.py`."""

import os
import runpy
import shlex
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

from mlship.adapters.checkout import shadows
from mlship.config.project import ModelConfig
from mlship.errors import ProjectError, RefusedError
from mlship.training.blame import called

_PYTHON = ("python", "python3", Path(sys.executable).name)
PICKLES = (".joblib", ".pkl", ".pickle", ".pt", ".pth", ".pt2")


def run(root: Path, config: ModelConfig, command: str, saved: str) -> Any:
    """Run a command in the project's folder; return the estimator or the path that it saved.

    A Python script runs in this process, so that the classes that it defines exist when its model
    is loaded. Its pickle needs no permission: it was written by the code that just ran.

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
    if argv[0] in _PYTHON and len(argv) > 1:
        _run_python(root, config.source, argv[1:])
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


def _run_python(root: Path, name: str, arguments: list[str]) -> None:
    """Run a script or a module as `__main__`, which stays so for the classes in its model.

    Raises:
        ProjectError: it fails, or Python has loaded another module in place of one of its own.
    """
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if arguments[0] == "-m":
        arguments = arguments[1:]
        place, module = root, arguments[0]
    else:
        place, module = (root / arguments[0]).parent, Path(arguments[0]).stem
        main.__file__ = str(root / arguments[0])
    sys.argv = arguments
    shadows.check_loaded(place, [module])
    sys.path.insert(0, str(place))
    is_module = not hasattr(main, "__file__") or main.__file__ is None

    def execute() -> None:
        if is_module:
            names = runpy.run_module(arguments[0], run_name="__main__", alter_sys=False)
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
        done = subprocess.run(argv, cwd=root, check=False, env={**os.environ})
    except OSError as error:
        message = f"`{name}` cannot be started: {error.strerror or error}"
        raise ProjectError(message, hint="correct model.command in mlship.yaml") from error
    if done.returncode != 0:
        message = f"`{name}` ended with exit code {done.returncode}"
        raise ProjectError(message, hint="correct what it printed above, then train again")
