"""Layers: reproducible archives whose bytes depend only on their contents.

Names are sorted, times are 0, all files belong to root, and files have mode 0644 unless they are
executable. Layers that change with each release are stored uncompressed inside a gzip frame:
weights compress badly, and the bytes do not depend on the machine's zlib. The large layer of
dependencies is compressed.
"""

import hashlib
import io
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

import msgspec

from mlship.domain.digests import Digest

MEDIA_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""A gzip header (RFC 1952) without name, time, flags and operating system."""
_STORED = 0xFFFF
_LEVEL = 6
_PIECE = 1 << 20


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A file in a layer. `open` returns its `size` bytes."""

    name: str
    size: int
    open: Callable[[], BinaryIO]
    executable: bool = False


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """A written layer: the digest of its bytes, the digest of the archive inside, its size."""

    digest: Digest
    diff_id: Digest
    size: int


def of_bytes(name: str, data: bytes) -> Member:
    """Return a file with this content."""
    return Member(name=name, size=len(data), open=lambda: io.BytesIO(data))


def of_file(name: str, path: Path) -> Member:
    """Return a file on the disk; its time, owner and mode are ignored."""
    return Member(name=name, size=path.stat().st_size, open=lambda: path.open("rb"))


def write(members: Iterable[Member], blobs: Path, *, compressed: bool) -> Blob:
    """Write a layer to a folder of blobs, named by its digest.

    Raises:
        OSError: the disk is full or the folder is not writable; nothing is left behind.
    """
    return _store(lambda sink: _archive(members, sink), blobs, compressed=compressed)


def pack(archive: BinaryIO, blobs: Path, *, compressed: bool) -> Blob:
    """Write an existing archive, unchanged, to a folder of blobs as a layer.

    Raises:
        OSError: the disk is full or the folder is not writable; nothing is left behind.
    """
    return _store(
        lambda sink: shutil.copyfileobj(archive, sink, _PIECE), blobs, compressed=compressed
    )


def _store(fill: Callable[["_Sink"], None], blobs: Path, *, compressed: bool) -> Blob:
    handle, name = tempfile.mkstemp(prefix=".layer-", dir=blobs)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            sink = _Sink(file, compressed=compressed)
            fill(sink)
            blob = sink.finish()
        temporary.chmod(0o644)
        temporary.replace(blobs / blob.digest.removeprefix("sha256:"))
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return blob


def _archive(members: Iterable[Member], sink: "_Sink") -> None:
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        folders: set[PurePosixPath] = set()
        for member in sorted(members, key=lambda member: member.name.split("/")):
            above = [path for path in PurePosixPath(member.name).parents if path.name]
            for folder in reversed(above):
                if folder not in folders:
                    folders.add(folder)
                    archive.addfile(_folder(folder))
            with member.open() as data:
                archive.addfile(_file(member), data)


def _folder(path: PurePosixPath) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path.as_posix())
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info


def _file(member: Member) -> tarfile.TarInfo:
    info = tarfile.TarInfo(member.name)
    info.size, info.mode = member.size, 0o755 if member.executable else 0o644
    return info


class _Sink(io.RawIOBase):
    """Receives an archive and writes it as gzip; computes the digests of both."""

    def __init__(self, file: BinaryIO, *, compressed: bool) -> None:
        super().__init__()
        self._file = file
        self._inside, self._outside = hashlib.sha256(), hashlib.sha256()
        self._crc = self._length = self._size = 0
        self._deflate = (
            zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS) if compressed else None
        )
        self._rest = b""
        self._put(_HEADER)

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Process the next bytes of the archive."""
        self._inside.update(data)
        self._crc = zlib.crc32(data, self._crc)
        self._length += len(data)
        if self._deflate:
            self._put(self._deflate.compress(data))
        else:
            # Block boundaries do not depend on the sizes of the writes.
            self._rest += data
            whole = len(self._rest) // _STORED * _STORED
            for start in range(0, whole, _STORED):
                self._put(_stored(self._rest[start : start + _STORED], is_last=False))
            self._rest = self._rest[whole:]
        return len(data)

    def finish(self) -> Blob:
        """Write the rest and return the layer."""
        self._put(self._deflate.flush() if self._deflate else _stored(self._rest, is_last=True))
        self._put(self._crc.to_bytes(4, "little"))
        self._put((self._length & 0xFFFFFFFF).to_bytes(4, "little"))
        return Blob(
            digest=Digest(f"sha256:{self._outside.hexdigest()}"),
            diff_id=Digest(f"sha256:{self._inside.hexdigest()}"),
            size=self._size,
        )

    def _put(self, data: bytes) -> None:
        self._outside.update(data)
        self._size += len(data)
        self._file.write(data)


def _stored(data: bytes, *, is_last: bool) -> bytes:
    """Return a stored block of deflate (RFC 1951, 3.2.4), which is not compressed."""
    length = len(data)
    return (
        bytes([is_last]) + length.to_bytes(2, "little") + (length ^ _STORED).to_bytes(2, "little")
    ) + data
