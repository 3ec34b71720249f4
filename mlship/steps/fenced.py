"""A ledger and a store that a process changes only while it holds its lock.

Neither has a compare-and-set that a lock's number could be part of. So the lock is looked at before
each write. A process that is stopped between that look and its write still writes: its record is
void (`mlship.domain.fence`), and its alias is reported as drift until the next transition.
"""

from collections.abc import Sequence
from pathlib import Path

from mlship.domain.digests import Digest
from mlship.domain.evidence import Evidence, Record
from mlship.domain.fence import Fence
from mlship.domain.ports import Ledger, Store
from mlship.domain.release import Release
from mlship.domain.versions import Alias, Run, Version


class FencedLedger:
    """The port Ledger for the holder of a lock. Errors as in `Ledger` and `Fence.confirm`."""

    def __init__(self, ledger: Ledger, fence: Fence) -> None:
        self._ledger = ledger
        self._fence = fence

    def append(self, evidence: Evidence, *, after: Sequence[Digest] | None = None) -> Record:
        """Append evidence, if the lock is still held."""
        self._fence.confirm()
        return self._ledger.append(evidence, after=after)

    def records(self) -> Sequence[Record]:
        """Return all records."""
        return self._ledger.records()


class FencedStore:
    """The port Store for the holder of a lock. Errors as in `Store` and `Fence.confirm`."""

    def __init__(self, store: Store, fence: Fence) -> None:
        self._store = store
        self._fence = fence

    def record(self, run: Run) -> None:
        """Add facts to a run, if the lock is still held."""
        self._fence.confirm()
        self._store.record(run)

    def fetch(self, release: Release, into: Path, *, files: Sequence[str] = ()) -> Path:
        """Copy the bundle of a release, or files of its run."""
        return self._store.fetch(release, into, files=files)

    def versions(self) -> Sequence[Version]:
        """Return the registered versions."""
        return self._store.versions()

    def point(self, alias: Alias, release: Release | None) -> None:
        """Set or remove an alias, if the lock is still held."""
        self._fence.confirm()
        self._store.point(alias, release)

    def archive(self, release: Release, *, archived: bool) -> None:
        """Tag a version as archived or remove the tag, if the lock is still held."""
        self._fence.confirm()
        self._store.archive(release, archived=archived)
