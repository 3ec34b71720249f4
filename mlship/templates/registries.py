"""The container registries that jobs log in to: for images, and for the ledger and the store."""

from collections.abc import Sequence
from typing import Literal

from mlship.config.project import Config
from mlship.config.repositories import BACKENDS, repository_of
from mlship.domain.image import GITHUB, is_google, reference
from mlship.errors import ConfigError

Registry = Literal["google", "github", "other"]


def registry_of_images(config: Config, clusters: Sequence[str]) -> Registry | None:
    """Return the kind of registry for images; `None` without images.

    Args:
        config: of the project.
        clusters: the names of the targets that run images.

    Raises:
        ConfigError: a target runs images, and there is no repository for them.
    """
    if config.image.repository is None:
        if clusters:
            raise ConfigError(
                f"mlship.yaml: targets.{clusters[0]} runs images, and image.repository is missing",
                hint="set it under image, as `repository: ghcr.io/owner/iris`",
            )
        return None
    return _kind_of(reference(config.image.repository).registry)


def registry_of_documents(config: Config) -> Registry | None:
    """Return the kind of registry that has the ledger or the store.

    Raises:
        ConfigError: it is not the registry of the images: jobs log in to one.
    """
    named = [repository_of(config, name) for name in BACKENDS]
    hosts = {reference(place).registry for place in (*named, config.image.repository) if place}
    if not any(named):
        return None
    if len(hosts) > 1:
        raise ConfigError(
            f"mlship.yaml: ledger, store and images are in several registries: "
            f"{', '.join(sorted(hosts))}; jobs log in to one",
            hint="use repositories of one registry",
        )
    return _kind_of(hosts.pop())


def _kind_of(host: str) -> Registry:
    if is_google(host):
        return "google"
    return "github" if host == GITHUB else "other"
