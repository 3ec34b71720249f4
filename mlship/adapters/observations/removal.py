"""Removal of predictions from files: segments of logs, outcomes, and spools that no process holds.

A file is replaced by one with the lines that stay, under the lock of its writer. So a replica that
writes loses nothing, and after a kill at any point each file is the old or the new one. Outcomes
are removed before their predictions, by which they are found.
"""

import fcntl
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from mlship import files
from mlship.adapters.observations.outcomes import removable
from mlship.adapters.observations.segments import Line, lines_of
from mlship.domain import lines
from mlship.domain.bundle import Row
from mlship.domain.digests import Digest
from mlship.domain.prediction import Outcome, Prediction, Spool
from mlship.domain.removal import Removals, Removed, Selection
from mlship.errors import ConflictError, UnavailableError

_WRITER = re.compile(r"-(\d+)-\d+\.jsonl")
_LOCK = "lock"
_prediction = msgspec.json.Decoder(Prediction)
_outcome = msgspec.json.Decoder(Outcome)
_row = msgspec.json.Decoder(Row)

Keeps = Callable[[bytes], bool]
"""Whether a line stays in its file."""


class Everywhere:
    """Removals in several places, one after the other."""

    def __init__(self, places: Sequence[Removals]) -> None:
        self._places = places

    def count(self, selection: Selection, releases: Collection[Digest]) -> Removed:
        """Return what `remove` would remove. Changes nothing."""
        return _sum(place.count(selection, releases) for place in self._places)

    def remove(self, selection: Selection, releases: Collection[Digest]) -> Removed:
        """Remove predictions of releases, with their outcomes, durably. It is idempotent."""
        return _sum(place.remove(selection, releases) for place in self._places)

    def unreached(self, releases: Collection[Digest]) -> Sequence[Spool]:
        """Return the spools that may have predictions which `remove` does not reach."""
        return [spool for place in self._places for spool in place.unreached(releases)]


class DirectoryRemovals:
    """Removes from the folders of a project, whatever release made the predictions.

    Args:
        logs: the folder of prediction logs, at any depth; it may not exist yet.
        outcomes: the folder of files with outcomes; likewise.
    """

    def __init__(self, logs: Path, outcomes: Path) -> None:
        self._logs = logs
        self._outcomes = outcomes

    def count(self, selection: Selection, releases: Collection[Digest]) -> Removed:  # noqa: ARG002
        """Return what `remove` would remove. Changes nothing.

        Raises:
            UnavailableError: a file cannot be read.
        """
        with _reported(self._logs):
            return self._found(selection)[0]

    def remove(self, selection: Selection, releases: Collection[Digest]) -> Removed:  # noqa: ARG002
        """Remove predictions with their outcomes, durably. It is idempotent.

        Raises:
            ConflictError: a replica of a former version writes to such a segment; nothing was
                removed.
            UnavailableError: a file cannot be written; what was removed before stays removed.
        """
        with _reported(self._logs):
            removed, ids, outcomes, segments = self._found(selection)
            for segment in segments:
                _check_writer(segment)
            for folder in (self._logs, self._outcomes):
                _sweep(folder)
            for path in self._files_of_outcomes():
                _rewrite(path, lambda line: _of_outcome(line) not in outcomes)
            for segment in segments:
                _rewrite(segment, _keeps(selection, ids))
            return removed

    def unreached(self, releases: Collection[Digest]) -> Sequence[Spool]:  # noqa: ARG002
        """Return none."""
        return ()

    def _found(self, selection: Selection) -> tuple[Removed, set[str], set[str], list[Path]]:
        """Return counts, the ids of selected predictions and of outcomes, and the segments."""
        segments = sorted(self._logs.rglob("*.jsonl"))
        ids = {
            prediction.id
            for segment in segments
            for line in lines_of(segment)
            if (prediction := _decoded(line)) is not None and selection.has(prediction)
        }
        keeps = _keeps(selection, ids)
        kept: set[str] = set()
        gone: set[tuple[str, Digest]] = set()
        damaged = 0
        affected = []
        for segment in segments:
            is_affected = selection.marks(_tail(segment))
            for line in lines_of(segment):
                is_kept = keeps(line.text)
                is_affected = is_affected or not is_kept
                if (prediction := _decoded(line)) is None:
                    damaged += not is_kept
                elif is_kept:
                    kept.add(prediction.id)
                else:
                    gone.add((prediction.id, prediction.release))
            if is_affected:
                affected.append(segment)
        counts: Counter[Digest] = Counter(release for _, release in gone)
        if damaged:
            counts[Digest("")] = damaged
        known = [_of_outcome(line) for path in self._files_of_outcomes() for line in _raw(path)]
        outcomes = removable(selection, {name for name, _ in gone}, kept)
        number = len({name for name in known if name in outcomes})
        return Removed(predictions=counts, outcomes=number), ids, outcomes, affected

    def _files_of_outcomes(self) -> list[Path]:
        return sorted(self._outcomes.glob("*.jsonl"))


