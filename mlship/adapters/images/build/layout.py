"""A folder in OCI image layout: this machine's images, also saved as files for other machines.

https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md. mlship's folder omits the
layers of base images, as the specification allows: a registry has them.
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
    """Blobs in a folder, named by their digests and written atomically."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = folder / "blobs" / "sha256"

    def prepare(self) -> None:
        """Create the folder.

        Raises:
            OSError: the disk is full or the folder is not writable.
        """
        self.blobs.mkdir(parents=True, exist_ok=True)
        mark = self.folder / "oci-layout"
        if not mark.exists():
            files.write_atomically(mark, _MARK)

    def path(self, digest: Digest) -> Path:
        """Return the path of a blob, which may not exist."""
        return self.blobs / digests.parse(digest).removeprefix("sha256:")

    def has(self, digest: Digest, size: int) -> bool:
        """Return whether a blob exists, with its full size."""
        path = self.path(digest)
        return path.is_file() and path.stat().st_size == size

    def read(self, digest: Digest) -> bytes:
        """Return a small blob after verifying it.

        Raises:
            IntegrityError: it was changed.
        """
        return check(self.path(digest).read_bytes(), digest, f"{self.path(digest)}")

    def pieces(self, digest: Digest, offset: int) -> Iterator[bytes]:
        """Yield the bytes of a blob, from an offset on."""
        with self.path(digest).open("rb") as file:
            file.seek(offset)
            yield from _pieces(file)

    def put(self, data: bytes) -> Digest:
        """Store bytes and return their digest."""
        digest = digests.of_bytes(data)
        if not self.has(digest, len(data)):
            files.write_atomically(self.path(digest), data)
        return digest

    def take(self, digest: Digest, pieces: Iterable[bytes]) -> None:
        """Store a large blob that arrives in pieces.

        Raises:
            IntegrityError: the digest does not match; nothing was stored.
        """
        handle, name = tempfile.mkstemp(prefix=".blob-", dir=self.blobs)
        temporary, actual = Path(name), hashlib.sha256()
        try:
            with os.fdopen(handle, "wb") as file:
                for piece in pieces:
                    actual.update(piece)
                    file.write(piece)
            if f"sha256:{actual.hexdigest()}" != digest:
                message = f"blob {digest} has digest sha256:{actual.hexdigest()}"
                raise IntegrityError(message, hint="ask the registry's operator")
            temporary.chmod(0o644)
            temporary.replace(self.path(digest))
        finally:
            temporary.unlink(missing_ok=True)

    def load(self, image: Image, archive: Path) -> None:
        """Import the blobs of an image from a file that `tarball` wrote, without its base layers.

        Raises:
            NotFoundError: there is no such file.
            IntegrityError: the file is damaged, or contains another image.
        """
        layers = [layer for platform in image.platforms for layer in platform.layers]
        base = {layer.digest for layer in layers if layer.role == "base"}
        wanted = set(self.digests(image)) - base
        try:
            with tarfile.open(archive, mode="r:") as opened:
                for digest in sorted(wanted):
                    blob = opened.extractfile(self._inside(digest))
                    if blob is not None and not self.path(digest).is_file():
                        self.take(digest, _pieces(cast("BinaryIO", blob)))
        except FileNotFoundError as error:
            message = f"file {archive} not found"
            hint = "run `mlship containerize --to FILE` where the image was built, and copy it here"
            raise NotFoundError(message, hint=hint) from error
        except (tarfile.TarError, KeyError, EOFError) as error:
            message = f"{archive} does not contain image {image.digest}: {error}"
            hint = "use the file that `mlship containerize --to` wrote for this release"
            raise IntegrityError(message, hint=hint) from error

    def remember(self, name: Digest, blob: Blob) -> None:
        """Record which layer was built from a lock with that digest."""
        folder = self.folder / "dependencies"
        folder.mkdir(exist_ok=True)
        files.write_atomically(folder / digests.short(name), digests.canonical_json((name, blob)))

    def remembered(self, name: Digest) -> Blob | None:
        """Return the layer that was built from a lock, if it still exists and is intact."""
        path = self.folder / "dependencies" / digests.short(name)
        try:
            lock, fields = json.loads(path.read_bytes())
            blob = Blob(**fields)
        except (OSError, ValueError, TypeError):
            return None
        if lock != name or not self.has(blob.digest, blob.size):
            return None
        return blob if digests.of_file(self.path(blob.digest)) == blob.digest else None

    def keep(self, recipe: Digest, image: Image) -> None:
        """Record which image was built from a recipe."""
        folder = self.folder / "built"
        folder.mkdir(exist_ok=True)
        written = digests.canonical_json((recipe, image))
        files.write_atomically(folder / digests.short(recipe), written)

    def built(self, recipe: Digest) -> Image | None:
        """Return the image that was built from a recipe, if all of it still exists."""
        try:
            written = (self.folder / "built" / digests.short(recipe)).read_bytes()
            known, image = msgspec.json.decode(written, type=tuple[Digest, Image])
        except (OSError, msgspec.MsgspecError):
            return None
        layers = [layer for platform in image.platforms for layer in platform.layers]
        own = [layer for layer in layers if layer.role != "base"]
        is_complete = all(self.has(layer.digest, layer.size) for layer in own)
        return image if known == recipe and is_complete and not self.missing(image) else None

    def missing(self, image: Image) -> bool:
        """Return whether a manifest or a configuration of an image is missing."""
        small = [
            digest
            for platform in image.platforms
            for digest in (platform.manifest, platform.config)
        ]
        return not all(self.path(digest).is_file() for digest in (image.digest, *small))

    def name(self, image: Image) -> None:
        """Add an image to the index of the folder, so that other programs find it."""
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
        """Return the digests of all blobs of an image, each once."""
        blobs = [image.digest]
        for platform in image.platforms:
            blobs += [platform.manifest, platform.config]
            blobs += [layer.digest for layer in platform.layers]
        return list(dict.fromkeys(blobs))

    def tarball(self, image: Image, into: Path) -> None:
        """Write an image to a file for `docker load`, atomically.

        The file is both an OCI layout and Docker's older format, and its bytes are reproducible.
        Docker's older format has one platform per image, so the second platform gets another tag.
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
                for path_inside, text in self._indexes(image).items():
                    info = tarfile.TarInfo(path_inside)
                    info.size, info.mode = len(text), 0o644
                    archive.addfile(info, io.BytesIO(text))
            temporary.chmod(0o644)
            temporary.replace(into)
        finally:
            temporary.unlink(missing_ok=True)

    def _indexes(self, image: Image) -> dict[str, bytes]:
        docker = [
            {
                "Config": self._inside(built.config),
                "RepoTags": [f"{image.name}:{image.tag}{_suffix(number, built.platform)}"],
                "Layers": [self._inside(layer.digest) for layer in built.layers],
            }
            for number, built in enumerate(image.platforms)
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
