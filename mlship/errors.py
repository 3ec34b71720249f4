"""The tree of errors. Each branch has an exit code.

    MlshipError                 1   any other error
    +-- ConfigError             2   mlship.yaml, a flag or the environment is wrong
    |   +-- ProjectError        2   the user's own code or data is wrong
    |       +-- RowError        2   a row of a request does not fit the model
    +-- RefusedError            3   a gate or a policy refused
    +-- UnavailableError        4   a backend, a disk or a port cannot be used now
    |   +-- CredentialsError    4   a cluster does not accept the credentials
    |   +-- UnfitRowsError      4   the log of predictions refuses the rows themselves
    +-- NotFoundError           5   the named object does not exist
    +-- TimedOutError           6   the operation did not finish in time
    +-- IntegrityError          7   content does not match its digest
    +-- ConflictError           8   the object was changed by somebody else first

A message names the object, a hint names the next action. Adapters map their vendor's exceptions
to this tree. Errors are printed in one place, `mlship.cli.output`.
"""

import re
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any, ClassVar


class MlshipError(Exception):
    """An error that a person can act on.

    Args:
        message: what is wrong, and with which object.
        hint: the next action, in the imperative.
        facts: details for `--json`.
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
        """Return the message without the hint, which is printed on its own line."""
        return self.message


class ConfigError(MlshipError):
    """`mlship.yaml`, a flag or the environment is wrong."""

    exit_code = 2


class ProjectError(ConfigError):
    """The user's own code, data or repository is wrong."""


class RowError(ProjectError):
    """A row of a request does not fit the schema of the model.

    Args:
        message: what is wrong, with the place of the row.
        hint: the next action.
        row: the place of the row, counted from 0.
        reason: what is wrong, without the place of the row.
    """

    def __init__(self, message: str, *, hint: str = "", row: int = 0, reason: str = "") -> None:
        super().__init__(message, hint=hint)
        self.row = row
        self.reason = reason


class RefusedError(MlshipError):
    """A gate or a policy refused."""

    exit_code = 3


class UnavailableError(MlshipError):
    """A backend, a disk or a port is unavailable; a retry may succeed."""

    exit_code = 4


class CredentialsError(UnavailableError):
    """A cluster does not accept the credentials; a retry succeeds after a new login."""


class UnfitRowsError(UnavailableError):
    """The log of predictions refuses these rows, for a reason that is for who sent them."""

    def __init__(self, message: str, *, hint: str, reason: str) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class NotFoundError(MlshipError):
    """The named object does not exist."""

    exit_code = 5


class TimedOutError(MlshipError):
    """The operation did not finish before its deadline."""

    exit_code = 6


class IntegrityError(MlshipError):
    """Content does not match its digest; nothing was loaded from it."""

    exit_code = 7


class ConflictError(MlshipError):
    """The object was changed by somebody else first; it is not overwritten."""

    exit_code = 8


def shown(address: str) -> str:
    """Return an address for a message: without the user and the password."""
    scheme, separator, rest = address.partition("://")
    if separator and not rest.startswith("/"):
        rest = rest.rpartition("@")[2]
    return re.sub(r"(password=)[^&]*", r"\1***", f"{scheme}{separator}{rest}")


def some(names: Collection[str], most: int = 5) -> str:
    """Return the first names for a message, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(islice(names, most)) + more


def first_line(error: Exception) -> str:
    """Return what an error of a library says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def fault_of(error: Exception) -> str:
    """Return what is wrong with a document that was read, from the error of its reader."""
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    if isinstance(error, LookupError | TypeError | AttributeError):
        return "a part is missing, or has another form"
    return str(error)


def tree() -> dict[str, type[MlshipError]]:
    """Return every error of the tree by its class name, parents before children."""
    errors: dict[str, type[MlshipError]] = {}
    pending: list[type[MlshipError]] = [MlshipError]
    while pending:
        kind = pending.pop(0)
        errors[kind.__name__] = kind
        pending.extend(kind.__subclasses__())
    return errors
