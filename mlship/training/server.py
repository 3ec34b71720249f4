"""The server of jobs: one process that has imported what training needs, and forks for each job.

No process of a job outlives it. The server is a subreaper: what a job leaves behind, a daemon
with a session of its own too, becomes the server's child, and is ended when the job has ended,
when the process that asked is gone, or when the server is told to stop.
"""

import ctypes
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

_LONGEST: Final = 1 << 16
_PR_SET_CHILD_SUBREAPER: Final = 36
_TERMINATE_SECONDS: Final = 1.0
"""The trackers of multiprocessing and joblib remove shared memory in this time, then end."""
_KILL_SECONDS: Final = 5.0
_PAUSE: Final = 0.01


class Request(NamedTuple):
    """A job that is asked for.

    Attributes:
        arguments: of its process.
        output: the pipe that takes what it writes to stdout and stderr.
    """

    arguments: list[str]
    output: int


def waiting(asked: socket.socket) -> Request | None:
    """Return the request that has come already; `None` if there is none yet."""
    ready, _, _ = select.select([asked], [], [], 0)
    return _received(asked) if ready else None


def serve(
    asked: socket.socket, first: Request | None, begun: Callable[[], None] = lambda: None
) -> list[str]:
    """Serve until the socket or stdin ends. In each fork, return the arguments of its job.

    Args:
        asked: gives the requests, and takes the answers.
        first: the request that was received already.
        begun: called here when the first job has been forked.
    """
    # Where the system refuses it, an orphan of a job goes to init, and is not found.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Ctrl-C reaches the job itself, and the process that asked, whose end closes stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    ended = _wake_on_child()
    with asked:
        while True:
            request, first = first or _received(asked), None
            pid = os.fork()
            if pid == 0:
                _become_job(ended, request.output)
                return request.arguments
            os.close(request.output)
            begun()
            # A caller that is gone is told by the end of stdin.
            with suppress(OSError):
                asked.sendall(b"%d\n" % pid)
            code = _code_of(pid, ended)
            end_descendants()
            if code is None:
                os._exit(0)
            with suppress(OSError):
                asked.sendall(b"%d\n" % code)


def _received(asked: socket.socket) -> Request:
    """Wait for a request; end this process when nobody can ask any more."""
    data, descriptors, _, _ = socket.recv_fds(asked, _LONGEST, 1)
    if not data:
        os._exit(0)
    return Request(msgspec.json.decode(data, type=list[str]), descriptors[0])


def end_descendants() -> None:
    """End all processes below this one, politely for a second; wait until they have ended."""
    signalled: set[int] = set()
    until = time.monotonic() + _TERMINATE_SECONDS
    while _has_children() and time.monotonic() < until:
        for pid in _descendants() - signalled:
            signalled.add(pid)
            _send(pid, signal.SIGTERM)
        time.sleep(_PAUSE)
    until = time.monotonic() + _KILL_SECONDS
    while _has_children() and time.monotonic() < until:
        for pid in _descendants():
            _send(pid, signal.SIGKILL)
        time.sleep(_PAUSE)


def _stop(*_: Any) -> None:
    end_descendants()
    os._exit(0)


def _wake_on_child() -> tuple[int, int]:
    """Return a pipe that can be read after a child has ended."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader, writer


def _become_job(ended: tuple[int, int], output: int) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    for stream in (1, 2):
        os.dup2(output, stream)
    for descriptor in (*ended, output):
        os.close(descriptor)


def _code_of(job: int, ended: tuple[int, int]) -> int | None:
    """Wait for a job and return its exit code; `None` when stdin has ended before."""
    while True:
        with suppress(ChildProcessError):
            while (child := os.waitpid(-1, os.WNOHANG))[0]:
                if child[0] == job:
                    return os.waitstatus_to_exitcode(child[1])
        ready, _, _ = select.select([0, ended[0]], [], [])
        if 0 in ready and not os.read(0, 1):
            return None
        with suppress(BlockingIOError):
            os.read(ended[0], _LONGEST)


def _has_children() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _descendants() -> set[int]:
    """Return the processes below this one."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            # It may have ended meanwhile.
            with suppress(OSError):
                parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.update(below)
        waiting += below
    return found


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
