"""MLflow's embedded sqlite database, read and locked without importing MLflow."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from mlship.adapters.mlflow.faults import broken, unavailable
from mlship.errors import MlshipError

_PATIENCE: Final = 60.0
_BUSY: Final = ("locked", "unable to open", "disk i/o", "readonly", "full")


def database_path(uri: str) -> Path | None:
    """Return the file of a `sqlite:///` URI, `None` for another URI."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0])


def check_database(uri: str, path: Path) -> None:
    """Check that a database can be written now.

    Raises:
        UnavailableError: it is locked or not writable.
        IntegrityError: the file is not a database.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as database:
            database.execute("PRAGMA schema_version")
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise _translated(error, uri) from error


@contextmanager
def alone(uri: str, path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a database: a change takes several transactions of MLflow.

    It is a lock of sqlite on an empty file beside the database, which works on every system and
    ends with its process.

    Raises:
        UnavailableError: another process holds it for a minute, or the folder is not writable.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(lock, timeout=_PATIENCE, isolation_level=None)) as held:
            held.execute("BEGIN EXCLUSIVE")
            yield
    except sqlite3.Error as error:
        raise unavailable(uri, f"another process is changing it ({error})") from error
    except OSError as error:
        raise unavailable(uri, error.strerror or str(error)) from error


@contextmanager
def reading(
    uri: str, path: Path, columns: Mapping[str, set[str]]
) -> Iterator[sqlite3.Connection | None]:
    """Open a database in one read-only transaction; `None` if its tables are unknown.

    Args:
        uri: of the database, for messages.
        path: of its file, which exists.
        columns: the expected ones of each table; another version of MLflow may have others.

    Raises:
        UnavailableError: it is locked or not readable.
        IntegrityError: the file is not a database.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            database.execute("PRAGMA query_only = 1")
            database.execute("BEGIN")
            yield database if _is_known(database, columns) else None
    except sqlite3.Error as error:
        raise _translated(error, uri) from error


def _is_known(database: sqlite3.Connection, columns: Mapping[str, set[str]]) -> bool:
    return all(
        wanted <= {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        for table, wanted in columns.items()
    )


def _translated(error: sqlite3.Error, uri: str) -> MlshipError:
    text = str(error)
    if isinstance(error, sqlite3.OperationalError) and any(w in text.lower() for w in _BUSY):
        return unavailable(uri, text)
    return broken(uri, text)
