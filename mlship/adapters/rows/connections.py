"""Connections to PostgreSQL for batches, and what its errors mean for whoever reads them."""

import importlib.util
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from mlship.config import installation
from mlship.errors import ConfigError, UnavailableError, first_line

if TYPE_CHECKING:
    from psycopg import Connection, Error

LOGIN: Final = "set PGPASSWORD, or write the password to ~/.pgpass"
_SECONDS: Final = 10
_RESOURCES: Final = "53"
"""The class of errors about a full disk, memory, and too many connections."""
_AGAIN: Final = "then run `mlship batch` again: finished parts are kept"


@contextmanager
def connected(
    address: str, what: str, refused: Callable[["Error"], Exception]
) -> Iterator["Connection[Any]"]:
    """Open a connection, whose transaction is committed in the end, if no error comes.

    Args:
        address: of the database.
        what: is read or written, for messages.
        refused: returns the error for what the database says to a statement.

    Raises:
        ConfigError: psycopg is not installed.
        UnavailableError: the database does not answer, refuses the user, or has no space.
    """
    if importlib.util.find_spec("psycopg") is None:
        message = f"{what} needs psycopg, which is not installed"
        raise ConfigError(message, hint=installation.hint("postgres"))
    import psycopg

    try:
        with psycopg.connect(
            address, connect_timeout=_SECONDS, application_name="mlship batch"
        ) as connection:
            yield connection
    except psycopg.errors.InsufficientPrivilege as error:
        message = f"{what}: the database does not allow it: {first_line(error)}"
        raise UnavailableError(message, hint=_grant(first_line(error))) from error
    except psycopg.OperationalError as error:
        if (error.sqlstate or "").startswith(_RESOURCES):
            message = f"{what}: the database has no room: {first_line(error)}"
            raise UnavailableError(message, hint=f"free its disk or memory, {_AGAIN}") from error
        message = f"{what}: the database cannot be used: {first_line(error)}"
        hint = f"check the network and the server; {LOGIN}; {_AGAIN}"
        raise UnavailableError(message, hint=hint) from error
    except psycopg.ProgrammingError as error:
        if error.sqlstate is None:  # of libpq, which takes the address apart
            message = f"{what}: the address is invalid: {first_line(error)}"
            raise ConfigError(message, hint="correct it") from error
        raise refused(error) from error
    except psycopg.Error as error:
        raise refused(error) from error


def _grant(reason: str) -> str:
    kind = re.search(r"permission denied for (table|schema|relation|view|sequence) (\S+)", reason)
    named = f"{kind[1].upper()} {kind[2]}" if kind else "what the message names"
    needs = "USAGE" if kind and kind[1] == "schema" else "SELECT, for an output also INSERT,"
    return f"grant the user {needs} on {named}, {_AGAIN}"
