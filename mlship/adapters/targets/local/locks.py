"""Exclusive locks on files. The kernel releases them when the holder exits or is killed."""

import fcntl
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlship.domain.fence import KERNEL, Fence
from mlship.errors import ConflictError, UnavailableError

_PAUSE = 0.02


class FileLocks:
    """Implements the port Locks with one file per name in a folder, which is created on demand."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def exclusive(self, name: str) -> Iterator[Fence]:
        """Hold the lock of that name, or fail immediately.

        A process that is stopped keeps its lock, so nobody can take over from it.

        Raises:
            ConflictError: another process holds it; the message names its pid and its command.
            UnavailableError: the folder cannot be written.
        """
        with hold(self._folder / f"{name}.lock", what=name):
            yield KERNEL


@contextmanager
def hold(path: Path, *, what: str, seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock on a file; wait up to `seconds` for it.

    Raises:
        ConflictError: another process still holds it; the message names `what` and the holder.
        UnavailableError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        message = f"cannot lock {path}: {error.strerror}"
        raise UnavailableError(message, hint="make its folder writable") from error
    try:
        _acquire(handle, path, what, seconds)
        _describe(handle, _command())
        try:
            yield
        finally:
            _describe(handle, "")
    finally:
        # Closing releases the lock.
        os.close(handle)


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock on a file, which need not be writable."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _try(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)


def holder(path: Path) -> str:
    """Return the holder of the lock, such as `4711: mlship promote`; empty if unknown."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _acquire(handle: int, path: Path, what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not _try(handle):
        if time.monotonic() >= deadline:
            message = f"{what} is being changed by process {holder(path) or '(unknown)'}"
            raise ConflictError(message, hint="wait until it exits, then run the command again")
        time.sleep(_PAUSE)


def _try(handle: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _describe(handle: int, text: str) -> None:
    # A full disk must not prevent locking; the holder is unknown then.
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode(), 0)


def _command() -> str:
    program = Path(sys.argv[0])
    # `python -m mlship` runs mlship/__main__.py.
    name = program.parent.name if program.name == "__main__.py" else program.name
    arguments = [name, *sys.argv[1:]]
    return f"{os.getpid()}: {shlex.join(arguments)}"
