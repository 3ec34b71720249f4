"""The images of this machine: one builder and one publisher over the same layout."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from mlship.adapters.images.build import router
from mlship.adapters.images.build.builder import ImageBuilder, ResolvedBase, VerifiedBundle
from mlship.adapters.images.build.image_layers import ImageLayers
from mlship.adapters.images.build.installed import Installed
from mlship.adapters.images.build.layout import Layout
from mlship.adapters.images.build.manifests import Base
from mlship.adapters.images.publisher import Publisher
from mlship.adapters.images.registry.referrers import RegistryReferrers
from mlship.adapters.images.registry.registries import Registries
from mlship.config.project import ImageConfig
from mlship.domain import bundle as bundles
from mlship.domain.bundle import Bundle
from mlship.domain.digests import Digest
from mlship.domain.image import Image, Platform, Pushed, Reference, reference
from mlship.domain.inventory import Inventory
from mlship.domain.referrers import Damaged, Document, Referrer
from mlship.domain.release import Release
from mlship.errors import ConfigError, UnavailableError


class LocalImages:
    """The port `Images`: checks and resolves what is built, and delegates the rest.

    Args:
        config: names the base and the platforms.
        layout: stores the images; the builder and the publisher use it too.
        registries: returns the registry of a reference.
        builder: builds an image into the layout.
        publisher: pushes, saves and loads images of the layout.
        layers: returns the layers above a base.
    """

    def __init__(
        self,
        config: ImageConfig,
        layout: Layout,
        registries: Registries,
        builder: ImageBuilder,
        publisher: Publisher,
        layers: ImageLayers,
    ) -> None:
        self._config = config
        self._layout = layout
        self._registries = registries
        self._builder = builder
        self._publisher = publisher
        self._layers = layers
        self._installed = Installed(layout, registries)

    def build(self, release: Release, bundle: Path, *, base: Digest | None) -> Image:
        """Build the image of a release, or return it if it exists; see `ports.Images`."""
        verified = VerifiedBundle(bundle, bundles.read(bundle, expected=release.bundle))
        name = reference(self._config.base)
        wanted = name if base is None else name.at(base)
        with self._writing(f"the image of {release}"):
            platforms = self._registries.base(wanted, self._config.platforms)
            for platform_base in platforms.values():
                _check_python(platform_base, verified.manifest)
            self._layout.prepare()
            image = self._builder.build(release, verified, ResolvedBase(name, platforms))
            self._layout.name(image)
            return image

    def router(self, *, base: Digest) -> Image:
        """Build the image of a router, or return it if it exists; see `ports.Images`."""
        name = reference(self._config.base)
        with self._writing("the image of the router"):
            platforms = self._registries.base(name.at(base), self._config.platforms)
            self._layout.prepare()
            own = self._registries.repository
            image = router.build(platforms, name, own, self._layout, self._layers)
            self._layout.name(image)
            return image

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Close the registries at the end; say what could not be written.

        Raises:
            UnavailableError: the disk is full or the folder is not writable.
        """
        try:
            with closing(self._registries):
                yield
        except OSError as error:
            message = f"cannot write {what} to {self._layout.folder}"
            hint = "free disk space there, and run it again"
            raise UnavailableError(f"{message}: {error.strerror or error}", hint=hint) from error

    def push(self, image: Image) -> Pushed:
        """Push a built image to the registry; see `ports.Images`."""
        return self._publisher.push(image)

    def save(self, image: Image, into: Path) -> None:
        """Write a complete image to a file; see `ports.Images`."""
        self._publisher.save(image, into)

    def load(self, image: Image, archive: Path) -> None:
        """Load a file that `save` wrote; see `ports.Images`."""
        self._publisher.load(image, archive)

    def inventory(self, image: Image) -> Mapping[Platform, Inventory]:
        """Return what is installed in a built image, by platform; see `ports.Images`."""
        with self._writing(f"the list of what is installed in {image.name}"):
            return {each.platform: self._installed.of(image, each) for each in image.platforms}

    def attach(self, image: Reference, document: Document) -> Digest:
        """Attach a document to an image of a registry; see `ports.Images`."""
        with closing(self._registries):
            return RegistryReferrers(self._registries.of(image), image).attach(document)

    def attached(self, image: Reference, artifact_type: str) -> Iterator[Referrer | Damaged]:
        """Yield the documents attached to an image; see `ports.Images`."""
        with closing(self._registries):
            referrers = RegistryReferrers(self._registries.of(image), image)
            yield from referrers.attached(artifact_type)


def _check_python(base: Base, manifest: Bundle) -> None:
    """Refuse a base with another Python version, if its configuration has the version.

    Raises:
        ConfigError: wheels for the bundle's Python would not load there.
    """
    version = base.configuration.environment.get("PYTHON_VERSION", "")
    minor = ".".join(version.split(".")[:2])
    if minor and minor != manifest.python:
        message = f"base image {base.reference} has Python {minor}, but the model was trained "
        message += f"with Python {manifest.python}"
        hint = f"set image.base to an image with Python {manifest.python}"
        raise ConfigError(message, hint=hint)
