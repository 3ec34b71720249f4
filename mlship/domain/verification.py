"""Verification of an image before it runs: who attested what of it, and whether that is enough."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from mlship.domain import (
    attestation,
    checks,
    digests,
    home,
    provenance,
    release_statement,
    sbom,
    shapes,
)
from mlship.domain.attestation import Attestation
from mlship.domain.checks import Check, Decision
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record, Step
from mlship.domain.facts import Containerized
from mlship.domain.history import latest
from mlship.domain.public_keys import key_id
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.release_statement import ReleaseStatement
from mlship.domain.signatures import Signatures
from mlship.domain.trust import Scope, Signer
from mlship.errors import IntegrityError

_OF_BUILD: Final[tuple[Scope, ...]] = ("build",)
_OF_JOBS: Final[tuple[Scope, ...]] = ("build", "staging", "production")
"""Who may state the records of a release: not a person whose word is an approval."""

_SHOWN: Final = 3
"""So many reasons of one kind are told; others could attach thousands."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What an image must be to run.

    Attributes:
        image: its digest.
        project: the name of the project; `home` as in `mlship.domain.home`.
        source: the URL of its source code, if it is configured.
        release: the release that it must contain; `None` for any of the project.
        steps: that the release must have passed.
        known: the records of the ledger that count. Without any, those that are stated at the
            image tell what was passed.
        attested: statements of other tools that it must have: the public key by the type.
    """

    image: Digest
    project: str
    home: str
    source: str | None = None
    release: Release | None = None
    steps: tuple[Step, ...] = ()
    known: tuple[Record, ...] = ()
    attested: Mapping[str, str] = {}


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        image: the digest of the image.
        release: that it contains; `None` if nobody who is trusted says so.
        decision: with each check.
        records: how many records of the release count.
        heads: the last records that the ledger had at some time, as trusted signers say.
    """

    image: Digest
    release: Release | None
    decision: Decision
    records: int = 0
    heads: tuple[Digest, ...] = ()


class _Signed(msgspec.Struct, frozen=True, kw_only=True):
    """An attestation whose signature is valid, and its signer."""

    signer: Signer
    said: Attestation


class _Stated(msgspec.Struct, frozen=True, kw_only=True):
    """A release statement whose records were read.

    Attributes:
        records: those that count, and those that do not.
        built: the record of the image; `None` if none of those that count names it.
    """

    signer: Signer
    statement: ReleaseStatement
    records: Records
    built: Record | None


def verify(
    found: Sequence[Attestation], unreadable: Sequence[str], wanted: Wanted, by: Signatures
) -> Verified:
    """Decide whether an image is what is wanted.

    Args:
        found: what is attached to the image.
        unreadable: why other documents at the image cannot be read.
        wanted: what the image must be.
        by: verifies signatures, and says whose count.
    """
    return _Verification(found, unreadable, wanted, by).result()


