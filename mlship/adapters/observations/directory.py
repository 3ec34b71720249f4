"""Predictions from the segments of prediction logs; outcomes in a file of JSON lines."""

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from mlship import files
from mlship.adapters.observations.outcomes import fresh, taken
from mlship.domain.prediction import Outcome, Prediction, Taken
from mlship.errors import IntegrityError, UnavailableError

_T = TypeVar("_T")
_prediction = msgspec.json.Decoder(Prediction)
_outcome = msgspec.json.Decoder(Outcome)


class _Id(msgspec.Struct):
    id: str


_id = msgspec.json.Decoder(_Id)


class DirectoryObservations:
    """Observations in folders of this machine.

    Args:
        logs: folders with segments of prediction logs, at any depth; one may not exist yet.
        outcomes: the file that outcomes are appended to, one JSON object a line.
    """

    def __init__(self, logs: Sequence[Path], outcomes: Path) -> None:
        self._logs = logs
        self._outcomes = outcomes

    def predictions(self) -> Iterator[Prediction]:
        """Return every logged prediction, each (id, release) once, oldest first.

        Raises:
            IntegrityError: a line that is not the torn last one of its segment is no prediction.
        """
        found: dict[tuple[str, str], Prediction] = {}
        for segment, number, line in self._lines():
            prediction = _decoded(_prediction, line, segment, number)
            found.setdefault((prediction.id, prediction.release), prediction)
        yield from sorted(found.values(), key=lambda found: (found.time, found.id, found.shadow))

    def find(self, prediction: str) -> Sequence[Prediction]:
        """Return the prediction of that id, then its shadow if it had one.

        Raises:
            IntegrityError: a line that names the id is no prediction.
        """
        wanted = msgspec.json.encode(prediction)
        found: dict[str, Prediction] = {}
        for segment, number, line in self._lines():
            if wanted in line:
                candidate = _decoded(_prediction, line, segment, number)
                if candidate.id == prediction:
                    found.setdefault(candidate.release, candidate)
        return sorted(found.values(), key=lambda found: (found.shadow, found.time))

    def outcomes(self) -> Sequence[Outcome]:
        """Return the outcomes in the order in which they arrived.

        Raises:
            IntegrityError: a line that is not the torn last one is no outcome.
        """
        return [
            _decoded(_outcome, line, self._outcomes, number)
            for number, line in enumerate(_whole_lines(self._outcomes), start=1)
        ]

    def take(self, outcomes: Iterable[Outcome]) -> Taken:
        """Add outcomes durably, all or none. One that is there already counts as known.

        Raises:
            ConflictError: a prediction already has another outcome; nothing was added.
            UnavailableError: the file cannot be written; nothing was added.
        """
        given = list(outcomes)
        logged = {
            _decoded(_id, line, segment, number).id for segment, number, line in self._lines()
        }
        try:
            with _locked(self._outcomes) as handle:
                known = {outcome.prediction: outcome.value for outcome in self.outcomes()}
                added = fresh(given, known, logged)
                if added:
                    _append(handle, added)
        except OSError as error:
            message = f"outcomes cannot be written to {self._outcomes}: {error.strerror}"
            raise UnavailableError(message, hint="make room on that disk, and repeat") from error
        return taken(given, added, logged)

    def _lines(self) -> Iterator[tuple[Path, int, bytes]]:
        """Return each whole line of each segment with its place."""
        segments = {path for folder in self._logs for path in folder.rglob("*.jsonl")}
        for segment in sorted(segments - {self._outcomes}):
            for number, line in enumerate(_whole_lines(segment), start=1):
                yield segment, number, line


def _whole_lines(path: Path) -> Iterator[bytes]:
    """Return the lines that end; a torn last one was never acknowledged."""
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line
    except FileNotFoundError:
        return


def _decoded(decoder: "msgspec.json.Decoder[_T]", line: bytes, path: Path, number: int) -> _T:
    try:
        return decoder.decode(line)
    except msgspec.MsgspecError as error:
        message = f"{path}:{number} was changed: {error}"
        raise IntegrityError(message, hint="restore the file from a backup") from error


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Open a file to append to, alone; a torn tail that a killed writer left is taken away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        whole = sum(len(line) for line in _whole_lines(path))
        if os.fstat(handle).st_size != whole:
            os.ftruncate(handle, whole)
        if is_new:
            files.sync_folder(path.parent)
        yield handle
    finally:
        os.close(handle)


def _append(handle: int, outcomes: Sequence[Outcome]) -> None:
    """Write and sync lines, or leave the file as it was.

    Raises:
        OSError: the disk is full, or broken.
    """
    size = os.fstat(handle).st_size
    rest = memoryview(b"".join(msgspec.json.encode(outcome) + b"\n" for outcome in outcomes))
    try:
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, size)
        raise
