"""Evidence: the result of one step for a release, appended to a ledger and never edited.

Its JSON is an in-toto Statement (https://in-toto.io/Statement/v1), in a DSSE envelope with the
signature of who says it, so that it can be attached to an image unchanged. Without a key it is the
bare Statement. Each record has the digests of its parents, the records before it. Two concurrent
writers may fork the chain; a missing parent means tampering.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

from mlship import __version__
from mlship.domain import digests, dsse
from mlship.domain.digests import Digest
from mlship.domain.release import Release
from mlship.domain.untrusted import decoded
from mlship.errors import IntegrityError

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://mlship.dev/evidence/v1"

Verdict = Literal["passed", "failed", "undecided"]

Transition = Literal["deploy-production", "promote", "rollback", "retire"]
"""The steps that change roles; each ends with one record of that name."""

Claim = Literal["unreviewed/train", "unreviewed/test"]
"""Steps of a job that ran unreviewed code, as it says. They are records of what was claimed: no
gate, role or training finds them under the name of the step."""

Step = (
    Literal[
        "train",
        "test",
        "containerize",
        "test-container",
        "push-to-registry",
        "deploy-staging",
        "verify-staging-workload",
        "open-release-pr",
        "traffic",
        "reconcile",
        "adopt",
        "evaluate",
        "watch",
        "tick",
        "erase",
        "prune",
        "prune-images",
        "batch",
        "sign-ledger",
        "approve",
        "withdraw-approval",
        "await-production",
        "deploy-production/capacity",
        "deploy-production/route",
        "deploy-production/alias",
        "deploy-production/displace",
        "promote/gate",
        "promote/capacity",
        "promote/route",
        "promote/alias",
        "promote/archive",
        "rollback/capacity",
        "rollback/route",
        "rollback/alias",
        "rollback/archive",
        "retire/route",
        "retire/alias",
        "retire/remove",
        "retire/archive",
    ]
    | Claim
    | Transition
)
"""Every step and sub-step that leaves evidence: a command's name, or `promote/route`."""

TRANSITIONS: Final[tuple[Transition, ...]] = get_args(Transition)
STEPS: Final[frozenset[Step]] = frozenset(
    step for steps in get_args(Step) for step in get_args(steps) or (steps,)
)


