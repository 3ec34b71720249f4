"""The prediction log in files: predictions are on the disk before the response is sent.

Each process appends to its own segment files. One thread writes and syncs concurrent requests in
one batch, and each request waits for its batch. So a crash at any point loses no acknowledged
prediction, and leaves at most one incomplete line at the end of a segment.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import msgspec

from mlship import files
from mlship.domain.prediction import Prediction
from mlship.errors import UnavailableError
from mlship.runtime.groups import GroupCommit, Written

SEGMENT_BYTES = 64 << 20


class Record(Protocol):
    """Stores predictions."""

    def append(self, predictions: Sequence[Prediction]) -> Written:
        """Log predictions; the result is done when they are durable."""


class Recorder:
    """Appends predictions to segments `<slot>-<time>-<pid>-<number>.jsonl` in one folder.

    Args:
        folder: created if it does not exist.
        slot: the slot of this process.
        clock: returns the current time with a time zone, for the names of segments.
        segment_bytes: a segment of this size is closed, and a new one is started.

    Raises:
        UnavailableError: the folder cannot be created or written.
    """

    def __init__(
        self,
        folder: Path,
        slot: str,
        clock: Callable[[], datetime],
        *,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._segments = _Segments(folder, slot, clock, segment_bytes)
        self._encode = msgspec.json.Encoder().encode
        self._segments.open()
        self._commit = GroupCommit(self._write)

    def append(self, predictions: Sequence[Prediction]) -> Written:
        """Log predictions; the result is done when they are durable.

        Raises:
            UnavailableError: the recorder is closed.
        """
        lines = b"".join(self._encode(prediction) + b"\n" for prediction in predictions)
        return self._commit.append(lines)

    def close(self) -> None:
        """Write the pending predictions, and stop."""
        self._commit.close()
        self._segments.close()

    def _write(self, batch: list[bytes], _since: float) -> None:
        try:
            self._segments.write(b"".join(batch))
        except OSError as error:
            message = f"cannot write the prediction log in {self._segments.folder}: "
            hint = "free disk space there, then retry the request"
            raise UnavailableError(f"{message}{error.strerror}", hint=hint) from error


class _Segments:
    """The segment files of one process: complete, synced lines up to `_size`, nothing after."""

    def __init__(self, folder: Path, slot: str, clock: Callable[[], datetime], limit: int) -> None:
        self.folder = folder
        self._slot = slot
        self._clock = clock
        self._limit = limit
        self._count = 0
        self._size = 0
        self._handle: int | None = None

    def open(self) -> None:
        """Start a segment with a new name.

        Raises:
            UnavailableError: the folder cannot be created or written.
        """
        try:
            self._begin()
        except OSError as error:
            message = f"cannot write the prediction log in {self.folder}: {error.strerror}"
            raise UnavailableError(message, hint="use a writable folder") from error

    def write(self, lines: bytes) -> None:
        """Append lines and sync them, or leave the segment unchanged.

        Raises:
            OSError: the disk is full or failed.
        """
        if self._handle is None or self._size >= self._limit:
            self.close()
            self._begin()
        handle = self._handle
        if handle is None:
            raise OSError("no segment is open")
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(handle, rest) :]
        except OSError:
            self._cut(handle)
            raise
        try:
            os.fdatasync(handle)
        except OSError:
            # After a failed sync the contents of the disk are unknown: do not use this segment.
            self._cut(handle)
            self.close()
            raise
        self._size += len(lines)

    def close(self) -> None:
        """Close the segment; the next `write` starts a new one."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _cut(self, handle: int) -> None:
        """Remove an incomplete tail. If that fails, do not use this segment again."""
        try:
            os.ftruncate(handle, self._size)
        except OSError:
            with contextlib.suppress(OSError):
                self.close()

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        time = self._clock().astimezone(UTC).strftime("%Y%m%dT%H%M%S%f")
        name = f"{self._slot}-{time}-{os.getpid()}-{self._count}.jsonl"
        flags = os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY
        self._handle = os.open(self.folder / name, flags, 0o644)
        self._count += 1
        self._size = 0
        files.sync_folder(self.folder)
