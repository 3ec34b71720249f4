"""Data that a query of PostgreSQL returns: an address with the project's file of the query.

Such as postgresql://reader@db.example.org:5432/lake#sql/train.sql. A database keeps no versions, so
the data are their rows: sorted, because a database returns them in any order.
"""

import csv
import importlib.util
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mlship.config import installation
from mlship.domain import databases
from mlship.errors import ConfigError, ProjectError, UnavailableError, first_line, shown

_SECONDS: Final = 10
_LOGIN: Final = (
    "set PGPASSWORD, and name it in model.environment, so that the training gets it, too"
)


def is_query(text: str) -> bool:
    """Return whether data of this name are the rows of a query."""
    return databases.is_address(text)


def rows_of(root: Path, text: str) -> bytes:
    """Return the rows of a query as CSV with a header, sorted.

    They are read in one transaction that cannot write. All of them are held in memory.

    Raises:
        ConfigError: the address is wrong, has a password, or psycopg is not installed.
        ProjectError: there is no such file, it is no query, or the database refuses it.
        UnavailableError: the database does not answer, or refuses the user.
    """
    address, query = _parts(root, text)
    if importlib.util.find_spec("psycopg") is None:
        message = f"data at {shown(address)} needs psycopg, which is not installed"
        raise ConfigError(message, hint=installation.hint("postgres"))
    header, *rows = csv.reader(io.StringIO(_copied(text, address, query), newline=""))
    written = io.StringIO(newline="")
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(sorted(rows))
    return written.getvalue().encode()


def _parts(root: Path, text: str) -> tuple[str, str]:
    """Return the address of the database, and the query."""
    address, name = databases.query_of(text)
    if not databases.is_file_of_query(name):
        message = f"data at {shown(address)}: the file of the query is missing"
        hint = "name it after a #: postgresql://reader@db.example.org/lake#sql/train.sql"
        raise ConfigError(message, hint=hint)
    if databases.has_password(address):
        message = f"data at {shown(address)}: a password does not belong into mlship.yaml"
        raise ConfigError(message, hint=_LOGIN)
    try:
        query = (root / name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"the query {name} of the data cannot be read: {error}"
        raise ProjectError(message, hint="correct data.train or data.test") from error
    return address, query.strip().removesuffix(";")


def _copied(text: str, address: str, query: str) -> str:
    import psycopg

    with _faults_of(text), psycopg.connect(address, connect_timeout=_SECONDS) as connection:
        connection.read_only = True
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SET client_encoding TO 'UTF8'")
        # The line end closes a comment in the last line of the file.
        command = f"COPY ({query}\n) TO STDOUT WITH (FORMAT csv, HEADER true)".encode()
        with connection.cursor() as cursor, cursor.copy(command) as copy:
            return b"".join(bytes(block) for block in copy).decode("utf-8")


@contextmanager
def _faults_of(text: str) -> Iterator[None]:
    import psycopg

    address, _, name = shown(text).partition("#")
    try:
        yield
    except psycopg.OperationalError as error:
        message = f"data at {address} cannot be read: {first_line(error)}"
        raise UnavailableError(message, hint=f"check the network; {_LOGIN}") from error
    except psycopg.Error as error:
        message = f"the database refuses the query {name}: {first_line(error)}"
        hint = "correct the file: it is one SELECT, and the user may read what it names"
        raise ProjectError(message, hint=hint) from error
