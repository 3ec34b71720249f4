"""The records of a ledger that a command has read, as a value.

A command reads the ledger once, under the lock if it changes something. New records extend the
value: `records.plus(record)`. Derived values are computed on first use, and only once.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import overload

from mlship.domain import evidence, history, home
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, Step
from mlship.domain.history import History
from mlship.domain.release import Release


@dataclasses.dataclass(frozen=True)
class Records(Sequence[Record]):
    """All records of a project at one moment, parents before children.

    Attributes:
        listed: the records of the project.
        others: those of other projects in the same ledger. They are parents of new records, and
            nothing else of them counts.
    """

    listed: tuple[Record, ...] = ()
    others: tuple[Record, ...] = ()

    @classmethod
    def of(cls, kept: Iterable[Record], name: str, own: str) -> "Records":
        """Return the records of a project, apart from those of others in the same ledger.

        Args:
            kept: all records of the ledger.
            name: of the project.
            own: its home.
        """
        listed: list[Record] = []
        others: list[Record] = []
        for record in kept:
            is_own = record.evidence.release.name == name and home.is_same(
                record.evidence.home, own
            )
            (listed if is_own else others).append(record)
        return cls(tuple(listed), tuple(others))

    def plus(self, *added: Record) -> "Records":
        """Return these records and those that were appended after them, each once."""
        known = {record.digest for record in self.listed}
        fresh = (record for record in added if record.digest not in known)
        return Records((*self.listed, *fresh), self.others)

    @cached_property
    def history(self) -> History:
        """The roles in production."""
        return history.fold(self.listed)

    @cached_property
    def heads(self) -> tuple[Digest, ...]:
        """The records without children: the parents of the next record."""
        return evidence.heads((*self.listed, *self.others))

    @cached_property
    def releases(self) -> tuple[Release, ...]:
        """Every release, in the order of their first records."""
        return tuple(history.releases(self.listed))

    @cached_property
    def ids(self) -> frozenset[Digest]:
        """The ids of all releases."""
        return frozenset(release.id for release in self.releases)

    def latest(self, step: Step, release: Release | None = None) -> Record | None:
        """Return the last record of a step, for one release or for any."""
        return history.latest(self.listed, step, release)

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.listed)

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the records."""
        return iter(self.listed)

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> "Records": ...
    def __getitem__(self, place: int | slice) -> "Record | Records":
        """Return one record, or a slice of the records."""
        return self.listed[place] if isinstance(place, int) else Records(self.listed[place])
