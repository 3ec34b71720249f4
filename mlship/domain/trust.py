"""Trust: which signer's records count, and for what.

A record is a claim until somebody who may make it has signed it. `sift` reads the records of a
project, parents before children, and says of each one that does not count why not.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, Literal, get_args

import msgspec

from mlship.domain import digests, people
from mlship.domain.digests import Digest
from mlship.domain.dsse import Envelope
from mlship.domain.evidence import Claim, Record, Step
from mlship.domain.facts import Facts
from mlship.domain.people import People
from mlship.domain.public_keys import key_id
from mlship.errors import ConfigError, IntegrityError

Scope = Literal["build", "staging", "production", "approve"]
"""What a signer may say: that a release was made and tested, that staging verified it, what happens
in production, and that a person approves."""

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

_BUILD: Final[tuple[Step, ...]] = (
    *("train", "test"),
    *("containerize", "test-container", "push-to-registry"),
)
_STAGING: Final[tuple[Step, ...]] = (
    "deploy-staging",
    "verify-staging-workload",
    "open-release-pr",
)
_APPROVE: Final[tuple[Step, ...]] = ("approve", "withdraw-approval")

SCOPE_OF: Final[Mapping[Step, Scope]] = MappingProxyType(
    {
        **dict.fromkeys(_BUILD, "build"),
        **dict.fromkeys(_STAGING, "staging"),
        **dict.fromkeys(_APPROVE, "approve"),
    }
)
"""Whose word each step is; `scope_of` knows the others: they are about production."""

WHOLE: Final[tuple[Step, ...]] = ("train", "deploy-staging", "sign-ledger", "approve")
"""A step of each scope: who may say all of them may say everything."""

_CLAIMS: Final = frozenset(get_args(Claim))

_ANYBODYS: Final[frozenset[Step]] = frozenset({"tick"})
"""Steps that no gate or role follows from: whoever may say anything may say them."""

_CLOCKS: Final = timedelta(hours=1)
"""How far the clocks of two machines may be apart."""

Sealed = tuple[str, Digest, Envelope]
"""A public key (see `mlship.domain.public_keys`), and an envelope with the digest of its bytes."""

Verify = Callable[[Sequence[Sealed]], Container[Digest]]
"""Returns the digests of those envelopes whose signature is by the key beside them."""

Sift = Callable[[Sequence[Record], Container[Digest]], Mapping[Digest, str]]
"""`sift` for a trust: returns those records of a project that do not count, and why."""


class Signer(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody whose records count.

    Attributes:
        name: for people.
        key: the public one, as `mlship.domain.public_keys.KEY`.
        may: what the signer's records may be about.
        since: records of an earlier time do not count; `None` for no beginning.
        until: records of a later time do not count; `None` for no end.
        emails: of the person who has the key, who approves with it; empty for a job's key.
    """

    name: str
    key: str
    may: frozenset[Scope] = frozenset(SCOPES)
    since: datetime | None = None
    until: datetime | None = None
    emails: tuple[str, ...] = ()


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """Which records of a ledger count.

    Attributes:
        signers: whose records count.
        unsigned: whether a record that nobody signed counts, too.
        unproven: why a key is not that of a job whose records count, by its id.
        names: whether an approval by hand counts by its name alone; otherwise by the key of the
            person.
        remarks: what the project has beside these signers that is not used, and why.
    """

    signers: tuple[Signer, ...] = ()
    unsigned: bool = True
    unproven: Mapping[Digest, str] = MappingProxyType({})
    names: bool = True
    remarks: tuple[str, ...] = ()

    @property
    def people(self) -> People:
        """The people among the signers."""
        return people.of((key_id(each.key), each.emails) for each in self.signers)

    def signer(self, key: Digest) -> Signer | None:
        """Return the signer with the key of an id; `None` if none has it."""
        return next((each for each in self.signers if key_id(each.key) == key), None)


NOT_SIGNED: Final = "it is not signed"

OPEN: Final = Trust()
"""Every record counts, as nobody is named who signs."""

Prove = Callable[[Trust, Sequence[Record], Container[Digest]], Trust]
"""Returns a trust with the jobs that records of the project prove, see `mlship.domain.sessions`."""


def unproven(trust: Trust, _records: Sequence[Record], _own: Container[Digest]) -> Trust:
    """The port `Prove` where no record proves anything."""
    return trust


def unverified(_signed: Sequence[Sealed]) -> Container[Digest]:
    """The port `Verify` where no signature is looked at, and none is valid."""
    return ()


