"""What images on this machine have in common, whoever builds them: checks before, moves after."""

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
    """Images in this machine's layout: built by a subclass, then pushed, saved and taken in.

    Args:
        config: names the base, the platforms and the repository.
        layout: keeps what was made.
        registries: gives the registry of a reference.
        progress: hears what is done.
        prepare: sees to it that there is a repository to push to.
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
        """Make the image of a release on bases that were found, or find it.

        Args:
            release: what it serves.
            bundle: the release's, its folder and what is in it, checked.
            bases: by platform.
            named: the base as mlship.yaml names it.

        Raises:
            OSError: the disk is full or cannot be written.
        """

    def build(self, release: Release, bundle: Path, *, base: Digest | None) -> Image:
        """Make the image of a release, or find it; see `ports.Images`."""
        manifest = bundles.read(bundle, expected=release.bundle)
        named = reference(self._config.base)
        wanted = named if base is None else named.at(base)
        try:
            with closing(self._registries):
                found = self._registries.base(wanted, self._config.platforms)
                for one in found.values():
                    _check_python(one, manifest)
                self._layout.prepare()
                return self.build_on(release, (bundle, manifest), found, named)
        except OSError as error:
            message = f"the image of {release} cannot be written to {self._layout.folder}"
            hint = "make room on that disk, and run it again"
            raise UnavailableError(f"{message}: {error.strerror or error}", hint=hint) from error

    def push(self, image: Image) -> Pushed:
        """Bring a built image to the registry; see `ports.Images`."""
        target = self._registries.own()
        if self._prepare is not None:
            self._prepare(target)
        with closing(self._registries):
            return self._delivery(image).push(target)

    def save(self, image: Image, into: Path) -> None:
        """Write a built image, whole, to a file; see `ports.Images`."""
        try:
            with closing(self._registries):
                self._delivery(image).complete()
            into.parent.mkdir(parents=True, exist_ok=True)
            self._layout.tarball(image, into)
        except OSError as error:
            message = f"{into} cannot be written: {error.strerror or error}"
            raise UnavailableError(
                message, hint="make room there, or name another place"
            ) from error

    def load(self, image: Image, archive: Path) -> None:
        """Take in a file that `save` wrote of an image; see `ports.Images`."""
        self._layout.prepare()
        self._layout.load(image, archive)
        self._layout.name(image)

    def _delivery(self, image: Image) -> Delivery:
        return Delivery(image, self._layout, self._registries, self._progress)

    def _named(
        self, release: Release, digest: Digest, base: Reference, made: Sequence[PlatformImage]
    ) -> Image:
        where = self._registries.repository
        image = Image(
            name=where.name if where else release.name,
            tag=digests.short(release.id),
            digest=digest,
            base=base,
            platforms=tuple(made),
            builder=self.builder,
        )
        self._layout.name(image)
        return image


def _check_python(base: Base, manifest: Bundle) -> None:
    """Refuse a base of another Python, where it tells which it has.

    Raises:
        ConfigError: wheels for the bundle's Python would not load there.
    """
    version = base.configuration.environment.get("PYTHON_VERSION", "")
    minor = ".".join(version.split(".")[:2])
    if minor and minor != manifest.python:
        message = f"the base image {base.reference} has Python {minor}, and the model was made "
        message += f"with {manifest.python}"
        raise ConfigError(message, hint=f"set image.base to one with Python {manifest.python}")
