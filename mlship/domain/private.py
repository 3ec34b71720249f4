"""Columns whose values are not logged, or only as a hash that nobody can guess without the key."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from mlship.domain.bundle import Row, Value
from mlship.domain.columns import Columns
from mlship.errors import ConfigError

Rule: TypeAlias = Literal["never", "hash"]
KEY: Final = "MLSHIP_HASH_KEY"
"""The environment variable with the key. It is a secret, and not part of the repository."""
_LEAST: Final = 16
_HASHED: Final = re.compile("hmac-sha256:[0-9a-f]{64}")


def check_key(rules: Mapping[str, Rule], key: str) -> None:
    """Check that there is a key if a column needs one.

    Raises:
        ConfigError: it is missing, or short enough to be guessed.
    """
    column = next((name for name, rule in rules.items() if rule == "hash"), None)
    if column is None or len(key) >= _LEAST:
        return
    why = f"has fewer than {_LEAST} characters" if key else "is not set"
    message = f"column {column} is logged as a hash, and the environment variable {KEY} {why}"
    hint = "set it to a secret such as the output of `openssl rand -hex 32`, for local targets "
    hint += "before their first deployment or after `mlship down`"
    raise ConfigError(message, hint=hint)


def logged(row: Row, rules: Mapping[str, Rule], key: str) -> Row:
    """Return a row as it is logged. A missing value stays missing."""
    return {
        column: value if column not in rules or value is None else hashed(key, column, value)
        for column, value in row.items()
        if rules.get(column) != "never"
    }


def logged_columns(columns: Columns, rules: Mapping[str, Rule], key: str) -> Columns:
    """Return columns as they are logged, like `logged` for each row."""
    kept = {
        name: values
        if name not in rules
        else [None if value is None else hashed(key, name, value) for value in values]
        for name, values in zip(columns.names, columns.values, strict=True)
        if rules.get(name) != "never"
    }
    return Columns(tuple(kept), tuple(kept.values()), len(columns))


def hashed(key: str, column: str, value: Value) -> str:
    """Return the hash of a value in a column: of a number and its text it is the same."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, float) and value.is_integer():
        text = str(int(value))
    else:
        text = str(value)
    data = f"{column}\0{text}".encode(errors="surrogatepass")
    return f"hmac-sha256:{hmac.new(key.encode(), data, hashlib.sha256).hexdigest()}"


def lacks(inputs: Row, columns: Mapping[str, object]) -> str:
    """Return in words what a log lacks of some columns of a row; empty if it has all.

    Args:
        inputs: as logged.
        columns: that the row had.
    """
    missing = [name for name in columns if name not in inputs]
    only = [name for name, value in inputs.items() if _is_hashed(value)]
    parts = [f"no {', '.join(missing)}"] if missing else []
    parts += [f"only a hash of {', '.join(only)}"] if only else []
    return " and ".join(parts)


def _is_hashed(value: Value) -> bool:
    return isinstance(value, str) and _HASHED.fullmatch(value) is not None
