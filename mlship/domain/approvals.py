"""Who approves of a release: the approvals that stand, and how many people are surely behind them.

A fold over evidence. `approve` records an approval, in a review or by hand; `withdraw-approval`
takes back the one that a person gave in the same pull request.
"""

import re
from collections.abc import Sequence

import msgspec

from mlship.domain import shapes
from mlship.domain.evidence import Record
from mlship.domain.facts import Approved, Trained, Withdrawn
from mlship.domain.history import latest
from mlship.domain.release import Release

_NOREPLY = re.compile(r"(?:\d+\+)?([^@+]+)@users\.noreply\.github\.com")


class Approvers(msgspec.Struct, frozen=True, kw_only=True):
    """The people whose approval of a release stands, its author left out.

    Attributes:
        names: each account and each email address once, in order.
        count: how many different people they surely are. Nothing tells whether an account and an
            address are the same person's, so the two are not added up: the larger number counts.
    """

    names: tuple[str, ...]
    count: int


def person(name: str) -> str:
    """Return what a person is known by, in any case: an email address, else an account's name.

    GitHub's address of an account that hides its own is that account.
    """
    text = name.strip().casefold()
    hidden = _NOREPLY.fullmatch(text)
    return hidden[1] if hidden else text


def author(release: Release, records: Sequence[Record]) -> str:
    """Return who wrote the release's commit, as `person` does; empty where nobody is named."""
    trained = latest(records, "train", release)
    commit = shapes.of(trained, Trained).commit if trained else None
    return person(commit.author) if commit else ""


def source(approval: Approved | Withdrawn) -> tuple[str, str]:
    """Return by whom and where an approval was given: the pull request, nowhere if by hand."""
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
    """Return who approves of a release."""
    names: dict[str, str] = {}
    wrote = author(release, records)
    for _, approved in standing(release, records):
        name = approved.by.strip()
        if name and person(name) != wrote:
            names.setdefault(person(name), name)
    addresses = sum("@" in key for key in names)
    return Approvers(names=tuple(names.values()), count=max(addresses, len(names) - addresses))
