"""Where predictions and outcomes are kept, as the configuration selects it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mlship.config.project import Config
from mlship.domain.ports import Observations
from mlship.domain.removal import Removals
from mlship.steps.pipeline import PRODUCTION

if TYPE_CHECKING:
    from mlship.adapters.observations.removal import Everywhere


def observations(
    config: Config, home: str, state: Path, environment: Mapping[str, str]
) -> Observations:
    """Return the source of predictions and outcomes: folders, or PostgreSQL."""
    if config.observations.url is not None:
        from mlship.adapters.observations.postgres import PostgresObservations

        return PostgresObservations(config.observations.url, environment, config.name, home)
    from mlship.adapters.observations.directory import DirectoryObservations

    outcomes = state / "outcomes" / f"{PRODUCTION}.jsonl"
    return DirectoryObservations([state / "predictions" / PRODUCTION], outcomes)


def removals(
    config: Config, home: str, state: Path, environment: Mapping[str, str]
) -> "Everywhere":
    """Return what removes predictions and outcomes, from all places that may have some."""
    from mlship.adapters.observations.removal import DirectoryRemovals, Everywhere, SpoolRemovals

    spools = SpoolRemovals(state / "spool")
    places: list[Removals] = [
        DirectoryRemovals(state / "predictions", state / "outcomes"),
        spools,
    ]
    if config.observations.url is not None:
        from mlship.adapters.observations.postgres import PostgresObservations
        from mlship.adapters.observations.postgres_removal import PostgresRemovals

        kept = PostgresObservations(config.observations.url, environment, config.name, home)
        places.append(PostgresRemovals(kept, spools.free))
    return Everywhere(places)
