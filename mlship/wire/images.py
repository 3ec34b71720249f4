"""What the commands `images` and `bundles` need beside a pipeline's ports."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from mlship.config.project import Config
from mlship.domain.bases import Bases, SettingsFile
from mlship.domain.image import Reference
from mlship.domain.retention import ImageRepository
from mlship.errors import NotFoundError


def bases(config: Config, environment: Mapping[str, str]) -> Bases:
    """Return what describes base images; nothing is connected."""
    from mlship.adapters.images.registry.bases import RegistryBases
    from mlship.adapters.images.registry.registries import Registries

    return RegistryBases(Registries(config.image, environment))


def settings_file(path: Path) -> SettingsFile:
    """Return mlship.yaml as a file of a git repository."""
    from mlship.adapters.checkout.settings_file import GitSettingsFile

    return GitSettingsFile(path)


def by_digest(config: Config, environment: Mapping[str, str], image: Reference) -> Reference:
    """Return an image with the digest that its tag names now.

    Raises:
        NotFoundError: it does not exist.
        UnavailableError: its registry does not answer, or denies access.
    """
    from mlship.adapters.images.registry.registries import Registries

    with closing(Registries(config.image, environment)) as registries:
        stored = registries.of(image).manifest(image)
    if stored is None:
        message = f"{image} does not exist"
        raise NotFoundError(message, hint="give an image that was pushed, by tag or by digest")
    return image.at(stored.digest)


@contextmanager
def repository(config: Config, environment: Mapping[str, str]) -> Iterator[ImageRepository]:
    """Give the project's repository, to remove images from it; close its connections in the end.

    Raises:
        ConfigError: no repository is configured.
    """
    from mlship.adapters.images.registry.registries import Registries
    from mlship.adapters.images.registry.removal import RegistryImages

    with closing(Registries(config.image, environment)) as registries:
        yield RegistryImages(registries)
