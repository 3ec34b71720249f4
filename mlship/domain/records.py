"""The records of a ledger as a command has read them, carried on as a value.

A command reads the ledger once, under the lock where it changes something. What it learns extends
the value: `records.plus(record)`. What follows from the records is computed when it is first asked
for, and once.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import overload

from mlship.domain import evidence, history
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, Step
from mlship.domain.history import History
from mlship.domain.release import Release


@dataclasses.dataclass(frozen=True)
class Records(Sequence[Record]):
    """All records of a ledger at one moment, parents before children."""

    listed: tuple[Record, ...] = ()

    def plus(self, *added: Record) -> "Records":
        """Return these records and those that were appended after them, each once."""
        known = {record.digest for record in self.listed}
        return Records((*self.listed, *(record for record in added if record.digest not in known)))

    @cached_property
    def history(self) -> History:
        """Who plays which role in production."""
        return history.fold(self.listed)

    @cached_property
    def heads(self) -> tuple[Digest, ...]:
        """The records that no other one names as a parent: the next one is added after them."""
        return evidence.heads(self.listed)

    @cached_property
    def releases(self) -> tuple[Release, ...]:
        """Every release, in the order of their first records."""
        return tuple(history.releases(self.listed))

    def latest(self, step: Step, release: Release | None = None) -> Record | None:
        """Return the last record of a step, of one release or of any."""
        return history.latest(self.listed, step, release)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.listed)

    def __iter__(self) -> Iterator[Record]:
        """Return them one by one."""
        return iter(self.listed)

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> "Records": ...
    def __getitem__(self, place: int | slice) -> "Record | Records":
        """Return the record of that place, or some of them."""
        return self.listed[place] if isinstance(place, int) else Records(self.listed[place])
