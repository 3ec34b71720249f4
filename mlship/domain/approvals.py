"""The valid approvals of a release, and the number of people who certainly gave them.

A fold over evidence. `approve` records an approval, from a review or by hand; `withdraw-approval`
withdraws an approval by the same person from the same pull request. A promotion counts one that
came from a review only if the review was read again.
"""

import re
from collections.abc import Collection, Sequence

import msgspec

from mlship.domain import shapes
from mlship.domain.digests import Digest
from mlship.domain.evidence import Record
from mlship.domain.facts import Approved, Trained, Withdrawn
from mlship.domain.history import latest
from mlship.domain.release import Release

_NOREPLY = re.compile(r"(?:\d+\+)?([^@+]+)@users\.noreply\.github\.com")


class Approvers(msgspec.Struct, frozen=True, kw_only=True):
    """The people whose approval of a release is valid, without its author.

    Attributes:
        names: each account and each email address once, in order.
        count: the number of people who are certainly different. An account and an email address
            may belong to the same person, so the larger of the two numbers counts, not the sum.
    """

    names: tuple[str, ...]
    count: int


def person(name: str) -> str:
    """Return the identity of a person in lower case: an email address or an account's name.

    A noreply address of GitHub is the account that it belongs to.
    """
    text = name.strip().casefold()
    hidden = _NOREPLY.fullmatch(text)
    return hidden[1] if hidden else text


def author(release: Release, records: Sequence[Record]) -> str:
    """Return the `person` who wrote the release's commit; empty if it is not recorded."""
    trained = latest(records, "train", release)
    commit = shapes.of(trained, Trained).commit if trained else None
    return person(commit.author) if commit else ""


def source(approval: Approved | Withdrawn) -> tuple[str, str]:
    """Return the person and the pull request of an approval; no pull request if by hand."""
    return person(approval.by), approval.url.partition("#")[0]


def standing(release: Release, records: Sequence[Record]) -> list[tuple[Record, Approved]]:
    """Return the approvals of a release that were not withdrawn, one for each person and place."""
    approvals: dict[tuple[str, str], tuple[Record, Approved]] = {}
    for record in records:
        evidence = record.evidence
        if evidence.release != release or evidence.verdict != "passed":
            continue
        if evidence.step == "approve":
            approved = shapes.of(record, Approved)
            approvals.setdefault(source(approved), (record, approved))
        elif evidence.step == "withdraw-approval":
            approvals.pop(source(shapes.of(record, Withdrawn)), None)
    return list(approvals.values())


def approvers(release: Release, records: Sequence[Record]) -> Approvers:
    """Return the people who approve of a release."""
    names: dict[str, str] = {}
    author_name = author(release, records)
    for _, approved in standing(release, records):
        name = approved.by.strip()
        if name and person(name) != author_name:
            names.setdefault(person(name), name)
    addresses = sum("@" in key for key in names)
    return Approvers(names=tuple(names.values()), count=max(addresses, len(names) - addresses))


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
