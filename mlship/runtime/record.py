"""The prediction log: on the disk before an answer is given.

Each process appends to segment files of its own. Requests that come together are written and
synced together by one thread, and each waits for its batch: a kill at any byte loses no
prediction that was acknowledged, and leaves at most one torn line at the end of a segment.
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
    """Where predictions are kept."""

    def append(self, predictions: Sequence[Prediction]) -> Written:
        """Keep predictions; the result is done when they are durable."""


class Recorder:
    """Appends predictions to segments `<slot>-<time>-<pid>-<number>.jsonl` in one folder.

    Args:
        folder: is made where it does not exist.
        slot: where this process runs.
        clock: tells the time, with a zone, for the names of segments.
        segment_bytes: a segment that has reached this size is closed, and a new one begun.

    Raises:
        UnavailableError: the folder cannot be made or written.
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
        """Keep predictions; the result is done when they are durable.

        Raises:
            UnavailableError: the recorder is closed.
        """
        lines = b"".join(self._encode(prediction) + b"\n" for prediction in predictions)
        return self._commit.append(lines)

    def close(self) -> None:
        """Write what waits, and stop."""
        self._commit.close()
        self._segments.close()

    def _write(self, batch: list[bytes], _since: float) -> None:
        try:
            self._segments.write(b"".join(batch))
        except OSError as error:
            message = f"the prediction log in {self._segments.folder} cannot be written: "
            hint = "make room on that disk; the request was not answered and may be repeated"
            raise UnavailableError(f"{message}{error.strerror}", hint=hint) from error


class _Segments:
    """The segment files of one process: whole, synced lines up to `_size`, and nothing after."""

    def __init__(self, folder: Path, slot: str, clock: Callable[[], datetime], limit: int) -> None:
        self.folder = folder
        self._slot = slot
        self._clock = clock
        self._limit = limit
        self._count = 0
        self._size = 0
        self._handle: int | None = None

    def open(self) -> None:
        """Begin a segment of a new name.

        Raises:
            UnavailableError: the folder cannot be made or written.
        """
        try:
            self._begin()
        except OSError as error:
            message = f"the prediction log in {self.folder} cannot be written: {error.strerror}"
            raise UnavailableError(message, hint="give a folder that can be written") from error

    def write(self, lines: bytes) -> None:
        """Append lines and sync them, or leave the segment as it was.

        Raises:
            OSError: the disk is full, or broken.
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
            # After a failed sync nobody knows what is on the disk: this segment is not used again.
            self._cut(handle)
            self.close()
            raise
        self._size += len(lines)

    def close(self) -> None:
        """Close the segment; the next `write` begins another."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _cut(self, handle: int) -> None:
        """Take a torn tail away. A segment that cannot be cut is not appended to again."""
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
