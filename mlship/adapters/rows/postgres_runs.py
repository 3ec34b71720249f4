"""A table of PostgreSQL that takes the outputs of runs.

A run is one transaction: a row of the table `mlship_runs` in the same schema, whose primary key
lets each run in once, and the outputs. mlship creates no tables: the messages have the statements.
"""

import importlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mlship.adapters.rows import sql_types, table_runs
from mlship.adapters.rows.connections import LOGIN, connected
from mlship.domain import databases
from mlship.domain.batch import Manifest, Plan
from mlship.domain.bundle import ID, Field, Kind
from mlship.domain.databases import quoted
from mlship.errors import (
    ConfigError,
    IntegrityError,
    NotFoundError,
    ProjectError,
    UnavailableError,
    first_line,
)

if TYPE_CHECKING:
    from psycopg import Connection, Error

_RUNS: Final = "mlship_runs"
_RUNS_COLUMNS: Final = (
    "table_name text, run text, release text NOT NULL, name text NOT NULL, "
    "time timestamptz NOT NULL, rows bigint NOT NULL, rejected bigint NOT NULL, "
    "manifest json NOT NULL, PRIMARY KEY (table_name, run)"
)
_FIND: Final = """
SELECT c.oid, n.nspname, c.relname, c.relkind
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)"""
_COLUMNS: Final = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), t.typcategory,
    a.attnotnull AND NOT a.atthasdef AND a.attidentity = '', a.attgenerated <> ''
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped"""
_ALLOWED: Final = """
SELECT has_table_privilege(%s, 'INSERT'), has_table_privilege(%s, 'INSERT'),
    has_table_privilege(%s, 'SELECT'), current_user"""
_MAY_LOOK: Final = """
SELECT has_table_privilege(oid, 'SELECT'), NOT (relrowsecurity OR relforcerowsecurity)
FROM pg_class WHERE oid = %s"""
"""With row-level security, rows that are there may not be seen."""
_DURABLY: Final = """
SELECT set_config('synchronous_commit', 'on', true)
WHERE current_setting('synchronous_commit') = 'off'"""
_SESSION: Final = (
    "SET LOCAL TimeZone TO 'UTC'",  # of times without a zone, whatever the user's own setting is
    "SET LOCAL DateStyle TO 'ISO'",
)
_PATIENCE: Final = """
SELECT set_config('lock_timeout', '10min', true) WHERE current_setting('lock_timeout') = '0'"""
"""Another process publishes within minutes; a forgotten session may hold a lock for days."""


class PostgresTable:
    """The port Table.

    Args:
        address: `postgresql://user@host/database?table=schema.name`.
        fields: of the outputs.

    Raises:
        ConfigError: the address has a password, or names no table.
    """

    def __init__(self, address: str, fields: Sequence[Field]) -> None:
        self._table = databases.parsed(address, "batch.output", LOGIN)
        if not self._table.table:
            message = f"batch.output {self._table.shown} is a query, and outputs need a table"
            hint = "name it: postgresql://writer@db.example.org/lake?table=public.scores"
            raise ConfigError(message, hint=hint)
        self._fields = tuple(fields)

    @property
    def shown(self) -> str:
        """Its address without user and password."""
        return self._table.shown

    def check(self, plan: Plan) -> None:
        """Check that the table can take the outputs of a plan.

        Raises:
            NotFoundError: there is no such table, or no table of runs.
            ProjectError: it has other columns.
            UnavailableError: the database does not answer, or the user may not insert.
        """
        with self._connected() as connection:
            table = self._resolved(connection)
            runs = _found(connection, self._runs(table[1] if table else ""))
            if table is None or runs is None:
                lacking = self.shown if table is None else f"{_RUNS} beside {self.shown}"
                hint = f"create it: {self._statements(plan, table, runs)}"
                raise NotFoundError(f"there is no table {lacking}", hint=hint)
            self._check_columns(connection, table, plan)
            self._check_allowed(connection, table[0], runs[0])

    def has(self, plan: Plan) -> bool:
        """Return whether the table has a run; raises as `find` does."""
        return self.find(plan) is not None

    def find(self, plan: Plan) -> Manifest | None:
        """Return the manifest of a run that the table has.

        Raises:
            IntegrityError: its rows were removed from the table.
            UnavailableError: the database does not answer.
        """
        with self._connected() as connection:
            table = self._resolved(connection)
            if table is None or _found(connection, self._runs(table[1])) is None:
                return None
            select = f"SELECT manifest::text FROM {self._runs(table[1])} "  # noqa: S608 (quoted)
            row = connection.execute(
                f"{select} WHERE table_name = %s AND run = %s".encode(), [table[2], plan.run]
            ).fetchone()
            if row is None:
                return None
            manifest = msgspec.json.decode(row[0], type=Manifest)
            self._check_there(connection, table, manifest)
        return manifest

    def publish(self, plan: Plan, manifest: Manifest, folder: Path) -> None:
        """Add the outputs in a folder in one transaction, unless the table has the run.

        Raises:
            NotFoundError: there is no such table.
            ProjectError: the table refuses the rows.
            UnavailableError: the connection broke, or the server's disk is full.
            IntegrityError: a part in the folder is damaged.
        """
        with self._connected() as connection:
            for statement in (_DURABLY, *_SESSION, _PATIENCE):
                connection.execute(statement.encode())
            table = self._resolved(connection)
            if table is None:
                raise NotFoundError(f"there is no table {self.shown}", hint="create it again")
            # Before the rows: a second process waits here until the first one has committed.
            insert = (
                f"INSERT INTO {self._runs(table[1])} "  # noqa: S608 (quoted)
                "(table_name, run, release, name, time, rows, rejected, manifest) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s, %s::json) ON CONFLICT DO NOTHING"
            )
            values = (
                *(table[2], plan.run, plan.release, manifest.name, manifest.time),
                *(manifest.rows, manifest.rejected, msgspec.json.encode(manifest).decode()),
            )
            if connection.execute(insert.encode(), values).rowcount:
                self._copy(connection, plan, manifest, folder)

    def _copy(
        self, connection: "Connection[Any]", plan: Plan, manifest: Manifest, folder: Path
    ) -> None:
        pacsv: Any = importlib.import_module("pyarrow.csv")
        options = pacsv.WriteOptions(include_header=False)
        names: list[str] = []
        with connection.cursor() as cursor:
            batches = table_runs.outputs(plan, manifest, folder)
            first = next(batches, None)
            if first is None:
                return
            names = [quoted(name) for name in first.schema.names]
            command = f"COPY {self._table.relation} ({', '.join(names)}) FROM STDIN (FORMAT csv)"
            with cursor.copy(command.encode()) as copy:
                batch = first
                while batch is not None:
                    # Texts are in quotes and missing values are not, as COPY wants it.
                    text = io.BytesIO()
                    pacsv.write_csv(batch, text, options)
                    copy.write(text.getbuffer())
                    batch = next(batches, None)
            self._check_taken(cursor.rowcount, manifest.rows - manifest.rejected)

    def _check_taken(self, taken: int, wanted: int) -> None:
        """Check that the table has all rows: a trigger may leave one out without an error."""
        if taken == wanted:
            return
        message = f"the table {self.shown} took {taken} of {wanted} rows; nothing was published"
        hint = "a trigger of the table leaves rows out: correct it, then run `mlship batch` again"
        raise ProjectError(message, hint=f"{hint}: finished parts are kept")

    def _check_there(
        self, connection: "Connection[Any]", table: tuple[int, str, str, str], manifest: Manifest
    ) -> None:
        """Check that the table still has rows of a run, if the user may look."""
        if manifest.rows == manifest.rejected:
            return
        row = connection.execute(_MAY_LOOK.encode(), [table[0]]).fetchone()
        if row is None or not all(row):
            return
        select = f"SELECT FROM {self._table.relation} WHERE {table_runs.RUN} = %s LIMIT 1"
        if connection.execute(select.encode(), [manifest.run]).fetchone() is None:
            message = f"the table {self.shown} has no rows of the run {manifest.run} any more, and "
            message += f"{_RUNS} still names it"
            hint = f"to publish it again, remove its row there: {self._removal(table, manifest)}; "
            hint += "then run `mlship batch` again"
            raise IntegrityError(message, hint=hint)

    def _removal(self, table: tuple[int, str, str, str], manifest: Manifest) -> str:
        statement = f"DELETE FROM {self._runs(table[1])} "  # noqa: S608 (quoted, to be shown)
        name = table[2].replace("'", "''")
        return f"{statement}WHERE table_name = '{name}' AND run = '{manifest.run}'"

    def _check_columns(
        self, connection: "Connection[Any]", table: tuple[int, str, str, str], plan: Plan
    ) -> None:
        known = {row[0]: row[1:] for row in connection.execute(_COLUMNS.encode(), [table[0]])}
        alter = f"ALTER TABLE {self._table.relation}"
        kept = table_runs.kept_types(plan)
        for name, kind, type_ in self._wanted(plan):
            if name not in known:
                message = f"the table {self.shown} has no column {name}"
                hint = f"add it: {alter} ADD COLUMN {quoted(name)} {type_}"
                raise ProjectError(message, hint=hint)
            own, category, _, is_generated = known[name]
            does_fit = all(
                sql_types.does_take(own, category, kind, arrow) for arrow in kept.get(name) or ("",)
            )
            if is_generated or not does_fit:
                what = "is generated" if is_generated else f"has type {own}"
                message = f"the table {self.shown}: column {name} {what}, and gets {type_}"
                hint = f"change it: {alter} ALTER COLUMN {quoted(name)} TYPE {type_}"
                raise ProjectError(message, hint=hint)
        names = {name for name, _, _ in self._wanted(plan)}
        if more := next((name for name in known if name not in names and known[name][2]), ""):
            message = f"the table {self.shown}: column {more} needs a value, and gets none"
            hint = f"give it a default, or {alter} ALTER COLUMN {quoted(more)} DROP NOT NULL"
            raise ProjectError(message, hint=hint)

    def _check_allowed(self, connection: "Connection[Any]", table: int, runs: int) -> None:
        row = connection.execute(_ALLOWED.encode(), [table, runs, runs]).fetchone()
        if row is not None and not all(row[:3]):
            message = f"the user {row[3]} may not write to {self.shown} and {_RUNS}"
            user = quoted(row[3])
            hint = f"GRANT INSERT ON {self._table.relation} TO {user}; "
            hint += f"GRANT SELECT, INSERT ON {_RUNS} TO {user}"
            raise UnavailableError(message, hint=hint)

    def _wanted(self, plan: Plan) -> list[tuple[str, Kind | None, str]]:
        """Return the name, the kind if it is known, and the SQL type of each column."""
        outputs = [(each.name, each.kind, sql_types.OF_KIND[each.kind]) for each in self._fields]
        kept = [
            (name, None, sql_types.of_arrow(kind)) for name, kind in table_runs.kept(plan).items()
        ]
        own = [(name, "text", "text") for name in table_runs.own(plan)]
        wanted: list[tuple[str, Kind | None, str]] = [(ID, "text", "text")]
        return [*wanted, *kept, *outputs, *own]  # type: ignore[list-item]

    def _statements(self, plan: Plan, table: Any, runs: Any) -> str:
        statements = []
        if table is None:
            columns = [f"{quoted(name)} {type_}" for name, _, type_ in self._wanted(plan)]
            key = f"PRIMARY KEY ({table_runs.RUN}, {ID})"
            columns.append(key)
            statements.append(f"CREATE TABLE {self._table.relation} ({', '.join(columns)})")
        if runs is None:
            schema = table[1] if table else (self._table.table[:-1] or ("",))[0]
            statements.append(f"CREATE TABLE IF NOT EXISTS {self._runs(schema)} ({_RUNS_COLUMNS})")
        return "; ".join(statements)

    def _runs(self, schema: str) -> str:
        schema = schema or (self._table.table[0] if len(self._table.table) > 1 else "")
        return f"{quoted(schema)}.{_RUNS}" if schema else _RUNS

    def _resolved(self, connection: "Connection[Any]") -> tuple[int, str, str, str] | None:
        """Return the id, the schema, the whole name and the kind of the table."""
        found = _found(connection, self._table.relation)
        if found is not None and found[3] not in ("r", "p"):
            message = f"{self.shown} is no table"
            raise ProjectError(message, hint="name a table, not a view or an index")
        return found

    def _connected(self) -> Any:
        what = f"the table {self.shown}"

        def refused(error: "Error") -> Exception:
            message = f"{what} refuses the outputs: {first_line(error)}; nothing was published"
            hint = "correct the table, then run `mlship batch` again: finished parts are kept"
            return ProjectError(message, hint=hint)

        return connected(self._table.address, what, refused)


def _found(connection: "Connection[Any]", name: str) -> tuple[int, str, str, str] | None:
    row = connection.execute(_FIND.encode(), [name]).fetchone()
    return None if row is None else (row[0], row[1], f"{row[1]}.{row[2]}", row[3])
