"""ledger: which records count and which do not, and taking over those that nobody signed."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from mlship.domain import checkpoint, digests, evidence, home
from mlship.domain.checkpoint import Checkpoint
from mlship.domain.digests import Digest
from mlship.domain.dsse import Signing
from mlship.domain.evidence import Record
from mlship.domain.public_keys import key_id
from mlship.domain.records import Records
from mlship.domain.trust import NOT_SIGNED, WHOLE, SignedLedger, Signer, Untrusted
from mlship.errors import ConfigError, IntegrityError, NotFoundError
from mlship.steps.ignored import Doubted
from mlship.steps.pipeline import Pipeline

RESTORE: Final = (
    "restore the ledger from a backup, and find out who can write to it; if you restored it from "
    f"an older one, run `mlship ledger sign {checkpoint.GONE}`"
)


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


def contents(pipeline: Pipeline, records: Records) -> Contents:
    """Return what a project has in its ledger, from its records."""
    signers = pipeline.knowing(records).signatures.trust().signers
    names = {key_id(signer.key): signer.name for signer in signers}
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


def seal(pipeline: Pipeline) -> bytes:
    """Return a signed checkpoint of a project's ledger, to keep elsewhere.

    Raises:
        ConfigError: this machine has no key.
        NotFoundError: the ledger has no record that counts.
    """
    records = pipeline.read()
    if not records:
        message = "the ledger has no record of this project"
        raise NotFoundError(message, hint="run `mlship run`, then make a checkpoint")
    found = _checkpoint(pipeline, records.listed, pipeline.clock())
    return checkpoint.seal(found, _signing(pipeline))


def sealed(pipeline: Pipeline, records: Sequence[Record]) -> bytes:
    """Return a signed checkpoint of records; the same records give the same bytes.

    It is empty if this machine does not sign, or there are none.
    """
    signing = pipeline.signatures.signing
    if signing is None or not records:
        return b""
    return checkpoint.seal(_checkpoint(pipeline, records, records[-1].evidence.time), signing)


def _checkpoint(pipeline: Pipeline, records: Sequence[Record], time: datetime) -> Checkpoint:
    return Checkpoint(
        name=pipeline.config.name,
        home=pipeline.home,
        records=len(records),
        heads=evidence.heads(records),
        time=time,
    )


def compare(pipeline: Pipeline, records: Records, data: bytes) -> Checkpoint:
    """Check that a ledger still has what it had at a checkpoint; return the checkpoint.

    Args:
        pipeline: of the project.
        records: of its ledger.
        data: the checkpoint.

    Raises:
        IntegrityError: records are gone; or the checkpoint is of another project, or nobody whom
            `trust` names signed it.
    """
    found = trusted(pipeline.knowing(records), data)
    check_seen(found, records, f"a checkpoint of {found.time:%Y-%m-%d %H:%M} UTC")
    return found


def check_seen(found: Checkpoint, records: Records, who: str) -> None:
    """Check that a ledger still has what it had at a checkpoint.

    Args:
        found: the checkpoint, which is trusted.
        records: of the ledger.
        who: has seen it, for people.

    Raises:
        IntegrityError: records are gone.
    """
    checkpoint.check(found.heads, records.accounted, who, RESTORE)


def trusted(pipeline: Pipeline, data: bytes) -> Checkpoint:
    """Return a checkpoint that a signer of the project has made.

    Raises:
        IntegrityError: it is none, or of another project, or nobody whom `trust` names signed it.
    """
    data = data.strip()
    found, envelope = checkpoint.read(data)
    if (found.name, found.home) != (pipeline.config.name, pipeline.home):
        message = f"the checkpoint is of project {found.name[:80]!r} {home.shown(found.home[:200])}"
        raise IntegrityError(message, hint="give one of this project")
    key, digest = envelope.signatures[0].keyid, digests.of_bytes(data)
    signer = pipeline.signatures.trust().signer(key)
    if signer is None:
        short = digests.short(key)
        message = f"the checkpoint is signed with key {short}, which `trust` does not name"
        raise IntegrityError(message, hint="do not rely on it; `mlship keys show` prints your key")
    if digest not in pipeline.signatures.verify([(signer.key, digest, envelope)]):
        message = f"the signature of the checkpoint is not one of signer {signer.name}"
        raise IntegrityError(message, hint="do not rely on it")
    if not _is_within(signer, found.time):
        message = (
            f"the checkpoint is of a time at which the key of signer {signer.name} is not used"
        )
        raise IntegrityError(message, hint="do not rely on it")
    return found


def _is_within(signer: Signer, time: datetime) -> bool:
    started = signer.since is None or signer.since <= time
    return started and (signer.until is None or time <= signer.until)


def _signing(pipeline: Pipeline) -> Signing:
    signing = pipeline.signatures.signing
    if signing is None:
        message = "this machine has no key to sign for a shared ledger with"
        raise ConfigError(message, hint="set MLSHIP_SIGNING_KEY, or run `mlship keys new`")
    return signing


def unsigned(records: Records) -> list[Untrusted]:
    """Return the records that do not count only because nobody signed them."""
    return [each for each in records.untrusted if each.reason == NOT_SIGNED]


def sign(pipeline: Pipeline, records: Records, gone: Sequence[Digest] = ()) -> Record:
    """Take over all records that nobody signed; return the record that says so.

    Args:
        pipeline: of the project.
        records: that somebody has looked at; what was added since is not taken over.
        gone: records that the ledger may lack from now on.

    Raises:
        NotFoundError: there is nothing to take over, and nothing is gone.
        ConfigError: records are not signed here, or by a signer who may not say everything.
    """
    found = unsigned(records)
    last = found[-1].record if found else (records[-1] if records else None)
    if last is None or not (found or gone):
        message = "every record is signed" if len(records) else "the ledger has no record"
        raise NotFoundError(f"{message}: nothing to take over", hint="nothing needs to be done")
    facts = SignedLedger(records=len(found), gone=tuple(gone))
    _signing(pipeline)
    pipeline.check_may(*WHOLE)
    return pipeline.learn(last.evidence.release, "sign-ledger", "passed", facts, after=records)
