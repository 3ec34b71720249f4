"""Approvals are people's: whose key signed, and which names are one person."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from mlship.adapters.keys.ed25519 import verify
from mlship.domain import approvals, evidence, people, trust
from mlship.domain.digests import Digest
from mlship.domain.dsse import Signing
from mlship.domain.evidence import Evidence, Record, Step
from mlship.domain.records import Records
from mlship.domain.trust import Scope, Sealed, Signer, Trust
from tests.harness.samples import NOON, record, release
from tests.harness.signing import key

CI, ADA, ADAS_OTHER, GRACE, EVE = key(), key(), key(), key(), key()
APPROVE = frozenset[Scope](["approve"])
SIGNERS = (
    Signer(name="ci", key=CI.public),
    Signer(name="ada", key=ADA.public, may=APPROVE, emails=("ada@example.org",)),
    Signer(
        name="ada-at-home",
        key=ADAS_OTHER.public,
        may=APPROVE,
        emails=("ada@home.example", "Ada@Example.org", "7+ada@users.noreply.github.com"),
    ),
    Signer(name="grace", key=GRACE.public, may=APPROVE, emails=("grace@example.org",)),
)
PEOPLE = Trust(signers=SIGNERS).people
REVIEW = "https://github.com/ada/iris/pull/7#pullrequestreview-1"


def said(
    signer: Signing | None,
    /,
    about: Any = None,
    step: Step = "approve",
    after: int = 0,
    **facts: Any,
) -> Record:
    """Return a record that somebody signed."""
    made = Evidence(
        release=about or release(),
        step=step,
        verdict="passed",
        facts=facts,
        actor="ada",
        time=NOON + timedelta(minutes=after),
    )
    return evidence.decode(evidence.encode(made, signer))


def verified(signed: Sequence[Sealed]) -> set[Digest]:
    return {
        digest
        for public, digest, envelope in signed
        if verify(public, envelope.message, envelope.signatures[0].sig)
    }


def reason(made: Record, *, names: bool = False, unsigned: bool = False) -> str:
    """Return why a record does not count; empty if it does."""
    named = Trust(signers=SIGNERS, unsigned=unsigned, names=names)
    return trust.sift([made], frozenset([made.digest]), named, verified).get(made.digest, "")


COUNTS: dict[str, Record] = {
    "one's own": said(ADA, by="ada@example.org"),
    "in other letters": said(ADA, by=" ADA@example.org"),
    "by another address of one's own": said(ADAS_OTHER, by="ada@example.org"),
    "by an account of one's own": said(ADAS_OTHER, by="ada"),
    "what a job read in a review": said(CI, by="bob", url=REVIEW),
    "one's own withdrawal": said(ADA, step="withdraw-approval", by="ada@example.org"),
}


@pytest.mark.parametrize("case", COUNTS)
def test_who_signs_approves_as_themselves(case: str) -> None:
    assert reason(COUNTS[case]) == ""


REFUSED: dict[str, tuple[Record, str]] = {
    "another person's name": (
        said(ADA, by="grace@example.org"),
        "signer ada may not approve as 'grace@example.org'",
    ),
    "a name that begins like one's own": (
        said(ADA, by="ada@example.organic"),
        "signer ada may not approve as 'ada@example.organic'",
    ),
    "the beginning of one's own": (said(ADA, by="ada@example"), "may not approve as"),
    "an account that no address of the key is": (said(ADA, by="ada"), "may not approve as"),
    "no name": (said(ADA), "signer ada may not approve as ''"),
    "a job's key": (
        said(CI, by="bob@example.org"),
        "signer ci is no person, and the name 'bob@example.org' alone is not enough",
    ),
    "a stranger's key": (said(EVE, by="ada@example.org"), "which `trust` does not name"),
    "nobody's key": (said(None, by="ada@example.org"), "it is not signed"),
    "another's withdrawal": (
        said(GRACE, step="withdraw-approval", by="ada@example.org"),
        "signer grace may not approve as 'ada@example.org'",
    ),
    "a job's withdrawal": (
        said(CI, step="withdraw-approval", by="ada@example.org"),
        "signer ci is no person",
    ),
    "a promotion": (said(ADA, step="promote"), "signer ada may not say promote"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_nobody_approves_in_anothers_name(case: str) -> None:
    made, expected = REFUSED[case]
    assert expected in reason(made)


def test_where_names_are_enough_a_job_may_give_one_but_a_person_gives_their_own() -> None:
    assert reason(said(CI, by="bob@example.org"), names=True) == ""
    assert "may not approve as" in reason(said(ADA, by="bob@example.org"), names=True)


def test_a_name_that_nobody_signed_counts_only_where_names_are_enough() -> None:
    made = said(None, by="bob@example.org")
    expected = "the approval of 'bob@example.org' is not signed, and a name alone is not enough"
    assert reason(made, unsigned=True) == expected
    assert reason(made, unsigned=True, names=True) == ""


def test_an_approval_by_name_is_not_taken_over_with_the_records_of_a_former_version() -> None:
    old = said(None, by="bob@example.org")
    taken = evidence.decode(
        evidence.encode(
            Evidence(
                release=release(),
                step="sign-ledger",
                verdict="passed",
                actor="ada",
                time=NOON,
                parents=(old.digest,),
            ),
            CI,
        )
    )
    own = frozenset([old.digest, taken.digest])
    named = Trust(signers=SIGNERS, unsigned=False, names=False)
    found = trust.sift([old, taken], own, named, verified)
    assert "a name alone is not enough" in found[old.digest]
    assert taken.digest not in found


def test_an_approval_does_not_move_to_another_release() -> None:
    made = said(GRACE, by="grace@example.org")
    assert made.envelope is not None
    replayed = _Replayed(made.envelope.signatures[0].sig)
    moved = said(replayed, release("b"), by="grace@example.org")
    assert reason(made) == ""
    assert reason(moved) == "the signature is not one of signer grace"
    listed = Records.alone([made], lambda *_: {}).listed
    assert approvals.approvers(release("b"), listed, PEOPLE).count == 0


class _Replayed:
    """Signs with a signature of something else."""

    key = GRACE.key

    def __init__(self, signature: bytes) -> None:
        self._signature = signature

    def sign(self, _message: bytes) -> bytes:
        return self._signature


def test_a_key_does_not_count_before_its_beginning() -> None:
    starts = NOON + timedelta(minutes=5)
    named = Trust(
        signers=(Signer(name="ada", key=ADA.public, since=starts, emails=("ada@example.org",)),),
        unsigned=False,
    )
    early, late = (said(ADA, after=minutes, by="ada@example.org") for minutes in (4, 6))
    own = frozenset([early.digest, late.digest])
    assert trust.sift([early, late], own, named, verified) == {
        early.digest: "the key of signer ada begins at 2026-03-01 12:05 UTC"
    }


# Who is how many people


def by(*names: str, signer: Signing | None = CI) -> list[Record]:
    return [said(signer, by=name, after=place) for place, name in enumerate(names)]


COUNTED: dict[str, tuple[list[Record], int]] = {
    "two keys of one person": (
        [said(ADA, by="ada@example.org"), said(ADAS_OTHER, by="ada@home.example")],
        1,
    ),
    "two people": ([said(ADA, by="ada@example.org"), said(GRACE, by="grace@example.org")], 2),
    "a review and a signature of one person": (
        [said(ADA, by="ada@example.org"), said(CI, by="ada", url=REVIEW)],
        1,
    ),
    "a review, and a signature of who may be the same": (
        [said(GRACE, by="grace@example.org"), said(CI, by="grace", url=REVIEW)],
        1,
    ),
    "a person with both names, and an account": (
        [said(ADAS_OTHER, by="ada@home.example"), said(CI, by="bob", url=REVIEW)],
        2,
    ),
    "a person with both names, an account and an address": (
        [
            said(ADA, by="ada@example.org"),
            said(CI, by="bob", url=REVIEW),
            said(GRACE, by="grace@example.org"),
        ],
        2,
    ),
    "names alone": (by("bob@example.org", "lin@example.org", "bob@EXAMPLE.org"), 2),
}


@pytest.mark.parametrize("case", COUNTED)
def test_people_are_counted_not_keys(case: str) -> None:
    records, count = COUNTED[case]
    assert approvals.approvers(release(), records, PEOPLE).count == count


def test_the_author_does_not_count_under_any_name_that_is_theirs() -> None:
    commit = {
        "sha": "a" * 40,
        "dirty": False,
        "branch": "main",
        "subject": "a model",
        "author": "ada@home.example",
    }
    wrote = record(release(), "train", facts={"commit": commit})
    approved = [said(ADA, by="ada@example.org"), said(CI, by="ada", url=REVIEW)]
    assert approvals.approvers(release(), [wrote, *approved], PEOPLE).count == 0
    assert approvals.approvers(release(), approved, PEOPLE).count == 1


BOB: dict[str, tuple[str, str]] = {
    "a byte order mark": ("bob@example.org", "\ufeffbob@example.org"),
    "a space without width": ("bob@example.org", "b\u200bob@example.org"),
    "a change of direction": ("bob@example.org", "\u202ebob@example.org"),
    "a soft hyphen": ("bob@example.org", "bo\u00adb@example.org"),
    "a variation selector": ("bob@example.org", "bob\ufe0f@example.org"),
    "a letter without a form": ("bob@example.org", "bob\u3164@example.org"),
    "a tag": ("bob@example.org", "bob\U000e0041@example.org"),
    "a control character": ("bob@example.org", "bob\x08@example.org"),
    "a no-break space": ("bob@example.org", "bob@\u00a0example.org"),
    "a separator of lines": ("bob@example.org", "bob@example.org\u2028"),
    "a dot at the end": ("bob@example.org", "bob@example.org."),
    "wide letters": ("bob@example.org", "\uff42ob@example.org"),
    "a wide dot at the end": ("bob@example.org", "bob@example.org\uff0e"),
    "an accent of its own": ("ren\u00e9@example.org", "rene\u0301@example.org"),
    "an accent behind nothing": ("ren\u00e9@example.org", "rene\u200b\u0301@example.org"),
    "a capital with an accent": ("ren\u00e9@example.org", "RENE\u0301@EXAMPLE.ORG"),
}


@pytest.mark.parametrize("case", BOB)
def test_addresses_that_differ_in_what_nobody_sees_are_one_person(case: str) -> None:
    plain, other = BOB[case]
    assert people.person(other) == people.person(plain)
    for author, approver in (BOB[case], (other, plain)):
        commit = {"sha": "a" * 40, "dirty": False, "branch": "main", "subject": "a model"}
        wrote = record(release(), "train", facts={"commit": {**commit, "author": author}})
        found = approvals.approvers(release(), [wrote, *by(approver)])
        assert (found.names, found.count) == ((), 0)
    assert approvals.approvers(release(), by(plain, other)).count == 1


def test_a_signer_with_such_an_address_is_the_person_with_the_plain_one() -> None:
    keys = [Digest(f"sha256:{each}") for each in "12"]
    found = people.of(zip(keys, (["bob@x.org"], ["bob\u200b@x.org", "b@y.org"]), strict=True))
    assert found.are_one("bob@x.org", "b@y.org")


def test_who_has_an_invisible_name_is_nobody() -> None:
    commit = {"sha": "a" * 40, "dirty": False, "branch": "main", "subject": "a model"}
    wrote = record(release(), "train", facts={"commit": {**commit, "author": "ada@example.org"}})
    assert approvals.approvers(release(), [wrote, *by("\u200b")]).count == 0


def test_accents_and_other_alphabets_are_other_people() -> None:
    others = ("rene@x.org", "ren\u00e9@x.org", "r\u0435ne@x.org", "rene@x.or", "rene.@x.org")
    assert len(set(map(people.person, others))) == len(others)


def test_what_is_only_a_name_is_shown_as_one() -> None:
    records = [
        *by("bob@example.org"),
        said(ADA, by="ada@example.org"),
        said(CI, by="lin", url=REVIEW),
    ]
    assert approvals.approvers(release(), records, PEOPLE).names == (
        "bob@example.org (by name, not verified)",
        "ada@example.org",
        "lin",
    )


def test_a_signature_stands_for_the_name_that_was_given_before() -> None:
    records = [*by("ada@example.org"), said(ADA, by="ada@example.org", after=1)]
    assert approvals.approvers(release(), records, PEOPLE).names == ("ada@example.org",)


def test_people_who_share_a_name_are_one() -> None:
    keys = [Digest(f"sha256:{each}") for each in "123"]
    chain = (["a@x.org", "b@x.org"], ["c@x.org", "d@x.org"], ["b@x.org", "c@x.org"])
    found = people.of(zip(keys, chain, strict=True))
    assert found.are_one("a@x.org", "D@x.org")
    assert not found.are_one("a@x.org", "e@x.org")
