"""Evidence: one fact learnt about a release, appended to a ledger and never edited.

Its JSON is an in-toto Statement (https://in-toto.io/Statement/v1), so that it can be signed and
attached to an image as it is. Each names the digests of the records that it was added after:
two writers may fork the chain, a missing parent is tampering.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from mlship import __version__
from mlship.domain import digests
from mlship.domain.digests import Digest
from mlship.domain.release import Release
from mlship.errors import IntegrityError

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://mlship.dev/evidence/v1"

Verdict = Literal["passed", "failed", "undecided"]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What one step learnt.

    Attributes:
        release: what it was learnt about.
        step: a command's name, or a sub-step of one: `promote/route`.
        facts: the numbers and names behind the verdict, in JSON's own types.
        saw: digests of what the step looked at, by name.
        actor: who ran it.
        time: when, with a zone.
        tool: the version of mlship that wrote it.
        parents: the records that were the chain's heads when this one was added.
    """

    release: Release
    step: str
    verdict: Verdict
    facts: dict[str, Any] = {}
    saw: dict[str, Digest] = {}
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
    step: str
    verdict: Verdict
    release: Release
    facts: dict[str, Any]
    saw: dict[str, Digest]
    actor: str
    time: datetime
    tool: str
    parents: tuple[Digest, ...]


class _Statement(msgspec.Struct, frozen=True, kw_only=True, rename={"type": "_type"}):
    type: Literal["https://in-toto.io/Statement/v1"] = STATEMENT_TYPE
    subject: tuple[_Subject, ...]
    predicateType: Literal["https://mlship.dev/evidence/v1"] = PREDICATE_TYPE  # noqa: N815
    predicate: _Predicate


_PREDICATE_FIELDS = _Predicate.__struct_fields__


def encode(evidence: Evidence) -> bytes:
    """Return the in-toto Statement of evidence as canonical JSON; non-finite facts become text."""
    release = evidence.release
    subjects = (
        _Subject(str(release), {"sha256": release.id.removeprefix("sha256:")}),
        _Subject("bundle", {"sha256": release.bundle.removeprefix("sha256:")}),
    )
    fields = {name: getattr(evidence, name) for name in _PREDICATE_FIELDS}
    predicate = _Predicate(**{**fields, "facts": digests.plain(evidence.facts)})
    return digests.canonical_json(_Statement(subject=subjects, predicate=predicate))


def decode(data: bytes) -> Record:
    """Return the evidence of a Statement with the digest of its bytes.

    Raises:
        IntegrityError: the bytes are no such Statement, or its subject is another release.
    """
    try:
        statement = msgspec.json.decode(data, type=_Statement)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        message = f"not a record of evidence: {error}"
        raise IntegrityError(message, hint="restore the ledger from a backup") from error
    predicate = statement.predicate
    subject = statement.subject[0].digest.get("sha256") if statement.subject else None
    if subject != predicate.release.id.removeprefix("sha256:"):
        message = f"a record of {predicate.step} has another release as its subject"
        raise IntegrityError(message, hint="restore the ledger from a backup")
    fields = {name: getattr(predicate, name) for name in _PREDICATE_FIELDS}
    return Record(digest=digests.of_bytes(data), evidence=Evidence(**fields))


def heads(records: Iterable[Record]) -> tuple[Digest, ...]:
    """Return the digests that no record names as a parent, sorted."""
    known = {record.digest: record.evidence.parents for record in records}
    named = {parent for parents in known.values() for parent in parents}
    return tuple(sorted(set(known) - named))


def in_order(stored: Mapping[Digest, bytes]) -> list[Record]:
    """Return the verified records, parents first, then by time; the order is always the same.

    Raises:
        IntegrityError: bytes do not have the digest that they are stored under, or a parent is
            missing: somebody edited or removed a record.
    """
    records = {}
    for name, data in stored.items():
        record = decode(data)
        if record.digest != name:
            message = f"record {digests.short(name)} was changed: its bytes have another digest"
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
