"""Observations in PostgreSQL: the predictions that replicas logged, and a table of outcomes.

The runtime creates and fills `mlship_predictions`. This module reads it, and creates and fills
`mlship_outcomes` and `mlship_projects`. A table that does not exist counts as empty.

Several projects may use one database. A prediction belongs to the project whose ledger has its
release, an outcome has the name of its project, and `mlship_projects` has the home of each name.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mlship.adapters.observations.outcomes import Shared, fresh, latest, own, taken
from mlship.adapters.observations.postgres_tables import complete, exists, tells_projects
from mlship.config import installation
from mlship.domain import home as homes
from mlship.domain.bundle import Row
from mlship.domain.digests import Digest
from mlship.domain.lines import Inserted
from mlship.domain.prediction import Outcome, Prediction, Spool, Taken, Truth
from mlship.errors import ConfigError, IntegrityError, UnavailableError, shown

if TYPE_CHECKING:
    from psycopg import Connection

_PREDICTIONS: Final = """
SELECT id, release, slot, time, inputs::text, outputs::text, latency_ms, shadow
FROM mlship_predictions
WHERE release = ANY(%s)
ORDER BY time, id COLLATE "C", shadow"""
_FIND: Final = """
SELECT id, release, slot, time, inputs::text, outputs::text, latency_ms, shadow
FROM mlship_predictions
WHERE id = %s
ORDER BY shadow, time"""
_SPOOLS: Final = """
SELECT spool, slot, release, undelivered, since,
    extract(epoch FROM now() - reported)::double precision
FROM mlship_spools
WHERE release = ANY(%s)
ORDER BY slot, spool"""
_LOGGED: Final = """
SELECT id, release, slot, time, inputs::text, outputs::text, latency_ms, shadow
FROM mlship_predictions WHERE id = ANY(%s)"""
_HOME: Final = "SELECT home FROM mlship_projects WHERE name = %s"
_CLAIM: Final = "INSERT INTO mlship_projects (name, home) VALUES (%s, %s) ON CONFLICT DO NOTHING"
_SETTLE: Final = "UPDATE mlship_projects SET home = %s WHERE name = %s"
LOCK: Final = "SELECT pg_advisory_xact_lock(119182827122033)"
DURABLY: Final = """
SELECT set_config('synchronous_commit', 'on', true)
WHERE current_setting('synchronous_commit') = 'off'"""
_KNOWN: Final = """
SELECT prediction, value::text FROM mlship_outcomes
WHERE prediction = ANY(%s) AND project IN (%s, '')"""
# Former versions wrote outcomes without a project.
_OF_LOG: Final = (
    "prediction IN (SELECT id FROM mlship_predictions WHERE release = ANY(%(releases)s))"
)
_OF_BATCHES: Final = "split_part(prediction, '.', 1) = ANY(%(parts)s)"
_OF_PROJECT: Final = " AND project IN (%(project)s, '')"
_CORRECTED: Final = """
SELECT prediction, value::text, time FROM mlship_corrections WHERE project = %s ORDER BY number"""
_INSERT: Final = """
INSERT INTO mlship_outcomes (project, prediction, value, time)
SELECT %s, prediction, value::json, time
FROM unnest(%s::text[], %s::text[], %s::timestamptz[])
    WITH ORDINALITY AS t (prediction, value, time, place)