class Saw(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The digests of a step's inputs; only those that are set are written.

    Attributes:
        policy: the bounds of the gate. Evidence with other bounds does not count.
        champion: the id of the release that was champion; likewise `challenger`.
        extension: the user's own instructions for Docker.
    """

    data: Digest | None = None
    code: Digest | None = None
    environment: Digest | None = None
    bundle: Digest | None = None
    policy: Digest | None = None
    champion: Digest | None = None
    challenger: Digest | None = None
    base: Digest | None = None
    extension: Digest | None = None
    image: Digest | None = None
    artifact: Digest | None = None
    workload: Digest | None = None


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one step.

    Attributes:
        release: the subject.
        facts: the numbers and names behind the verdict, in JSON types as they are stored;
            `shapes.of` returns them as the struct of their step.
        actor: who ran the step.
        time: with a time zone.
        tool: the version of mlship that wrote it.
        home: of the project, see `mlship.domain.home`; empty where a former version wrote it.
        fence: the number of the lock's holder, see `mlship.domain.fence`; 0 without such a lock.
        identity: a bundle that says whose key signs it, see `mlship.domain.sessions`; empty where
            another record has it, or none is needed.
        parents: the heads of the chain when this record was added.
    """

    release: Release
    step: Step
    verdict: Verdict
    facts: dict[str, Any] = {}
    saw: Saw = Saw()
    actor: str
    time: datetime
    tool: str = __version__
    home: str = ""
    fence: int = 0
    identity: str = ""
    parents: tuple[Digest, ...] = ()


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence in a ledger, with the digest of its bytes.

    Attributes:
        envelope: with its signature, which `mlship.domain.trust` verifies; `None` if unsigned.
    """

    digest: Digest
    evidence: Evidence
    envelope: dsse.Envelope | None = None

    @property
    def signer(self) -> Digest:
        """The id of the key that signed it, as the envelope says; empty if unsigned."""
        return self.envelope.signatures[0].keyid if self.envelope else Digest("")


class _Subject(msgspec.Struct, frozen=True):
    name: str
    digest: dict[str, str]


class _Predicate(msgspec.Struct, frozen=True, kw_only=True):
    step: Step
    verdict: Verdict
    release: Release
    facts: dict[str, Any]
    saw: Saw
    actor: str
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    tool: str
    # Left out where they are not known, as in records of former versions.
    home: str | msgspec.UnsetType = msgspec.UNSET
    fence: int | msgspec.UnsetType = msgspec.UNSET
    identity: str | msgspec.UnsetType = msgspec.UNSET
    parents: tuple[Digest, ...]


class _Statement(msgspec.Struct, frozen=True, kw_only=True, rename={"type": "_type"}):
    type: Literal["https://in-toto.io/Statement/v1"] = STATEMENT_TYPE
    subject: tuple[_Subject, ...]
    predicateType: Literal["https://mlship.dev/evidence/v1"] = PREDICATE_TYPE  # noqa: N815
    predicate: _Predicate


class _Origin(msgspec.Struct, frozen=True):
    step: str
    tool: str


class _Unknown(msgspec.Struct, frozen=True):
    predicate: _Origin


_STATEMENT: Final = msgspec.json.Decoder(_Statement)
_UNKNOWN: Final = msgspec.json.Decoder(_Unknown)


class _Predicated(msgspec.Struct, frozen=True):
    parents: tuple[Digest, ...] = ()


class _Linked(msgspec.Struct, frozen=True):
    """The part of a Statement that names the parents of a record."""

    predicate: _Predicated


_LINKED: Final = msgspec.json.Decoder(_Linked)


def encode(evidence: Evidence, by: dsse.Signing | None = None) -> bytes:
    """Return evidence as a record: a Statement in an envelope, or bare if nobody signs it.

    The Statement is canonical JSON; non-finite facts become text.

    Raises:
        ConfigError: the key cannot be read.
    """
    return dsse.seal(_statement(evidence), by) if by else _statement(evidence)


def _statement(evidence: Evidence) -> bytes:
    release = evidence.release
    subjects = (
        _Subject(str(release), {"sha256": release.id.removeprefix("sha256:")}),
        _Subject("bundle", {"sha256": release.bundle.removeprefix("sha256:")}),
    )
    predicate = _Predicate(
        step=evidence.step,
        verdict=evidence.verdict,
        release=release,
        facts=digests.plain(evidence.facts),
        saw=evidence.saw,
        actor=evidence.actor,
        time=evidence.time,
        tool=evidence.tool,
        home=evidence.home or msgspec.UNSET,
        fence=evidence.fence or msgspec.UNSET,
        identity=evidence.identity or msgspec.UNSET,
        parents=evidence.parents,
    )
    return digests.canonical_json(_Statement(subject=subjects, predicate=predicate))


def decode(data: bytes) -> Record:
    """Return the evidence of a record with the digest of its bytes. Its signature is not verified.

    Raises:
        IntegrityError: the bytes are no Statement in an envelope or without one, its subject is
            another release, or a newer version of mlship wrote a step that this version does not
            know.
    """
    envelope, payload = _opened(data)
    try:
        statement = decoded(_STATEMENT.decode, payload)
    except msgspec.DecodeError as error:
        raise _unreadable(payload, error) from error
    predicate = statement.predicate
    subject = statement.subject[0].digest.get("sha256") if statement.subject else None
    if subject != predicate.release.id.removeprefix("sha256:"):
        message = f"a record of {predicate.step} has another release as its subject"
        raise IntegrityError(message, hint="restore the ledger from a backup")
    evidence = Evidence(
        release=predicate.release,
        step=predicate.step,
        verdict=predicate.verdict,
        facts=predicate.facts,
        saw=predicate.saw,
        actor=predicate.actor,
        time=predicate.time,
        tool=predicate.tool,
        home=predicate.home or "",
        fence=predicate.fence or 0,
        identity=predicate.identity or "",
        parents=predicate.parents,
    )
    return Record(digest=digests.of_bytes(data), evidence=evidence, envelope=envelope)


def parents(data: bytes) -> tuple[Digest, ...]:
    """Return the parents that a record names; none if the bytes are no record."""
    try:
        named = decoded(_LINKED.decode, _opened(data)[1]).predicate.parents
        return tuple(map(digests.parse, named))
    except (msgspec.DecodeError, IntegrityError):
        return ()


def _opened(data: bytes) -> tuple[dsse.Envelope | None, bytes]:
    """Return the envelope of a record, if it has one, and its Statement.

    Raises:
        IntegrityError: it is another envelope, or one of something else.
    """
    if not dsse.is_envelope(data):
        return None, data
    try:
        envelope = dsse.read(data)
    except msgspec.DecodeError as error:
        message = f"not a signed record of the ledger: {error}"
        raise IntegrityError(message, hint="restore the ledger from a backup") from error
    if envelope.payloadType != dsse.IN_TOTO:
        message = f"a record of the ledger is {envelope.payloadType[:80]!r}, not {dsse.IN_TOTO}"
        raise IntegrityError(message, hint="restore the ledger from a backup")
    return envelope, envelope.payload


def _unreadable(data: bytes, error: msgspec.DecodeError) -> IntegrityError:
    try:
        origin = decoded(_UNKNOWN.decode, data).predicate
    except msgspec.DecodeError:
        origin = None
    if origin is not None and origin.step not in STEPS:
        message = f"mlship {origin.tool} recorded a step that mlship {__version__} does not know: "
        return IntegrityError(message + repr(origin.step[:80]), hint="update mlship")
    message = f"not a record of the ledger: {error}"
    return IntegrityError(message, hint="restore the ledger from a backup")


def stored(record: Record) -> bytes:
    """Return the bytes of a record; others than the ledger's if another version wrote it unsigned.

    Whoever needs the ledger's bytes compares their digest with the record's.
    """
    return record.envelope.data if record.envelope else encode(record.evidence)


def heads(records: Iterable[Record]) -> tuple[Digest, ...]:
    """Return the digests of the records without children, sorted."""
    known = {record.digest: record.evidence.parents for record in records}
    named = {parent for each in known.values() for parent in each}
    return tuple(sorted(set(known) - named))


def in_order(
    stored: Mapping[Digest, bytes],
    described: Callable[[Digest], str] = lambda digest: f"record {digests.short(digest)}",
) -> list[Record]:
    """Return the verified records, parents first, then by time. The order is deterministic.

    Args:
        stored: the bytes of the records by their digests.
        described: returns where the bytes are stored, for errors.

    Raises:
        IntegrityError: a record was edited (its bytes have another digest) or removed (a parent
            is missing).
    """
    records = {}
    for digest, data in stored.items():
        try:
            record = decode(data)
        except IntegrityError as error:
            place = described(digest)
            raise IntegrityError(f"{place}: {error.message}", hint=error.hint) from error
        if record.digest != digest:
            message = (
                f"record {digests.short(digest)} was changed: its content does not match its digest"
            )
            raise IntegrityError(message, hint="restore the ledger from a backup")
        records[digest] = record
    children: dict[Digest, list[Digest]] = {}
    missing = dict.fromkeys(records, 0)
    for record in records.values():
        for parent in record.evidence.parents:
            if parent not in records:
                message = (
                    f"record {digests.short(record.digest)} ({record.evidence.step}) was added "
                    f"after {digests.short(parent)}, which is missing"
                )
                raise IntegrityError(message, hint="restore the ledger from a backup")
            children.setdefault(parent, []).append(record.digest)
            missing[record.digest] += 1
    return _sorted(records, children, missing)


def _sorted(
    records: Mapping[Digest, Record],
    children: Mapping[Digest, list[Digest]],
    missing: dict[Digest, int],
) -> list[Record]:
    ready = [digest for digest, count in missing.items() if count == 0]
    ordered = []
    while ready:
        ready.sort(key=lambda digest: (records[digest].evidence.time, digest), reverse=True)
        digest = ready.pop()
        ordered.append(records[digest])
        for child in children.get(digest, []):
            missing[child] -= 1
            if missing[child] == 0:
                ready.append(child)
    return ordered
