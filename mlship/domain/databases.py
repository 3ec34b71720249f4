"""Queries and tables of PostgreSQL, named by an address: rows to read, or where rows go.

    postgresql://reader@db.example.org:5432/lake#sql/score.sql     a query, in a file of the project
    postgresql://writer@db.example.org/lake?table=public.scores    a table

What else is after the question mark is for libpq, such as `sslmode=require`. A password belongs
into libpq's variables or its password file, never into an address.
"""

import re
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from mlship.errors import ConfigError, shown

_SCHEMES: Final = ("postgresql://", "postgres://")
_FILE: Final = re.compile(r"[\w./-]+\.sql")
_TABLE: Final = "table"
_NAMES: Final = 2
_QUERY_HINT: Final = "name it after a #: postgresql://reader@db.example.org/lake#sql/train.sql"
_TABLE_HINT: Final = "name it: postgresql://writer@db.example.org/lake?table=public.scores"


class Database(msgspec.Struct, frozen=True):
    """A query or a table of a database.

    Attributes:
        address: of the database, as libpq takes it.
        query: the file of the query, in the project; empty for a table.
        table: the name of the table, after that of its schema if there is one.
    """

    address: str
    query: str = ""
    table: tuple[str, ...] = ()

    @property
    def relation(self) -> str:
        """The table, quoted for SQL."""
        return ".".join(map(quoted, self.table))

    @property
    def shown(self) -> str:
        """The same without user and password, for people."""
        own = f"#{self.query}" if self.query else ""
        if self.table:
            sign = "&" if "?" in self.address else "?"
            own = f"{sign}{_TABLE}={'.'.join(self.table)}"
        return f"{shown(self.address)}{own}"


def is_address(text: str) -> bool:
    """Return whether a text is the address of a database."""
    return text.startswith(_SCHEMES)


def quoted(name: str) -> str:
    """Return a name, quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def has_password(address: str) -> bool:
    """Return whether an address has a password, which would be shown with it."""
    return urlsplit(address).password is not None or "password=" in address


def query_of(text: str) -> tuple[str, str]:
    """Return the address of the database and the file of a query; the file may be invalid."""
    address, _, name = text.partition("#")
    return address, name


def is_file_of_query(name: str) -> bool:
    """Return whether a name is a file of SQL in the project."""
    is_inside = ".." not in name.split("/") and not name.startswith("/")
    return bool(_FILE.fullmatch(name)) and is_inside


def parsed(text: str, what: str, login: str) -> Database:
    """Return the query or the table that an address names.

    Args:
        text: the address.
        what: the setting, for messages.
        login: what to do instead of writing a password.

    Raises:
        ConfigError: the address has a password, or names no query and no table.
    """
    address, name = query_of(text)
    if has_password(address):
        message = f"{what}: a password does not belong into the address {shown(address)}"
        raise ConfigError(message, hint=login)
    base, _, options = address.partition("?")
    pairs = parse_qsl(options, keep_blank_values=True)
    tables = [value for key, value in pairs if key == _TABLE]
    own = urlencode([pair for pair in pairs if pair[0] != _TABLE])
    bare = f"{base}?{own}" if own else base
    if "#" in text and not tables:
        if not is_file_of_query(name):
            message = f"{what}: {shown(address)} names no file of a query"
            raise ConfigError(message, hint=_QUERY_HINT)
        return Database(bare, query=name)
    names = tuple(tables[0].split(".")) if len(tables) == 1 else ()
    if "#" in text or not all(names) or not 1 <= len(names) <= _NAMES:
        message = f"{what}: {shown(address)} names no query and no table"
        raise ConfigError(message, hint=f"{_TABLE_HINT}; or a query: {_QUERY_HINT}")
    return Database(bare, table=names)
