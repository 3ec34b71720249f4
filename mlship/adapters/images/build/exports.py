"""Reads archives that `docker save` writes: an image's configuration and its layers.

They are found by `manifest.json`, which every engine writes: versions before 25 beside folders in
an older format, newer versions beside an OCI layout.
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
            raise _invalid(f"it contains {len(listed)} images")
        self._listed = listed[0]

    @property
    def config(self) -> bytes:
        """The image's configuration, unchanged."""
        with self._file(self._listed.config) as file:
            return file.read()

    @contextmanager
    def layer(self, number: int) -> Iterator[BinaryIO]:
        """Open the uncompressed archive of a layer, counted from the first layer of the base."""
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
        file = self._archive.extractfile(name)
        if file is None:
            raise _invalid(f"{name} is not a file")
        with file:
            yield cast("BinaryIO", file)


@contextmanager
def opened(path: Path) -> Iterator[Export]:
    """Open the image in an archive.

    Raises:
        IntegrityError: the archive is truncated, or does not contain an image.
    """
    try:
        with tarfile.open(path, mode="r:") as archive:
            yield Export(archive)
    except (tarfile.TarError, KeyError, EOFError, msgspec.MsgspecError, IndexError) as error:
        raise _invalid(str(error)) from error


def _invalid(why: str) -> IntegrityError:
    message = f"the Docker engine exported an invalid image: {why}"
    return IntegrityError(message, hint="check the engine's log, then run it again")
