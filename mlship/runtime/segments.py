"""Files to which one process appends durable lines."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from mlship import files


class Segments:
    """The segment files of one process: complete, synced lines up to `_size`, nothing after.

    Only their owner may read them. Each write holds a shared lock on the segment. Who holds it
    alone may put another file in its place: the next write starts a new segment.

    Args:
        folder: created if it does not exist.
        prefix: of the names, before the time.
        clock: returns the current time with a time zone, for the names.
        limit: a segment of this size in bytes is closed, and a new one is started.
        suffix: of the names.

    Attributes:
        path: the segment of the latest line; empty before the first.
    """

    def __init__(
        self,
        folder: Path,
        prefix: str,
        clock: Callable[[], datetime],
        limit: int,
        suffix: str = ".jsonl",
    ) -> None:
        self.folder = folder
        self.path = Path()
        self._prefix = prefix
        self._suffix = suffix
        self._clock = clock
        self._limit = limit
        self._count = 0
        self._size = 0
        self._handle: int | None = None
        self._name = ""
        self._opened: os.stat_result | None = None

    def open(self) -> None:
        """Start a segment with a new name.

        Raises:
            OSError: the folder cannot be created or written.
        """
        files.make_private(self.folder)
        time = self._clock().astimezone(UTC).strftime("%Y%m%dT%H%M%S%f")
        path = self.folder / f"{self._prefix}{time}-{os.getpid()}-{self._count}{self._suffix}"
        flags = os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY
        self._handle = os.open(path, flags, 0o600)
        self._name, self._opened = str(path), os.fstat(self._handle)
        self.path = path
        self._count += 1
        self._size = 0
        files.sync_folder(self.folder)

    def write(self, pieces: Iterable[bytes]) -> None:
        """Append pieces of lines and sync them together, or leave the segment unchanged.

        Raises:
            OSError: the disk is full or failed.
        """
        handle = self._locked()
        try:
            self._append(handle, pieces)
        finally:
            if self._handle is not None:
                _lock(handle, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the segment; the next `write` starts a new one."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _locked(self) -> int:
        """Return the segment to write to, locked until it is unlocked or closed.

        Raises:
            OSError: a new one cannot be created.
        """
        while True:
            if self._handle is None or self._size >= self._limit:
                self.close()
                self.open()
            handle, opened = self._handle, self._opened
            if handle is None or opened is None:
                raise OSError("no segment is open")
            _lock(handle, fcntl.LOCK_SH)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(self._name), opened):  # noqa: PTH116 (each batch pays)
                    return handle
            self.close()

    def _append(self, handle: int, pieces: Iterable[bytes]) -> None:
        size = 0
        try:
            for piece in pieces:
                size += len(piece)
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(handle, rest) :]
        except BaseException:  # a piece that cannot be made leaves those before it
            self._cut(handle)
            raise
        try:
            os.fdatasync(handle)
        except OSError:
            # After a failed sync the contents of the disk are unknown: do not use this segment.
            self._cut(handle)
            self.close()
            raise
        self._size += size

    def _cut(self, handle: int) -> None:
        """Remove an incomplete tail. If that fails, do not use this segment again."""
        try:
            os.ftruncate(handle, self._size)
        except OSError:
            with contextlib.suppress(OSError):
                self.close()


def _lock(handle: int, operation: int) -> None:
    # Where the file system has no locks, nobody can lock it to replace it either.
    with contextlib.suppress(OSError):
        fcntl.flock(handle, operation)
