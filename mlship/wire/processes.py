"""Processes of mlship itself: the commands that a tick of a schedule runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlship.domain.ticks import Commands


def own_commands(config: Path, flags: Sequence[str], environment: Mapping[str, str]) -> Commands:
    """Return what runs commands of mlship for a project, as the command that runs was started.

    Args:
        config: the configuration file.
        flags: the settings that options override.
        environment: the environment variables.
    """
    from mlship.adapters.checkout.own_commands import OwnCommands

    return OwnCommands(config, flags, environment)
