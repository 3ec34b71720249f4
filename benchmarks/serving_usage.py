"""What a process and all below it take: time of the processor, and memory."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_SECONDS_TO_END: Final = 15.0


def tree(root: int) -> list[int]:
    """Return a process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def processor(root: int) -> float:
    """Return the seconds that a process and all below it took of the processors so far.

    With those of children that have ended. A tick is some 10 ms: a window must be seconds long.
    """
    return sum(sum(map(int, stat[11:15])) for pid in tree(root) if (stat := _stat(pid))) / _TICKS


def memory(root: int) -> float:
    """Return the megabytes of a process and all below it; what they share is counted once."""
    total = 0
    for pid in tree(root):
        with suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += sum(
                int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")
            )
    return total / 1024


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and what it has left after some seconds."""
    started = {pid: _start_of(pid) for pid in tree(process.pid)}
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_SECONDS_TO_END)
    for pid, start in started.items():
        # Another process may have the number by now.
        if start and _start_of(pid) == start:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def _start_of(pid: int) -> str:
    """Return when a process was started; empty if it has ended."""
    stat = _stat(pid)
    return "" if not stat or stat[0] == "Z" else stat[19]


def _stat(pid: int) -> list[str]:
    """Return the fields of a process after its name, state first; none if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
