"""The files of a Delta table's current version: its folder also has those of versions before.

Without a library that reads its log, a table must not be taken for a folder of files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mlship.adapters.tables import delta
from mlship.adapters.tables.faults import Reader
from mlship.errors import ConfigError, NotFoundError

READER: Final = Reader(setting="batch.input or --input", missing=NotFoundError, invalid=ConfigError)
HARMLESS: Final = frozenset({"timestampNtz", "vacuumProtocolCheck", "v2Checkpoint"})
"""Features of a table that do not change which rows its files have, or how columns are called."""


def is_delta(folder: Path) -> bool:
    """Return whether a folder is a Delta table."""
    return (folder / delta.LOG).is_dir()


def check_no_table(folder: Path) -> None:
    """Check that a folder is not a table of a kind whose files cannot be told from old ones.

    Raises:
        ConfigError: it is an Iceberg table, or a Delta table in a folder that was named.
    """
    if is_delta(folder):
        message = f"{folder} is a Delta table, whose folder has files of former versions too"
        raise ConfigError(message, hint=f"name the table itself: --input {folder}")
    if any((folder / "metadata").glob("*.metadata.json")):
        message = f"{folder} is an Iceberg table, whose folder has files of former snapshots too"
        hint = f"name the metadata file of a snapshot: --input {folder}/metadata/NAME.metadata.json"
        raise ConfigError(message, hint=hint)


def files_of(address: str, text: str) -> Sequence[str]:
    """Return the paths or URLs of the files of a Delta table's current version.

    Args:
        address: a folder or a URL.
        text: the address as it was written, for messages.

    Raises:
        NotFoundError: there is no table.
        ConfigError: the library deltalake is missing, or the table has features that the files
            alone do not show.
        UnavailableError: the table cannot be read.
    """
    with delta.opened(address, text, READER) as table:
        features = set(table.protocol().reader_features or ()) - HARMLESS
        mapping = table.metadata().configuration.get("delta.columnMapping.mode", "none")
        uris: Sequence[str] = table.file_uris()
    if features or mapping != "none":
        named = ", ".join(sorted(features)) or "columnMapping"
        message = f"the Delta table {text} has the feature {named}, which a batch does not read"
        raise ConfigError(message, hint="export the table to Parquet, and name its folder")
    return [uri.removeprefix("file://") for uri in uris]
