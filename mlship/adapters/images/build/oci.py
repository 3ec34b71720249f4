"""Builds images from bundles without a Docker engine.

An image has four parts: the base, by digest; the dependencies, a layer that the registry finds by
the digest of its lock; mlship's runtime; the bundle. Only the last two are built for a new
release. The layers of the base are not stored here: they are mounted in the registry, or copied
from one registry to another.
"""

from collections.abc import Mapping
from typing import ClassVar

from mlship.adapters.images.build import contents, manifests
from mlship.adapters.images.build.builder import ResolvedBase, VerifiedBundle, image_of
from mlship.adapters.images.build.image_layers import ImageLayers
from mlship.adapters.images.build.layout import Layout
from mlship.adapters.images.build.manifests import CONFIG, MANIFEST, Base
from mlship.config.project import ImageConfig
from mlship.domain.digests import Digest
from mlship.domain.image import Builder, Image, Layer, Platform, PlatformImage, Reference
from mlship.domain.release import Release


class OciBuilder:
    """Builds images from layers that mlship writes itself: an `ImageBuilder`.

    Args:
        config: says where the source code is published.
        repository: the project's repository, which images are named after.
        layout: stores manifests and configurations.
        layers: returns the layers above the base.
    """

    name: ClassVar[Builder] = "oci"

    def __init__(
        self,
        config: ImageConfig,
        repository: Reference | None,
        layout: Layout,
        layers: ImageLayers,
    ) -> None:
        self._config = config
        self._repository = repository
        self._layout = layout
        self._layers = layers

    def build(self, release: Release, bundle: VerifiedBundle, base: ResolvedBase) -> Image:
        """Write the layers and manifests of an image, unless they exist; see `ImageBuilder`."""
        by_digest = next(iter(base.platforms.values())).reference
        notes = manifests.annotations(release, by_digest, base.name, self._config.source)
        own = (self._layers.runtime(), self._layers.bundle(*bundle, release.bundle))
        images = []
        for platform, platform_base in base.platforms.items():
            dependencies = self._layers.dependencies(contents.lock(bundle.manifest, platform))
            layers = (*platform_base.layers, dependencies, *own)
            images.append(self._platform(release, platform, platform_base, layers, notes))
        digest = images[0].manifest if len(images) == 1 else self._index(images, notes)
        return image_of(release, self._repository, digest, by_digest, images, builder=self.name)

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
