"""What `docker save` gives: an image's configuration and its layers, in one archive.

Read by `manifest.json`, which every engine writes: those before version 25 beside folders of
their own, newer ones beside an OCI layout.
"""

import gzip
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from mlship.errors import IntegrityError

_GZIP = b"\x1f\x8b"


class _Listed(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    config: str
    layers: tuple[str, ...]


class Export:
    """One image in an archive; see `opened`."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        with self._file("manifest.json") as file:
            listed = msgspec.json.decode(file.read(), type=tuple[_Listed, ...])
        if len(listed) != 1:
            raise _unreadable(f"it holds {len(listed)} images")
        self._listed = listed[0]

    @property
    def config(self) -> bytes:
        """The image's configuration, byte for byte."""
        with self._file(self._listed.config) as file:
            return file.read()

    @contextmanager
    def layer(self, number: int) -> Iterator[BinaryIO]:
        """Give the archive of a layer, counted from the base's first, uncompressed."""
        with self._file(self._listed.layers[number]) as file:
            start = file.read(len(_GZIP))
            file.seek(0)
            if start != _GZIP:
                yield file
                return
            with gzip.GzipFile(fileobj=file) as inside:
                yield cast("BinaryIO", inside)

    @contextmanager
    def _file(self, name: str) -> Iterator[BinaryIO]:
        found = self._archive.extractfile(name)
        if found is None:
            raise _unreadable(f"{name} is no file")
        with found:
            yield cast("BinaryIO", found)


@contextmanager
def opened(path: Path) -> Iterator[Export]:
    """Give the one image in an archive.

    Raises:
        IntegrityError: the archive is cut off, or is none of an image.
    """
    try:
        with tarfile.open(path, mode="r:") as archive:
            yield Export(archive)
    except (tarfile.TarError, KeyError, EOFError, msgspec.MsgspecError, IndexError) as error:
        raise _unreadable(str(error)) from error


def _unreadable(why: str) -> IntegrityError:
    message = f"the engine gave an image that cannot be read: {why}"
    return IntegrityError(message, hint="look at the engine's log; then run it again")
