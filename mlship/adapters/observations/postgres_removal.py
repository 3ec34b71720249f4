"""Removal of predictions and outcomes of a project from the tables of a database.

Everything that a call removes goes in one transaction. Rows are matched here, not by SQL, so that
files and tables agree on what a value is, and because a text with a NUL cannot be extracted there.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from mlship.adapters.observations.outcomes import removable
from mlship.adapters.observations.postgres import (
    DURABLY,
    LOCK,
    PostgresObservations,
    prediction_of,
)
from mlship.adapters.observations.postgres_tables import exists, tells_projects
from mlship.domain.digests import Digest
from mlship.domain.prediction import Prediction, Spool
from mlship.domain.removal import Removed, Selection

if TYPE_CHECKING:
    from psycopg import Connection

_READ: Final = """
SELECT id, release, slot, time, inputs::text, outputs::text, latency_ms, shadow
FROM mlship_predictions
WHERE release = ANY(%(releases)s)
    AND (%(before)s::timestamptz IS NULL OR time < %(before)s)
    AND (%(ids)s::text[] IS NULL OR id = ANY(%(ids)s))"""
_OF_IDS: Final = """
SELECT id, release FROM mlship_predictions WHERE release = ANY(%s) AND id = ANY(%s)"""
_REMOVE: Final = """
DELETE FROM mlship_predictions p USING unnest(%s::text[], %s::text[]) AS t (id, release)
WHERE p.id = t.id AND p.release = t.release"""
_COUNT: Final = """
SELECT count(DISTINCT prediction) FROM mlship_outcomes
WHERE prediction = ANY(%(ids)s) AND project IN (%(project)s, '')"""
_FORMER_COUNT: Final = """
SELECT count(DISTINCT prediction) FROM mlship_outcomes WHERE prediction = ANY(%(ids)s)"""
_OUTCOMES: Final = """
DELETE FROM mlship_outcomes WHERE prediction = ANY(%(ids)s) AND project IN (%(project)s, '')"""
_FORMER_OUTCOMES: Final = "DELETE FROM mlship_outcomes WHERE prediction = ANY(%(ids)s)"
_CORRECTIONS: Final = """
DELETE FROM mlship_corrections WHERE prediction = ANY(%(ids)s) AND project = %(project)s"""
_PAGE: Final = 2000

_Key = tuple[str, Digest]


class PostgresRemovals:
    """Removes from the tables `mlship_*` what belongs to a project.

    Args:
        observations: of the project.
        free: returns the names of spools that no process holds, and that are removed from as files.
    """

    def __init__(
        self, observations: PostgresObservations, free: Callable[[], Collection[str]]
    ) -> None:
        self._observations = observations
        self._free = free

    def count(self, selection: Selection, releases: Collection[Digest]) -> Removed:
        """Return what `remove` would remove. Changes nothing.

        Raises:
            UnavailableError: the database cannot be reached or read.
        """
        with self._observations.connected(reads=True) as connection:
            keys, outcomes = self._found(connection, selection, releases)
            return self._counted(connection, keys, outcomes)

    def remove(self, selection: Selection, releases: Collection[Digest]) -> Removed:
        """Remove predictions of releases with their outcomes, durably, all or none.

        Raises:
            UnavailableError: the database cannot be reached or written; nothing was removed.
        """
        with self._observations.connected() as connection:
            connection.execute(DURABLY)
            connection.execute(LOCK)
            keys, outcomes = self._found(connection, selection, releases)
            removed = self._counted(connection, keys, outcomes)
            if removed.outcomes:
                statement = _OUTCOMES if tells_projects(connection) else _FORMER_OUTCOMES
                connection.execute(statement, self._of(outcomes))
                if exists(connection, "mlship_corrections"):
                    connection.execute(_CORRECTIONS, self._of(outcomes))
            if keys:
                names, of_releases = [name for name, _ in keys], [release for _, release in keys]
                connection.execute(_REMOVE, [names, of_releases])
        return removed

    def unreached(self, releases: Collection[Digest]) -> Sequence[Spool]:
        """Return the spools that may have predictions which the database lacks.

        Raises:
            UnavailableError: the database cannot be reached or read.
        """
        spools = self._observations.spools(releases)
        free = self._free() if spools else ()
        return [spool for spool in spools if spool.name not in free]

    def _found(
        self, connection: "Connection", selection: Selection, releases: Collection[Digest]
    ) -> tuple[list[_Key], set[str]]:
        """Return id and release of the selected predictions, and the ids of outcomes."""
        if not exists(connection, "mlship_predictions"):
            return [], set()
        own = list(releases)
        keys = {
            (each.id, each.release)
            for each in _read(connection, selection, own)
            if selection.has(each)
        }
        ids = list({name for name, _ in keys})
        of_ids = {
            (str(name), Digest(release))
            for name, release in connection.execute(_OF_IDS, [own, ids])
        }
        if selection.before is None:
            keys |= of_ids
        kept = {name for name, _ in of_ids - keys}
        return sorted(keys), removable(selection, ids, kept)

    def _counted(
        self, connection: "Connection", keys: Sequence[_Key], outcomes: Collection[str]
    ) -> Removed:
        number = 0
        if outcomes and exists(connection, "mlship_outcomes"):
            statement = _COUNT if tells_projects(connection) else _FORMER_COUNT
            number, *_ = connection.execute(statement, self._of(outcomes)).fetchone() or (0,)
        return Removed(predictions=Counter(release for _, release in keys), outcomes=number)

    def _of(self, outcomes: Collection[str]) -> dict[str, object]:
        return {"ids": sorted(outcomes), "project": self._observations.project}


def _read(
    connection: "Connection", selection: Selection, releases: list[Digest]
) -> Iterator[Prediction]:
    """Return the predictions that may be selected, page by page."""
    known = {
        "releases": releases,
        "before": selection.before,
        "ids": None if selection.where or selection.before else sorted(selection.ids),
    }
    with connection.cursor(name="mlship_removal") as cursor:
        cursor.itersize = _PAGE
        for row in cursor.execute(_READ, known):
            yield prediction_of(row)
