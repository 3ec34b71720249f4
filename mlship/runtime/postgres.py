"""The prediction log in PostgreSQL: predictions are committed before the response is sent.

One table has the predictions of all replicas of all releases. A batch is one statement in one
transaction. If the connection breaks and the result is unknown, the batch is written again; the
primary key prevents duplicates. Documents are stored as `json`, not `jsonb`, which rejects text
with NUL characters and changes some numbers.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from mlship.domain.prediction import Prediction
from mlship.errors import ConfigError, UnavailableError, shown
from mlship.runtime.groups import GroupCommit, Written

if TYPE_CHECKING:
    from psycopg import Connection, Error

_Row = tuple[object, ...]

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
_LOOK: Final = """
SELECT to_regclass('mlship_predictions') IS NOT NULL, current_setting('server_encoding')"""
_DURABLY: Final = """
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') = 'off'"""
_INSERT: Final = """
INSERT INTO mlship_predictions (id, release, slot, time, inputs, outputs, latency_ms, shadow)
SELECT id, release, slot, time, inputs::json, outputs::json, latency_ms, shadow
FROM unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::text[], %s::text[],
    %s::double precision[], %s::boolean[])
    AS t (id, release, slot, time, inputs, outputs, latency_ms, shadow)
ON CONFLICT DO NOTHING"""

PATIENCE: Final = 3.0
_START: Final = 10.0
_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 0.5
_HINT: Final = "check that the database is running, then retry the request"


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
        self._database = _Database(url, slot)
        self._encode = msgspec.json.Encoder().encode
        self._database.persist((), time.monotonic() + _START)
        self._commit = GroupCommit(self._write)

    def append(self, predictions: Sequence[Prediction]) -> Written:
        """Log predictions; the result is done when they are committed.

        Raises:
            UnavailableError: the recorder is closed.
        """
        return self._commit.append([self._row(prediction) for prediction in predictions])

    def close(self) -> None:
        """Write the pending predictions, and stop."""
        self._commit.close()
        self._database.drop()

    def _row(self, prediction: Prediction) -> _Row:
        return (
            prediction.id,
            prediction.release,
            prediction.slot,
            prediction.time,
            self._encode(prediction.inputs).decode(),
            self._encode(prediction.outputs).decode(),
            prediction.latency_ms,
            prediction.shadow,
        )

    def _write(self, batch: list[list[_Row]], since: float) -> None:
        rows = [row for rows in batch for row in rows]
        self._database.persist(rows, since + self._patience)


class _Database:
    """A connection, which is reopened when it breaks."""

    def __init__(self, url: str, slot: str) -> None:
        self._url = url
        self._address, self._password = _address(url, slot)
        self._connection: Connection | None = None

    def persist(self, rows: Sequence[_Row], deadline: float) -> None:
        """Commit rows; retry until the deadline of the monotonic clock.

        Raises:
            UnavailableError: the rows could not be committed.
            ConfigError: the database is not suitable.
        """
        import psycopg

        pause = _PAUSE
        while True:
            try:
                self._insert(rows)
            except psycopg.OperationalError as error:
                self.drop()
                if time.monotonic() + pause > deadline:
                    raise self._unavailable(error) from error
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except psycopg.Error as error:
                self.drop()
                raise self._unavailable(error) from error
            else:
                return

    def drop(self) -> None:
        """Close the connection; the next batch opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _insert(self, rows: Sequence[_Row]) -> None:
        if self._connection is None:
            self._connection = self._connect()
        if rows:
            self._connection.execute(_INSERT, [list(column) for column in zip(*rows, strict=True)])

    def _connect(self) -> "Connection":
        """Connect in autocommit mode, and check the database.

        Raises:
            ConfigError: the database is not in UTF-8, or the table cannot be created.
        """
        import psycopg

        connection = psycopg.connect(self._address, autocommit=True)
        try:
            self._prepare(connection)
        except psycopg.errors.InsufficientPrivilege as error:
            connection.close()
            message = f"cannot create table mlship_predictions in {shown(self._url)}: {error}"
            hint = "let the owner of the schema create it, as in `mlship guide predictions`"
            raise ConfigError(message, hint=hint) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: "Connection") -> None:
        exists, encoding = connection.execute(_LOOK).fetchone() or (False, "")
        if encoding != "UTF8":
            message = f"the database {shown(self._url)} has encoding {encoding}, expected UTF8"
            raise ConfigError(message, hint="create a database with ENCODING 'UTF8'")
        if not exists:
            with connection.transaction():
                connection.execute(_LOCK)
                connection.execute(_TABLE)
        connection.execute(_DURABLY)
        connection.execute(f"SET statement_timeout = {int(PATIENCE * 1000)}")

    def _unavailable(self, error: "Error") -> UnavailableError:
        reason = " ".join(str(error).split())[:300]
        if self._password:
            reason = reason.replace(self._password, "***")
        message = f"cannot write the prediction log {shown(self._url)}: {reason}"
        return UnavailableError(message, hint=_HINT)


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
