"""What builds an image: `OciBuilder` or `DockerBuilder`, chosen by `image.builder`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from mlship.adapters.images.build.manifests import Base
from mlship.domain import digests
from mlship.domain.bundle import Bundle
from mlship.domain.digests import Digest
from mlship.domain.image import Builder, Image, Platform, PlatformImage, Reference
from mlship.domain.release import Release


class VerifiedBundle(NamedTuple):
    """A bundle whose files match its manifest."""

    folder: Path
    manifest: Bundle


class ResolvedBase(NamedTuple):
    """A base image as mlship.yaml names it, and what it is on each platform, by digest."""

    name: Reference
    platforms: Mapping[Platform, Base]


class ImageBuilder(Protocol):
    """Builds the image of a release into this machine's layout; `LocalImages` calls it."""

    def build(self, release: Release, bundle: VerifiedBundle, base: ResolvedBase) -> Image:
        """Return the image of a release, built unless the layout has it.

        Raises:
            ConfigError: an instruction of the user conflicts with those of mlship.
            ProjectError: a requirement has no build for the platform, or an instruction of the
                user failed.
            UnavailableError: a registry, the package index or the engine does not answer.
            OSError: the disk is full or not writable.
        """


def image_of(
    release: Release,
    repository: Reference | None,
    digest: Digest,
    base: Reference,
    platforms: Sequence[PlatformImage],
    *,
    builder: Builder,
) -> Image:
    """Return the image of a release, named after the repository that it is pushed to.

    Args:
        release: the release that it serves.
        repository: of mlship.yaml; without one the image has the release's name.
        digest: of its manifest, or of its index.
        base: the base image, by digest.
        platforms: what was built.
        builder: the name of the builder in mlship.yaml.
    """
    return Image(
        name=repository.name if repository else release.name,
        tag=digests.short(release.id),
        digest=digest,
        base=base,
        platforms=tuple(platforms),
        builder=builder,
    )
