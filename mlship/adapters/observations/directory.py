"""Observations in files: predictions in the segments of logs, outcomes as JSON lines."""

import fcntl
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from mlship import files
from mlship.adapters.observations.outcomes import Shared, fresh, latest, own, part_of, taken
from mlship.adapters.observations.segments import Line, complete_lines, decoded, lines_of
from mlship.domain.digests import Digest
from mlship.domain.prediction import Outcome, Prediction, Spool, Taken
from mlship.errors import UnavailableError

_LINES: Final = 10_000
"""So many are written together."""
_prediction = msgspec.json.Decoder(Prediction)
_outcome = msgspec.json.Decoder(Outcome)


class _Key(msgspec.Struct):
    id: str
    release: Digest


_key = msgspec.json.Decoder(_Key)


class DirectoryObservations:
    """Observations in folders on this machine.

    Args:
        logs: folders with segments of prediction logs, at any depth; they may not exist yet.
        outcomes: the file to which outcomes are appended, one JSON object per line.
    """

    def __init__(self, logs: Sequence[Path], outcomes: Path) -> None:
        self._logs = logs
        self._outcomes = outcomes

    def predictions(self, releases: Collection[Digest]) -> Iterator[Prediction]:
        """Return the logged predictions of releases, each (id, release) once, oldest first.

        Raises:
            IntegrityError: a complete line was changed, or is not a prediction.
        """
        logged: dict[tuple[str, str], Prediction] = {}
        for line in self._lines():
            prediction = decoded(_prediction, line)
            if prediction.release in releases:
                logged.setdefault((prediction.id, prediction.release), prediction)
        yield from sorted(logged.values(), key=lambda each: (each.time, each.id, each.shadow))

    def find(self, prediction: str) -> Sequence[Prediction]:
        """Return the predictions of that id by any release, shadows last.

        Raises:
            IntegrityError: a line with the id was changed, or no line has it and one was changed.
        """
        encoded = msgspec.json.encode(prediction)
        matches: dict[str, Prediction] = {}
        changed: Line | None = None
        for line in self._lines():
            if encoded in line.text:
                candidate = decoded(_prediction, line)
                if candidate.id == prediction:
                    matches.setdefault(candidate.release, candidate)
            elif line.is_changed:
                changed = changed or line
        if changed is not None and not matches:
            raise changed.error
        return sorted(matches.values(), key=lambda each: (each.shadow, each.time))

    def outcomes(
        self, releases: Collection[Digest], parts: Collection[str] = ()
    ) -> Sequence[Outcome]:
        """Return the outcomes of releases' predictions, in the order in which they arrived.

        Raises:
            IntegrityError: a complete line is not an outcome or a prediction.
        """
        kept = latest(self._kept())
        ids = {name for name, release in self._logged() if release in releases} if kept else ()
        return [
            outcome
            for outcome in kept
            if outcome.prediction in ids or part_of(outcome.prediction) in parts
        ]

    def take(
        self,
        outcomes: Iterable[Outcome],
        releases: Collection[Digest],
        *,
        corrects: bool = False,
        check: Callable[[Prediction], None] = lambda _: None,
        scored: Collection[str] = (),
    ) -> Taken:
        """Add outcomes durably, all or none. An outcome that was added before counts as known.

        Raises:
            ConflictError: a prediction already has another outcome, or only releases of other
                projects made it; nothing was added.
            UnavailableError: the file cannot be written; nothing was added.
        """
        received = list(outcomes)
        rows = frozenset(scored)
        ids = {each.prediction for each in received if each.prediction not in rows}
        logged = own(self._of(ids), releases, check) | rows if ids else rows
        try:
            with _locked(self._outcomes) as handle:
                kept = (each for each in self._kept() if each.prediction in logged)
                known = {each.prediction: each.value for each in kept}
                added = fresh(received, known, logged, corrects=corrects)
                if added:
                    _append(handle, added)
        except OSError as error:
            message = f"cannot write outcomes to {self._outcomes}: {error.strerror}"
            hint = "free disk space or make the file writable, then run the command again"
            raise UnavailableError(message, hint=hint) from error
        return taken(received, added, logged)

    def spools(self, releases: Collection[Digest]) -> Sequence[Spool]:  # noqa: ARG002 (none)
        """Return none: what is answered is in the log."""
        return ()

    def _kept(self) -> Iterator[Outcome]:
        shared = Shared()
        for number, line in enumerate(complete_lines(self._outcomes), start=1):
            yield shared.of(decoded(_outcome, Line(self._outcomes, number, line)))

    def _logged(self) -> Iterator[tuple[str, Digest]]:
        """Return id and release of each prediction."""
        for line in self._lines():
            key = decoded(_key, line)
            yield key.id, key.release

    def _of(self, ids: Collection[str]) -> Iterator[Prediction]:
        """Return the predictions of some ids; of other lines only the id is decoded."""
        for line in self._lines():
            if decoded(_key, line).id in ids:
                yield decoded(_prediction, line)

    def _lines(self) -> Iterator[Line]:
        """Return each complete line of the logs."""
        segments = {path for folder in self._logs for path in folder.rglob("*.jsonl")}
        for segment in sorted(segments - {self._outcomes}):
            yield from lines_of(segment)


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Open a file for appending under a lock; remove an incomplete tail of a killed writer."""
    files.make_private(path.parent)
    is_new = not path.exists()
    handle = _current(path)
    try:
        complete = sum(len(line) for line in complete_lines(path))
        if os.fstat(handle).st_size != complete:
            os.ftruncate(handle, complete)
        if is_new:
            files.sync_folder(path.parent)
        yield handle
    finally:
        os.close(handle)


def _current(path: Path) -> int:
    """Return the open, locked file; another process may have replaced it until it was locked."""
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(handle)):
                return handle
        os.close(handle)


def _append(handle: int, outcomes: Sequence[Outcome]) -> None:
    """Write and sync lines, or leave the file unchanged.

    Raises:
        OSError: the disk is full or failed.
    """
    size = os.fstat(handle).st_size
    try:
        for first in range(0, len(outcomes), _LINES):
            some = outcomes[first : first + _LINES]
            rest = memoryview(b"".join(msgspec.json.encode(each) + b"\n" for each in some))
            while rest:
                rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, size)
        raise
