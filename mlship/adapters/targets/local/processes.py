"""Processes that outlive their starter: started so that none is lost, recognised by pid and time.

A pid alone may belong to a stranger by now. With the time at which its process started, and the
boot in which it did, it names one process for ever.
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
    """One process: its pid and when it started, in the words of the system that runs it."""

    pid: int
    started: str


class Child:
    """A process that this one started and that waits to be let go."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """Start it, waiting. `log` takes its stdout and stderr, after what is there."""
        rotate(log)
        self._log = log
        with log.open("ab") as output:
            self._before = output.tell()
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", launch.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=dict(environment),
                start_new_session=True,
            )
        self.process = Process(pid=self._popen.pid, started=_started(self._popen.pid))

    def let_go(self) -> None:
        """Let it become its command: it is written down now."""
        pipe = self._popen.stdin
        if pipe is None or pipe.closed:
            return
        try:
            pipe.write(b"\n")
            pipe.close()
        except BrokenPipeError:
            return

    def is_alive(self) -> bool:
        """Tell whether it runs; its exit code is taken, so that it does not stay a zombie."""
        return self._popen.poll() is None

    @property
    def code(self) -> int:
        """The exit code of one that has ended; minus the signal's number if that ended it."""
        return self._popen.returncode or 0

    def last_lines(self, count: int) -> str:
        """Return the end of what it logged, and nothing of what ran before it."""
        return last_lines(self._log, count, start=self._before)


def detach(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
    """Start a process that belongs to nobody: in its own session, its parent init."""
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
    """Return the process that asks."""
    return Process(pid=os.getpid(), started=_started(os.getpid()))


def is_alive(process: Process | None) -> bool:
    """Tell whether that very process still runs; a zombie does not."""
    return process is not None and _started(process.pid) == process.started


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal, if that very process still runs. SIGKILL takes its whole session's group."""
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
    """End processes together: SIGTERM, then SIGKILL for those that run after so many seconds."""
    waiting = [process for process in processes if is_alive(process)]
    for process in waiting:
        send(process, signal.SIGTERM)
    waiting = _wait(waiting, seconds)
    for process in waiting:
        send(process, signal.SIGKILL)
    _wait(waiting, 5.0)


def last_lines(log: Path, count: int = 8, *, start: int = 0) -> str:
    """Return the end of a log from a byte on, for people; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join([line for line in text.splitlines() if line.strip()][-count:])


def rotate(log: Path) -> None:
    """Put a log that has grown aside as `.old`."""
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
    """Return when a process started; empty for none and for a zombie."""
    if _boot():
        return _started_linux(pid)
    answer = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, started = answer.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else started.strip()


@functools.cache
def _boot() -> str:
    """Return the id of this boot; empty where there is no Linux to tell it."""
    return _BOOT.read_text(encoding="ascii").strip() if _BOOT.exists() else ""


def _started_linux(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # proc(5): the fields after the command in parentheses, which may itself hold any character.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else f"{_boot()}:{fields[19]}"
