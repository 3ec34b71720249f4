"""Processes that outlive their parent. They are identified by pid and start time.

A pid alone may have been reused. Together with the start time and the id of the boot, it
identifies one process uniquely.
"""

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from mlship.adapters.targets.local import launch

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PAUSE = 0.02
_LOG_BYTES = 1 << 20


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process: its pid and its start time, in the format of the operating system."""

    pid: int
    started: str


class Child:
    """A child process that waits for `let_go` before it executes its command."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        *,
        memory: int | None = None,
    ) -> None:
        """Start it, waiting. Its stdout and stderr are appended to `log`.

        Args:
            command: the program and its arguments.
            log: the file of what it writes.
            environment: its variables.
            memory: the limit for each of its processes in bytes; `None` is no limit.
        """
        rotate(log)
        limit = [] if memory is None else ["--memory", str(memory)]
        self._log = log
        with log.open("ab") as output:
            self._before = output.tell()
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", launch.__file__, *limit, *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=dict(environment),
                start_new_session=True,
            )
        self.process = Process(pid=self._popen.pid, started=_started(self._popen.pid))

    def let_go(self) -> None:
        """Let it execute its command, because its pid is recorded now."""
        pipe = self._popen.stdin
        if pipe is None or pipe.closed:
            return
        try:
            pipe.write(b"\n")
            pipe.close()
        except BrokenPipeError:
            return

    def is_alive(self) -> bool:
        """Return whether it runs; collects the exit code, so that no zombie is left."""
        return self._popen.poll() is None

    @property
    def code(self) -> int:
        """The exit code after it has exited; minus the signal number if a signal killed it."""
        return self._popen.returncode or 0

    def last_lines(self, count: int) -> str:
        """Return the end of its log, without lines of earlier processes."""
        return last_lines(self._log, count, start=self._before)


def detach(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
    """Start a detached process, in its own session and with init as parent."""
    rotate(log)
    with log.open("ab") as output:
        subprocess.run(
            [sys.executable, "-I", "-S", launch.__file__, "--detach", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            check=True,
        )


def own() -> Process:
    """Return the current process."""
    return Process(pid=os.getpid(), started=_started(os.getpid()))


def is_alive(process: Process | None) -> bool:
    """Return whether this process still runs; a zombie does not."""
    return process is not None and _started(process.pid) == process.started


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal, if this process still runs. SIGKILL is sent to its whole process group."""
    if not is_alive(process):
        return
    try:
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)
    except ProcessLookupError:
        return


def stop(processes: Iterable[Process], *, seconds: float) -> None:
    """Stop processes together: SIGTERM, then SIGKILL for those that still run after `seconds`."""
    alive = [process for process in processes if is_alive(process)]
    for process in alive:
        send(process, signal.SIGTERM)
    alive = _wait(alive, seconds)
    for process in alive:
        send(process, signal.SIGKILL)
    _wait(alive, 5.0)


def last_lines(log: Path, count: int = 8, *, start: int = 0) -> str:
    """Return the end of a log after byte `start`, for people; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join([line for line in text.splitlines() if line.strip()][-count:])


def rotate(log: Path) -> None:
    """Rename a large log to `.old`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_name(log.name + ".old"))


def _wait(processes: list[Process], seconds: float) -> list[Process]:
    deadline = time.monotonic() + seconds
    while (processes := [item for item in processes if is_alive(item)]) and (
        time.monotonic() < deadline
    ):
        time.sleep(_PAUSE)
    return processes


def _started(pid: int) -> str:
    """Return the start time of a process; empty if there is none, or if it is a zombie."""
    if _boot():
        return _started_linux(pid)
    result = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    state, _, started = result.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else started.strip()


@functools.cache
def _boot() -> str:
    """Return the id of this boot; empty if the system is not Linux."""
    return _BOOT.read_text(encoding="ascii").strip() if _BOOT.exists() else ""


def _started_linux(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # proc(5): the fields after the command in parentheses, which may contain any character.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else f"{_boot()}:{fields[19]}"