class _Verification:
    """Verifies one image; each method returns the checks of one thing."""

    def __init__(
        self,
        found: Sequence[Attestation],
        unreadable: Sequence[str],
        wanted: Wanted,
        by: Signatures,
    ) -> None:
        self._found, self._unreadable = found, unreadable
        self._wanted, self._by = wanted, by
        self._trust = by.trust()

    def result(self) -> Verified:
        """Return the decision."""
        statements, reasons = self._statements()
        stated = max(statements, key=_extent, default=None)
        if stated is None:
            text = _problem("no release statement", reasons)
            listed = [Check(name="release", holds=False, text=text)]
        else:
            listed = [*self._release(stated), *self._steps(stated)]
        listed += self._provenance(stated)
        listed += self._sbom(stated)
        listed += self._others()
        return Verified(
            image=self._wanted.image,
            release=stated.statement.release if stated else None,
            decision=checks.decide(listed),
            records=len(stated.records) if stated else 0,
            heads=tuple({head for each in statements for head in each.statement.ledger.heads}),
        )

    def _statements(self) -> tuple[list[_Stated], list[str]]:
        """Return the release statements, and what is wrong with those that do not count."""
        signed, reasons = self._signed(release_statement.KIND, _OF_JOBS)
        read: list[_Stated] = []
        for each in signed:
            try:
                statement, kept = release_statement.read(each.said.predicate)
            except IntegrityError as error:
                reasons.append(error.message)
                continue
            if _ended(each.signer, statement.ledger.time):
                reasons.append(_end(each.signer))
                continue
            records = Records.of(kept, statement.project, statement.home, self._by.sift)
            built = self._built(records, statement.release)
            read.append(
                _Stated(signer=each.signer, statement=statement, records=records, built=built)
            )
        return read, reasons

    def _built(self, records: Records, release: Release) -> Record | None:
        """Return the last record that says that this image was built from a release."""
        built = [
            each
            for each in records
            if each.evidence.step == "containerize"
            and each.evidence.release == release
            and each.evidence.verdict == "passed"
            and shapes.of(each, Containerized).digest == self._wanted.image
        ]
        return built[-1] if built else None

    def _release(self, stated: _Stated) -> list[Check]:
        """Check which release is in the image, and whose."""
        said, wanted = stated.statement, self._wanted
        known = [
            Check(
                name="release",
                holds=stated.built is not None,
                text=f"contains {said.release}, signed by {stated.signer.name}"
                if stated.built
                else f"no record that counts says that {said.release} was built into this image"
                + _untrusted(stated.records, "containerize"),
            )
        ]
        same = said.project == wanted.project and home.is_same(said.home, wanted.home)
        name = f"project {said.project[:80]!r} {home.shown(said.home[:200])}"
        known.append(Check(name="project", holds=same, text=f"is of {name}"))
        if wanted.release is not None and wanted.release != said.release:
            text = f"contains {said.release}, not {wanted.release}"
            known.append(Check(name="release", holds=False, text=text))
        return known

    def _steps(self, stated: _Stated) -> list[Check]:
        """Check what the release must have passed."""
        return [self._step(step, stated) for step in self._wanted.steps]

    def _step(self, step: Step, stated: _Stated) -> Check:
        kept = self._wanted.known or stated.records
        record = latest(kept, step, stated.statement.release)
        if record is None:
            return Check(
                name=step,
                holds=False,
                text=f"{step}: no record that counts" + _untrusted(stated.records, step),
            )
        seen = record.evidence.saw.image
        if seen is not None and seen != self._wanted.image:
            text = f"{step}: passed with another image, {digests.short(seen)}"
            return Check(name=step, holds=False, text=text)
        verdict = record.evidence.verdict
        signer = self._trust.signer(record.signer)
        who = f", signed by {signer.name}" if signer else ""
        return Check(name=step, holds=verdict == "passed", text=f"{step}: {verdict}{who}")

    def _provenance(self, stated: _Stated | None) -> list[Check]:
        """Check from which commit the image was built, and that its record says the same."""
        signed, reasons = self._signed(provenance.PREDICATE_TYPE, _OF_BUILD, _time(stated))
        wrong = [self._wrong_provenance(each.said.predicate, stated) for each in signed]
        return [_chosen("provenance", signed, wrong, reasons)]

    def _wrong_provenance(self, predicate: dict[str, Any], stated: _Stated | None) -> str:
        commit, built = "", ""
        if stated is not None and stated.built is not None:
            commit, built = stated.statement.release.commit, stated.built.digest
        return provenance.problem(predicate, source=self._wanted.source, commit=commit, built=built)

    def _sbom(self, stated: _Stated | None) -> list[Check]:
        """Check that the bill of materials is of this image."""
        signed, reasons = self._signed(attestation.SBOM, _OF_BUILD, _time(stated))
        wrong = [sbom.problem(each.said.predicate, self._wanted.image) for each in signed]
        return [_chosen("SBOM", signed, wrong, reasons)]

    def _others(self) -> list[Check]:
        """Check the statements that the settings ask for."""
        found = []
        for kind, public in self._wanted.attested.items():
            reasons = [self._foreign(each, public) for each in self._found if each.kind == kind]
            if "" in reasons:
                found.append(Check(name=kind, holds=True, text=f"{kind}: signed by its key"))
            else:
                text = _problem(f"no {kind}", reasons or self._unreadable)
                found.append(Check(name=kind, holds=False, text=text))
        return found

    def _foreign(self, said: Attestation, public: str) -> str:
        """Return what is wrong with a statement of another tool; empty if nothing is."""
        if said.image != self._wanted.image:
            return f"it is about another image, {digests.short(said.image)}"
        digest, envelope = said.by(key_id(public))
        is_valid = digest in self._by.verify([(public, digest, envelope)])
        return "" if is_valid else "its signature is not one of the key in `trust.attested`"

    def _signed(
        self, kind: str, scopes: Collection[Scope], time: datetime | None = None
    ) -> tuple[list[_Signed], list[str]]:
        """Return the attestations of a kind that count, and why others do not."""
        signed: list[_Signed] = []
        reasons: list[str] = []
        for each in self._found:
            if each.kind != kind:
                continue
            signer, reason = self._signer(each)
            if signer is None:
                reasons.append(reason)
            elif signer.may.isdisjoint(scopes):
                missing = " or ".join(scopes)
                reasons.append(f"signer {signer.name} may not say it: `may` has no {missing}")
            elif time is not None and _ended(signer, time):
                reasons.append(_end(signer))
            else:
                signed.append(_Signed(signer=signer, said=each))
        return signed, reasons or list(self._unreadable if not signed else ())

    def _signer(self, said: Attestation) -> tuple[Signer | None, str]:
        """Return who signed an attestation of this image; or why it does not count."""
        if said.image != self._wanted.image:
            return None, f"it is about another image, {digests.short(said.image)}"
        named = self._trust.signer(said.key) if said.key else None
        if said.key and named is None:
            key = digests.short(said.key)
            return None, f"it is signed with key {key}, which `trust` does not name"
        for signer in [named] if named else self._trust.signers:
            digest, envelope = said.by(key_id(signer.key))
            if digest in self._by.verify([(signer.key, digest, envelope)]):
                return signer, ""
        whose = f"signer {named.name}" if named else "a signer whom `trust` names"
        return None, f"its signature is not one of {whose}"


