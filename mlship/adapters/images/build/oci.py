"""Images straight from bundles, without a container engine.

An image is four parts: the base, by digest; the dependencies, a layer that is named by the digest
of its lock and found again in the registry; mlship's runtime; the bundle. Only the last two are
made for a new release. The layers of the base are never read here: they are mounted, or pass
through on their way from one registry to another.
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
    """Builds images of layers that it writes itself.

    Args:
        config: names the base, the platforms and the repository.
        folder: keeps this machine's images, as an OCI layout.
        registries: gives the registry of a reference.
        progress: hears what is done.
        fetch: downloads the wheels of a lock.
        prepare: sees to it that there is a repository to push to.
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
        """Write the layers and manifests of an image, or find them."""
        base = next(iter(bases.values())).reference
        notes = manifests.annotations(release, base, named, self._config.source)
        own = (self._building.runtime(), self._building.bundle(*bundle, release.bundle))
        made = []
        for platform, one in bases.items():
            dependencies = self._building.dependencies(contents.lock(bundle[1], platform))
            layers = (*one.layers, dependencies, *own)
            made.append(self._platform(release, platform, one, layers, notes))
        digest = made[0].manifest if len(made) == 1 else self._index(made, notes)
        return self._named(release, digest, base, made)

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

    def _index(self, made: list[PlatformImage], notes: Mapping[str, str]) -> Digest:
        entries = [
            (one.platform, manifests.describe(self._layout.read(one.manifest), MANIFEST))
            for one in made
        ]
        return self._layout.put(manifests.index(entries, notes))
