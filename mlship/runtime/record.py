"""The prediction log in files: predictions are on the disk before the response is sent.

Each process appends to its own segment files. One thread writes and syncs concurrent requests in
one batch, and each request waits for its batch. So a crash at any point loses no acknowledged
prediction, and leaves at most one incomplete line at the end of a segment.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import chain, groupby
from pathlib import Path
from typing import Protocol, Self

from mlship.domain.columns import PIECE_ROWS
from mlship.domain.lines import lines_of, pieces_of
from mlship.domain.predicted import Batch
from mlship.errors import UnavailableError
from mlship.runtime.groups import Backlog, GroupCommit, Written
from mlship.runtime.segments import Segments

SEGMENT_BYTES = 64 << 20


class Writing(Protocol):
    """Predictions on their way to the log; a `Written` is one."""

    def add_done_callback(self, fn: Callable[[Self], object], /) -> None:
        """Call a function when they are durable, or cannot be."""

    def exception(self) -> BaseException | None:
        """Return why they could not be written."""


class Record(Protocol):
    """Stores predictions."""

    def append(self, predictions: Batch) -> Writing:
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
        self._segments = Segments(folder, f"{slot}-", clock, segment_bytes)
        try:
            self._segments.open()
        except OSError as error:
            message = f"cannot write the prediction log in {folder}: {error.strerror}"
            raise UnavailableError(message, hint="use a writable folder") from error
        self._commit = GroupCommit(self._write)

    def append(self, predictions: Batch) -> Written:
        """Log predictions; the result is done when they are durable.

        The lines of many are made while they are written: together, they take more memory than
        all else of a request.

        Raises:
            UnavailableError: the recorder is closed.
        """
        if len(predictions) > PIECE_ROWS:
            return self._commit.append(pieces_of(predictions))
        return self._commit.append(lines_of(predictions))

    def backlog(self) -> Backlog:
        """Return nothing: what is in the file is where it belongs."""
        return Backlog()

    def close(self, deadline: float = 0.0) -> None:  # noqa: ARG002 (nothing to deliver)
        """Write the pending predictions, and stop."""
        self._commit.close()
        self._segments.close()

    def _write(self, batch: list[bytes | Iterator[bytes]], _since: float) -> None:
        try:
            self._segments.write(_pieces(batch))
        except OSError as error:
            message = f"cannot write the prediction log in {self._segments.folder}: "
            hint = "free disk space there, then retry the request"
            raise UnavailableError(f"{message}{error.strerror}", hint=hint) from error


def _pieces(batch: Iterable[bytes | Iterator[bytes]]) -> Iterator[bytes]:
    """Return the pieces of a batch, those of small requests as one."""
    for is_whole, items in groupby(batch, lambda item: isinstance(item, bytes)):
        if is_whole:
            yield b"".join(items)  # type: ignore[arg-type]  # they are bytes
        else:
            yield from chain.from_iterable(items)
