"""A spool: predictions on this disk that the database does not have yet.

A spool is a folder `<slot>-<random>` of segments, which one process holds by a lock. A line has
the CRC-32 of a row, and the row as it will be inserted. A row is durable before its request is
answered, so that an incomplete end of a segment was never acknowledged. A segment is deleted after
the database has committed its last row.
"""

import contextlib
import fcntl
import os
import shutil
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

import msgspec

from mlship import files
from mlship.domain import lines
from mlship.errors import UnavailableError
from mlship.runtime.groups import Backlog
from mlship.runtime.postgres import Row
from mlship.runtime.segments import Segments

SEGMENT_BYTES = 4 << 20
"""The rows of one segment are in memory while it is delivered."""
BATCH_ROWS = 500
BATCH_BYTES = 4 << 20
_LOCK = "lock"
_REGISTERED = "registered"
_SEGMENT = ".spool"
_DAMAGED = ".damaged"


class _Segment(msgspec.Struct, kw_only=True):
    path: Path
    rows: int
    size: int
    first: datetime


class Spool:
    """The spool that a process holds.

    Args:
        folder: exists; its name identifies the spool everywhere.
        lock: the open file by which it is held.
        clock: returns the current time with a time zone, for the names of segments.
        max_bytes: the size at which rows are refused.

    Raises:
        OSError: the folder cannot be read.
    """

    def __init__(
        self, folder: Path, lock: int, clock: Callable[[], datetime], max_bytes: int
    ) -> None:
        self.folder = folder
        self._lock: int | None = lock
        self._max_bytes = max_bytes
        self._mutex = threading.Lock()
        self._open = Segments(folder, "", clock, SEGMENT_BYTES, _SEGMENT)
        self._segments: deque[_Segment] = deque()
        self._loaded: deque[Row] = deque()
        self._damaged = 0
        self._damaged_bytes = 0
        for path in sorted(folder.glob(f"*{_DAMAGED}")):
            data = path.read_bytes()
            self._damaged += rows_of(data)[1]
            self._damaged_bytes += len(data)
        for path in sorted(folder.glob(f"*{_SEGMENT}")):
            data = path.read_bytes()
            rows, damaged = rows_of(data)
            if rows or damaged:
                first = rows[0][3] if rows else clock()
                size = len(rows) + damaged
                self._segments.append(_Segment(path=path, rows=size, size=len(data), first=first))
            else:
                path.unlink()

    @property
    def name(self) -> str:
        """What identifies the spool."""
        return self.folder.name

    @property
    def is_registered(self) -> bool:
        """Whether the database has ever heard of the spool, from this process or an earlier one."""
        return (self.folder / _REGISTERED).exists()

    def register(self) -> None:
        """Note, durably, that the database has heard of the spool.

        Raises:
            UnavailableError: the folder cannot be written.
        """
        try:
            (self.folder / _REGISTERED).touch(mode=0o600)
            files.sync_folder(self.folder)
        except OSError as error:
            message = f"cannot use the spool {self.folder}: {error.strerror}"
            raise UnavailableError(message, hint="use a writable folder") from error

    def backlog(self) -> Backlog:
        """Return what is not delivered, damaged rows included."""
        with self._mutex:
            rows = sum(segment.rows for segment in self._segments) + self._damaged
            since = self._segments[0].first if self._segments else None
        return Backlog(rows=rows, since=since)

    def append(self, rows: Iterable[Row]) -> None:
        """Make rows durable.

        Raises:
            UnavailableError: the spool or the disk is full, or the disk failed; nothing was added.
        """
        data, times = bytearray(), []
        for row in rows:
            data += lines.spooled(row)
            times.append(row[3])
        with self._mutex:
            size = sum(segment.size for segment in self._segments) + self._damaged_bytes
            if size + len(data) > self._max_bytes:
                message = f"the database is away and the spool {self.folder} is full"
                hint = "make the database available, or increase observations.spool_mb"
                raise UnavailableError(message, hint=hint)
            try:
                self._open.write([bytes(data)])
            except OSError as error:
                message = f"the database is away, and the spool {self.folder} cannot be written: "
                hint = "make the database available, or free disk space"
                raise UnavailableError(f"{message}{error.strerror}", hint=hint) from error
            last = self._segments[-1] if self._segments else None
            if last is not None and last.path == self._open.path:
                last.rows += len(times)
                last.size += len(data)
            else:
                self._segments.append(
                    _Segment(path=self._open.path, rows=len(times), size=len(data), first=times[0])
                )

    def batch(self) -> list[Row]:
        """Return the oldest rows, at most BATCH_ROWS; none if nothing is left to deliver.

        Call `delivered` once they are committed, otherwise the next call returns them again.

        Raises:
            OSError: the disk failed.
        """
        while not self._loaded:
            with self._mutex:
                if not self._segments:
                    return []
                segment = self._segments[0]
                if segment.path == self._open.path:
                    self._open.close()
                    self._open.path = Path()
            rows, _ = rows_of(segment.path.read_bytes())
            self._loaded.extend(rows)
            with self._mutex:
                # More, if a batch that failed could not be removed.
                segment.rows = max(segment.rows, len(rows))
            if not rows:
                self._end(segment)
        batch: list[Row] = []
        size = 0
        for row in self._loaded:
            size += len(row[4]) + len(row[5])
            if len(batch) == BATCH_ROWS or (batch and size > BATCH_BYTES):
                break
            batch.append(row)
        return batch

    def delivered(self, rows: int) -> None:
        """Forget the rows of the latest `batch`, and delete their segment after its last row.

        Raises:
            OSError: the disk failed.
        """
        for _ in range(rows):
            self._loaded.popleft()
        with self._mutex:
            segment = self._segments[0]
            segment.rows -= rows
            if self._loaded:
                segment.first = self._loaded[0][3]
        if not self._loaded:
            self._end(segment)

    def release(self) -> None:
        """Let another process deliver what is left."""
        with self._mutex:
            self._open.close()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def remove(self) -> None:
        """Delete the folder, from which everything was delivered."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.release()

    def _end(self, segment: _Segment) -> None:
        """Delete a segment, or keep it for a person if it has damaged lines."""
        damaged = segment.rows
        if damaged:
            segment.path.rename(segment.path.with_suffix(_DAMAGED))
        else:
            segment.path.unlink(missing_ok=True)
        with self._mutex:
            self._segments.popleft()
            self._damaged += damaged
            self._damaged_bytes += segment.size if damaged else 0


class Spools:
    """The spools in one folder, which several processes may share.

    Args:
        folder: created if it does not exist.
        slot: the slot of this process.
        clock: returns the current time with a time zone.
        max_bytes: of one spool.
    """

    def __init__(
        self, folder: Path, slot: str, clock: Callable[[], datetime], max_bytes: int
    ) -> None:
        self._folder = folder
        self._slot = slot
        self._clock = clock
        self._max_bytes = max_bytes

    def own(self) -> Spool:
        """Return the spool of this process: one that an earlier process of the slot left, or a new.

        Raises:
            UnavailableError: the folder cannot be written.
        """
        try:
            files.make_private(self._folder)
            for left in sorted(self._folder.glob(f"{self._slot}-*")):
                if spool := self._held(left):
                    return spool
            while True:
                folder = self._folder / f"{self._slot}-{uuid.uuid4().hex}"
                files.make_private(folder)
                (folder / _LOCK).touch(mode=0o600)
                files.sync_folder(folder)
                files.sync_folder(self._folder)
                # Another process may have taken it for an abandoned one.
                if spool := self._held(folder):
                    return spool
        except OSError as error:
            message = f"cannot use the spool in {self._folder}: {error.strerror}"
            raise UnavailableError(message, hint="use a writable folder") from error

    def abandoned(self) -> list[Spool]:
        """Take the spools whose processes have ended."""
        spools: list[Spool] = []
        with contextlib.suppress(OSError):
            # One after the other: those before a folder that cannot be read are kept.
            spools.extend(filter(None, map(self._held, sorted(self._folder.iterdir()))))
        return spools

    def _held(self, folder: Path) -> Spool | None:
        """Return a spool, held from now on, unless another process holds it or has removed it."""
        path = folder / _LOCK
        try:
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        spool = None
        try:
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(path.stat(), os.fstat(lock)):
                    spool = Spool(folder, lock, self._clock, self._max_bytes)
        finally:
            if spool is None:
                os.close(lock)
        return spool


def rows_of(data: bytes) -> tuple[list[Row], int]:
    """Return the rows of a segment, and how many damaged lines come before a whole one.

    Invalid lines at the end were not complete when the process or the machine stopped.
    """
    rows: list[Row] = []
    damaged = invalid = 0
    for line in data.split(b"\n")[:-1]:
        row = lines.inserted(line)
        if row is None:
            invalid += 1
        else:
            damaged += invalid
            invalid = 0
            rows.append(row)
    return rows, damaged
