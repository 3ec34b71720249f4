"""A ledger in a directory: one file per record, named by the digest of its bytes.

    <folder>/3f/3f9a0c....json    a record, written atomically
    <folder>/.lock                held while a record is appended
    <folder>/3f/.3f9a....tmp      left by a killed writer, removed an hour later

The lock only keeps the chain linear. If it is not available (a shared drive without locks, a
suspended holder), concurrent writers fork the chain, and nothing is lost.
"""

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from mlship import files
from mlship.adapters.ledgers.chain import Chain
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.dsse import Signing
from mlship.domain.evidence import Evidence, Record, decode, encode, heads
from mlship.errors import IntegrityError, UnavailableError

_RECORD: Final = re.compile(r"[0-9a-f]{64}\.json")
_LOCK: Final = ".lock"
_LOCK_ATTEMPTS: Final = 500
_LOCK_PAUSE: Final = 0.01
_LEFTOVER_SECONDS: Final = 3600.0


class _Stored(msgspec.Struct, frozen=True):
    """A record's bytes, with size and modification time of its file."""

    size: int
    changed: int
    data: bytes


class DirectoryLedger:
    """Stores evidence in a folder, which is created with the first record.

    A file is read again only if its size or its modification time has changed.

    Args:
        folder: of the records.
        by: signs the records; `None` for records without a signature.
    """

    def __init__(self, folder: Path, by: Signing | None = None) -> None:
        self._folder, self._by = folder, by
        self._chain: Chain[_Stored] = Chain(
            self._look, lambda stored: stored.data, lambda digest: str(self._path(digest))
        )

    def append(self, evidence: Evidence, *, after: Sequence[Digest] | None = None) -> Record:
        """Append evidence after the heads of the chain, durably; return it with its digest.

        Args:
            evidence: the evidence to append.
            after: the heads, if the caller has read them; by default all records are read.

        Raises:
            UnavailableError: the disk is full or the folder cannot be written; nothing was added.
            IntegrityError: the chain is broken.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with _alone(self._folder):
                parents = heads(self.records()) if after is None else tuple(after)
                data = encode(msgspec.structs.replace(evidence, parents=parents), self._by)
                record = decode(data)
                self._write(record.digest, data)
                self._sweep()
        except OSError as error:
            message = f"cannot write ledger {self._folder}: {error.strerror or error}"
            hint = "free disk space or make the folder writable, then run the command again"
            raise UnavailableError(message, hint=hint) from error
        return record

    def records(self) -> Sequence[Record]:
        """Return all records, verified, parents before children.

        Raises:
            IntegrityError: a record was changed or removed, or a file is not a record.
            UnavailableError: the folder cannot be read.
        """
        return self._chain.records()

    def _look(self) -> dict[Digest, _Stored]:
        try:
            return dict(self._read())
        except OSError as error:
            message = f"cannot read ledger {self._folder}: {error.strerror or error}"
            raise UnavailableError(message, hint="make the folder readable") from error

    def _read(self) -> Iterator[tuple[Digest, _Stored]]:
        for entry in _entries(self._folder):
            if not entry.is_dir(follow_symlinks=False):
                raise _foreign(entry.path)
            for file in _entries(entry.path):
                digits = file.name.removesuffix(".json")
                if not _RECORD.fullmatch(file.name) or digits[:2] != entry.name:
                    raise _foreign(file.path)
                # It may be a folder, a pipe or a dangling link.
                if not file.is_file():
                    raise _foreign(file.path)
                digest = Digest(f"sha256:{digits}")
                status = file.stat()
                known = self._chain.stored.get(digest)
                if known and (known.size, known.changed) == (status.st_size, status.st_mtime_ns):
                    yield digest, known
                else:
                    data = _checked(file.path, digest)
                    yield digest, _Stored(status.st_size, status.st_mtime_ns, data)

    def _write(self, digest: Digest, data: bytes) -> None:
        path = self._path(digest)
        if not path.parent.is_dir():
            path.parent.mkdir(exist_ok=True)
            files.sync_folder(self._folder)
        files.write_atomically(path, data)

    def _path(self, digest: Digest) -> Path:
        digits = digest.removeprefix("sha256:")
        return self._folder / digits[:2] / f"{digits}.json"

    def _sweep(self) -> None:
        """Remove files that killed writers left an hour ago, by the clock of the file system.

        The new record is stored by now, so failing to remove such a file is not an error.
        """
        with suppress(OSError):
            lock = self._folder / _LOCK
            lock.touch()
            now = lock.stat().st_mtime
            for leftover in self._folder.glob("??/.*.tmp"):
                if now - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
                    leftover.unlink()


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """List the entries that are not hidden; none if the folder does not exist."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except FileNotFoundError:
        return []


def _checked(path: str, digest: Digest) -> bytes:
    # Unbuffered and without pathlib, because a ledger may have thousands of files.
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        data = file.readall()
    if digests.of_bytes(data) != digest:
        message = f"{path} was changed: its content does not match the digest in its name"
        raise IntegrityError(message, hint="restore the ledger from a backup")
    return data


def _foreign(path: str) -> IntegrityError:
    message = f"{path} is not a record of the ledger"
    return IntegrityError(message, hint="move the file, or restore the ledger from a backup")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock; continue without it if it is not free within a few seconds.

    Who waits for the lock locks the folder itself. So a writer that appends one record after
    another lets others in between: it would have the lock again before they look.
    """
    if sys.platform == "win32":
        yield
        return
    with (folder / _LOCK).open("ab") as lock:
        turn = os.open(folder, os.O_RDONLY)
        try:
            _wait_for(turn)
            _wait_for(lock.fileno())
        finally:
            os.close(turn)
        yield


def _wait_for(handle: int) -> None:
    """Lock what is open, unless that takes longer than a few seconds or is not possible there."""
    import fcntl

    for _ in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE)
        except OSError:
            return
        else:
            return
