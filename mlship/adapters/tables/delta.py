"""Delta tables: a version of one, opened."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from mlship.adapters.tables.faults import Reader, check_installed, of_table
from mlship.errors import UnavailableError, first_line

ADDRESS: Final = "delta+"
LOG: Final = "_delta_log"
"""The folder that makes a folder a Delta table."""


@contextmanager
def opened(place: str, text: str, reader: Reader, version: int | None = None) -> Iterator[Any]:
    """Open a Delta table; what it raises while it is used is mapped, too.

    Args:
        place: a folder or a URL.
        text: the address as it was written, for messages.
        reader: who reads it.
        version: the latest one by default.

    Raises:
        ConfigError: a library is not installed.
        UnavailableError: the table cannot be read.
        MlshipError: there is none; the error is the reader's.
    """
    what = f"the Delta table {text}"
    check_installed("deltalake", what)
    deltalake: Any = importlib.import_module("deltalake")
    faults: Any = importlib.import_module("deltalake.exceptions")
    more = "" if version is None else ", and that the table still has this version"
    try:
        with of_table(what, more):
            yield deltalake.DeltaTable(place, version=version)
    except faults.TableNotFoundError as error:
        message = f"there is no Delta table {text}"
        raise reader.missing(message, hint=f"correct {reader.setting}") from error
    except faults.DeltaError as error:
        message = f"{what} cannot be read: {first_line(error)}"
        hint = f"check the network and the credentials{more}"
        raise UnavailableError(message, hint=hint) from error
