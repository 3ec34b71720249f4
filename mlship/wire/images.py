"""What the commands `images` and `bundles` need beside a pipeline's ports."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from mlship.config.project import Config
from mlship.domain.bases import Bases, SettingsFile
from mlship.domain.retention import ImageRepository


def bases(config: Config, environment: Mapping[str, str]) -> Bases:
    """Return what describes base images; nothing is connected."""
    from mlship.adapters.images.registry.bases import RegistryBases
    from mlship.adapters.images.registry.registries import Registries

    return RegistryBases(Registries(config.image, environment))


def settings_file(path: Path) -> SettingsFile:
    """Return mlship.yaml as a file of a git repository."""
    from mlship.adapters.checkout.settings_file import GitSettingsFile

    return GitSettingsFile(path)


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
