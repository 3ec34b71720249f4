"""Builds images from bundles without a Docker engine.

An image has four parts: the base, by digest; the dependencies, a layer that the registry finds by
the digest of its lock; mlship's runtime; the bundle. Only the last two are built for a new
release. The layers of the base are not stored here: they are mounted in the registry, or copied
from one registry to another.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from mlship.adapters.images.build import contents, manifests, wheels
from mlship.adapters.images.build.image_layers import Building, Fetch
from mlship.adapters.images.build.layout import Layout
from mlship.adapters.images.build.local import LocalImages
from mlship.adapters.images.build.manifests import CONFIG, MANIFEST, Base
from mlship.adapters.images.registry.registries import Registries
from mlship.config.project import ImageConfig
from mlship.domain.bundle import Bundle
from mlship.domain.digests import Digest
from mlship.domain.image import Builder, Image, Layer, Platform, PlatformImage, Reference
from mlship.domain.ports import Progress
from mlship.domain.release import Release


class OciImages(LocalImages):
    """Builds images from layers that it writes itself.

    Args:
        config: names the base, the platforms and the repository.
        folder: stores this machine's images, as an OCI layout.
        registries: returns the registry of a reference.
        progress: receives progress notes.
        fetch: downloads the wheels of a lock.
        prepare: creates the repository to push to, if necessary.
    """

    builder: ClassVar[Builder] = "oci"

    def __init__(
        self,
        config: ImageConfig,
        folder: Path,
        registries: Registries,
        progress: Progress,
        fetch: Fetch = wheels.fetch,
        prepare: Callable[[Reference], None] | None = None,
    ) -> None:
        super().__init__(config, Layout(folder), registries, progress, prepare)
        self._building = Building(self._layout, registries, progress, fetch)

    def build_on(
        self,
        release: Release,
        bundle: tuple[Path, Bundle],
        bases: Mapping[Platform, Base],
        named: Reference,
    ) -> Image:
        """Write the layers and manifests of an image, unless they exist."""
        base = next(iter(bases.values())).reference
        notes = manifests.annotations(release, base, named, self._config.source)
        own = (self._building.runtime(), self._building.bundle(*bundle, release.bundle))
        images = []
        for platform, platform_base in bases.items():
            dependencies = self._building.dependencies(contents.lock(bundle[1], platform))
            layers = (*platform_base.layers, dependencies, *own)
            images.append(self._platform(release, platform, platform_base, layers, notes))
        digest = images[0].manifest if len(images) == 1 else self._index(images, notes)
        return self._named(release, digest, base, images)

    def _platform(
        self,
        release: Release,
        platform: Platform,
        base: Base,
        layers: tuple[Layer, ...],
        notes: Mapping[str, str],
    ) -> PlatformImage:
        config = manifests.configuration(base, layers, release, notes)
        data = manifests.manifest(manifests.describe(config, CONFIG), layers, notes)
        return PlatformImage(
            platform=platform,
            manifest=self._layout.put(data),
            config=self._layout.put(config),
            layers=layers,
        )

    def _index(self, images: list[PlatformImage], notes: Mapping[str, str]) -> Digest:
        entries = [
            (image.platform, manifests.describe(self._layout.read(image.manifest), MANIFEST))
            for image in images
        ]
        return self._layout.put(manifests.index(entries, notes))
