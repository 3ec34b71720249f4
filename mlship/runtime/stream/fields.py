"""Names of columns as fields of Avro and Protobuf, which have letters, digits and _ only."""

import re
from collections.abc import Sequence

from mlship.errors import ConfigError


def name_of(column: str) -> str:
    """Return a column's name as a field: other signs are _, and no digit comes first."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", column)
    return f"_{name}" if name[:1].isdigit() or not name else name


def names(columns: Sequence[str]) -> dict[str, str]:
    """Return the columns by the names of their fields.

    Raises:
        ConfigError: two columns would have the same field.
    """
    found: dict[str, str] = {}
    for column in columns:
        name = name_of(column)
        if name in found:
            message = f"the columns {found[name]!r} and {column!r} are both the field {name}"
            raise ConfigError(message, hint="rename one, or use stream.format json")
        found[name] = column
    return found
