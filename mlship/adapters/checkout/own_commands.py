"""Commands of mlship for a project, each in a process of its own that ends with this one."""

import ctypes
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from mlship.errors import UnavailableError

_END_WITH_PARENT: Final = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
_SECONDS: Final = 30
"""How long a command that is stopped may take to end."""


class OwnCommands:
    """The port `Commands`: the mlship that runs, with the same configuration and overrides."""

    def __init__(self, config: Path, flags: Sequence[str], environment: Mapping[str, str]) -> None:
        self._config = config.resolve()
        self._flags = tuple(flags)
        self._environment = environment

    def __call__(self, argv: Sequence[str]) -> int:
        """Run a command to its end; what it prints goes to stderr. Return its exit code.

        Raises:
            UnavailableError: no process can be started.
        """
        overrides = [part for flag in self._flags for part in ("--set", flag)]
        start = [sys.executable, "-P", "-m", "mlship", "--config", str(self._config)]
        try:
            process = subprocess.Popen(
                [*start, *overrides, *argv],
                cwd=self._config.parent,
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                # It calls one function of C between fork and exec, and imports nothing.
                preexec_fn=_ending_with(os.getpid()),  # noqa: PLW1509
            )
        except OSError as error:
            message = f"cannot start mlship {argv[0]}: {error.strerror}"
            raise UnavailableError(
                message, hint="free memory, or let more processes run"
            ) from error
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Let a command end its own processes, then make it end."""
    process.terminate()
    try:
        process.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _ending_with(parent: int) -> Callable[[], None] | None:
    """Return what lets a process get SIGTERM when its parent is killed, where there is that.

    Otherwise the command of a killed tick would go on beside that of its next attempt.
    """
    if sys.platform != "linux":
        return None
    # The library is loaded before the fork, in which little may be done.
    return functools.partial(_end_with, ctypes.CDLL(None).prctl, parent)


def _end_with(prctl: Callable[[int, int], int], parent: int) -> None:
    prctl(_END_WITH_PARENT, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
