"""What an error of a table's library means, in the words of whoever reads the table."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from mlship.errors import ConfigError, MlshipError, UnavailableError, first_line


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """Who reads a table.

    Attributes:
        setting: that names the table, for hints.
        missing: the error for a table that is not there.
        invalid: the error for what is no table, or one that cannot be read as it is.
    """

    setting: str
    missing: type[MlshipError]
    invalid: type[MlshipError]


def check_installed(library: str, what: str) -> None:
    """Check that the library of a kind of table is installed.

    Raises:
        ConfigError: it is not.
    """
    if importlib.util.find_spec(library) is None:
        message = f"{what} needs the library {library}"
        raise ConfigError(message, hint=f"pip install {library} pyarrow")


@contextmanager
def of_table(what: str, more: str = "") -> Iterator[None]:
    """Map errors that any table may have: a library is missing, or its store cannot be used.

    Args:
        what: the table, for messages.
        more: to check, beside the network and the credentials.

    Raises:
        ConfigError: the table needs another library.
        UnavailableError: its store cannot be used.
    """
    try:
        yield
    except ImportError as error:
        message = f"{what} needs a library: {error}"
        raise ConfigError(message, hint="pip install what the message names") from error
    except OSError as error:
        message = f"{what} cannot be read: {first_line(error)}"
        hint = f"check the network and the credentials{more}"
        raise UnavailableError(message, hint=hint) from error
