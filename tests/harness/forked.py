"""Forks for what commands and pages start beside trainings: workers, other commands, scripts."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import threadpoolctl

from mlship.adapters.checkout import own_commands
from mlship.adapters.rows import workers
from tests.harness import variables
from tests.harness.servers import Starts

ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)
"""The variables of a worker of a batch, of which libraries read some when they are loaded."""
_HASH_SEED: Final = {"PYTHONHASHSEED": "1"}
_WORKER: Final = [sys.executable, "-P", "-m", "mlship.runtime", "batch", "--bundle"]
_COMMAND: Final = [sys.executable, "-P", "-m", "mlship"]


class Workers:
    """What `subprocess` is to the module that starts the workers of a batch."""

    PIPE = subprocess.PIPE
    TimeoutExpired = subprocess.TimeoutExpired

    def __init__(self, start: Starts) -> None:
        self._start = start

    def Popen(self, command: Sequence[str], *, env: Mapping[str, str], **streams: Any) -> Any:  # noqa: N802 (its name there)
        """Start a worker; one with further options starts a machine of Java."""
        fixed = variables.at_import({**os.environ, **ONE_THREAD, **_HASH_SEED})
        if list(command[:-1]) != _WORKER or variables.at_import(env) != fixed:
            return subprocess.Popen(command, env=env, **streams)
        (their_in, our_in), (our_out, their_out) = os.pipe(), os.pipe()
        descriptors = {0: their_in, 1: their_out, 2: streams["stderr"].fileno()}
        made = self._start("mlship.runtime", command[4:], Path.cwd(), env, descriptors)
        os.close(their_in)
        os.close(their_out)
        made.stdin, made.stdout = os.fdopen(our_in, "wb"), os.fdopen(our_out, "rb")
        return made


class Commands:
    """What `subprocess` is to the module by which a command runs others.

    The parent of a fork is the warm process, so a fork does not end with the command that asked.
    """

    DEVNULL = subprocess.DEVNULL
    TimeoutExpired = subprocess.TimeoutExpired

    def __init__(self, start: Starts) -> None:
        self._start = start

    def Popen(  # noqa: N802 (its name there)
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], **options: Any
    ) -> Any:
        """Start a command."""
        if variables.at_import(env) != variables.at_import(os.environ):
            return subprocess.Popen(command, cwd=cwd, env=env, **options)
        assert list(command[: len(_COMMAND)]) == _COMMAND, command
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 (a file descriptor is wanted)
            streams = {0: nothing.fileno(), 1: options["stdout"].fileno(), 2: 2}
            return self._start("mlship", command[len(_COMMAND) :], cwd, env, streams)


def places(start: Starts) -> Mapping[ModuleType, object]:
    """Return the modules that start such processes, and what is their `subprocess` here."""
    return {workers: Workers(start), own_commands: Commands(start)}


def obey(environment: Mapping[str, str]) -> None:
    """Use one thread where the variables say so: the libraries have read others."""
    if ONE_THREAD.items() <= environment.items():
        threadpoolctl.threadpool_limits(1)


def script() -> None:
    """Run `python - ARGUMENTS`, a script on stdin, or `python -c SCRIPT ARGUMENTS`."""
    _, option, *rest = sys.argv
    text = rest.pop(0) if option == "-c" else sys.stdin.read()
    sys.argv, sys.path[:0] = [option, *rest], [""]
    sys.modules["__main__"] = main = ModuleType("__main__")
    exec(compile(text, "<string>" if option == "-c" else "<stdin>", "exec"), vars(main))  # noqa: S102
