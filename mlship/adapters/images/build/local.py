"""What all builders share: checks before a build; push, save and load afterwards."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import ClassVar

from mlship.adapters.images.build.layout import Layout
from mlship.adapters.images.build.manifests import Base
from mlship.adapters.images.registry.push import Delivery
from mlship.adapters.images.registry.registries import Registries
from mlship.config.project import ImageConfig
from mlship.domain import bundle as bundles
from mlship.domain import digests
from mlship.domain.bundle import Bundle
from mlship.domain.digests import Digest
from mlship.domain.image import (
    Builder,
    Image,
    Platform,
    PlatformImage,
    Pushed,
    Reference,
    reference,
)
from mlship.domain.ports import Progress
from mlship.domain.release import Release
from mlship.errors import ConfigError, UnavailableError


class LocalImages(ABC):
    """Images in this machine's layout: a subclass builds them; they are pushed, saved and loaded.

    Args:
        config: names the base, the platforms and the repository.
        layout: stores the images.
        registries: returns the registry of a reference.
        progress: receives progress notes.
        prepare: creates the repository to push to, if necessary.
    """

    builder: ClassVar[Builder]

    def __init__(
        self,
        config: ImageConfig,
        layout: Layout,
        registries: Registries,
        progress: Progress,
        prepare: Callable[[Reference], None] | None = None,
    ) -> None:
        self._config = config
        self._prepare = prepare
        self._layout = layout
        self._registries = registries
        self._progress = progress

    @abstractmethod
    def build_on(
        self,
        release: Release,
        bundle: tuple[Path, Bundle],
        bases: Mapping[Platform, Base],
        named: Reference,
    ) -> Image:
        """Build the image of a release on resolved bases, or return it if it exists.

        Args:
            release: the release that it serves.
            bundle: the folder and the manifest of the verified bundle.
            bases: by platform.
            named: the base as mlship.yaml names it.

        Raises:
            OSError: the disk is full or not writable.
        """

    def build(self, release: Release, bundle: Path, *, base: Digest | None) -> Image:
        """Build the image of a release, or return it if it exists; see `ports.Images`."""
        manifest = bundles.read(bundle, expected=release.bundle)
        named = reference(self._config.base)
        wanted = named if base is None else named.at(base)
        try:
            with closing(self._registries):
                bases = self._registries.base(wanted, self._config.platforms)
                for resolved in bases.values():
                    _check_python(resolved, manifest)
                self._layout.prepare()
                return self.build_on(release, (bundle, manifest), bases, named)
        except OSError as error:
            message = f"cannot write the image of {release} to {self._layout.folder}"
            hint = "free disk space there, and run it again"
            raise UnavailableError(f"{message}: {error.strerror or error}", hint=hint) from error

    def push(self, image: Image) -> Pushed:
        """Push a built image to the registry; see `ports.Images`."""
        target = self._registries.own()
        if self._prepare is not None:
            self._prepare(target)
        with closing(self._registries):
            return self._delivery(image).push(target)

    def save(self, image: Image, into: Path) -> None:
        """Write a complete image to a file; see `ports.Images`."""
        try:
            with closing(self._registries):
                self._delivery(image).complete()
            into.parent.mkdir(parents=True, exist_ok=True)
            self._layout.tarball(image, into)
        except OSError as error:
            message = f"cannot write {into}: {error.strerror or error}"
            raise UnavailableError(
                message, hint="free disk space there, or choose another file"
            ) from error

    def load(self, image: Image, archive: Path) -> None:
        """Load a file that `save` wrote; see `ports.Images`."""
        self._layout.prepare()
        self._layout.load(image, archive)
        self._layout.name(image)

    def _delivery(self, image: Image) -> Delivery:
        return Delivery(image, self._layout, self._registries, self._progress)

    def _named(
        self, release: Release, digest: Digest, base: Reference, platforms: Sequence[PlatformImage]
    ) -> Image:
        repository = self._registries.repository
        image = Image(
            name=repository.name if repository else release.name,
            tag=digests.short(release.id),
            digest=digest,
            base=base,
            platforms=tuple(platforms),
            builder=self.builder,
        )
        self._layout.name(image)
        return image


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