ORDER BY place"""
_CORRECT: Final = _INSERT.replace("mlship_outcomes", "mlship_corrections")
_BOUNDED: Final = """
SELECT set_config('lock_timeout', '10s', true), set_config('statement_timeout', '60s', true)"""
_PAGE: Final = 2000
_SECONDS: Final = 5
_HINTS: Final = {
    "password": "set PGPASSWORD to the password of that user",
    "permission denied": "grant the user access to the tables, as in `mlship guide predictions`",
    "must be owner": "let the owner of the tables change them, as in `mlship guide predictions`",
    "lock timeout": "another session may have locked the tables: check pg_stat_activity",
}
_HINT: Final = "check that the database is running and that observations.url is correct"

_row = msgspec.json.Decoder(Row)
_value = msgspec.json.Decoder(Truth)


class PostgresObservations:
    """The observations of a project in the tables `mlship_*` of a database.

    Every method raises ConflictError if the database has those of another project of this name.

    Args:
        url: `postgresql://user@host:5432/database`.
        environ: the environment variables, with `PGPASSWORD` if the URL has no password.
        project: its name.
        home: of the project; see `mlship.domain.home`.
    """

    def __init__(
        self, url: str, environ: Mapping[str, str], project: str, home: str = homes.UNKNOWN
    ) -> None:
        self._url = url
        self._environ = environ
        self._project = project
        self._home = home

    @property
    def project(self) -> str:
        """The name of the project."""
        return self._project

    def predictions(self, releases: Collection[Digest]) -> Iterator[Prediction]:
        """Return the logged predictions of releases, each (id, release) once, oldest first.

        They are read page by page from one snapshot of the table.

        Raises:
            UnavailableError: the database cannot be reached or read.
            IntegrityError: a row is not a prediction.
        """
        with self.connected(reads=True) as connection:
            if not exists(connection, "mlship_predictions"):
                return
            with connection.cursor(name="mlship_predictions") as cursor:
                cursor.itersize = _PAGE
                for row in cursor.execute(_PREDICTIONS, [list(releases)]):
                    yield prediction_of(row)

    def find(self, prediction: str) -> Sequence[Prediction]:
        """Return the predictions of that id by any release, shadows last.

        Raises:
            UnavailableError: the database cannot be reached or read.
            IntegrityError: a row is not a prediction.
        """
        if not _is_text(prediction):
            return []
        with self.connected(reads=True) as connection:
            if not exists(connection, "mlship_predictions"):
                return []
            return [prediction_of(row) for row in connection.execute(_FIND, [prediction])]

    def outcomes(
        self, releases: Collection[Digest], parts: Collection[str] = ()
    ) -> Sequence[Outcome]:
        """Return the outcomes of releases' predictions, in the order in which they arrived.

        Raises:
            UnavailableError: the database cannot be reached or read.
            IntegrityError: a row is not an outcome.
        """
        with self.connected(reads=True) as connection:
            if not exists(connection, "mlship_outcomes"):
                return []
            # A project that only scores batches has no log.
            sources = [_OF_LOG] if exists(connection, "mlship_predictions") else []
            sources += [_OF_BATCHES] if parts else []
            if not sources:
                return []
            query = (
                "SELECT prediction, value::text, time FROM mlship_outcomes "  # noqa: S608 (constants)
                f"WHERE ({' OR '.join(sources)})"
                f"{_OF_PROJECT if tells_projects(connection) else ''} ORDER BY number"
            )
            known = {"project": self._project, "releases": list(releases), "parts": list(parts)}
            shared = Shared()
            found = [shared.of(_outcome(row)) for row in connection.execute(query.encode(), known)]
            names = {each.prediction for each in found}
            corrections = self._corrections(connection)
            return latest([*found, *(each for each in corrections if each.prediction in names)])

    def take(
        self,
        outcomes: Iterable[Outcome],
        releases: Collection[Digest],
        *,
        corrects: bool = False,
        check: Callable[[Prediction], None] = lambda _: None,
        scored: Collection[str] = (),
    ) -> Taken:
        """Add outcomes durably, all or none. An outcome that was added before counts as known.

        Raises:
            ConflictError: a prediction already has another outcome, or only releases of other
                projects made it; nothing was added.
            UnavailableError: the database cannot be reached or written; a retry is safe.
        """
        received = list(outcomes)
        rows = frozenset(scored)
        names = (each.prediction for each in received if each.prediction not in rows)
        ids = [name for name in names if _is_text(name)]
        with self.connected() as connection:
            logged = own(_logged(connection, ids), releases, check) | rows if ids else rows
            connection.execute(DURABLY)
            # Without the lock, two concurrent calls would each miss what the other adds.
            connection.execute(LOCK)
            complete(connection)
            if logged and self._home != homes.UNKNOWN:
                self._claim(connection)
            known = {
                prediction: _decoded(_value, value, prediction)
                for prediction, value in connection.execute(_KNOWN, [list(logged), self._project])
            }
            known |= {
                each.prediction: each.value
                for each in self._corrections(connection)
                if each.prediction in known
            }
            added = fresh(received, known, logged, corrects=corrects)
            self._insert(connection, _INSERT, [one for one in added if not one.is_corrected])
            self._insert(connection, _CORRECT, [one for one in added if one.is_corrected])
        return taken(received, added, logged)

    def spools(self, releases: Collection[Digest]) -> Sequence[Spool]:
        """Return the spools of releases' replicas: predictions that `predictions` may lack.

        Raises:
            UnavailableError: the database cannot be reached or read.
        """
        with self.connected(reads=True) as connection:
            if not exists(connection, "mlship_spools"):
                return []
            return [
                Spool(
                    name=name,
                    slot=slot,
                    release=Digest(release),
                    rows=rows,
                    since=since,
                    silent_seconds=seconds,
                )
                for name, slot, release, rows, since, seconds in connection.execute(
                    _SPOOLS, [list(releases)]
                )
            ]

    def _corrections(self, connection: "Connection") -> list[Outcome]:
        if not exists(connection, "mlship_corrections"):
            return []
        rows = connection.execute(_CORRECTED, [self._project])
        return [_outcome(row, is_corrected=True) for row in rows]

    def _insert(self, connection: "Connection", statement: str, added: Sequence[Outcome]) -> None:
        if not added:
            return
        if statement == _CORRECT:
            complete(connection, corrections=True)
        names = [each.prediction for each in added]
        values = [msgspec.json.encode(each.value).decode() for each in added]
        times = [each.time for each in added]
        connection.execute(statement.encode(), [self._project, names, values, times])

    def _claim(self, connection: "Connection") -> None:
        """Keep the home of this project under its name.

        Raises:
            ConflictError: the name is another project's.
        """
        connection.execute(_CLAIM, [self._project, self._home])
        kept = self._check(connection)
        if homes.settled(kept, self._home) != kept:
            connection.execute(_SETTLE, [self._home, self._project])

    def _check(self, connection: "Connection") -> str:
        """Return the home that the database has for this name.

        Raises:
            ConflictError: it is another project's.
        """
        if not exists(connection, "mlship_projects"):
            return homes.UNKNOWN
        kept, *_ = connection.execute(_HOME, [self._project]).fetchone() or (homes.UNKNOWN,)
        what = f"a part of the outcomes in {shown(self._url)}"
        homes.check(what, kept, self._home, self._project)
        return str(kept)

    @contextmanager
    def connected(self, *, reads: bool = False) -> Iterator["Connection"]:
        """Open a connection with a transaction, which is committed if the block succeeds.

        Raises:
            ConfigError: psycopg is not installed, or the URL is invalid.
            UnavailableError: the database does not respond or refuses.
            ConflictError: it has the observations of another project of this name.
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
                self._check(connection)
                yield connection
        except psycopg.Error as error:
            reason = " ".join(str(error).split())[:300]
            reason = reason.replace(password, "***") if password else reason
            message = f"cannot use the observations in {shown(self._url)}: {reason}"
            hint = next((hint for word, hint in _HINTS.items() if word in reason), _HINT)
            raise UnavailableError(message, hint=hint) from error


def _is_text(name: str) -> bool:
    """Return whether PostgreSQL can store such a text."""
    return "\0" not in name and not any("\ud800" <= sign <= "\udfff" for sign in name)


def _logged(connection: "Connection", ids: list[str]) -> list[Prediction]:
    """Return the logged predictions of some ids."""
    if not exists(connection, "mlship_predictions"):
        return []
    return [prediction_of(row) for row in connection.execute(_LOGGED, [ids])]


def _outcome(row: tuple[str, str, datetime], *, is_corrected: bool = False) -> Outcome:
    prediction, value, time = row
    return Outcome(
        prediction=prediction,
        value=_decoded(_value, value, prediction),
        time=time.astimezone(UTC),
        is_corrected=is_corrected,
    )


def prediction_of(row: Inserted) -> Prediction:
    """Return the prediction of a row.

    Raises:
        IntegrityError: it is not one.
    """
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
