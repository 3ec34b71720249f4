"""Locks and their fences: what keeps a former holder from writing after another one took over.

A process may be stopped for longer than its lock lasts, and go on as if nothing had happened. So
each holder has a number, which is greater than that of every holder before, and whatever changes
something asks the fence first.
"""

from collections.abc import Container, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from mlship.domain.digests import Digest
from mlship.domain.evidence import Record


class Fence(Protocol):
    """The holder of a lock."""

    @property
    def number(self) -> int:
        """The number of the holder; 0 where only the end of the process frees the lock."""

    def check(self) -> None:
        """Check by the clock of this process that the lock has not run out. Requests nothing.

        Raises:
            ConflictError: it may be another process's by now.
        """

    def confirm(self) -> None:
        """Check with the place of the lock that this process still holds it.

        Raises:
            ConflictError: it is another process's, or may be.
            UnavailableError: the place does not answer.
        """

    def enter(self, cluster: str) -> None:
        """Fence off former holders in one of several clusters, before something is written there.

        It is done when the lock is taken over, where the cluster answers then.

        Raises:
            ConflictError: it may be another process's by now.
            UnavailableError: the cluster does not answer.
        """


class Locks(Protocol):
    """Lets one process at a time change a target. A killed process loses its lock."""

    def exclusive(self, name: str) -> AbstractContextManager[Fence]:
        """Hold the lock of that name; give the fence that each change is to be checked with.

        Raises:
            ConflictError: another process holds it; the message names the holder.
        """


class Kernel:
    """The fence of a lock that the kernel keeps until the process ends, stopped or not."""

    number: Final = 0

    def check(self) -> None:
        """Return at once: nobody takes over from a process that exists."""

    def confirm(self) -> None:
        """Return at once, for the same reason."""

    def enter(self, cluster: str) -> None:
        """Return at once, for the same reason."""


KERNEL: Final = Kernel()


def void(records: Sequence[Record], own: Container[Digest]) -> frozenset[Digest]:
    """Return the records that a former holder appended after another one had taken over.

    A holder reads the ledger under its lock, so its records descend from all that were appended
    before. Of two records that do not descend from each other, the one with the lower number is by
    a holder that was out of date. No clock is compared.

    Args:
        records: of a ledger, parents before children.
        own: those of the project; each project has its own locks.
    """
    if not any(record.evidence.fence for record in records):
        return frozenset()
    chain = _Chain(records)
    lines: dict[str, list[Record]] = {}
    stale: set[Digest] = set()
    for record in records:
        number = record.evidence.fence
        if not number or record.digest not in own:
            continue
        line = lines.setdefault(_target(record), [])
        while line and line[-1].evidence.fence < number and not chain.leads(line[-1], record):
            stale.add(line.pop().digest)
        if line and line[-1].evidence.fence > number and not chain.leads(line[-1], record):
            stale.add(record.digest)
        else:
            line.append(record)
    return frozenset(stale)


def _target(record: Record) -> str:
    """Return which lock was held: staging's or production's."""
    return "staging" if record.evidence.step == "deploy-staging" else "production"


class _Chain:
    """The places of records, parents before children."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._places = {record.digest: place for place, record in enumerate(records)}
        self._records = records

    def leads(self, earlier: Record, later: Record) -> bool:
        """Return whether a record descends from an earlier one: its writer had read that."""
        first = self._places[earlier.digest]
        pending, seen = [self._places[later.digest]], set[int]()
        while pending:
            place = pending.pop()
            if place == first:
                return True
            for parent in self._records[place].evidence.parents:
                known = self._places[parent]
                # Parents come before children: from an earlier place, no path leads there.
                if known >= first and known not in seen:
                    seen.add(known)
                    pending.append(known)
        return False
