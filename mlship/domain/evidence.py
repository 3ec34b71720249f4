"""Evidence: one fact learnt about a release, appended to a ledger and never edited.

Its JSON is an in-toto Statement (https://in-toto.io/Statement/v1), so that it can be signed and
attached to an image as it is. Each names the digests of the records that it was added after:
two writers may fork the chain, a missing parent is tampering.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Literal, get_args

import msgspec

from mlship import __version__
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.release import Release
from mlship.errors import IntegrityError

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://mlship.dev/evidence/v1"

Verdict = Literal["passed", "failed", "undecided"]

Transition = Literal["deploy-production", "promote", "rollback", "retire"]
"""The steps that change who plays which role; each ends with one record of that name."""

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
        "evaluate",
        "approve",
        "withdraw-approval",
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
    | Transition
)
"""Every step and sub-step that leaves evidence: a command's name, or `promote/route`."""

TRANSITIONS: Final[tuple[Transition, ...]] = get_args(Transition)
STEPS: Final[frozenset[Step]] = frozenset(
    step for steps in get_args(Step) for step in get_args(steps) or (steps,)
)


class Saw(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The digests of what a step looked at; only those that it names are written.

    Attributes:
        policy: the bounds of the gate. Evidence by other bounds proves nothing.
        champion: the id of the release that was champion; so is `challenger`.
        extension: the user's own instructions to Docker.
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
    """What one step learnt.

    Attributes:
        release: what it was learnt about.
        facts: the numbers and names behind the verdict in JSON's own types, as they are stored;
            `facts.of` returns them as the value of their step.
        actor: who ran it.
        time: when, with a zone.
        tool: the version of mlship that wrote it.
        parents: the records that were the chain's heads when this one was added.
    """

    release: Release
    step: Step
    verdict: Verdict
    facts: dict[str, Any] = {}
    saw: Saw = Saw()
    actor: str
    time: datetime
    tool: str = __version__
    parents: tuple[Digest, ...] = ()


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence as a ledger holds it, with the digest of its bytes."""

    digest: Digest
    evidence: Evidence


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
    time: datetime
    tool: str
    parents: tuple[Digest, ...]


class _Statement(msgspec.Struct, frozen=True, kw_only=True, rename={"type": "_type"}):
    type: Literal["https://in-toto.io/Statement/v1"] = STATEMENT_TYPE
    subject: tuple[_Subject, ...]
    predicateType: Literal["https://mlship.dev/evidence/v1"] = PREDICATE_TYPE  # noqa: N815
    predicate: _Predicate


class _Author(msgspec.Struct, frozen=True):
    step: str
    tool: str


class _Unknown(msgspec.Struct, frozen=True):
    predicate: _Author


_STATEMENT: Final = msgspec.json.Decoder(_Statement)


def encode(evidence: Evidence) -> bytes:
    """Return the in-toto Statement of evidence as canonical JSON; non-finite facts become text."""
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
        parents=evidence.parents,
    )
    return digests.canonical_json(_Statement(subject=subjects, predicate=predicate))


def decode(data: bytes) -> Record:
    """Return the evidence of a Statement with the digest of its bytes.

    Raises:
        IntegrityError: the bytes are not such a Statement, its subject is another release, or a
            newer version of mlship wrote a step that this one does not know.
    """
    try:
        statement = _STATEMENT.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise _unreadable(data, error) from error
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
        parents=predicate.parents,
    )
    return Record(digest=digests.of_bytes(data), evidence=evidence)


def _unreadable(data: bytes, error: Exception) -> IntegrityError:
    try:
        author = msgspec.json.decode(data, type=_Unknown).predicate
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        author = None
    if author is not None and author.step not in STEPS:
        message = f"mlship {author.tool} recorded a step that mlship {__version__} does not know: "
        return IntegrityError(message + repr(author.step[:80]), hint="update mlship")
    why = "it is nested too deeply" if isinstance(error, RecursionError) else error
    message = f"not a record of the ledger: {why}"
    return IntegrityError(message, hint="restore the ledger from a backup")


def heads(records: Iterable[Record]) -> tuple[Digest, ...]:
    """Return the digests that no record names as a parent, sorted."""
    known = {record.digest: record.evidence.parents for record in records}
    named = {parent for parents in known.values() for parent in parents}
    return tuple(sorted(set(known) - named))


def in_order(
    stored: Mapping[Digest, bytes],
    described: Callable[[Digest], str] = lambda digest: f"record {digests.short(digest)}",
) -> list[Record]:
    """Return the verified records, parents first, then by time; the order is always the same.

    Args:
        stored: the bytes of the records by their digests.
        described: says what holds the bytes, for errors.

    Raises:
        IntegrityError: bytes do not have the digest that they are stored under, or a parent is
            missing: somebody edited or removed a record.
    """
    records = {}
    for name, data in stored.items():
        try:
            record = decode(data)
        except IntegrityError as error:
            raise IntegrityError(f"{described(name)}: {error.message}", hint=error.hint) from error
        if record.digest != name:
            message = (
                f"record {digests.short(name)} was changed: its content does not match its digest"
            )
            raise IntegrityError(message, hint="restore the ledger from a backup")
        records[name] = record
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