class SignedLedger(Facts, frozen=True):
    """The facts of `sign-ledger`.

    Attributes:
        records: how many unsigned records before it count by its signer's word.
        gone: records that images or checkpoints have seen, and that the ledger may lack.
    """

    records: int = 0
    gone: tuple[Digest, ...] = ()


class Untrusted(msgspec.Struct, frozen=True, kw_only=True):
    """A record that does not count, and why."""

    record: Record
    reason: str


def everything(_records: Sequence[Record], _own: Container[Digest]) -> Mapping[Digest, str]:
    """The port `Sift` where every record counts."""
    return {}


def scope_of(step: Step) -> Scope:
    """Return what a record of a step is about."""
    return SCOPE_OF.get(step, "production")


def _is_said(step: Step, may: Container[Scope]) -> bool:
    """Return whether a signer who may make records of some scopes may make one of a step."""
    return step in _ANYBODYS or scope_of(step) in may


def check_may(steps: Iterable[Step], key: Digest | None, trust: Trust, now: datetime) -> None:
    """Check that records of these steps count if they are signed with a key.

    Args:
        steps: of the records.
        key: its id; `None` if nothing is signed.
        trust: whose records count.
        now: the time.

    Raises:
        ConfigError: they do not.
    """
    wanted = [step for step in steps if step not in _CLAIMS]
    if not wanted or (trust.unsigned and (key is None or not trust.signers)):
        return
    show = "`mlship keys show` prints what `trust.signers` in mlship.yaml needs"
    if key is None:
        message = "only signed records count (`trust` in mlship.yaml), and there is no key here"
        raise ConfigError(message, hint="set MLSHIP_SIGNING_KEY, or run `mlship keys new`")
    signer = trust.signer(key)
    if signer is None:
        message = f"records are signed with key {digests.short(key)}, which `trust` does not name"
        raise ConfigError(message, hint=f"{show}; add an SSH key to trust.allowed_signers")
    if signer.since is not None and now < signer.since:
        message = f"the key of signer {signer.name} begins at {signer.since:%Y-%m-%d %H:%M} UTC"
        raise ConfigError(message, hint="use the person's former key until then")
    if signer.until is not None and now > signer.until:
        message = f"the key of signer {signer.name} ended at {signer.until:%Y-%m-%d %H:%M} UTC"
        raise ConfigError(message, hint="make another key with `mlship keys new`")
    for step in wanted:
        if not _is_said(step, signer.may):
            scope = scope_of(step)
            message = f"signer {signer.name} may not say {step}: `may` has no {scope}"
            raise ConfigError(
                message, hint=f"add {scope} to trust.signers.{signer.name}.may, or use another key"
            )


def check_trusted(trusted: Sequence[Record], untrusted: Sequence[Untrusted]) -> None:
    """Check that a project has records that count, if it has records at all.

    Without this, a project whose ledger was written before records were signed, or by another
    machine, would be taken for a new one.

    Raises:
        IntegrityError: it has some, and none counts.
    """
    if trusted or not untrusted:
        return
    count = "its only record" if len(untrusted) == 1 else f"none of its {len(untrusted)} records"
    counts = "does not count" if len(untrusted) == 1 else "counts"
    message = f"the ledger is not trusted: {count} {counts}; {untrusted[-1].reason}"
    unsigned = any(each.reason == NOT_SIGNED for each in untrusted)
    hint = "if you trust what `mlship ledger verify` shows, run `mlship ledger sign` once"
    named = "correct `trust` in mlship.yaml; `mlship ledger verify` shows whose records there are"
    raise IntegrityError(message, hint=hint if unsigned else named)


def sift(
    records: Sequence[Record], own: Container[Digest], trust: Trust, verify: Verify
) -> dict[Digest, str]:
    """Return the records that do not count, with the reasons.

    Args:
        records: of a ledger, parents before children.
        own: those of the project; others are judged by their own projects.
        trust: who may say what.
        verify: checks signatures.
    """
    if trust.unsigned and not trust.signers:
        return {}
    # Of several signers with one key, the first is meant, as everywhere.
    signers = {key_id(signer.key): signer for signer in reversed(trust.signers)}
    signed = [
        (signers[record.signer].key, record.digest, record.envelope)
        for record in records
        if record.envelope is not None and record.digest in own and record.signer in signers
    ]
    judge = _Judge(records, signers, verify(signed), trust)
    reasons: dict[Digest, str] = {}
    for record in records:
        reason = judge.reason(record) if record.digest in own else ""
        if reason:
            reasons[record.digest] = reason
        judge.note(record, counts=not reason)
    return reasons


