"""The prediction log in PostgreSQL: predictions are committed before the response is sent.

One table has the predictions of all replicas of all releases. A batch is one statement in one
transaction. If the connection breaks and the result is unknown, the batch is written again; the
primary key prevents duplicates. Documents are stored as `json`, not `jsonb`, which rejects text
with NUL characters and changes some numbers.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from mlship.domain.columns import PIECE_ROWS
from mlship.domain.lines import Inserted
from mlship.domain.predicted import Batch
from mlship.domain.prediction import Prediction
from mlship.errors import ConfigError, MlshipError, UnavailableError, UnfitRowsError, shown
from mlship.runtime.groups import Backlog, GroupCommit, Written

if TYPE_CHECKING:
    from psycopg import Connection, Error

Row: TypeAlias = Inserted

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS mlship_predictions (
    id text NOT NULL,
    release text NOT NULL,
    slot text NOT NULL,
    time timestamptz NOT NULL,
    inputs json NOT NULL,
    outputs json NOT NULL,
    latency_ms double precision NOT NULL,
    shadow boolean NOT NULL,
    PRIMARY KEY (id, release)
)"""
_LOCK: Final = "SELECT pg_advisory_xact_lock(119182827122032)"  # "mlship" in ASCII, as a number
TABLES: Final = {"mlship_predictions": _TABLE}
_LOOK: Final = "SELECT to_regclass(%s) IS NOT NULL"
_DURABLY: Final = """
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') = 'off'"""
INSERT: Final = """
INSERT INTO mlship_predictions (id, release, slot, time, inputs, outputs, latency_ms, shadow)
SELECT id, release, slot, time, inputs::json, outputs::json, latency_ms, shadow
FROM unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::text[], %s::text[],
    %s::double precision[], %s::boolean[])
    AS t (id, release, slot, time, inputs, outputs, latency_ms, shadow)
ON CONFLICT DO NOTHING"""

PATIENCE: Final = 3.0
"""How many seconds a request waits for the database."""
START: Final = 10.0
"""How many seconds a replica that starts waits for the database."""
_SILENCE: Final = PATIENCE + 1
"""After so many seconds without an answer to a statement the connection is given up."""
_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 0.5
_encode = msgspec.json.Encoder().encode

_HINT: Final = "check that the database is running, then retry the request"


class Pieces:
    """Predictions as rows, of which those of many are made when they are inserted, again each time.

    Together, the rows of many take more memory than all else of a request.

    Args:
        predictions: the predictions.
    """

    def __init__(self, predictions: Batch) -> None:
        is_small = len(predictions) <= PIECE_ROWS
        self._rows = [row(prediction) for prediction in predictions] if is_small else []
        self._predictions = () if is_small else predictions

    def __iter__(self) -> Iterator[list[Row]]:
        """Return the rows in pieces."""
        if self._rows:
            yield self._rows
        remaining = iter(self._predictions)
        while piece := [row(prediction) for prediction in islice(remaining, PIECE_ROWS)]:
            yield piece


class Joined:
    """The pieces of several requests, small ones as one.

    Args:
        requests: those of each.
    """

    def __init__(self, requests: Sequence[Iterable[list[Row]]]) -> None:
        self._requests = requests

    def __iter__(self) -> Iterator[list[Row]]:
        """Return the rows in pieces of at most about twice `PIECE_ROWS`."""
        rows: list[Row] = []
        for piece in chain.from_iterable(self._requests):
            rows = [*rows, *piece] if rows else piece
            if len(rows) >= PIECE_ROWS:
                yield rows
                rows = []
        if rows:
            yield rows


