"""The data files of an Iceberg table's snapshot, by the metadata file that has it.

A batch reads the files as they are, so a table whose rows or names are not those of its files is
refused: rows that are deleted by another file, and columns that have another name in older files.
"""

import importlib
import importlib.util
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from mlship.adapters.rows.connections import first_line
from mlship.errors import ConfigError, MlshipError, NotFoundError, UnavailableError

METADATA: Final = ".metadata.json"
_OWN_IO: Final = "py-io-impl"
_EXPORT: Final = "export the snapshot to Parquet, and name its folder; or compact the table"


def files_of(address: str, text: str) -> Sequence[str]:
    """Return the paths or URLs of the data files of a table's current snapshot.

    Args:
        address: the path or the URL of the metadata file.
        text: the address as it was written, for messages.

    Raises:
        NotFoundError: a file of the table is missing.
        ConfigError: pyiceberg is not installed, or the files alone do not show the rows.
        UnavailableError: the table cannot be read.
    """
    if importlib.util.find_spec("pyiceberg") is None:
        message = f"the Iceberg table {text} needs the library pyiceberg"
        raise ConfigError(message, hint="pip install pyiceberg")
    with _faults_of(text):
        table = _opened(address, text)
        if renamed := _renamed(table.metadata.schemas):
            message = f"the Iceberg table {text}: column {renamed} was renamed or made again"
            raise ConfigError(message, hint=_EXPORT)
        paths = []
        for task in table.scan().plan_files():
            if task.delete_files:
                message = f"the Iceberg table {text} has rows that another file deletes"
                raise ConfigError(message, hint=_EXPORT)
            if str(getattr(task.file.file_format, "value", "")).lower() != "parquet":
                message = f"the Iceberg table {text} has files that are no Parquet"
                raise ConfigError(message, hint=_EXPORT)
            paths.append(task.file.file_path.removeprefix("file://"))
        return sorted(paths)


def _opened(address: str, text: str) -> Any:
    tables: Any = importlib.import_module("pyiceberg.table")
    stores: Any = importlib.import_module("pyiceberg.io")
    serializers: Any = importlib.import_module("pyiceberg.serializers")
    file = stores.load_file_io(location=address).new_input(address)
    # A table's own properties may name a class to import; data do not choose what code runs.
    if _OWN_IO in serializers.FromInputFile.table_metadata(file).properties:
        message = f"the Iceberg table {text} names code in its property {_OWN_IO}"
        raise ConfigError(message, hint=f"remove the property {_OWN_IO} from the table")
    return tables.StaticTable.from_metadata(address)


def _renamed(schemas: Sequence[Any]) -> str:
    """Return a column whose name and id do not belong together in all schemas; else nothing."""
    names, ids = defaultdict(set), defaultdict(set)
    for schema in schemas:
        for field in schema.fields:
            names[field.field_id].add(field.name)
            ids[field.name].add(field.field_id)
    changed = (name for own in names.values() if len(own) > 1 for name in sorted(own))
    again = (name for name, own in ids.items() if len(own) > 1)
    return next(changed, "") or next(again, "")


@contextmanager
def _faults_of(text: str) -> Iterator[None]:
    try:
        yield
    except MlshipError:
        raise
    except FileNotFoundError as error:
        message = f"a file of the Iceberg table {text} is missing: {first_line(error)}"
        hint = "correct batch.input or --input; a snapshot that expired has no files any more"
        raise NotFoundError(message, hint=hint) from error
    except ImportError as error:
        message = f"the Iceberg table {text} needs a library: {error}"
        raise ConfigError(message, hint="pip install what the message names") from error
    except OSError as error:
        message = f"the Iceberg table {text} cannot be read: {first_line(error)}"
        raise UnavailableError(message, hint="check the network and the credentials") from error
    except Exception as error:  # pyiceberg raises all kinds of errors for an invalid file
        message = f"the Iceberg table {text} cannot be read: {first_line(error)}"
        raise ConfigError(message, hint="name a metadata file that the table has") from error
