"""Iceberg tables: the snapshot of a metadata file, opened without a catalog."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from mlship.adapters.tables.faults import Reader, check_installed, of_table
from mlship.errors import MlshipError, first_line

METADATA: Final = ".metadata.json"
_OWN_IO: Final = "py-io-impl"


@contextmanager
def opened(address: str, text: str, reader: Reader) -> Iterator[Any]:
    """Open the table of a metadata file; what it raises while it is used is mapped, too.

    Args:
        address: the path or the URL of the metadata file.
        text: the address as it was written, for messages.
        reader: who reads it.

    Raises:
        ConfigError: a library is not installed.
        UnavailableError: the table cannot be read.
        MlshipError: a file is missing, or is none of a table; the error is the reader's.
    """
    what = f"the Iceberg table {text}"
    check_installed("pyiceberg", what)
    try:
        with of_table(what):
            try:
                yield _static(address, what, reader)
            except FileNotFoundError as error:
                message = f"a file of {what} is missing: {first_line(error)}"
                hint = f"correct {reader.setting}; a snapshot that expired has no files any more"
                raise reader.missing(message, hint=hint) from error
    except MlshipError:
        raise
    except Exception as error:  # pyiceberg raises all kinds of errors for an invalid file
        message = f"{what} cannot be read: {first_line(error)}"
        raise reader.invalid(message, hint="name a metadata file that the table has") from error


def _static(address: str, what: str, reader: Reader) -> Any:
    tables: Any = importlib.import_module("pyiceberg.table")
    stores: Any = importlib.import_module("pyiceberg.io")
    serializers: Any = importlib.import_module("pyiceberg.serializers")
    file = stores.load_file_io(location=address).new_input(address)
    # A table's own properties may name a class to import; data do not choose what code runs.
    if _OWN_IO in serializers.FromInputFile.table_metadata(file).properties:
        message = f"{what} names code in its property {_OWN_IO}"
        raise reader.invalid(message, hint=f"remove the property {_OWN_IO} from the table")
    return tables.StaticTable.from_metadata(address)
