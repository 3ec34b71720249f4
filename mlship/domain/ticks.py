"""Ticks: the planned times of a schedule, each with at most one record that counts.

A tick is identified by the name of its schedule and its planned time, so whoever fires it twice
finds the record of the first time.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

from mlship.domain.facts import Number, Timed

Run = Literal["retrain", "pipeline", "batch", "evaluate"]
"""What a schedule runs."""

Outcome = Literal["ran", "missed"]


class Command(NamedTuple):
    """A command of mlship that a tick runs.

    Attributes:
        argv: its name and options.
        idle: the exit codes with which there was nothing to do, which is no fault.
    """

    argv: tuple[str, ...]
    idle: tuple[int, ...] = ()


COMMANDS: Final[Mapping[Run, tuple[Command, ...]]] = MappingProxyType(
    {
        "retrain": (Command(("train",)), Command(("test",))),
        "pipeline": (Command(("run",)),),
        "batch": (Command(("batch", "champion")),),
        # 5: production has no challenger.
        "evaluate": (Command(("evaluate",), idle=(5,)),),
    }
)
"""The commands of each kind of schedule, wherever it runs."""


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """A command that a tick ran."""

    command: str
    exit_code: int = 0
    seconds: Number = None


class Ticked(Timed, frozen=True):
    """The facts of a tick.

    Attributes:
        planned: when the schedule says that it runs.
        started: when it ran; `None` for one that was missed.
        outcome: a tick that nobody fired before a later one is recorded as missed by that one.
        missed: how many ticks since the last record were missed, of which some may be too old to
            have a record of their own.
    """

    schedule: str = ""
    planned: datetime | None = None
    started: datetime | None = None
    outcome: Outcome = "ran"
    commands: tuple[Ran, ...] = ()
    missed: int = 0


class Commands(Protocol):
    """Runs commands of mlship for the project, each in a process of its own."""

    def __call__(self, argv: Sequence[str]) -> int:
        """Run a command to its end and return its exit code; below 0 for a signal."""
