"""Records in a folder that one job hands over to another.

    <folder>/ledger/3f/3f9a0c....json    a record, as in a ledger in a directory

`write` makes a folder that a job can use as its ledger. `read` takes one from a job that ran
unreviewed code: data that may be an attack on whoever reads it.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from mlship import files
from mlship.domain import claims, digests
from mlship.domain.digests import Digest
from mlship.domain.evidence import Evidence, Record, decode, encode, in_order
from mlship.errors import IntegrityError, NotFoundError

FOLDER: Final = "ledger"
RECORDS_MOST: Final = 50
RECORD_MOST: Final = 4_000_000
"""Bytes of a record; a training that reads thousands of files, or wide data, makes a large one."""

BYTES_MOST: Final = 10_000_000
"""Bytes of all records."""


def write(evidence: Iterable[Evidence], folder: Path) -> None:
    """Write evidence as a chain of its own, in order.

    Raises:
        OSError: the folder cannot be written.
    """
    parents: tuple[Digest, ...] = ()
    for fact in evidence:
        # Nobody signs it again: whose key it was before does not matter.
        data = encode(msgspec.structs.replace(fact, parents=parents, identity=""))
        digits = digests.of_bytes(data).removeprefix("sha256:")
        path = folder / FOLDER / digits[:2] / f"{digits}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, data)
        parents = (decode(data).digest,)


def read(folder: Path) -> list[Record]:
    """Return the records of a folder from elsewhere, parents first. Links are not followed.

    Raises:
        NotFoundError: there is no such folder.
        IntegrityError: it has anything but records of fair number and size, or one was changed, or
            one is missing.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise NotFoundError(
            f"no evidence in {folder}", hint="write it with `mlship export-evidence --to FOLDER`"
        )
    try:
        stored = _read(folder)
    except OSError as error:
        raise claims.refused(f"it cannot be read: {error.strerror}") from error
    try:
        return in_order(stored)
    except IntegrityError as error:
        raise claims.refused(error.message) from error


def _read(folder: Path) -> dict[Digest, bytes]:
    """Return the bytes of the records, by the digests that their names are.

    Raises:
        IntegrityError: they are too many or too large, or there is something else.
        OSError: they cannot be read.
    """
    stored: dict[Digest, bytes] = {}
    room = BYTES_MOST
    for entry in _records(folder):
        if len(stored) == RECORDS_MOST:
            raise claims.refused(f"it has more than {RECORDS_MOST} records")
        size = entry.stat(follow_symlinks=False).st_size
        if size > min(RECORD_MOST, room):
            raise claims.refused(f"{_named(entry)} has {size:,} bytes, more than allowed")
        stored[Digest(f"sha256:{entry.name.removesuffix('.json')}")] = files.read_regular(
            Path(entry.path), size
        )
        room -= size
    return stored


def _records(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the files of the records, and refuse every other file, link or folder.

    Raises:
        IntegrityError: there is something else.
    """
    for top in _entries(folder, is_folder=True):
        if top.name != FOLDER:
            raise _foreign(top)
        for shelf in _entries(top.path, is_folder=True):
            for entry in _entries(shelf.path, is_folder=False):
                digits = entry.name.removesuffix(".json")
                is_digest = len(digits) == 64 and not set(digits) - set("0123456789abcdef")
                if not is_digest or entry.name != f"{digits}.json" or digits[:2] != shelf.name:
                    raise _foreign(entry)
                yield entry


def _entries(folder: str | Path, *, is_folder: bool) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a folder, which must be folders, or else regular files."""
    with os.scandir(folder) as entries:
        for entry in entries:
            is_kind = entry.is_dir if is_folder else entry.is_file
            if not is_kind(follow_symlinks=False):
                raise _foreign(entry)
            yield entry


def _foreign(entry: os.DirEntry[str]) -> IntegrityError:
    return claims.refused(f"{_named(entry)} is not a record")


def _named(entry: os.DirEntry[str]) -> str:
    return repr(entry.name[:80])
