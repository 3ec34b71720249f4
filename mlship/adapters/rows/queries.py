"""The rows of a query or a table of PostgreSQL, written to a file before a batch reads them.

A database changes while a batch runs and keeps no versions. So the rows are read once, in one
transaction, and sorted by all columns: the same rows are the same bytes, and with them the same
parts and the same run, whatever the order in which the database returns them. A batch that was
killed goes on with the rows that it has read; one that has ended asks again.

    .mlship/batch/queries/<query>/<digest of the rows>/rows.parquet
    .mlship/batch/queries/<query>/_held.json     there while a batch works on its rows
"""

import io
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mlship import files
from mlship.adapters.rows import query_types
from mlship.adapters.rows.connections import LOGIN, connected
from mlship.domain import databases, digests
from mlship.domain.batch_ports import Listed
from mlship.domain.csv_text import WholeLineEnds
from mlship.domain.databases import Database, quoted
from mlship.errors import MlshipError, NotFoundError, ProjectError, UnavailableError, first_line

if TYPE_CHECKING:
    from psycopg import Connection, Error

_FOLDER: Final = "queries"
_FILE: Final = "rows.parquet"
_HELD: Final = "_held.json"
_NO_TABLE: Final = "42P01"
_DAY: Final = 86_400.0
_GROUP_ROWS: Final = 1 << 16
_GROUP_BYTES: Final = 64 << 20
_BLOCK: Final = 4 << 20
_SETTINGS: Final = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "SET LOCAL client_encoding TO 'UTF8'",
    "SET LOCAL DateStyle TO 'ISO'",
    "SET LOCAL TimeZone TO 'UTC'",
    "SET LOCAL extra_float_digits TO 1",
)


class _Held(msgspec.Struct, frozen=True):
    """Rows that a batch works on: the folder, and when they were read, in seconds."""

    folder: str
    time: float


class QueryRows:
    """Reads queries and tables of PostgreSQL into files.

    Args:
        root: the project's folder.
        state: the folder for what mlship keeps.
        clock: the seconds since 1970.
    """

    def __init__(self, root: Path, state: Path, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._state = state
        self._clock = clock

    def listed(self, text: str) -> Listed:
        """Return the file with the rows of a query; those of a killed batch, if there is one.

        Raises:
            ConfigError: the address is wrong, or psycopg is not installed.
            ProjectError: there is no such file, the database refuses the query, or a column has a
                type that a batch does not read.
            NotFoundError: there is no such table.
            UnavailableError: the database does not answer, or the disk is full.
        """
        source, sql = self._source(text)
        folder = self._folder(text, sql)
        held = _read(folder / _HELD)
        if held is not None and self._clock() - held.time < _DAY:
            path = folder / held.folder / _FILE
            if path.is_file():
                since = time.strftime("%Y-%m-%d %H:%M", time.localtime(held.time))
                return Listed(str(path), "parquet", files.state_of(path.stat()), since)
        try:
            path = _written(folder, source, sql)
        except OSError as error:
            message = f"cannot write the rows of {source.shown} to {folder}: {error.strerror}"
            hint = "free disk space or correct the permissions, then run `mlship batch` again"
            raise UnavailableError(message, hint=hint) from error
        return Listed(str(path), "parquet", files.state_of(path.stat()))

    @contextmanager
    def held(self, texts: Sequence[str], paths: Sequence[str]) -> Iterator[None]:
        """Keep the rows of queries for a batch that goes on after it was killed.

        They are let go when it ends by itself, unless something was unavailable.

        Args:
            texts: the addresses.
            paths: of the files that the batch reads.
        """
        marks = []
        for text in texts:
            folder = self._folder(text, self._source(text)[1])
            own = [Path(path).parent for path in paths if Path(path).parent.parent == folder]
            if own and _read(folder / _HELD) is None:
                held = _Held(own[0].name, self._clock())
                with suppress(OSError):
                    files.write_atomically(folder / _HELD, msgspec.json.encode(held))
            marks.append(folder / _HELD)
        try:
            yield
        except UnavailableError:
            raise
        except MlshipError:
            _remove(marks)
            raise
        _remove(marks)

    def _folder(self, text: str, sql: str) -> Path:
        name = digests.short(digests.of_value((text, sql)))
        return self._state / "batch" / _FOLDER / name

    def _source(self, text: str) -> tuple[Database, str]:
        source = databases.parsed(text, "batch.input", LOGIN)
        if source.table:
            return source, f"SELECT * FROM {source.relation}"  # noqa: S608 (quoted)
        try:
            sql = (self._root / source.query).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            message = f"the query {source.query} of the batch cannot be read: {error}"
            raise ProjectError(message, hint="correct batch.input or --input") from error
        return source, sql.strip().removesuffix(";")


def _remove(marks: Sequence[Path]) -> None:
    for mark in marks:
        with suppress(OSError):
            mark.unlink(missing_ok=True)


def _read(path: Path) -> _Held | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Held)
    except (OSError, msgspec.DecodeError):
        return None


