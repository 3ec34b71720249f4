"""Observations in PostgreSQL: the predictions that replicas logged, and a table of outcomes.

The runtime creates and fills `mlship_predictions`. This module reads it, and creates and fills
`mlship_outcomes`. A table that does not exist counts as empty.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mlship.adapters.observations.outcomes import fresh, taken
from mlship.config import installation
from mlship.domain.bundle import Row
from mlship.domain.digests import Digest
from mlship.domain.prediction import Outcome, Prediction, Taken, Truth
from mlship.errors import ConfigError, IntegrityError, UnavailableError, shown

if TYPE_CHECKING:
    from psycopg import Connection

_PREDICTIONS: Final = """
SELECT id, release, slot, time, inputs::text, outputs::text, latency_ms, shadow
FROM mlship_predictions
ORDER BY time, id COLLATE "C", shadow"""
_FIND: Final = """
SELECT id, release, slot, time, inputs::text, outputs::text, latency_ms, shadow
FROM mlship_predictions
WHERE id = %s
ORDER BY shadow, time"""
_OUTCOMES: Final = """
CREATE TABLE IF NOT EXISTS mlship_outcomes (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    prediction text NOT NULL UNIQUE,
    value json NOT NULL,
    time timestamptz NOT NULL
)"""
_LOCK: Final = "SELECT pg_advisory_xact_lock(119182827122033)"
_DURABLY: Final = """
SELECT set_config('synchronous_commit', 'on', true)
WHERE current_setting('synchronous_commit') = 'off'"""
_KNOWN: Final = "SELECT prediction, value::text FROM mlship_outcomes WHERE prediction = ANY(%s)"
_INSERT: Final = """
INSERT INTO mlship_outcomes (prediction, value, time)
SELECT prediction, value::json, time
FROM unnest(%s::text[], %s::text[], %s::timestamptz[])
    WITH ORDINALITY AS t (prediction, value, time, place)
