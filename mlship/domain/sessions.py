"""Sessions: jobs that sign with a key of their own, and whose workflow says whose key it is.

A job makes a key, GitHub's identity attests it, and the job's first record carries the bundle. So
no key outlives its job, and nobody keeps a secret. Records by that key count as those of the
signer in `trust` that stands for the workflow, from when it was attested on, for as long as a job
lasts.
"""

from collections.abc import Container, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from mlship.domain import digests, dsse
from mlship.domain.digests import Digest
from mlship.domain.evidence import STATEMENT_TYPE, Record
from mlship.domain.identity import MOST, Attested, Identify, Workflow, shown
from mlship.domain.public_keys import key_id
from mlship.domain.release import Release
from mlship.domain.signatures import Signatures
from mlship.domain.trust import SCOPES, Prove, Scope, Signer, Trust
from mlship.domain.untrusted import decoded
from mlship.errors import ConfigError, IntegrityError

PREDICATE_TYPE: Final = "https://mlship.dev/session/v1"

LONGEST: Final = timedelta(hours=6)
"""How long a job of GitHub's runners lasts at most."""

_CLOCKS: Final = timedelta(minutes=5)
"""How far the clock of a runner may be behind that of the authority."""

_HINT: Final = "make another key in the job: `mlship keys session`"


class Session(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a job says of its key, and GitHub's identity attests.

    Attributes:
        name: of the project whose records the key signs; `home` likewise.
        key: the public key, as in `mlship.domain.trust.KEY`.
    """

    name: str
    home: str
    key: str


class WorkflowSigner(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs whose records count: each has a key of its own.

    Attributes:
        name: for people.
        workflow: the jobs.
        may: what their records may be about.
        until: records of a later time do not count; `None` for no end.
    """

    name: str
    workflow: Workflow
    may: frozenset[Scope] = frozenset(SCOPES)
    until: datetime | None = None


class _Subject(msgspec.Struct, frozen=True, kw_only=True):
    digest: dict[str, str]


class _Statement(msgspec.Struct, frozen=True, kw_only=True, rename={"type": "_type"}):
    type: Literal["https://in-toto.io/Statement/v1"] = STATEMENT_TYPE
    subject: tuple[_Subject, ...]
    predicateType: str  # noqa: N815 (the name in the format)
    predicate: msgspec.Raw


_STATEMENT: Final = msgspec.json.Decoder(_Statement)
_SESSION: Final = msgspec.json.Decoder(Session)


def read(attested: Attested) -> Session:
    """Return the session that a bundle attests.

    Raises:
        IntegrityError: it attests something else.
    """
    if attested.payload_type != dsse.IN_TOTO:
        raise _refused(f"its payload is {shown(attested.payload_type)}, not {dsse.IN_TOTO}")
    try:
        statement = decoded(_STATEMENT.decode, attested.payload)
        if statement.predicateType != PREDICATE_TYPE:
            kind = shown(statement.predicateType)
            raise _refused(f"its statement is {kind}, not {PREDICATE_TYPE}")
        session = decoded(_SESSION.decode, bytes(statement.predicate))
        key = key_id(session.key)
    except msgspec.DecodeError as error:
        raise _refused(f"its statement cannot be read: {error}") from error
    except ConfigError as error:
        raise _refused(error.message) from error
    if len(statement.subject) != 1:
        raise _refused(f"its statement has {len(statement.subject)} subjects, not one")
    if statement.subject[0].digest != {"sha256": key.removeprefix("sha256:")}:
        raise _refused("its subject is not the key that it names")
    return session


def signer(
    workflows: Sequence[WorkflowSigner], attested: Attested, key: Digest, name: str, home: str
) -> Signer:
    """Return whose the key of a session is.

    Args:
        workflows: those that count.
        attested: by the bundle of the session.
        key: the id of the key that signs with it.
        name: of the project.
        home: of the project.

    Raises:
        IntegrityError: it is not one of these workflows'.
    """
    session = read(attested)
    if key_id(session.key) != key:
        raise _refused("it is about another key")
    if (session.name, session.home) != (name, home):
        raise _refused(f"it is of project {shown(session.name)} in {shown(session.home)}")
    refusals = []
    for each in workflows:
        refusal = each.workflow.refusal(attested.identity)
        if not refusal:
            start = attested.identity.time
            end = start + LONGEST
            return Signer(
                name=each.name,
                key=session.key,
                may=each.may,
                since=start - _CLOCKS,
                until=min(end, each.until) if each.until else end,
            )
        refusals.append(f"{refusal} (signer {each.name})")
    raise _refused("; ".join(refusals[:3]) or "`trust` names no workflow")


def proven(workflows: Sequence[WorkflowSigner], identify: Identify) -> Prove:
    """Return the port `mlship.domain.trust.Prove` for workflows.

    It raises ConfigError where no bundle can be verified.

    Args:
        workflows: those that count.
        identify: verifies bundles.
    """

    def prove(trust: Trust, records: Sequence[Record], own: Container[Digest]) -> Trust:
        signers: dict[Digest, Signer] = {}
        unproven: dict[Digest, str] = {}
        for record in records:
            data, key = record.evidence.identity.encode(), record.signer
            known = key in signers or trust.signer(key) is not None
            if not data or not key or known or record.digest not in own:
                continue
            try:
                check_size(data)
                name, home = record.evidence.release.name, record.evidence.home
                signers[key] = signer(workflows, identify(data), key, name, home)
            except IntegrityError as error:
                unproven[key] = f"the bundle of its key is refused: {error.message}"
        named = (*trust.signers, *signers.values())
        return msgspec.structs.replace(trust, signers=named, unproven=unproven)

    return prove


def check_size(data: bytes) -> None:
    """Check that a bundle is small enough to be one of a job.

    Raises:
        IntegrityError: it is too large.
    """
    if len(data) > MOST:
        raise _refused(f"it has {len(data)} bytes, and may have {MOST}")


def proof(signatures: Signatures, release: Release, before: Sequence[Record]) -> str:
    """Return the bundle for a record to carry; empty if none is needed, or one before has it.

    One of each release has it, as the records of a release are also attached to its image.
    """
    if signatures.signing is None or not signatures.identity:
        return ""
    key = signatures.signing.key
    carried = any(
        record.evidence.identity and record.signer == key and record.evidence.release == release
        for record in before
    )
    return "" if carried else signatures.identity


def predicate(session: Session) -> bytes:
    """Return the predicate that the job lets GitHub attest."""
    return digests.canonical_json(session)


def _refused(reason: str) -> IntegrityError:
    return IntegrityError(reason, hint=_HINT)
