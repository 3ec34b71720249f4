"""The layers of an image: reuse them if they exist, build them if not."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from mlship.adapters.images.build import contents, layers, manifests, wheels
from mlship.adapters.images.build.contents import Lock
from mlship.adapters.images.build.layers import MEDIA_TYPE, Blob, Member
from mlship.adapters.images.build.layout import Layout
from mlship.adapters.images.registry.registries import Registries
from mlship.domain import digests
from mlship.domain.bundle import Bundle
from mlship.domain.digests import Digest
from mlship.domain.image import Layer, Role
from mlship.domain.ports import Progress

Fetch = Callable[[Lock, Path], list[Path]]
"""Downloads the wheels of a lock into a folder."""


class ImageLayers:
    """Returns the layers of an image above its base, built unless they exist.

    Args:
        layout: stores the layers of this machine.
        registries: returns the registry of a reference.
        progress: receives progress notes.
        fetch: downloads the wheels of a lock.
    """

    def __init__(
        self,
        layout: Layout,
        registries: Registries,
        progress: Progress,
        fetch: Fetch = wheels.fetch,
    ) -> None:
        self._layout = layout
        self._registries = registries
        self._progress = progress
        self._fetch = fetch

    def dependencies(self, lock: Lock) -> Layer:
        """Return the layer of a lock from the registry or this machine, or build it.

        The registry comes first, so that all machines use the same layer.

        Raises:
            ProjectError: a requirement has no wheel for the platform.
            UnavailableError: the registry or the package index does not answer.
        """
        tag = f"deps-{lock.digest.removeprefix('sha256:')}"
        blob = self._in_registry(tag)
        if blob is not None:
            self._progress.note(f"dependencies for {lock.platform}: found in the registry")
            return _layer("dependencies", blob, tag=tag, reused=True)
        return _layer("dependencies", self.unpacked(lock), tag=tag)

    def unpacked(self, lock: Lock) -> Blob:
        """Return the layer of unpacked wheels from this machine, or build it.

        Raises:
            ProjectError: a requirement has no wheel for the platform.
            UnavailableError: the package index does not answer.
        """
        blob = self._layout.remembered(lock.digest)
        if blob is None:
            count = len(lock.pins)
            self._progress.note(f"dependencies for {lock.platform}: downloading {count} packages")
            blob = build(lock, self._layout, self._fetch)
            self._layout.remember(lock.digest, blob)
        return blob

    def runtime(self) -> Layer:
        """Return the layer with mlship's installed runtime."""
        files = contents.runtime()
        name = digests.of_value({place: digests.of_bytes(data) for place, data in files.items()})
        members = [layers.of_bytes(place, data) for place, data in files.items()]
        return self._own("runtime", name, members)

    def bundle(self, folder: Path, manifest: Bundle, digest: Digest) -> Layer:
        """Return the layer of a verified bundle."""
        members = contents.bundle(folder, manifest)
        return self._own("bundle", digests.of_value(("bundle", digest)), members)

    def _own(self, role: Role, name: Digest, members: Sequence[Member]) -> Layer:
        blob = self._layout.remembered(name)
        if blob is None:
            blob = layers.write(members, self._layout.blobs, compressed=False)
            self._layout.remember(name, blob)
        return _layer(role, blob)

    def _in_registry(self, tag: str) -> Blob | None:
        if self._registries.repository is None:
            return None
        name = self._registries.repository.tagged(tag)
        registry = self._registries.of(name)
        stored = registry.manifest(name)
        if stored is None:
            return None
        manifest = manifests.decode_manifest(stored.data, str(name))
        data = registry.small_blob(name.repository, manifest.config.digest)
        config = manifests.decode_configuration(data, str(name))
        layer, diff_id = manifest.layers[0], config.rootfs.diff_ids[0]
        return Blob(digest=layer.digest, diff_id=diff_id, size=layer.size)


def build(lock: Lock, layout: Layout, fetch: Fetch) -> Blob:
    """Download the wheels of a lock and write their layer to a layout.

    Raises:
        ProjectError: a requirement has no wheel for the platform.
        UnavailableError: the package index does not answer.
    """
    with ExitStack() as stack:
        folder = TemporaryDirectory(prefix=".wheels-", dir=layout.folder)
        downloaded = fetch(lock, Path(stack.enter_context(folder)))
        members = stack.enter_context(wheels.members(downloaded))
        return layers.write(members, layout.blobs, compressed=True)


def _layer(role: Role, blob: Blob, *, tag: str = "", reused: bool = False) -> Layer:
    return Layer(
        role=role,
        media_type=MEDIA_TYPE,
        digest=blob.digest,
        diff_id=blob.diff_id,
        size=blob.size,
        reused=reused,
        tag=tag,
    )