class PostgresRecorder:
    """Inserts predictions into the table `mlship_predictions`, which it creates if needed.

    Args:
        url: `postgresql://user@host:5432/database`; other parameters come from libpq's variables
            (`PGPASSWORD`, `PGSSLMODE`, ...).
        slot: the slot of this process, which the database's operator sees.
        patience: how many seconds a request waits for an unavailable database.

    Raises:
        ConfigError: psycopg is not installed, or the URL or the database is not suitable.
        UnavailableError: the database does not answer, or refuses the user.
    """

    def __init__(self, url: str, slot: str, *, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._database = Database(url, slot, TABLES)
        self._database.persist((), time.monotonic() + START)
        self._commit = GroupCommit(self._write)

    def append(self, predictions: Batch) -> Written:
        """Log predictions; the result is done when they are committed.

        Raises:
            UnavailableError: the recorder is closed.
        """
        return self._commit.append(Pieces(predictions))

    def backlog(self) -> Backlog:
        """Return nothing: what is in the table is where it belongs."""
        return Backlog()

    def close(self, deadline: float = 0.0) -> None:  # noqa: ARG002 (nothing to deliver)
        """Write the pending predictions, and stop."""
        self._commit.close()
        self._database.close()

    def _write(self, batch: list[Pieces], since: float) -> None:
        self._database.persist(Joined(batch), since + self._patience)


class Database:
    """A connection, which is reopened when it breaks, and given up when it is silent.

    Args:
        url: `postgresql://...`.
        slot: the slot of this process, which the database's operator sees.
        tables: by name, the statements for those that are created if they do not exist.
    """

    def __init__(self, url: str, slot: str, tables: Mapping[str, str]) -> None:
        self._url = url
        self._address, self._password = _address(url, slot)
        self._tables = tables
        self._connection: Connection | None = None
        self._asked: float | None = None
        self._guard = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def persist(self, pieces: Iterable[Sequence[Row]], deadline: float) -> None:
        """Commit pieces of rows together; retry until the deadline of the monotonic clock.

        Raises:
            UnavailableError: the rows could not be committed.
            ConfigError: the database is not suitable.
        """
        import psycopg

        pause = _PAUSE
        while True:
            try:
                with self._answered() as connection:
                    _insert(connection, pieces)
            except psycopg.OperationalError as error:
                if time.monotonic() + pause > deadline:
                    raise self._mapped(error) from error
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except psycopg.Error as error:
                raise self._mapped(error) from error
            else:
                return

    @contextlib.contextmanager
    def session(self) -> Iterator["Connection"]:
        """Give the connection, in autocommit mode, and try once.

        Raises:
            UnavailableError: the database does not answer, or refuses the user or the rows.
            ConfigError: the database is not suitable.
        """
        import psycopg

        try:
            with self._answered() as connection:
                yield connection
        except psycopg.Error as error:
            raise self._mapped(error) from error

    def close(self) -> None:
        """Close the connection, and stop."""
        self._closed.set()
        self._drop()

    @contextlib.contextmanager
    def _answered(self) -> Iterator["Connection"]:
        """Give the connection, watched. After an error it is closed; the next call reopens it."""
        try:
            self._asked = time.monotonic()
            yield self._connection or self._connect()
        except BaseException:
            self._drop()
            raise
        finally:
            self._asked = None

    def _drop(self) -> None:
        with self._guard:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _watch(self) -> None:
        """End the wait for a server that keeps its connections open and says nothing."""
        while not self._closed.wait(0.5):
            with self._guard:
                asked, connection = self._asked, self._connection
                if asked is None or connection is None or time.monotonic() - asked < _SILENCE:
                    continue
                with (
                    contextlib.suppress(Exception),
                    socket.socket(fileno=os.dup(connection.fileno())) as line,
                ):
                    line.shutdown(socket.SHUT_RDWR)

    def _connect(self) -> "Connection":
        """Connect in autocommit mode, and check the database.

        Raises:
            ConfigError: the database is not in UTF-8, or a table cannot be created.
        """
        import psycopg

        self._connection = connection = psycopg.connect(self._address, autocommit=True)
        encoding, *_ = connection.execute("SHOW server_encoding").fetchone() or ("",)
        if encoding != "UTF8":
            message = f"the database {shown(self._url)} has encoding {encoding}, expected UTF8"
            raise ConfigError(message, hint="create a database with ENCODING 'UTF8'")
        for table, statement in self._tables.items():
            exists, *_ = connection.execute(_LOOK, [table]).fetchone() or (False,)
            if exists:
                continue
            try:
                with connection.transaction():
                    connection.execute(_LOCK)
                    connection.execute(statement.encode())
            except psycopg.errors.InsufficientPrivilege as error:
                message = f"cannot create table {table} in {shown(self._url)}: {error}"
                hint = "let the owner of the schema create it, as in `mlship guide predictions`"
                raise ConfigError(message, hint=hint) from error
        connection.execute(_DURABLY)
        connection.execute(f"SET statement_timeout = {int(PATIENCE * 1000)}".encode())
        return connection

    def _mapped(self, error: "Error") -> UnavailableError:
        from psycopg import DataError

        reason = " ".join(str(error).split())[:300]
        if self._password:
            reason = reason.replace(self._password, "***")
        message = f"cannot write the prediction log {shown(self._url)}: {reason}"
        if isinstance(error, DataError):
            return UnfitRowsError(message, hint=_HINT, reason=reason)
        return UnavailableError(message, hint=_HINT)


def is_about_rows(error: MlshipError) -> bool:
    """Return whether the database refused the rows themselves: it would do so again."""
    from psycopg import DataError

    return isinstance(error.__cause__, DataError)


def row(prediction: Prediction) -> Row:
    """Return a prediction as it is inserted."""
    return (
        prediction.id,
        prediction.release,
        prediction.slot,
        prediction.time,
        _encode(prediction.inputs).decode(),
        _encode(prediction.outputs).decode(),
        prediction.latency_ms,
        prediction.shadow,
    )


def _insert(connection: "Connection", pieces: Iterable[Sequence[Row]]) -> None:
    """Insert the first piece by one statement if there is no other, or all in a transaction."""
    remaining = iter(pieces)
    first = next(remaining, None)
    if first is None:
        return
    second = next(remaining, None)
    if second is None:
        connection.execute(INSERT, columns(first))
        return
    with connection.transaction():
        for piece in chain((first, second), remaining):
            connection.execute(INSERT, columns(piece))


def columns(rows: Sequence[Row]) -> list[list[object]]:
    """Return the parameters of INSERT."""
    return [list(column) for column in zip(*rows, strict=True)]


def _address(url: str, slot: str) -> tuple[str, str]:
    """Return libpq's connection string for a URL, with our defaults, and the password in it.

    With our defaults, an unreachable server is noticed within seconds, and the writable one of
    several hosts is chosen.

    Raises:
        ConfigError: psycopg is not installed, or the URL is invalid.
    """
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict, make_conninfo
    except ImportError as error:
        message = f"the prediction log {shown(url)} needs psycopg, which is not installed"
        raise ConfigError(message, hint='pip install "psycopg[binary]"') from error
    defaults: dict[str, str | int] = {
        "application_name": f"mlship {slot}"[:60],
        "client_encoding": "UTF8",
        "connect_timeout": 2,
        "keepalives_count": 3,
        "keepalives_idle": 1,
        "keepalives_interval": 1,
        "target_session_attrs": "read-write",
        "tcp_user_timeout": int(PATIENCE * 1000),
    }
    try:
        parameters = conninfo_to_dict(url)
    except ProgrammingError:
        # libpq's message may contain the password, so it is not chained either.
        message = f"invalid URL of the prediction log: {shown(url)}"
        hint = "use postgresql://user@host:5432/database; percent-encode special characters"
        raise ConfigError(message, hint=hint) from None
    return make_conninfo("", **{**defaults, **parameters}), str(parameters.get("password") or "")
