"""The valid approvals of a release, and the number of people who certainly gave them.

A fold over evidence. `approve` records an approval, from a review or by hand; `withdraw-approval`
withdraws an approval by the same person from the same pull request. A promotion counts one that
came from a review only if the review was read again.
"""

from collections.abc import Collection, Sequence
from typing import Final, Literal

import msgspec

from mlship.domain import shapes
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record
from mlship.domain.facts import Approved, Trained, Withdrawn
from mlship.domain.history import latest
from mlship.domain.people import NOBODY, People, person
from mlship.domain.release import Release

Basis = Literal["review", "signature", "name"]
"""What an approval is based on: a review on the forge, the person's own key, or a name alone."""

BY_NAME: Final = " (by name, not verified)"


class Approvers(msgspec.Struct, frozen=True, kw_only=True):
    """The people whose approval of a release is valid, without its author.

    Attributes:
        names: each of them once, in order; with a remark where nothing verifies the name.
        count: the number of people who are certainly different. An account and an email address
            may belong to the same person, so the larger of the two numbers counts, not the sum,
            unless `trust` names a person with both.
    """

    names: tuple[str, ...]
    count: int


def author(release: Release, records: Sequence[Record]) -> str:
    """Return the `person` who wrote the release's commit; empty if it is not recorded."""
    trained = latest(records, "train", release)
    commit = shapes.of(trained, Trained).commit if trained else None
    return person(commit.author) if commit else ""


def source(approval: Approved | Withdrawn) -> tuple[str, str]:
    """Return the person and the pull request of an approval; no pull request if by hand."""
    return person(approval.by), approval.url.partition("#")[0]


def standing(
    release: Release, records: Sequence[Record], people: People = NOBODY
) -> list[tuple[Record, Approved]]:
    """Return the approvals of a release that were not withdrawn, one for each person and place.

    Of several, it is the first; one with the person's own signature if there is such.
    """
    approvals: dict[tuple[str, str], tuple[Record, Approved]] = {}
    for record in records:
        evidence = record.evidence
        if evidence.release != release or evidence.verdict != "passed":
            continue
        if evidence.step == "approve":
            approved = shapes.of(record, Approved)
            place = source(approved)
            earlier = approvals.setdefault(place, (record, approved))[0]
            if people.signed(record, approved.by) and not people.signed(earlier, approved.by):
                approvals[place] = record, approved
        elif evidence.step == "withdraw-approval":
            approvals.pop(source(shapes.of(record, Withdrawn)), None)
    return list(approvals.values())


def approvers(release: Release, records: Sequence[Record], people: People = NOBODY) -> Approvers:
    """Return the people who approve of a release.

    Args:
        release: the release.
        records: of the ledger.
        people: whom `trust` names.
    """
    shown: dict[frozenset[str], str] = {}
    author_name = author(release, records)
    for record, approved in standing(release, records, people):
        by = approved.by.strip()
        if person(by) and not people.are_one(by, author_name):
            kept = shown.setdefault(people.names(by), "")
            if not kept or kept.endswith(BY_NAME):
                shown[people.names(by)] = described(record, approved, people)
    return Approvers(names=tuple(shown.values()), count=_certain(shown))


def how(record: Record, approved: Approved, people: People) -> Basis:
    """Return what an approval is based on."""
    if approved.url:
        return "review"
    return "signature" if people.signed(record, approved.by) else "name"


def described(record: Record, approved: Approved, people: People) -> str:
    """Return who approved; for a name that nothing verifies, that it is one."""
    name = approved.by.strip()
    return name + BY_NAME if how(record, approved, people) == "name" else name


def _certain(people: Collection[frozenset[str]]) -> int:
    """Return how many people there are at least, each with the names that are certainly theirs."""
    addresses = sum(all("@" in name for name in names) for names in people)
    accounts = sum(not any("@" in name for name in names) for names in people)
    return len(people) - addresses - accounts + max(addresses, accounts)


def counted(records: Sequence[Record], confirmed: Collection[Digest] = ()) -> list[Record]:
    """Return the records without the approvals from reviews that were not read again.

    Args:
        records: of the ledger.
        confirmed: the records of approvals whose reviews are as they were.
    """
    return [
        record
        for record in records
        if record.evidence.step != "approve"
        or record.digest in confirmed
        or not shapes.of(record, Approved).url
    ]
