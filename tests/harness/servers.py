"""Supervisors, replicas and their workers as forks of the warm processes.

What starts them is the code of mlship: the entry point that waits to be recorded, the detached
process, the options. Only the program that it executes at the end is there already, imported. A
worker is a fork of its server, which has loaded nothing of its own yet; the next one, after a
crash, is a real process. Tests marked `cold`, and replicas with a limit of memory, have only real
ones: a fork shares the memory of the process that it comes from.
"""

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NoReturn, Protocol

from mlship.adapters.targets.local import launch, supervisor
from mlship.runtime import __main__ as runtime
from mlship.runtime import spawned
from mlship.training.leaving import leave
from tests.harness import variables
from tests.stand_ins import runtime as stand_in

TITLE: Final = "-" * 4000
"""An argument of the warm processes: forks write their own arguments over it, as ps shows them."""
_LAUNCH: Final = [sys.executable, "-I", "-S", launch.__file__]
_RUNTIME: Final = (sys.executable, "-P", "-m", "mlship.runtime")
_PROGRAMS: Final[Mapping[tuple[str, ...], Callable[[list[str]], int]]] = {
    (sys.executable, "-P", "-m", supervisor.__name__): supervisor.main,
    (sys.executable, stand_in.__file__): stand_in.main,
}
"""What runs in forks beside replicas, by the beginning of its command."""
_PAUSE: Final = 0.01
_STATUS: Final = Path("/proc/self/stat")
_ARGUMENTS: Final = slice(45, 47)
"""Where arguments begin and end, of the fields after the name of the program. Source: proc(5)."""


class Starts(Protocol):
    """Starts a fork: `Warm.start`."""

    def __call__(
        self,
        program: Any,
        arguments: Sequence[str],
        folder: Path | str,
        environment: Mapping[str, str],
        descriptors: Mapping[int, int],
    ) -> Any:
        """Start a program with arguments, a folder, variables, and numbers of open files."""


class Launches:
    """What `subprocess` is to the module of the local target that starts processes."""

    DEVNULL = subprocess.DEVNULL
    PIPE = subprocess.PIPE

    def __init__(self, start: Starts) -> None:
        self._start = start

    def Popen(self, command: Sequence[str], **options: Any) -> Any:  # noqa: N802 (its name there)
        """Start a process that waits for a line on its stdin."""
        if not _is_forked(command, options["env"]):
            return subprocess.Popen(command, **options)
        their_in, our_in = os.pipe()
        try:
            process = self._fork(command, options, their_in)
        except OSError:  # the warm process is gone; a supervisor tries again and again
            os.close(our_in)
            raise
        finally:
            os.close(their_in)
        process.stdin = os.fdopen(our_in, "wb", 0)
        return process

    def run(self, command: Sequence[str], **options: Any) -> Any:
        """Run a command to its end, such as the start of a detached process."""
        if not _is_forked(command, options.get("env", {})):
            return subprocess.run(command, **options)  # noqa: PLW1510 (`check` is an option)
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 (a file descriptor is wanted)
            process = self._fork(command, options, nothing.fileno())
        assert process.wait() == 0, command
        return process

    def _fork(self, command: Sequence[str], options: Mapping[str, Any], stdin: int) -> Any:
        output = options["stdout"].fileno()
        streams = {0: stdin, 1: output, 2: output}
        return self._start("server", command[len(_LAUNCH) :], Path.cwd(), options["env"], streams)


def _is_forked(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether a command starts what runs in forks, with variables that a fork obeys."""
    launched = command[len(_LAUNCH) :]
    return (
        list(command[: len(_LAUNCH)]) == _LAUNCH
        and _beginning(launched[1:] if launched[0] == "--detach" else launched) is not None
        and variables.at_import(environment) == variables.at_import(os.environ)
    )


def launch_in_fork(arguments: list[str]) -> NoReturn:
    """Do in a fork what the entry point does, but for the execution of another program."""
    if arguments[0] != "--detach":
        os.setsid()
    given = {name: getattr(os, name) for name in dir(os)}
    launch.__dict__["os"] = SimpleNamespace(**given | {"execv": _execute})
    end(lambda: launch.main(arguments))


def _beginning(command: Sequence[str]) -> tuple[str, ...] | None:
    """Return the beginning of a command that runs in forks; `None` if it does not."""
    known = (_RUNTIME, *_PROGRAMS)
    return next((each for each in known if tuple(command[: len(each)]) == each), None)


def _execute(_: str, command: list[str]) -> NoReturn:
    name = _beginning(command)
    assert name is not None, command
    sys.argv = command[len(name) - 1 :]
    if name == _RUNTIME:
        serve(command[len(name) :])
    entitle(command)
    end(lambda: sys.exit(_PROGRAMS[name](command[len(name) :])))


def end(command: Callable[[], object]) -> NoReturn:
    """Run a command and end as Python does, without freeing what was imported."""
    code: int | str | None = 0
    try:
        command()
    except SystemExit as error:
        code = error.code
    except BaseException:  # noqa: BLE001 (what Python does at the end of a program)
        traceback.print_exc()
        code = 1
    leave(code if isinstance(code, int) else 1)


def serve(arguments: list[str]) -> NoReturn:
    """Serve or predict in this process, of which the workers are forks until it has begun."""
    entitle([*_RUNTIME, *arguments])
    spawned.__dict__["subprocess"] = SimpleNamespace(Popen=_worker)
    end(lambda: sys.exit(runtime.main(arguments, os.environ)))


def _worker(
    command: list[str], *, pass_fds: tuple[int], env: Mapping[str, str]
) -> "Forked | subprocess.Popen[bytes]":
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        return subprocess.Popen(command, pass_fds=pass_fds, env=env)
    pid = os.fork()
    if pid:
        return Forked(pid)
    [link] = pass_fds
    os.closerange(3, link)
    os.closerange(link + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    os.environ.clear()
    os.environ.update(env)
    entitle(command)
    sys.argv = command[3:]
    end(lambda: sys.exit(runtime.main(command[4:], os.environ)))


class Forked:
    """A fork of this process, with what servers use of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code of a process that has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended."""
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            time.sleep(_PAUSE)
        return code

    def kill(self) -> None:
        """End it."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def entitle(command: Sequence[str]) -> None:
    """Show other arguments of this process to whoever looks for it, such as ps."""
    fields = _STATUS.read_text().rpartition(")")[2].split()
    first, last = map(int, fields[_ARGUMENTS])
    text = b"".join(os.fsencode(part) + b"\0" for part in command)
    size = last - first
    ctypes.memmove(first, text[: size - 1].ljust(size, b"\0"), size)