def _written(folder: Path, source: Database, sql: str) -> Path:
    """Write the rows of a query, and return the file, whose folder is named by its digest."""
    files.make_private(folder)
    with files.temporary_folder(folder, ".new-") as new:
        _copy(source, sql, new / _FILE)
        digest = digests.short(digests.of_file(new / _FILE))
        final = folder / digest
        # The same rows were read before: their file is kept, and what is known of it.
        if not (final / _FILE).is_file():
            shutil.rmtree(final, ignore_errors=True)
            with (new / _FILE).open("rb") as file:
                os.fsync(file.fileno())
            final.mkdir(mode=0o700)
            (new / _FILE).rename(final / _FILE)
            files.sync_folder(final)
    return final / _FILE


def _copy(source: Database, sql: str, path: Path) -> None:
    what = f"the rows of {source.shown}"

    def refused(error: "Error") -> Exception:
        if source.table and error.sqlstate == _NO_TABLE:
            message = f"there is no table {source.shown}"
            return NotFoundError(message, hint="correct batch.input or --input")
        message = f"the database refuses {source.shown}: {first_line(error)}"
        hint = "correct the query: it is one SELECT; " if source.query else "correct the table; "
        return ProjectError(message, hint=f"{hint}the user may read what it names")

    with connected(source.address, what, refused) as connection:
        for setting in _SETTINGS:
            connection.execute(setting.encode())
        # The line end closes a comment in the last line of a file.
        inner = f"({sql}\n) AS rows"
        columns = query_types.columns(connection, inner, source.shown)
        selected = ", ".join(
            f"{quoted(each.name)}::text" if each.is_text else quoted(each.name) for each in columns
        )
        order = ", ".join(str(place) for place in range(1, len(columns) + 1))
        sorted_ = f"SELECT {selected} FROM {inner} ORDER BY {order}"  # noqa: S608 (project's query)
        _stream(connection, sorted_, columns, path)


def _stream(
    connection: "Connection[Any]", sql: str, columns: Sequence[query_types.Column], path: Path
) -> None:
    """Write what a statement returns, block by block; the memory is that of some blocks."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(each.name, each.type) for each in columns])
    command = f"COPY ({sql}) TO STDOUT WITH (FORMAT csv)".encode()
    with connection.cursor() as cursor, cursor.copy(command) as copy:
        text = _Text(copy)
        with pq.ParquetWriter(path, schema, compression="snappy") as writer:
            group: list[Any] = []
            rows = size = 0
            for batch in _batches(text, schema):
                group.append(batch)
                rows, size = rows + batch.num_rows, size + batch.nbytes
                if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(group, schema), row_group_size=rows)
                    group, rows, size = [], 0, 0
            if rows:
                writer.write_table(pa.Table.from_batches(group, schema), row_group_size=rows)


def _batches(text: "_Text", schema: Any) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.csv as pacsv

    if text.is_empty():
        return
    try:
        yield from pacsv.open_csv(
            WholeLineEnds(text),
            read_options=pacsv.ReadOptions(
                use_threads=False, block_size=_BLOCK, column_names=schema.names
            ),
            parse_options=pacsv.ParseOptions(
                newlines_in_values=True,
                # The row of a query with one column, whose value is missing.
                ignore_empty_lines=False,
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=schema,
                # COPY writes a missing value without quotes, and an empty text with them.
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                true_values=["t"],
                false_values=["f"],
            ),
        )
    except pa.ArrowInvalid as error:
        raise query_types.misfit(first_line(error), schema.names) from error


class _Text(io.RawIOBase):
    """What COPY sends, as a file: a read returns all that was asked for, so blocks never vary."""

    def __init__(self, copy: Any) -> None:
        super().__init__()
        self._blocks = iter(copy)
        self._waiting = bytearray()

    def is_empty(self) -> bool:
        """Return whether there is no row."""
        self._fill(1)
        return not self._waiting

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes; fewer than asked for at the end only."""
        self._fill(size)
        taken = bytes(self._waiting[:size])
        del self._waiting[:size]
        return taken

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def _fill(self, size: int) -> None:
        while len(self._waiting) < size:
            block = next(self._blocks, None)
            if block is None:
                return
            self._waiting += block
