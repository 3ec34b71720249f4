"""Tables as data: a snapshot of a Delta or an Iceberg table, whatever is written to it later.

A Delta table is a folder of the project, or an address such as delta+s3://bucket/table. Its latest
version is read, or that which the address names: delta+s3://bucket/table?version=12. An Iceberg
table is named by one of its metadata files, whose current snapshot is read: the path or the URL of
a file that ends in .metadata.json.
"""

import importlib
import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.errors import ConfigError, MlshipError, ProjectError, UnavailableError

_ADDRESS: Final = "delta+"
_LOG: Final = "_delta_log"
_VERSION: Final = re.compile(r"(.*)\?version=([0-9]{1,18})", re.DOTALL)
_METADATA: Final = ".metadata.json"
_OWN_IO: Final = "py-io-impl"


def is_table(root: Path, text: str) -> bool:
    """Tell whether data of this name are a table."""
    is_folder = "://" not in text and (root / text / _LOG).is_dir()
    return text.startswith(_ADDRESS) or _is_iceberg(text) or is_folder


def digest_of(root: Path, text: str) -> Digest:
    """Return the digest of a table's id and its version or snapshot; no rows are read.

    Raises:
        ProjectError: there is no table.
        ConfigError: its library is not installed.
        UnavailableError: its store cannot be used.
    """
    if _is_iceberg(text):
        with _iceberg(root, text) as table:
            metadata = table.metadata
            # The schema decides the names of the columns, and may change without new rows.
            parts = {
                "table": str(metadata.table_uuid),
                "snapshot": metadata.current_snapshot_id,
                "schema": metadata.schema().model_dump_json(),
            }
            return digests.of_value(parts)
    with _delta(root, text) as table:
        return digests.of_value({"table": str(table.metadata().id), "version": table.version()})


def rows_of(root: Path, text: str) -> Any:
    """Return the rows of a table's version or snapshot as a DataFrame of pandas.

    Raises:
        ProjectError, ConfigError, UnavailableError: as `digest_of`.
    """
    if _is_iceberg(text):
        with _iceberg(root, text) as table:
            return table.scan().to_pandas()
    with _delta(root, text) as table:
        return table.to_pandas()


def batches_of(root: Path, text: str, rows: int) -> Iterator[Any]:
    """Yield the rows of a table's version or snapshot as batches of Arrow.

    Args:
        root: the project's folder.
        text: the name of the data.
        rows: in a batch, at most.

    Raises:
        ProjectError, ConfigError, UnavailableError: as `digest_of`.
    """
    if _is_iceberg(text):
        with _iceberg(root, text) as table:
            for batch in table.scan().to_arrow_batch_reader():
                for start in range(0, batch.num_rows, rows):
                    yield batch.slice(start, rows)
        return
    with _delta(root, text) as table:
        yield from table.to_pyarrow_dataset().to_batches(batch_size=rows, batch_readahead=1)


def _is_iceberg(text: str) -> bool:
    return text.endswith(_METADATA)


@contextmanager
def _iceberg(root: Path, text: str) -> Iterator[Any]:
    if importlib.util.find_spec("pyiceberg") is None:
        message = f"the Iceberg table {text} needs the library pyiceberg"
        raise ConfigError(message, hint="pip install pyiceberg pyarrow")
    try:
        yield _static(text, text if "://" in text else str((root / text).absolute()))
    except MlshipError:
        raise
    except FileNotFoundError as error:
        message = f"a file of the Iceberg table {text} is missing: {_first_line(error)}"
        hint = "correct data.train or data.test; a snapshot that expired has no files any more"
        raise ProjectError(message, hint=hint) from error
    except (ImportError, ModuleNotFoundError) as error:
        message = f"the Iceberg table {text} needs a library: {error}"
        raise ConfigError(message, hint="pip install pyiceberg pyarrow") from error
    except OSError as error:
        message = f"the Iceberg table {text} cannot be read: {_first_line(error)}"
        raise UnavailableError(message, hint="check the network and the credentials") from error
    except Exception as error:  # pyiceberg raises all kinds of errors for an invalid file
        message = f"the Iceberg table {text} cannot be read: {_first_line(error)}"
        raise ProjectError(message, hint="name a metadata file that the table has") from error


def _static(text: str, address: str) -> Any:
    tables: Any = importlib.import_module("pyiceberg.table")
    stores: Any = importlib.import_module("pyiceberg.io")
    serializers: Any = importlib.import_module("pyiceberg.serializers")
    file = stores.load_file_io(location=address).new_input(address)
    # A table's own properties may name a class to import; data do not choose what code runs.
    if _OWN_IO in serializers.FromInputFile.table_metadata(file).properties:
        message = f"the Iceberg table {text} names code in its property {_OWN_IO}"
        raise ProjectError(message, hint=f"remove the property {_OWN_IO} from the table")
    return tables.StaticTable.from_metadata(address)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


@contextmanager
def _delta(root: Path, text: str) -> Iterator[Any]:
    if importlib.util.find_spec("deltalake") is None:
        message = f"the Delta table {text} needs the library deltalake"
        raise ConfigError(message, hint="pip install deltalake pyarrow")
    deltalake: Any = importlib.import_module("deltalake")
    faults: Any = importlib.import_module("deltalake.exceptions")
    address, version = text.removeprefix(_ADDRESS), None
    if text.startswith(_ADDRESS) and (match := _VERSION.fullmatch(address)):
        address, version = match[1], int(match[2])
    place = address if "://" in address else str(root / address)
    try:
        yield deltalake.DeltaTable(place, version=version)
    except faults.TableNotFoundError as error:
        message = f"there is no Delta table {text}"
        raise ProjectError(message, hint="correct data.train or data.test") from error
    except ImportError as error:
        message = f"the Delta table {text} needs a library: {error}"
        raise ConfigError(message, hint="pip install pyarrow") from error
    except (faults.DeltaError, OSError) as error:
        message = f"the Delta table {text} cannot be read: {_first_line(error)}"
        hint = "check the network and the credentials"
        hint += "" if version is None else ", and that the table still has this version"
        raise UnavailableError(message, hint=hint) from error