class SpoolRemovals:
    """Removes from spools on this machine that no process holds, and from damaged segments.

    What a running replica has in its spool it delivers to the database.

    Args:
        folder: has a folder for each target, with its spools; it may not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def count(self, selection: Selection, releases: Collection[Digest]) -> Removed:  # noqa: ARG002
        """Return what `remove` would remove. Changes nothing.

        Raises:
            UnavailableError: a file cannot be read.
        """
        with _reported(self._folder):
            counts: Counter[Digest] = Counter()
            for segment in self._segments("*.damaged"):
                counts += _spooled(segment, selection)
            for spool in self._spools():
                with _held(spool) as is_free:
                    for segment in sorted(spool.glob("*.spool")) if is_free else ():
                        counts += _spooled(segment, selection)
            return Removed(predictions=counts)

    def remove(self, selection: Selection, releases: Collection[Digest]) -> Removed:
        """Remove predictions, durably. It is idempotent.

        Raises:
            UnavailableError: a file cannot be written.
        """
        removed = self.count(selection, releases)
        with _reported(self._folder):
            _sweep(self._folder)
            for segment in self._segments("*.damaged"):
                _rewrite(segment, lambda line: not _is_spooled(line, selection))
            for spool in self._spools():
                with _held(spool) as is_free:
                    for segment in sorted(spool.glob("*.spool")) if is_free else ():
                        _rewrite(segment, lambda line: not _is_spooled(line, selection))
        return removed

    def unreached(self, releases: Collection[Digest]) -> Sequence[Spool]:  # noqa: ARG002
        """Return none: the database knows of the spools that processes hold."""
        return ()

    def free(self) -> set[str]:
        """Return the names of the spools that no process holds."""
        names = set()
        for spool in self._spools():
            with _held(spool) as is_free:
                names |= {spool.name} if is_free else set()
        return names

    def _spools(self) -> list[Path]:
        return sorted(path.parent for path in self._folder.glob(f"*/*/{_LOCK}"))

    def _segments(self, pattern: str) -> list[Path]:
        return sorted(self._folder.glob(f"*/*/{pattern}"))


def _sum(parts: Iterator[Removed]) -> Removed:
    total = Removed()
    for part in parts:
        total = total.plus(part)
    return total


def _decoded(line: Line) -> Prediction | None:
    """Return the prediction of a line, `None` if it was changed or is none."""
    if line.is_changed:
        return None
    try:
        return _prediction.decode(line.text)
    except msgspec.MsgspecError:
        return None


def _keeps(selection: Selection, ids: Collection[str]) -> Keeps:
    """Return whether a line of a segment stays: one that is not whole may be of the selection."""
    of_id = selection.before is None

    def keeps(text: bytes) -> bool:
        if lines.has_checksum(text) and not lines.is_whole(text):
            return not selection.marks(text)
        try:
            prediction = _prediction.decode(text)
        except msgspec.MsgspecError:
            return not selection.marks(text)
        return not (selection.has(prediction) or (of_id and prediction.id in ids))

    return keeps


def _of_outcome(text: bytes) -> str:
    """Return the prediction of a line of outcomes; empty if it is none."""
    try:
        return _outcome.decode(text).prediction
    except msgspec.MsgspecError:
        return ""


def _spooled(segment: Path, selection: Selection) -> "Counter[Digest]":
    counts: Counter[Digest] = Counter()
    for text in _raw(segment):
        if _is_spooled(text, selection):
            row = lines.inserted(text.rstrip(b"\n"))
            counts[Digest(row[1] if row else "")] += 1
    return counts


def _is_spooled(text: bytes, selection: Selection) -> bool:
    """Return whether a line of a spool is of a selection."""
    row = lines.inserted(text.rstrip(b"\n"))
    if row is None:
        return selection.marks(text)
    name, release, slot, time, inputs, outputs, latency_ms, shadow = row
    return selection.has(
        Prediction(
            id=name,
            release=Digest(release),
            slot=slot,
            time=time,
            inputs=_row.decode(inputs),
            outputs=_row.decode(outputs),
            latency_ms=latency_ms,
            shadow=shadow,
        )
    )


def _raw(path: Path) -> list[bytes]:
    try:
        return _complete(path.read_bytes())
    except FileNotFoundError:
        return []


def _complete(data: bytes) -> list[bytes]:
    return [text + b"\n" for text in data.split(b"\n")[:-1]]


def _tail(path: Path) -> bytes:
    """Return what follows the last newline: a killed writer left it, or a running one writes it."""
    return path.read_bytes().rpartition(b"\n")[2]


def _check_writer(segment: Path) -> None:
    """Check that no replica of a former version, which knows no lock, writes to a segment.

    Raises:
        ConflictError: one may.
    """
    match = _WRITER.search(segment.name)
    texts = [line.text for line in lines_of(segment)]
    is_former = bool(texts) and not lines.has_checksum(texts[-1])
    if match is not None and is_former and files.is_alive(int(match[1])):
        message = f"{segment} is being written by process {match[1]}, a replica of a former version"
        hint = "deploy the release again, or run `mlship down`, then run the command again"
        raise ConflictError(message, hint=hint)


def _sweep(folder: Path) -> None:
    """Remove the temporary files of killed commands."""
    for leftover in folder.rglob(".*.tmp"):
        name = leftover.name.removeprefix(".").rsplit(".", 2)[0]
        files.remove_leftovers(leftover.with_name(name))


def _rewrite(path: Path, keeps: Keeps) -> None:
    """Remove lines from a file, durably, while no other process writes to it.

    An incomplete end goes too: nobody was told that it is there. A file without lines is removed.

    Raises:
        OSError: the disk failed, or the file system has no locks.
    """
    while True:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                if not os.path.samestat(path.stat(), os.fstat(file.fileno())):
                    continue
            except FileNotFoundError:
                return
            before = file.read()
            after = b"".join(text for text in _complete(before) if keeps(text))
            if after and after != before:
                files.write_atomically(path, after, mode=0o600, keeps_access=True)
            elif not after:
                path.unlink()
                files.sync_folder(path.parent)
            return


@contextmanager
def _held(spool: Path) -> Iterator[bool]:
    """Hold a spool; tell whether it was free."""
    try:
        lock = os.open(spool / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(lock)


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"cannot remove predictions in {folder}: {error.filename or ''} {error.strerror}"
        hint = "make the folder writable and free disk space, then run the command again"
        raise UnavailableError(message, hint=hint) from error