def _extent(stated: _Stated) -> tuple[bool, int, datetime]:
    """Return by what a statement precedes others: it counts, and knows the most."""
    anchor = stated.statement.ledger
    return stated.built is not None, anchor.records, anchor.time


def _time(stated: _Stated | None) -> datetime | None:
    """Return when the image was built, as a record that counts says."""
    return stated.built.evidence.time if stated and stated.built else None


def _ended(signer: Signer, time: datetime) -> bool:
    return signer.until is not None and time > signer.until


def _end(signer: Signer) -> str:
    return f"the key of signer {signer.name} ended at {signer.until:%Y-%m-%d %H:%M} UTC"


def _chosen(
    name: str, signed: Sequence[_Signed], wrong: Sequence[str], reasons: Sequence[str]
) -> Check:
    """Return the check that at least one attestation of a kind is right."""
    for each, problem in zip(signed, wrong, strict=True):
        if not problem:
            return Check(name=name, holds=True, text=f"{name}: signed by {each.signer.name}")
    problems = [*(problem for problem in wrong if problem), *reasons]
    return Check(name=name, holds=False, text=_problem(f"no {name}", problems))


def _problem(what: str, reasons: Sequence[str]) -> str:
    """Return that something is missing, with what is wrong with those that are there."""
    unique = list(dict.fromkeys(reasons))
    if not unique:
        return f"{what} is attached"
    more = f"; and {len(unique) - _SHOWN} more" if len(unique) > _SHOWN else ""
    return f"{what} that counts: " + "; ".join(unique[:_SHOWN]) + more


def _untrusted(records: Records, step: Step) -> str:
    """Return why the last record of a step does not count; empty if there is none."""
    reasons = [each.reason for each in records.untrusted if each.record.evidence.step == step]
    return f": {reasons[-1]}" if reasons else ""
