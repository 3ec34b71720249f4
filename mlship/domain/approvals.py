"""Who approves of a release: the approvals that stand, and how many people are surely behind them.

A fold over evidence. `approve` records an approval, in a review or by hand; `withdraw-approval`
takes back the one that a person gave in the same pull request.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from mlship.domain.evidence import Record
from mlship.domain.history import latest
from mlship.domain.release import Release

APPROVE: Final = "approve"
WITHDRAW: Final = "withdraw-approval"
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
    commit = trained.evidence.facts.get("commit") if trained else None
    return person(str(commit.get("author", ""))) if isinstance(commit, dict) else ""


def given(facts: Mapping[str, Any]) -> tuple[str, str]:
    """Return by whom and where an approval was given: the pull request, nowhere if by hand.

    Args:
        facts: of the evidence.
    """
    return person(str(facts.get("by", ""))), str(facts.get("url") or "").partition("#")[0]


def standing(release: Release, records: Sequence[Record]) -> list[Record]:
    """Return the approvals of a release that were not withdrawn, one for each person and place."""
    found: dict[tuple[str, str], Record] = {}
    for record in records:
        evidence = record.evidence
        if evidence.release != release or evidence.verdict != "passed":
            continue
        if evidence.step == APPROVE:
            found.setdefault(given(evidence.facts), record)
        elif evidence.step == WITHDRAW:
            found.pop(given(evidence.facts), None)
    return list(found.values())


def approvers(release: Release, records: Sequence[Record]) -> Approvers:
    """Return who approves of a release."""
    names: dict[str, str] = {}
    wrote = author(release, records)
    for record in standing(release, records):
        name = str(record.evidence.facts.get("by", "")).strip()
        if name and person(name) != wrote:
            names.setdefault(person(name), name)
    addresses = sum("@" in key for key in names)
    return Approvers(names=tuple(names.values()), count=max(addresses, len(names) - addresses))
