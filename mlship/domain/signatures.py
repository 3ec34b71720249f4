"""Who signs the records of a command, and whose records it counts."""

import dataclasses
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Final

from mlship.domain.checkpoint import FORGETFUL, Memory
from mlship.domain.digests import Digest
from mlship.domain.dsse import Signing
from mlship.domain.evidence import Record, Step
from mlship.domain.people import People
from mlship.domain.trust import (
    OPEN,
    Prove,
    Trust,
    Verify,
    check_may,
    sift,
    unproven,
    unverified,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Signatures:
    """Who signs the records of a command, and whose records it counts.

    Attributes:
        signing: signs them; `None` if nobody gave this machine a key.
        trust: returns whose records count. The first record that a machine signs makes its key.
        verify: checks signatures.
        prove: finds the keys of jobs.
        identity: the bundle of this job's key; empty if it has none.
        memory: what this machine has seen of the ledger.
    """

    signing: Signing | None = None
    trust: Callable[[], Trust] = lambda: OPEN
    verify: Verify = unverified
    prove: Prove = unproven
    identity: str = ""
    memory: Memory = FORGETFUL

    @property
    def people(self) -> People:
        """The people whose keys approve."""
        return self.trust().people

    def sift(self, records: Sequence[Record], own: Container[Digest]) -> Mapping[Digest, str]:
        """Return the records that do not count, see `sift`."""
        return sift(records, own, self.prove(self.trust(), records, own), self.verify)

    def knowing(self, records: Sequence[Record]) -> "Signatures":
        """Return these, with the jobs that records of the project prove among the signers."""
        own = frozenset(each.digest for each in records)
        return dataclasses.replace(
            self, trust=cache(lambda: self.prove(self.trust(), records, own))
        )

    def check_may(self, steps: Iterable[Step], now: datetime) -> None:
        """Check that records of these steps will count, before anything is done for them.

        Raises:
            ConfigError: they will not: this machine has no key, or `trust` in mlship.yaml does not
                let its signer say so.
        """
        key = self.signing.key if self.signing else None
        check_may(steps, key, self.trust(), now)


UNSIGNED: Final = Signatures()
"""Nothing is signed, and every record counts."""
