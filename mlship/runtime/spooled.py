"""The prediction log in PostgreSQL with a spool: what the database cannot take waits on the disk.

A prediction is in the database or in the spool before its request is answered. See `spool.py` for
the files, and `delivery.py` for the way to the database.
"""

from collections.abc import Callable
from itertools import chain

from mlship.domain.digests import Digest
from mlship.domain.predicted import Batch
from mlship.errors import MlshipError
from mlship.runtime.delivery import Delivery
from mlship.runtime.groups import Backlog, GroupCommit, Written
from mlship.runtime.postgres import TABLES, Database, Joined, Pieces, is_about_rows
from mlship.runtime.spool import Spools

PATIENCE = 1.0


class SpoolingRecorder:
    """Inserts predictions into `mlship_predictions`; while that is impossible, it spools them.

    Args:
        url: `postgresql://user@host:5432/database`, as for `PostgresRecorder`.
        spools: where spools are.
        slot: the slot of this process.
        release: the release that it serves.
        note: shows a line to the operator.

    Raises:
        ConfigError: psycopg is not installed, or the URL or the database is not suitable.
        UnavailableError: the database does not answer a replica that has no earlier spool, or the
            folder of spools cannot be written.
    """

    def __init__(
        self,
        url: str,
        spools: Spools,
        slot: str,
        release: Digest,
        note: Callable[[str], None],
    ) -> None:
        self._database = Database(url, slot, TABLES)
        self._delivery = Delivery(url, spools, slot, release, note)
        self._commit = GroupCommit(self._write)

    def append(self, predictions: Batch) -> Written:
        """Log predictions; the result is done when they are committed or in the spool.

        Raises:
            UnavailableError: the recorder is closed.
        """
        return self._commit.append(Pieces(predictions))

    def backlog(self) -> Backlog:
        """Return what is spooled and not delivered yet."""
        return self._delivery.backlog()

    def close(self, deadline: float = 0.0) -> None:
        """Write the pending predictions, deliver what is spooled until the deadline, and stop.

        Raises:
            UnavailableError: rows are left in the spool.
        """
        self._commit.close()
        self._database.close()
        self._delivery.close(deadline)

    def _write(self, batch: list[Pieces], since: float) -> None:
        pieces = Joined(batch)
        if not self._delivery.is_away:
            try:
                self._database.persist(pieces, since + PATIENCE)
            except MlshipError as error:
                if is_about_rows(error):
                    raise
                self._delivery.begin(error)
            else:
                return
        self._delivery.own.append(chain.from_iterable(pieces))
