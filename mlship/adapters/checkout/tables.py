"""Tables as data: a snapshot of a Delta or an Iceberg table, whatever is written to it later.

A Delta table is a folder of the project, or an address such as delta+s3://bucket/table. Its latest
version is read, or that which the address names: delta+s3://bucket/table?version=12. An Iceberg
table is named by one of its metadata files, whose current snapshot is read: the path or the URL of
a file that ends in .metadata.json.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from mlship.adapters.tables import delta, iceberg
from mlship.adapters.tables.faults import Reader
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.errors import ProjectError

_VERSION: Final = re.compile(r"(.*)\?version=([0-9]{1,18})", re.DOTALL)
_READER: Final = Reader(
    setting="data.train or data.test", missing=ProjectError, invalid=ProjectError
)


def is_table(root: Path, text: str) -> bool:
    """Tell whether data of this name are a table."""
    is_folder = "://" not in text and (root / text / delta.LOG).is_dir()
    return text.startswith(delta.ADDRESS) or _is_iceberg(text) or is_folder


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
    return text.endswith(iceberg.METADATA)


def _iceberg(root: Path, text: str) -> AbstractContextManager[Any]:
    address = text if "://" in text else str((root / text).absolute())
    return iceberg.opened(address, text, _READER)


def _delta(root: Path, text: str) -> AbstractContextManager[Any]:
    address, version = text.removeprefix(delta.ADDRESS), None
    if text.startswith(delta.ADDRESS) and (match := _VERSION.fullmatch(address)):
        address, version = match[1], int(match[2])
    place = address if "://" in address else str(root / address)
    return delta.opened(place, text, _READER, version)
