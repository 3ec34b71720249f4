"""Pushes of an image to a registry, and downloads of the layers that are missing here."""

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
"""Blobs from this size on, in bytes, are told of while they travel."""


class Delivery:
    """Brings an image of this machine's layout to its repository.

    Args:
        image: whose name is the repository's.
        layout: has what was made for it.
        registries: gives the registries of the image and of its base.
        progress: hears what travels.
        monotonic: tells seconds, for how often that is told.
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
        for one in image.platforms:
            self._name_dependencies(registry, target, one)
            if len(image.platforms) > 1:
                data = self._layout.read(one.manifest)
                registry.put_manifest(target.at(one.manifest), data, MANIFEST)
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
        """Fetch the layers that are not in the layout from where they are."""
        self._check_here()
        for one in self._image.platforms:
            for layer in one.layers:
                if not self._layout.has(layer.digest, layer.size):
                    where = self._origin(layer)
                    pieces = self._registries.of(where).read_blob(where.repository, layer.digest)
                    what = f"fetching {layer.role}"
                    self._layout.take(layer.digest, self._shown(pieces, layer.size, what))

    def _check_here(self) -> None:
        if self._layout.missing(self._image):
            message = f"{self._image.digest} was built on another machine, and is not here"
            hint = "there: `mlship containerize --to image.tar`; "
            hint += "here: `mlship push-to-registry --from image.tar`"
            raise NotFoundError(message, hint=hint)

    def _blobs(self, registry: Registry, target: Reference) -> list[Fate]:
        found: dict[Digest, tuple[Content, str | None]] = {}
        for one in self._image.platforms:
            found |= {layer.digest: self._content(layer, target) for layer in one.layers}
            size = self._layout.path(one.config).stat().st_size
            found[one.config] = (self._local(one.config, size, "configuration"), None)
        with ThreadPoolExecutor(_PARALLEL) as pool:
            futures = [
                pool.submit(registry.bring, target.repository, content, mount)
                for content, mount in found.values()
            ]
            try:
                return [future.result() for future in futures]
            except BaseException:
                # The first fault is the one to tell; what has not begun need not begin.
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
                    message = f"{target.name} has lost its layer of {layer.role}"
                    raise ConflictError(message, hint="`mlship containerize` makes it again")
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
        """Return the repository that has a layer which is not here."""
        return self._image.base if layer.role == "base" else self._registries.own()

    def _name_dependencies(self, registry: Registry, target: Reference, one: PlatformImage) -> None:
        for layer in one.layers:
            if not layer.tag or layer.reused:
                continue
            config, manifest = manifests.dependencies(layer, one.platform)
            described = manifests.describe(config, CONFIG)
            content = Content(
                digest=described.digest,
                size=described.size,
                read=partial(_from, config),
            )
            registry.bring(target.repository, content)
            registry.put_manifest(target.tagged(layer.tag), manifest, MANIFEST)

    def _shown(self, pieces: Iterator[bytes], size: int, what: str) -> Iterator[bytes]:
        """Give the pieces, and tell how far they are, at most once a second."""
        passed, told = 0, self._monotonic()
        for piece in pieces:
            yield piece
            passed += len(piece)
            now = self._monotonic()
            if size >= _SHOWN and (now - told >= 1 or passed == size):
                told = now
                with self._lock:
                    share = f"{passed / 1e6:.1f} of {size / 1e6:.1f} MB"
                    self._progress.note(f"{what}: {share}")


def _from(data: bytes, offset: int) -> Iterator[bytes]:
    yield data[offset:]