class _Judge:
    """Decides on records, parents before children.

    It knows the latest time that each record and those before it name, of those that are signed and
    count: the holder of a key that has ended may give a record an earlier time, but not put it
    before records that others have read, nor say anything of a release that was trained later.
    """

    def __init__(
        self,
        records: Sequence[Record],
        signers: Mapping[Digest, Signer],
        valid: Container[Digest],
        trust: Trust,
    ) -> None:
        self._signers, self._valid, self._unsigned = signers, valid, trust.unsigned
        self._names, self._unproven = trust.names, trust.unproven
        self._latest: dict[Digest, datetime] = {}
        # A bit for each release whose training a signer has said, and those before each record.
        trained = (
            record.evidence.release
            for record in records
            if record.evidence.step == "train"
            and record.digest in valid
            and "build" in signers[record.signer].may
        )
        self._bits = {each: 1 << at for at, each in enumerate(dict.fromkeys(trained))}
        self._trained: dict[Digest, int] = {}
        self._seen: set[bytes] = set()
        self._taken = self._taken_over(records)

    def reason(self, record: Record) -> str:
        """Return why a record does not count; empty if it does."""
        if record.envelope is None:
            # No gate counts a claim, and the job that makes it holds no key.
            counts = self._unsigned or record.evidence.step in _CLAIMS
            if not counts and record.digest not in self._taken:
                return NOT_SIGNED
            return people.objection(record.evidence, None, (), names=self._names)
        if record.envelope.payload in self._seen:
            return "it is a copy of another record"
        return self._refused(record)

    def note(self, record: Record, *, counts: bool) -> None:
        """Take a record in that was judged."""
        evidence = record.evidence
        times = [self._latest[each] for each in evidence.parents if each in self._latest]
        trained = 0
        for parent in evidence.parents:
            trained |= self._trained.get(parent, 0)
        if counts and record.envelope is not None:
            times.append(evidence.time)
            self._seen.add(record.envelope.payload)
            if evidence.step == "train":
                trained |= self._bits.get(evidence.release, 0)
        self._trained[record.digest] = trained
        if times:
            self._latest[record.digest] = max(times)

    def _refused(self, record: Record) -> str:
        """Return what is wrong with the signature of a record, or with its signer."""
        signer = self._signers.get(record.signer)
        if signer is None:
            key = digests.short(record.signer)
            named = f"it is signed with key {key}, which `trust` does not name"
            return self._unproven.get(record.signer, named)
        if record.digest not in self._valid:
            return f"the signature is not one of signer {signer.name}"
        if not _is_said(record.evidence.step, signer.may):
            return f"signer {signer.name} may not say {record.evidence.step}"
        if signer.since is not None and record.evidence.time < signer.since:
            return f"the key of signer {signer.name} begins at {signer.since:%Y-%m-%d %H:%M} UTC"
        if signer.until is not None and self._ended(record, signer.until):
            return f"the key of signer {signer.name} ended at {signer.until:%Y-%m-%d %H:%M} UTC"
        return people.objection(record.evidence, signer.name, signer.emails, names=self._names)

    def _ended(self, record: Record, until: datetime) -> bool:
        evidence = record.evidence
        before = (self._latest[each] for each in evidence.parents if each in self._latest)
        if evidence.time > until or any(time > until + _CLOCKS for time in before):
            return True
        # Without this, a record that names no parents could have any time. A few records of a
        # ledger, which are stated at an image, do not tell.
        if evidence.step == "train" or any(each not in self._trained for each in evidence.parents):
            return False
        bit = self._bits.get(evidence.release, 0)
        return bool(bit) and not any(self._trained[each] & bit for each in evidence.parents)

    def _taken_over(self, records: Iterable[Record]) -> frozenset[Digest]:
        """Return the records before one of `sign-ledger`, by a signer who may say everything."""
        known = {record.digest: record.evidence.parents for record in records}
        pending = [
            parent
            for record in records
            if record.evidence.step == "sign-ledger" and self._may_take_over(record)
            for parent in record.evidence.parents
        ]
        taken: set[Digest] = set()
        while pending:
            digest = pending.pop()
            if digest not in taken:
                taken.add(digest)
                pending += known.get(digest, ())
        return frozenset(taken)

    def _may_take_over(self, record: Record) -> bool:
        if record.envelope is None or self._refused(record):
            return False
        return self._signers[record.signer].may >= set(SCOPES)
