"""The records of a ledger that a command has read, as a value.

A command reads the ledger once, under the lock if it changes something. New records extend the
value: `records.plus(record)`. Derived values are computed on first use, and only once.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import overload

from mlship.domain import evidence, fence, history, home, shapes
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, Step
from mlship.domain.history import History
from mlship.domain.release import Release
from mlship.domain.trust import Sift, SignedLedger, Untrusted, everything


@dataclasses.dataclass(frozen=True)
class Records(Sequence[Record]):
    """All records of a project at one moment, parents before children.

    Attributes:
        listed: the records of the project.
        others: those of other projects in the same ledger. They are parents of new records, and
            nothing else of them counts.
        void: those of a process that had lost its lock, see `mlship.domain.fence`; likewise.
        untrusted: those that nobody signed who may say so, see `mlship.domain.trust`; likewise.
    """

    listed: tuple[Record, ...] = ()
    others: tuple[Record, ...] = ()
    void: tuple[Record, ...] = ()
    untrusted: tuple[Untrusted, ...] = ()

    @classmethod
    def of(cls, kept: Iterable[Record], name: str, own: str, sift: Sift = everything) -> "Records":
        """Return the records of a project, apart from those of others in the same ledger.

        Args:
            kept: all records of the ledger.
            name: of the project.
            own: its home.
            sift: finds the records that are not trusted.
        """
        kept = tuple(kept)
        is_own = {
            record.digest: record.evidence.release.name == name
            and home.is_same(record.evidence.home, own)
            for record in kept
        }
        others = tuple(record for record in kept if not is_own[record.digest])
        return cls._valid(kept, frozenset(each for each in is_own if is_own[each]), others, sift)

    @classmethod
    def alone(cls, kept: Iterable[Record], sift: Sift = everything) -> "Records":
        """Return the records of a ledger that only one project uses."""
        kept = tuple(kept)
        return cls._valid(kept, frozenset(record.digest for record in kept), (), sift)

    @classmethod
    def _valid(
        cls,
        kept: tuple[Record, ...],
        own: frozenset[Digest],
        others: tuple[Record, ...],
        sift: Sift,
    ) -> "Records":
        reasons = sift(kept, own)
        trusted = own - reasons.keys()
        void = fence.void(kept, trusted)
        counted = trusted - void
        return cls(
            listed=tuple(each for each in kept if each.digest in counted),
            others=others,
            void=tuple(each for each in kept if each.digest in void),
            untrusted=tuple(
                Untrusted(record=each, reason=reasons[each.digest])
                for each in kept
                if each.digest in reasons
            ),
        )

    def plus(self, *added: Record) -> "Records":
        """Return these records and those that were appended after them, each once."""
        known = {record.digest for record in self.listed}
        fresh = (record for record in added if record.digest not in known)
        return dataclasses.replace(self, listed=(*self.listed, *fresh))

    @property
    def accounted(self) -> frozenset[Digest]:
        """The digests of all records in the ledger, and of those that it may lack."""
        signed = (each for each in self.listed if each.evidence.step == "sign-ledger")
        gone = (digest for each in signed for digest in shapes.of(each, SignedLedger).gone)
        return self.present.union(gone)

    @property
    def present(self) -> frozenset[Digest]:
        """The digests of all records in the ledger, whether they count or not."""
        doubted = (each.record for each in self.untrusted)
        return frozenset(each.digest for each in (*self.listed, *self.others, *self.void, *doubted))

    @cached_property
    def history(self) -> History:
        """The roles in production."""
        return history.fold(self.listed)

    @cached_property
    def heads(self) -> tuple[Digest, ...]:
        """The records without children: the parents of the next record."""
        refused = (each.record for each in self.untrusted)
        return evidence.heads((*self.listed, *self.others, *self.void, *refused))

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
