"""The Python distributions in the layers of an image, found as `pip list` finds them.

A layer is read once, as it arrives: nothing is unpacked, and only the metadata of distributions are
kept. Layers are untrusted: what is read of each is limited, and its digest is verified at the end.
"""

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from email.parser import BytesHeaderParser
from pathlib import PurePosixPath
from typing import IO, Final, cast

import msgspec

from mlship.domain.digests import Digest
from mlship.domain.inventory import Distribution, Inventory
from mlship.errors import IntegrityError

_GZIP: Final = b"\x1f\x8b"
_METADATA_MOST: Final = 1 << 20
_LAYER_MOST: Final = 64 << 30
"""The largest archive in a layer, in bytes; what follows is not read."""
_PIECE: Final = 1 << 18
_REMOVED: Final = ".wh."
_EMPTIED: Final = ".wh..wh..opq"
"""Files by which a layer removes a file of the layers below, and all files of a folder."""
_WORDS_MOST: Final = 80
_APPROVED: Final = "License :: "


class LayerContents(msgspec.Struct, frozen=True, kw_only=True):
    """The distributions that a layer adds, and the paths of layers below that it removes.

    Attributes:
        emptied: folders whose files of layers below it removes.
        is_read: whether it is an archive that can be read.
    """

    distributions: tuple[Distribution, ...] = ()
    removed: tuple[str, ...] = ()
    emptied: tuple[str, ...] = ()
    is_read: bool = True


def of_layer(digest: Digest, pieces: Iterable[bytes]) -> LayerContents:
    """Return the contents of a layer.

    Args:
        digest: of its compressed bytes.
        pieces: yields them.

    Raises:
        IntegrityError: they have another digest.
    """
    stream = _Stream(pieces)
    try:
        contents = _read(stream)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError):
        contents = LayerContents(is_read=False)
    if stream.finish() != digest:
        message = f"layer {digest} arrived with other bytes"
        raise IntegrityError(message, hint="ask the registry's operator")
    return contents


def merged(layers: Sequence[tuple[Digest, LayerContents]]) -> Inventory:
    """Return what is installed in an image; its layers are given lowest first."""
    installed: dict[str, Distribution] = {}
    for _, layer in layers:
        for path in list(installed):
            if any(_is_within(path, gone) for gone in layer.removed) or any(
                _is_within(path, folder) and path != folder for folder in layer.emptied
            ):
                del installed[path]
        installed |= {each.path: each for each in layer.distributions}
    ordered = sorted(installed.values(), key=lambda each: (each.name, each.version, each.path))
    unread = tuple(digest for digest, layer in layers if not layer.is_read)
    return Inventory(distributions=tuple(ordered), unread=unread)


def _read(stream: "_Stream") -> LayerContents:
    source = io.BufferedReader(stream, _PIECE)
    is_gzip = source.peek(len(_GZIP))[: len(_GZIP)] == _GZIP
    inside = cast("IO[bytes]", gzip.GzipFile(fileobj=source) if is_gzip else source)
    distributions, removed, emptied = list[Distribution](), list[str](), list[str]()
    with tarfile.open(fileobj=cast("IO[bytes]", _Limited(inside)), mode="r|") as archive:
        for member in archive:
            path = PurePosixPath("/", member.name).relative_to("/")
            if path.name == _EMPTIED:
                emptied.append(str(path.parent))
            elif path.name.startswith(_REMOVED):
                removed.append(str(path.with_name(path.name.removeprefix(_REMOVED) or "_")))
            elif member.isreg() and member.size <= _METADATA_MOST and _is_metadata(path):
                data = archive.extractfile(member)
                distribution = _distribution(data.read() if data else b"", str(path))
                distributions += [distribution] if distribution else []
    return LayerContents(
        distributions=tuple(distributions), removed=tuple(removed), emptied=tuple(emptied)
    )


def _is_metadata(path: PurePosixPath) -> bool:
    """Return whether a file has the metadata of a distribution: of a wheel, or of older tools."""
    above = path.parent.name
    return (
        (path.name == "METADATA" and above.endswith(".dist-info"))
        or (path.name == "PKG-INFO" and above.endswith(".egg-info"))
        or path.name.endswith(".egg-info")
    )


def _distribution(data: bytes, path: str) -> Distribution | None:
    """Return the distribution of a metadata file; `None` if that names none.

    https://packaging.python.org/specifications/core-metadata/
    """
    headers = BytesHeaderParser().parsebytes(data)

    def field(name: str) -> str:
        text = str(headers.get(name) or "").strip()
        return "" if text == "UNKNOWN" else text

    if not field("Name") or not field("Version"):
        return None
    expression, words = field("License-Expression"), field("License")
    if "\n" in words or len(words) > _WORDS_MOST:  # the text of the license itself
        words = ""
    classifiers = [str(each) for each in headers.get_all("Classifier") or ()]
    named = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith(_APPROVED)]
    return Distribution(
        name=field("Name"),
        version=field("Version"),
        path=path,
        expression=expression,
        license="" if expression else words or ", ".join(named),
    )


def _is_within(path: str, folder: str) -> bool:
    return folder in (".", path) or path.startswith(f"{folder}/")


class _Stream(io.RawIOBase):
    """The bytes of a layer as a file; computes their digest."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        super().__init__()
        self._pieces: Iterator[bytes] = iter(pieces)
        self._rest = b""
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        """Read the next bytes; 0 at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._digest.update(piece)
            self._rest = piece
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def finish(self) -> Digest:
        """Read the rest; return the digest of all bytes."""
        for piece in self._pieces:
            self._digest.update(piece)
        return Digest(f"sha256:{self._digest.hexdigest()}")


class _Limited:
    """A file of which tarfile reads at most `_LAYER_MOST` bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = _LAYER_MOST

    def read(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            EOFError: the archive is too large.
        """
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise EOFError
        return data
