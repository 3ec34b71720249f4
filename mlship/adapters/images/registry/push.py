"""Pushes an image to a registry, and downloads the layers that are missing here."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from mlship.adapters.images.build import manifests
from mlship.adapters.images.build.layout import Layout
from mlship.adapters.images.build.manifests import CONFIG, INDEX, MANIFEST
from mlship.adapters.images.registry.registries import Registries
from mlship.adapters.images.registry.registry import Registry
from mlship.adapters.images.registry.uploads import Content, Fate
from mlship.domain.digests import Digest
from mlship.domain.image import Image, Layer, PlatformImage, Pushed, Reference
from mlship.domain.ports import Progress
from mlship.errors import ConflictError, NotFoundError

_PARALLEL = 4
_SHOWN = 4 << 20
"""The progress of blobs from this size on, in bytes, is reported."""


class Delivery:
    """Pushes one image of this machine's layout to its repository.

    Args:
        image: the image.
        layout: stores its own layers.
        registries: returns the registries of the image and of its base.
        progress: receives progress notes.
        monotonic: returns seconds, to limit the notes to one a second.
    """

    def __init__(
        self,
        image: Image,
        layout: Layout,
        registries: Registries,
        progress: Progress,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._image = image
        self._layout = layout
        self._registries = registries
        self._progress = progress
        self._monotonic = monotonic
        self._lock = threading.Lock()

    def push(self, target: Reference) -> Pushed:
        """Send blobs that are missing, then manifests, the tag last; see `ports.Images`."""
        registry, image = self._registries.of(target), self._image
        reference = str(target.at(image.digest))
        tagged = target.tagged(image.tag)
        if registry.tagged(tagged) == image.digest:
            self._progress.note(f"{tagged} is there already")
            count = len(self._layout.digests(image))
            return Pushed(reference=reference, digest=image.digest, there=count)
        self._check_here()
        before = registry.exchange.sent
        fates = self._blobs(registry, target)
        for built in image.platforms:
            self._name_dependencies(registry, target, built)
            if len(image.platforms) > 1:
                data = self._layout.read(built.manifest)
                registry.put_manifest(target.at(built.manifest), data, MANIFEST)
        kind = INDEX if len(image.platforms) > 1 else MANIFEST
        registry.put_manifest(tagged, self._layout.read(image.digest), kind)
        return Pushed(
            reference=reference,
            digest=image.digest,
            sent=registry.exchange.sent - before,
            there=fates.count("there"),
            mounted=fates.count("mounted"),
        )

    def complete(self) -> None:
        """Download the layers that are not in the layout."""
        self._check_here()
        for built in self._image.platforms:
            for layer in built.layers:
                if not self._layout.has(layer.digest, layer.size):
                    origin = self._origin(layer)
                    pieces = self._registries.of(origin).read_blob(origin.repository, layer.digest)
                    what = f"fetching {layer.role}"
                    self._layout.take(layer.digest, self._shown(pieces, layer.size, what))

    def _check_here(self) -> None:
        if self._layout.missing(self._image):
            message = f"image {self._image.digest} was built on another machine"
            hint = "there: `mlship containerize --to image.tar`; "
            hint += "here: `mlship push-to-registry --from image.tar`"
            raise NotFoundError(message, hint=hint)

    def _blobs(self, registry: Registry, target: Reference) -> list[Fate]:
        blobs: dict[Digest, tuple[Content, str | None]] = {}
        for built in self._image.platforms:
            blobs |= {layer.digest: self._content(layer, target) for layer in built.layers}
            size = self._layout.path(built.config).stat().st_size
            blobs[built.config] = (self._local(built.config, size, "configuration"), None)
        with ThreadPoolExecutor(_PARALLEL) as pool:
            futures = [
                pool.submit(registry.bring, target.repository, content, mount)
                for content, mount in blobs.values()
            ]
            try:
                return [future.result() for future in futures]
            except BaseException:
                # Only the first error is reported; uploads that did not start are cancelled.
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _content(self, layer: Layer, target: Reference) -> tuple[Content, str | None]:
        if self._layout.has(layer.digest, layer.size):
            content = self._local(layer.digest, layer.size, layer.role)
        else:
            where = self._origin(layer)
            source = self._registries.of(where)

            def read(offset: int) -> Iterator[bytes]:
                if where.repository == target.repository and where.registry == target.registry:
                    message = f"{target.name} no longer has its {layer.role} layer"
                    raise ConflictError(message, hint="run `mlship containerize` again")
                pieces = source.read_blob(where.repository, layer.digest, offset)
                return self._shown(pieces, layer.size - offset, f"sending {layer.role}")

            content = Content(digest=layer.digest, size=layer.size, read=read)
        base = self._image.base
        is_near = layer.role == "base" and base.registry == target.registry
        return content, base.repository if is_near else None

    def _local(self, digest: Digest, size: int, what: str) -> Content:
        def read(offset: int) -> Iterator[bytes]:
            pieces = self._layout.pieces(digest, offset)
            return self._shown(pieces, size - offset, f"sending {what}")

        return Content(digest=digest, size=size, read=read)

    def _origin(self, layer: Layer) -> Reference:
        """Return the repository that has a layer which the layout lacks."""
        return self._image.base if layer.role == "base" else self._registries.own()

    def _name_dependencies(
        self, registry: Registry, target: Reference, built: PlatformImage
    ) -> None:
        for layer in built.layers:
            if not layer.tag or layer.reused:
                continue
            config, manifest = manifests.dependencies(layer, built.platform)
            described = manifests.describe(config, CONFIG)
            content = Content(
                digest=described.digest,
                size=described.size,
                read=partial(_from, config),
            )
            registry.bring(target.repository, content)
            registry.put_manifest(target.tagged(layer.tag), manifest, MANIFEST)

    def _shown(self, pieces: Iterator[bytes], size: int, what: str) -> Iterator[bytes]:
        """Yield the pieces, and report the progress at most once a second."""
        passed, noted = 0, self._monotonic()
        for piece in pieces:
            yield piece
            passed += len(piece)
            now = self._monotonic()
            if size >= _SHOWN and (now - noted >= 1 or passed == size):
                noted = now
                with self._lock:
                    share = f"{passed / 1e6:.1f} of {size / 1e6:.1f} MB"
                    self._progress.note(f"{what}: {share}")


def _from(data: bytes, offset: int) -> Iterator[bytes]:
    yield data[offset:]
