"""The one tree of errors, an exit code for each branch.

    MlshipError                 1   something that mlship knows how to name
    +-- ConfigError             2   mlship.yaml, a flag or the environment is wrong
    |   +-- ProjectError        2   the user's own code or data is wrong
    +-- RefusedError            3   a gate or a policy said no
    +-- UnavailableError        4   a backend, a disk or a port cannot be used now
    +-- NotFoundError           5   what was named does not exist
    +-- TimedOutError           6   a deadline passed
    +-- IntegrityError          7   bytes are not what their digest says
    +-- ConflictError           8   somebody else changed it first

A message names the object, a hint names the next action. Adapters map their vendor's exceptions
to this tree; `mlship.cli.output` is the one place that prints them.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar


class MlshipError(Exception):
    """A fault that a person can act on.

    Args:
        message: what is wrong, with the name of the object that it is wrong with.
        hint: the next action, in the imperative.
        facts: what was learnt on the way, for `--json`.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self, message: str, *, hint: str = "", facts: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts = dict(facts or {})

    def __str__(self) -> str:
        """Return the message alone; the hint is printed on a line of its own."""
        return self.message


class ConfigError(MlshipError):
    """`mlship.yaml`, a flag or the environment is wrong."""

    exit_code = 2


class ProjectError(ConfigError):
    """The user's own code, data or repository is wrong."""


class RefusedError(MlshipError):
    """A gate or a policy said no."""

    exit_code = 3


class UnavailableError(MlshipError):
    """A backend, a disk or a port cannot be used now; trying again may help."""

    exit_code = 4


class NotFoundError(MlshipError):
    """What was named does not exist."""

    exit_code = 5


class TimedOutError(MlshipError):
    """A deadline passed before the thing was done."""

    exit_code = 6


class IntegrityError(MlshipError):
    """Bytes are not what their digest says; nothing was loaded from them."""

    exit_code = 7


class ConflictError(MlshipError):
    """Somebody else changed the object first; nothing was written."""

    exit_code = 8


def shown(address: str) -> str:
    """Return an address as a message may show it: without the user and password in it."""
    scheme, separator, rest = address.partition("://")
    if separator and not rest.startswith("/"):
        rest = rest.rpartition("@")[2]
    return re.sub(r"(password=)[^&]*", r"\1***", f"{scheme}{separator}{rest}")


def tree() -> dict[str, type[MlshipError]]:
    """Return every error of the tree by its class name, parents before children."""
    found: dict[str, type[MlshipError]] = {}
    waiting: list[type[MlshipError]] = [MlshipError]
    while waiting:
        kind = waiting.pop(0)
        found[kind.__name__] = kind
        waiting.extend(kind.__subclasses__())
    return found
