"""The data files of an Iceberg table's snapshot, by the metadata file that has it.

A batch reads the files as they are, so a table whose rows or names are not those of its files is
refused: rows that are deleted by another file, and columns that have another name in older files.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from mlship.adapters.rows.tables import READER
from mlship.adapters.tables import iceberg
from mlship.errors import ConfigError

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
    with iceberg.opened(address, text, READER) as table:
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
