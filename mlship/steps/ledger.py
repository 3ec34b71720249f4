"""ledger: which records count and which do not, and taking over those that nobody signed."""

from collections import Counter

import msgspec

from mlship.domain.digests import Digest
from mlship.domain.evidence import Record
from mlship.domain.records import Records
from mlship.domain.trust import WHOLE, SignedLedger, Untrusted, key_id
from mlship.errors import ConfigError, NotFoundError
from mlship.steps.ignored import Doubted
from mlship.steps.pipeline import Pipeline


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What a project has in its ledger.

    Attributes:
        records: how many count.
        void: how many do not, because their writer had lost its lock.
        signed: how many of those that count were signed, by the name of the signer.
        unsigned: how many of those that count were not.
        untrusted: the records that do not count.
        heads: the last records.
    """

    records: int
    void: int
    signed: dict[str, int]
    unsigned: int
    untrusted: tuple[Doubted, ...]
    heads: tuple[Digest, ...]


def contents(pipeline: Pipeline) -> Contents:
    """Return what a project has in its ledger. The whole chain is read and verified.

    Raises:
        IntegrityError: a record was changed or removed.
        UnavailableError: the ledger cannot be read.
    """
    records = pipeline.look()
    names = {key_id(signer.key): signer.name for signer in pipeline.signatures.trust().signers}
    signed = Counter(
        names.get(record.signer, record.signer) for record in records if record.envelope
    )
    return Contents(
        records=len(records),
        void=len(records.void),
        signed=dict(sorted(signed.items())),
        unsigned=sum(record.envelope is None for record in records),
        untrusted=tuple(map(Doubted.of, records.untrusted)),
        heads=records.heads,
    )


def unsigned(records: Records) -> list[Untrusted]:
    """Return the records that do not count only because nobody signed them."""
    return [each for each in records.untrusted if each.record.envelope is None]


def sign(pipeline: Pipeline, records: Records) -> Record:
    """Take over all records that nobody signed; return the record that says so.

    Args:
        pipeline: of the project.
        records: that somebody has looked at; what was added since is not taken over.

    Raises:
        NotFoundError: there are none.
        ConfigError: records are not signed here, or by a signer who may not say everything.
    """
    found = unsigned(records)
    if not found:
        message = "every record is signed" if len(records) else "the ledger has no record"
        raise NotFoundError(f"{message}: nothing to take over", hint="nothing needs to be done")
    facts = SignedLedger(records=len(found))
    last = found[-1].record.evidence.release
    if pipeline.signatures.signing is None:
        message = "this machine has no key to sign records of a shared ledger with"
        raise ConfigError(message, hint="set MLSHIP_SIGNING_KEY, or run `mlship keys new`")
    pipeline.check_may(*WHOLE)
    return pipeline.learn(last, "sign-ledger", "passed", facts, after=records)
