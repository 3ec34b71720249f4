"""Predictions that replicas logged in PostgreSQL, and outcomes in a table beside them.

The runtime makes and fills `mlship_predictions`; this module reads it, and makes and fills
`mlship_outcomes`. A table that does not exist yet has nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mlship.adapters.observations.outcomes import fresh, taken
from mlship.config import installation
from mlship.domain.bundle import Row, Value
from mlship.domain.digests import Digest
from mlship.domain.prediction import Outcome, Prediction, Taken
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
    "permission denied": "grant the user the tables, as docs/guide/predictions.md tells",
    "lock timeout": "somebody else may hold the tables: see pg_stat_activity, then run it again",
}
_HINT: Final = "see that the database runs, and that observations.url names it and its user"

_row = msgspec.json.Decoder(Row)
_value = msgspec.json.Decoder(Value)


class PostgresObservations:
    """Observations in the tables `mlship_predictions` and `mlship_outcomes` of one database.

    Args:
        url: `postgresql://user@host:5432/database`.
        environ: where `PGPASSWORD` comes from, when the URL has no password.
    """

    def __init__(self, url: str, environ: Mapping[str, str]) -> None:
        self._url = url
        self._environ = environ

    def predictions(self) -> Iterator[Prediction]:
        """Return every logged prediction, each (id, release) once, oldest first.

        They come page by page from the state of the table at the first of them.

        Raises:
            UnavailableError: the database cannot be reached or read.
            IntegrityError: a row is no prediction.
        """
        with self._connected(reads=True) as connection:
            if not _exists(connection, "mlship_predictions"):
                return
            with connection.cursor(name="mlship_predictions") as cursor:
                cursor.itersize = _PAGE
                for row in cursor.execute(_PREDICTIONS):
                    yield _prediction(row)

    def find(self, prediction: str) -> Sequence[Prediction]:
        """Return the prediction of that id, then its shadow if it had one.

        Raises:
            UnavailableError: the database cannot be reached or read.
            IntegrityError: a row is no prediction.
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
            IntegrityError: a row is no outcome.
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
        """Add outcomes durably, all or none. One that is there already counts as known.

        Raises:
            ConflictError: a prediction already has another outcome; nothing was added.
            UnavailableError: the database cannot be reached or written; it may be repeated.
        """
        given = list(outcomes)
        ids = [outcome.prediction for outcome in given if _is_text(outcome.prediction)]
        with self._connected() as connection:
            logged = _logged(connection, ids)
            connection.execute(_DURABLY)
            # Two that take at once would each miss what the other adds.
            connection.execute(_LOCK)
            if not _exists(connection, "mlship_outcomes"):
                connection.execute(_OUTCOMES)
            known = {
                prediction: _decoded(_value, value, prediction)
                for prediction, value in connection.execute(_KNOWN, [list(logged)])
            }
            added = fresh(given, known, logged)
            if added:
                rows = [
                    [outcome.prediction for outcome in added],
                    [msgspec.json.encode(outcome.value).decode() for outcome in added],
                    [outcome.time for outcome in added],
                ]
                connection.execute(_INSERT, rows)
        return taken(given, added, logged)

    @contextmanager
    def _connected(self, *, reads: bool = False) -> Iterator["Connection"]:
        """Give a connection in one transaction, committed where the block ends well.

        Raises:
            ConfigError: psycopg is not installed, or the URL is not understood.
            UnavailableError: the database does not do what is asked.
        """
        try:
            import psycopg  # noqa: PLC0415 (predictions in folders need none)
            from psycopg.conninfo import conninfo_to_dict, make_conninfo  # noqa: PLC0415
        except ImportError as error:
            message = f"observations in {shown(self._url)} need psycopg, which is not installed"
            raise ConfigError(message, hint=installation.hint("postgres")) from error
        try:
            given = conninfo_to_dict(self._url)
        except psycopg.ProgrammingError:
            # What psycopg says of it may hold the password, so that it is no cause either.
            message = f"observations.url is not understood: {shown(self._url)}"
            hint = "write postgresql://user@host:5432/database; signs of a password as %XX"
            raise ConfigError(message, hint=hint) from None
        password = str(given.get("password") or self._environ.get("PGPASSWORD", ""))
        ours: dict[str, Any] = {
            "application_name": "mlship",
            "client_encoding": "UTF8",
            "connect_timeout": _SECONDS,
            "keepalives_count": 3,
            "keepalives_idle": 5,
            "keepalives_interval": 5,
            "target_session_attrs": "read-write",
        }
        if password:
            ours["password"] = password
        try:
            with psycopg.connect(make_conninfo("", **{**ours, **given})) as connection:
                connection.read_only = reads
                connection.execute(_BOUNDED)
                yield connection
        except psycopg.Error as error:
            reason = " ".join(str(error).split())[:300]
            reason = reason.replace(password, "***") if password else reason
            message = f"observations in {shown(self._url)} cannot be used: {reason}"
            hint = next((hint for word, hint in _HINTS.items() if word in reason), _HINT)
            raise UnavailableError(message, hint=hint) from error


def _exists(connection: "Connection", table: str) -> bool:
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [table]).fetchone()
    return bool(row and row[0])


def _is_text(name: str) -> bool:
    """Tell whether a database could have such a text at all."""
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
        message = f"the row of prediction {prediction} was changed: {error}"
        raise IntegrityError(message, hint="restore the table from a backup") from error
