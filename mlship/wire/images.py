"""What the commands `images` need beside a pipeline's ports."""

from collections.abc import Mapping
from pathlib import Path

from mlship.config.project import Config
from mlship.domain.bases import Bases, SettingsFile


def bases(config: Config, environment: Mapping[str, str]) -> Bases:
    """Return what describes base images; nothing is connected."""
    from mlship.adapters.images.registry.bases import RegistryBases
    from mlship.adapters.images.registry.registries import Registries

    return RegistryBases(Registries(config.image, environment))


def settings_file(path: Path) -> SettingsFile:
    """Return mlship.yaml as a file of a git repository."""
    from mlship.adapters.checkout.settings_file import GitSettingsFile

    return GitSettingsFile(path)
