"""The repositories of a container registry in which a ledger and a store have their documents."""

from typing import Final, Literal

from mlship.config.project import Config
from mlship.errors import ConfigError

Backend = Literal["ledger", "store"]
BACKENDS: Final[tuple[Backend, ...]] = ("ledger", "store")


def repository_of(config: Config, backend: Backend) -> str | None:
    """Return the repository of a ledger or a store; `None` if it is of another kind.

    Raises:
        ConfigError: none is configured.
    """
    section = config.ledger if backend == "ledger" else config.store
    if section.kind != "registry":
        return None
    of_store = config.store.uri if config.store.kind == "registry" else None
    # A URL was meant for MLflow, before another layer of settings changed the kind.
    named = [
        place
        for place in (section.uri, of_store, config.image.repository)
        if place and "://" not in place
    ]
    if not named:
        message = f"{backend}.kind is registry, and no repository is named"
        raise ConfigError(message, hint="set image.repository: registry/name")
    return named[0]
