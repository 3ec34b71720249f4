"""Delivers spooled predictions to the database, and reports there how many are left.

`mlship evaluate` reads the reports: a prediction that is not in the database is counted in the
row of its spool in `mlship_spools`, or that row has not been renewed for a while.
"""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mlship.domain.digests import Digest
from mlship.errors import ConfigError, MlshipError, UnavailableError
from mlship.runtime.groups import Backlog
from mlship.runtime.postgres import INSERT, START, TABLES, Database, columns
from mlship.runtime.spool import Spool, Spools

if TYPE_CHECKING:
    from psycopg import Connection

_SPOOLS: Final = """
CREATE TABLE IF NOT EXISTS mlship_spools (
    spool text PRIMARY KEY,
    release text NOT NULL,
    slot text NOT NULL,
    undelivered bigint NOT NULL,
    since timestamptz,
    reported timestamptz NOT NULL
)"""
_REGISTER: Final = """
INSERT INTO mlship_spools (spool, release, slot, undelivered, since, reported)
VALUES (%s, %s, %s, %s, %s, now())
ON CONFLICT (spool) DO UPDATE
SET undelivered = EXCLUDED.undelivered, since = EXCLUDED.since, reported = EXCLUDED.reported"""
_REPORT: Final = """
UPDATE mlship_spools SET undelivered = %s, since = %s, reported = now() WHERE spool = %s"""
_FORGET: Final = "DELETE FROM mlship_spools WHERE spool = %s"

REPORT_SECONDS: Final = 3.0
_PAUSE: Final = 0.5


class Delivery:
    """A thread that empties spools: that of this process, and those of processes that ended.

    Args:
        url: `postgresql://...`.
        spools: where spools are.
        slot: the slot of this process.
        release: the release that it serves.
        note: shows a line to the operator.

    Attributes:
        own: the spool of this process.
        is_away: predictions go to the spool. Set by the writer; unset when rows were delivered.

    Raises:
        UnavailableError: the database does not answer, and no spool of an earlier process shows
            that it ever did; or the folder of spools cannot be written.
        ConfigError: the database is not suitable.
    """

    def __init__(
        self,
        url: str,
        spools: Spools,
        slot: str,
        release: Digest,
        note: Callable[[str], None],
    ) -> None:
        self.is_away = False
        self._slot = slot
        self._release = release
        self._note = note
        self._spools = spools
        self._database = Database(url, f"{slot} spool", {**TABLES, "mlship_spools": _SPOOLS})
        self.own = spools.own()
        self._adopted: list[Spool] = []
        self._due = 0.0
        self._trouble = ""
        self._deadline: float | None = None
        self._wake = threading.Event()
        self._start()
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)
        self._thread.start()

    def backlog(self) -> Backlog:
        """Return what is not delivered yet, of all spools that this process holds."""
        parts = [spool.backlog() for spool in (self.own, *self._adopted)]
        times = [part.since for part in parts if part.since is not None]
        return Backlog(rows=sum(part.rows for part in parts), since=min(times, default=None))

    def begin(self, error: MlshipError) -> None:
        """Deliver what the writer has spooled because of an error, as soon as it is possible."""
        if not self.is_away:
            self._note(f"{error.message}; predictions go to the spool {self.own.folder}")
        self.is_away = True

    def close(self, deadline: float) -> None:
        """Deliver until the deadline of the monotonic clock, then stop.

        Raises:
            UnavailableError: rows are left in the spool; the message has their number.
        """
        self._deadline = deadline
        self._wake.set()
        self._thread.join()
        self._database.close()
        left = self.backlog()
        for spool in (self.own, *self._adopted):
            spool.release()
        if left.rows:
            message = f"{left.rows} predictions are not delivered; they are in {self.own.folder}"
            hint = "the next replica with this folder delivers them"
            raise UnavailableError(message, hint=hint)

    def _start(self) -> None:
        """Register the spool before anything can be spooled that nobody would look for."""
        is_known = self.own.is_registered
        end = time.monotonic() + (0 if is_known else START)
        while True:
            try:
                with self._database.session() as connection:
                    self._report(connection)
            except UnavailableError as error:
                if time.monotonic() < end:
                    time.sleep(_PAUSE)
                    continue
                if is_known:
                    self.begin(error)
                    return
                self.own.remove()
                raise
            except ConfigError:
                self.own.release()
                raise
            self.own.register()
            return

    def _run(self) -> None:
        while True:
            self._wake.wait(_PAUSE)
            is_last = self._deadline is not None
            try:
                is_done = self._round(is_last=is_last)
            except Exception as error:  # noqa: BLE001 (what is spooled must be tried again)
                is_done = False
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    self._note(f"cannot deliver spooled predictions: {error}")
            if self._deadline is not None:
                self._wake.clear()
                if is_last and (is_done or time.monotonic() >= self._deadline):
                    return

    def _round(self, *, is_last: bool) -> bool:
        """Report if it is time, and deliver; return whether nothing is left.

        Raises:
            UnavailableError: the database does not answer, or refuses.
            ConfigError: the database is not suitable.
            OSError: the disk failed.
        """
        if not (is_last or self.is_away or self.backlog().rows or time.monotonic() >= self._due):
            return True
        with self._database.session() as connection:
            self._report(connection)
        # Not before the database answers: the replica that is restarted meanwhile needs its own.
        self._adopted += self._spools.abandoned()
        count = sum(self._deliver(spool) for spool in (self.own, *self._adopted))
        self._settle(is_last=is_last)
        self.is_away = False
        self._trouble = ""
        if count:
            self._note(f"delivered {count} spooled predictions")
        return not self.backlog().rows

    def _report(self, connection: "Connection") -> None:
        left = self.own.backlog()
        where = (self.own.name, self._release, self._slot)
        connection.execute(_REGISTER, (*where, left.rows, left.since))
        for spool in self._adopted:
            left = spool.backlog()
            connection.execute(_REPORT, (left.rows, left.since, spool.name))
        self._due = time.monotonic() + REPORT_SECONDS

    def _deliver(self, spool: Spool) -> int:
        """Insert all rows of a spool; with each batch, the report of what is left is committed."""
        count = 0
        while rows := spool.batch():
            with self._database.session() as connection, connection.transaction():
                connection.execute(INSERT, columns(rows))
                left = spool.backlog()
                connection.execute(_REPORT, (left.rows - len(rows), left.since, spool.name))
            spool.delivered(len(rows))
            # The database answers: what comes now need not wait until the spool is empty.
            self.is_away = False
            count += len(rows)
        return count

    def _settle(self, *, is_last: bool) -> None:
        """Forget adopted spools with nothing left; at the end also that of this process."""
        for spool in [*self._adopted, *([self.own] if is_last else [])]:
            if spool.backlog().rows:
                continue
            with self._database.session() as connection:
                connection.execute(_FORGET, (spool.name,))
            spool.remove()
            if spool in self._adopted:
                self._adopted.remove(spool)
