"""A folder of the OCI image layout: this machine's images, and what is handed to others.

https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md. In mlship's own folder
the layers of base images are left out, as the layout allows: a registry has them.
"""

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from mlship import files
from mlship.adapters.images.build.layers import Blob
from mlship.adapters.images.build.manifests import INDEX, MANIFEST
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.image import Image, check
from mlship.errors import IntegrityError, NotFoundError

_MARK = b'{"imageLayoutVersion":"1.0.0"}'
_PIECE = 1 << 20


class Layout:
    """Blobs in a folder, each whole and under its digest or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = folder / "blobs" / "sha256"

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        self.blobs.mkdir(parents=True, exist_ok=True)
        mark = self.folder / "oci-layout"
        if not mark.exists():
            files.write_atomically(mark, _MARK)

    def path(self, digest: Digest) -> Path:
        """Return where a blob lies, or would."""
        return self.blobs / digests.parse(digest).removeprefix("sha256:")

    def has(self, digest: Digest, size: int) -> bool:
        """Tell whether a blob is there with all of its bytes."""
        path = self.path(digest)
        return path.is_file() and path.stat().st_size == size

    def read(self, digest: Digest) -> bytes:
        """Return a small blob, checked.

        Raises:
            IntegrityError: it was changed.
        """
        return check(self.path(digest).read_bytes(), digest, f"{self.path(digest)}")

    def pieces(self, digest: Digest, offset: int) -> Iterator[bytes]:
        """Give a blob's bytes from an offset."""
        with self.path(digest).open("rb") as file:
            file.seek(offset)
            yield from _pieces(file)

    def put(self, data: bytes) -> Digest:
        """Keep bytes and return their digest."""
        digest = digests.of_bytes(data)
        if not self.has(digest, len(data)):
            files.write_atomically(self.path(digest), data)
        return digest

    def take(self, digest: Digest, pieces: Iterable[bytes]) -> None:
        """Keep a large blob that comes in pieces.

        Raises:
            IntegrityError: they do not have that digest; nothing was kept.
        """
        handle, name = tempfile.mkstemp(prefix=".blob-", dir=self.blobs)
        temporary, found = Path(name), hashlib.sha256()
        try:
            with os.fdopen(handle, "wb") as file:
                for piece in pieces:
                    found.update(piece)
                    file.write(piece)
            if f"sha256:{found.hexdigest()}" != digest:
                message = f"blob {digest} came with other bytes"
                raise IntegrityError(message, hint="ask the registry's operator")
            temporary.chmod(0o644)
            temporary.replace(self.path(digest))
        finally:
            temporary.unlink(missing_ok=True)

    def load(self, image: Image, archive: Path) -> None:
        """Take an image's blobs out of a file that `tarball` wrote; those of its base stay there.

        Raises:
            NotFoundError: there is no such file.
            IntegrityError: the file does not hold the image, or is damaged.
        """
        layers = [layer for one in image.platforms for layer in one.layers]
        wanted = set(self.digests(image)) - {one.digest for one in layers if one.role == "base"}
        try:
            with tarfile.open(archive, mode="r:") as opened:
                for digest in sorted(wanted):
                    blob = opened.extractfile(self._inside(digest))
                    if blob is not None and not self.path(digest).is_file():
                        self.take(digest, _pieces(cast("BinaryIO", blob)))
        except FileNotFoundError as error:
            message = f"there is no {archive}"
            hint = "`mlship containerize --to` writes it, where the image was built"
            raise NotFoundError(message, hint=hint) from error
        except (tarfile.TarError, KeyError, EOFError) as error:
            message = f"{archive} does not hold the image {image.digest}: {error}"
            hint = "bring the file that `mlship containerize --to` wrote of this release's image"
            raise IntegrityError(message, hint=hint) from error

    def remember(self, name: Digest, blob: Blob) -> None:
        """Keep which layer came of a lock of that digest."""
        folder = self.folder / "dependencies"
        folder.mkdir(exist_ok=True)
        files.write_atomically(folder / digests.short(name), digests.canonical_json((name, blob)))

    def remembered(self, name: Digest) -> Blob | None:
        """Return the layer that came of a lock, where it is still here and whole."""
        path = self.folder / "dependencies" / digests.short(name)
        try:
            lock, told = json.loads(path.read_bytes())
            blob = Blob(**told)
        except (OSError, ValueError, TypeError):
            return None
        if lock != name or not self.has(blob.digest, blob.size):
            return None
        return blob if digests.of_file(self.path(blob.digest)) == blob.digest else None

    def keep(self, recipe: Digest, image: Image) -> None:
        """Keep which image was built by a recipe; its blobs are here."""
        folder = self.folder / "built"
        folder.mkdir(exist_ok=True)
        written = digests.canonical_json((recipe, image))
        files.write_atomically(folder / digests.short(recipe), written)

    def built(self, recipe: Digest) -> Image | None:
        """Return the image that was built by a recipe, where all of it is still here."""
        try:
            written = (self.folder / "built" / digests.short(recipe)).read_bytes()
            known, image = msgspec.json.decode(written, type=tuple[Digest, Image])
        except (OSError, msgspec.MsgspecError):
            return None
        layers = [layer for one in image.platforms for layer in one.layers if layer.role != "base"]
        is_whole = all(self.has(layer.digest, layer.size) for layer in layers)
        return image if known == recipe and is_whole and not self.missing(image) else None

    def missing(self, image: Image) -> bool:
        """Tell whether a manifest or a configuration of an image is not here."""
        small = [name for one in image.platforms for name in (one.manifest, one.config)]
        return not all(self.path(digest).is_file() for digest in (image.digest, *small))

    def name(self, image: Image) -> None:
        """List an image in the folder's index, so that other programs find it."""
        path = self.folder / "index.json"
        listed = json.loads(path.read_bytes())["manifests"] if path.exists() else []
        rest = [entry for entry in listed if entry["digest"] != image.digest]
        index = digests.canonical_json(_index([*rest, self._entry(image)]))
        if not path.exists() or path.read_bytes() != index:
            files.write_atomically(path, index)

    def _entry(self, image: Image) -> dict[str, Any]:
        data = self.read(image.digest)
        return {
            "mediaType": INDEX if len(image.platforms) > 1 else MANIFEST,
            "digest": image.digest,
            "size": len(data),
            "annotations": {
                "io.containerd.image.name": f"{image.name}:{image.tag}",
                "org.opencontainers.image.ref.name": image.tag,
            },
        }

    def digests(self, image: Image) -> Sequence[Digest]:
        """Return every blob of an image, each once."""
        found = [image.digest]
        for one in image.platforms:
            found += [one.manifest, one.config, *(layer.digest for layer in one.layers)]
        return list(dict.fromkeys(found))

    def tarball(self, image: Image, into: Path) -> None:
        """Write an image as one file for `docker load`, whole or not at all.

        It is an OCI layout and Docker's older format at once, with the same bytes each time.
        Docker's older format knows an image by one platform: the second gets a tag of its own.
        """
        handle, name = tempfile.mkstemp(prefix=f".{into.name}-", dir=into.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
                for digest in sorted(self.digests(image)):
                    path = self.path(digest)
                    info = tarfile.TarInfo(path.relative_to(self.folder).as_posix())
                    info.size, info.mode = path.stat().st_size, 0o644
                    with path.open("rb") as data:
                        archive.addfile(info, data)
                for plain, text in self._papers(image).items():
                    info = tarfile.TarInfo(plain)
                    info.size, info.mode = len(text), 0o644
                    archive.addfile(info, io.BytesIO(text))
            temporary.chmod(0o644)
            temporary.replace(into)
        finally:
            temporary.unlink(missing_ok=True)

    def _papers(self, image: Image) -> dict[str, bytes]:
        docker = [
            {
                "Config": self._inside(one.config),
                "RepoTags": [f"{image.name}:{image.tag}{_suffix(number, one.platform)}"],
                "Layers": [self._inside(layer.digest) for layer in one.layers],
            }
            for number, one in enumerate(image.platforms)
        ]
        index = digests.canonical_json(_index([self._entry(image)]))
        return {
            "index.json": index,
            "manifest.json": digests.canonical_json(docker),
            "oci-layout": _MARK,
        }

    def _inside(self, digest: Digest) -> str:
        return self.path(digest).relative_to(self.folder).as_posix()


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _index(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)}


def _suffix(number: int, platform: str) -> str:
    return f"-{platform.partition('/')[2]}" if number else ""
