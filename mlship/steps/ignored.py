"""Records of the ledger that do not count, as people and programs want to see them."""

from datetime import datetime

import msgspec

from mlship.domain.digests import Digest
from mlship.domain.evidence import Record
from mlship.domain.trust import Untrusted


class Void(msgspec.Struct, frozen=True, kw_only=True):
    """A record whose writer had lost the lock when it wrote it.

    Attributes:
        holder: the number of its writer, lower than that of the one who took over.
    """

    record: Digest
    step: str
    release: str
    by: str
    time: datetime
    holder: int

    @classmethod
    def of(cls, record: Record) -> "Void":
        """Return what people want to know of a record."""
        evidence = record.evidence
        return cls(
            record=record.digest,
            step=evidence.step,
            release=str(evidence.release),
            by=evidence.actor,
            time=evidence.time,
            holder=evidence.fence,
        )


class Doubted(msgspec.Struct, frozen=True, kw_only=True):
    """A record that nobody signed who may say so; what it says may be made up.

    Attributes:
        reason: why it does not count.
    """

    record: Digest
    step: str
    release: str
    by: str
    time: datetime
    reason: str

    @classmethod
    def of(cls, untrusted: Untrusted) -> "Doubted":
        """Return what people want to know of a record that is not trusted."""
        evidence = untrusted.record.evidence
        return cls(
            record=untrusted.record.digest,
            step=evidence.step,
            release=str(evidence.release),
            by=evidence.actor,
            time=evidence.time,
            reason=untrusted.reason,
        )
