"""The tables of outcomes and projects, and what those of former versions lack."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from psycopg import Connection

_OUTCOMES: Final = """
CREATE TABLE mlship_outcomes (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    prediction text NOT NULL,
    value json NOT NULL,
    time timestamptz NOT NULL,
    project text NOT NULL DEFAULT '',
    UNIQUE (prediction, project)
)"""
_FORMER_OUTCOMES: Final = """
ALTER TABLE mlship_outcomes
    ADD COLUMN project text NOT NULL DEFAULT '',
    ADD UNIQUE (prediction, project),
    DROP CONSTRAINT IF EXISTS mlship_outcomes_prediction_key"""
_PROJECTS: Final = "CREATE TABLE mlship_projects (name text PRIMARY KEY, home text NOT NULL)"
_CORRECTIONS: Final = """
CREATE TABLE mlship_corrections (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    prediction text NOT NULL,
    value json NOT NULL,
    time timestamptz NOT NULL,
    project text NOT NULL
)"""


def complete(connection: "Connection", *, corrections: bool = False) -> None:
    """Make the tables of outcomes and projects, and add what those of former versions lack."""
    if not exists(connection, "mlship_outcomes"):
        connection.execute(_OUTCOMES)
    elif not tells_projects(connection):
        connection.execute(_FORMER_OUTCOMES)
    if not exists(connection, "mlship_projects"):
        connection.execute(_PROJECTS)
    if corrections and not exists(connection, "mlship_corrections"):
        connection.execute(_CORRECTIONS)


def exists(connection: "Connection", table: str) -> bool:
    """Return whether there is a table."""
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [table]).fetchone()
    return bool(row and row[0])


def tells_projects(connection: "Connection") -> bool:
    """Return whether outcomes have a project: tables of former versions lack the column."""
    query = """
        SELECT FROM pg_attribute
        WHERE attrelid = to_regclass('mlship_outcomes') AND attname = 'project'"""
    return connection.execute(query).fetchone() is not None