ORDER BY place"""
_BOUNDED: Final = """
SELECT set_config('lock_timeout', '10s', true), set_config('statement_timeout', '60s', true)"""
_PAGE: Final = 2000
_SECONDS: Final = 5
_HINTS: Final = {
    "password": "set PGPASSWORD to the password of that user",
    "permission denied": "grant the user access to the tables, as in `mlship guide predictions`",
    "lock timeout": "another session may have locked the tables: check pg_stat_activity",
}
_HINT: Final = "check that the database is running and that observations.url is correct"

_row = msgspec.json.Decoder(Row)
_value = msgspec.json.Decoder(Truth)


class PostgresObservations:
    """Observations in the tables `mlship_predictions` and `mlship_outcomes` of a database.

    Args:
        url: `postgresql://user@host:5432/database`.
        environ: the environment variables, with `PGPASSWORD` if the URL has no password.
    """

    def __init__(self, url: str, environ: Mapping[str, str]) -> None:
        self._url = url
        self._environ = environ

    def predictions(self) -> Iterator[Prediction]:
        """Return every logged prediction, each (id, release) once, oldest first.

        They are read page by page from one snapshot of the table.

        Raises:
            UnavailableError: the database cannot be reached or read.
            IntegrityError: a row is not a prediction.
        """
        with self._connected(reads=True) as connection:
            if not _exists(connection, "mlship_predictions"):
                return
            with connection.cursor(name="mlship_predictions") as cursor:
                cursor.itersize = _PAGE
                for row in cursor.execute(_PREDICTIONS):
                    yield _prediction(row)

    def find(self, prediction: str) -> Sequence[Prediction]:
        """Return the prediction of that id, then its shadow if there is one.

        Raises:
            UnavailableError: the database cannot be reached or read.
            IntegrityError: a row is not a prediction.
        """
        if not _is_text(prediction):
            return []
        with self._connected(reads=True) as connection:
            if not _exists(connection, "mlship_predictions"):
                return []
            return [_prediction(row) for row in connection.execute(_FIND, [prediction])]

    def outcomes(self) -> Sequence[Outcome]:
        """Return the outcomes in the order in which they arrived.

        Raises:
            UnavailableError: the database cannot be reached or read.
            IntegrityError: a row is not an outcome.
        """
        query = "SELECT prediction, value::text, time FROM mlship_outcomes ORDER BY number"
        with self._connected(reads=True) as connection:
            if not _exists(connection, "mlship_outcomes"):
                return []
            return [
                Outcome(
                    prediction=prediction,
                    value=_decoded(_value, value, prediction),
                    time=time.astimezone(UTC),
                )
                for prediction, value, time in connection.execute(query)
            ]

    def take(self, outcomes: Iterable[Outcome]) -> Taken:
        """Add outcomes durably, all or none. An outcome that was added before counts as known.

        Raises:
            ConflictError: a prediction already has another outcome; nothing was added.
            UnavailableError: the database cannot be reached or written; a retry is safe.
        """
        received = list(outcomes)
        ids = [outcome.prediction for outcome in received if _is_text(outcome.prediction)]
        with self._connected() as connection:
            logged = _logged(connection, ids)
            connection.execute(_DURABLY)
            # Without the lock, two concurrent calls would each miss what the other adds.
            connection.execute(_LOCK)
            if not _exists(connection, "mlship_outcomes"):
                connection.execute(_OUTCOMES)
            known = {
                prediction: _decoded(_value, value, prediction)
                for prediction, value in connection.execute(_KNOWN, [list(logged)])
            }
            added = fresh(received, known, logged)
            if added:
                rows = [
                    [outcome.prediction for outcome in added],
                    [msgspec.json.encode(outcome.value).decode() for outcome in added],
                    [outcome.time for outcome in added],
                ]
                connection.execute(_INSERT, rows)
        return taken(received, added, logged)

    @contextmanager
    def _connected(self, *, reads: bool = False) -> Iterator["Connection"]:
        """Open a connection with a transaction, which is committed if the block succeeds.

        Raises:
            ConfigError: psycopg is not installed, or the URL is invalid.
            UnavailableError: the database does not respond or refuses.
        """
        try:
            import psycopg
            from psycopg.conninfo import conninfo_to_dict, make_conninfo
        except ImportError as error:
            message = f"observations in {shown(self._url)} need psycopg, which is not installed"
            raise ConfigError(message, hint=installation.hint("postgres")) from error
        try:
            parameters = conninfo_to_dict(self._url)
        except psycopg.ProgrammingError:
            # psycopg's message may contain the password, so it is not chained either.
            message = f"invalid observations.url: {shown(self._url)}"
            hint = "use postgresql://user@host:5432/database; percent-encode special characters"
            raise ConfigError(message, hint=hint) from None
        password = str(parameters.get("password") or self._environ.get("PGPASSWORD", ""))
        defaults: dict[str, Any] = {
            "application_name": "mlship",
            "client_encoding": "UTF8",
            "connect_timeout": _SECONDS,
            "keepalives_count": 3,
            "keepalives_idle": 5,
            "keepalives_interval": 5,
            "target_session_attrs": "read-write",
        }
        if password:
            defaults["password"] = password
        try:
            with psycopg.connect(make_conninfo("", **{**defaults, **parameters})) as connection:
                connection.read_only = reads
                connection.execute(_BOUNDED)
                yield connection
        except psycopg.Error as error:
            reason = " ".join(str(error).split())[:300]
            reason = reason.replace(password, "***") if password else reason
            message = f"cannot use the observations in {shown(self._url)}: {reason}"
            hint = next((hint for word, hint in _HINTS.items() if word in reason), _HINT)
            raise UnavailableError(message, hint=hint) from error


def _exists(connection: "Connection", table: str) -> bool:
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [table]).fetchone()
    return bool(row and row[0])


def _is_text(name: str) -> bool:
    """Return whether PostgreSQL can store such a text."""
    return "\0" not in name and not any("\ud800" <= sign <= "\udfff" for sign in name)


def _logged(connection: "Connection", ids: list[str]) -> set[str]:
    if not _exists(connection, "mlship_predictions"):
        return set()
    query = "SELECT DISTINCT id FROM mlship_predictions WHERE id = ANY(%s)"
    return {row[0] for row in connection.execute(query, [ids])}


def _prediction(row: tuple[str, str, str, datetime, str, str, float, bool]) -> Prediction:
    name, release, slot, time, inputs, outputs, latency_ms, shadow = row
    return Prediction(
        id=name,
        release=Digest(release),
        slot=slot,
        time=time.astimezone(UTC),
        inputs=_decoded(_row, inputs, name),
        outputs=_decoded(_row, outputs, name),
        latency_ms=latency_ms,
        shadow=shadow,
    )


def _decoded(decoder: "msgspec.json.Decoder[Any]", text: str, prediction: str) -> Any:
    try:
        return decoder.decode(text)
    except msgspec.MsgspecError as error:
        message = f"the row of prediction {prediction} is invalid: {error}"
        raise IntegrityError(message, hint="restore the table from a backup") from error
