"""People: whose approval a record is.

A person is known by email addresses and accounts. Whoever signs an approval gives their own: the
name in the record must be one of the signer's addresses. Where names are enough, the record of
somebody who is no person in `trust` is taken at its word, and shown as not verified.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from mlship.domain.digests import Digest
from mlship.domain.emails import canonical
from mlship.domain.evidence import Evidence, Record
from mlship.domain.facts import Facts

_NOREPLY: Final = re.compile(r"(?:\d+\+)?([^@+]+)@users\.noreply\.github\.com")


def person(name: str) -> str:
    """Return the identity of a person: an email address or an account's name, as it is compared.

    A noreply address of GitHub is the account that it belongs to.
    """
    text = canonical(name)
    hidden = _NOREPLY.fullmatch(text)
    return hidden[1] if hidden else text


class People(msgspec.Struct, frozen=True, kw_only=True):
    """The people whom `trust` names.

    Attributes:
        keys: the names of the person who signs with a key, by its id, as `person` has them.
        same: all names of the person who has a name, by each of them.
    """

    keys: Mapping[Digest, frozenset[str]] = {}
    same: Mapping[str, frozenset[str]] = {}

    def names(self, name: str) -> frozenset[str]:
        """Return all names of the person with a name; itself alone if `trust` names nobody so."""
        known = person(name)
        return self.same.get(known, frozenset([known]))

    def are_one(self, first: str, second: str) -> bool:
        """Return whether two names certainly belong to one person."""
        return person(second) in self.names(first)

    def signed(self, record: Record, by: str) -> bool:
        """Return whether the key that signed a record is the one of a person with a name."""
        return person(by) in self.keys.get(record.signer, ())


NOBODY: Final = People()


class _Given(Facts, frozen=True):
    """Who approves, and the review; no review if by hand."""

    by: str = ""
    url: str = ""


def of(keys: Iterable[tuple[Digest, Sequence[str]]]) -> People:
    """Return the people with some keys; those who share a name are one person.

    Args:
        keys: the id of each key, and the email addresses of the person who has it.
    """
    named = [(key, frozenset(map(person, emails))) for key, emails in keys if emails]
    same: dict[str, frozenset[str]] = {}
    for _, names in named:
        joined = names.union(*(same.get(name, names) for name in names))
        same.update(dict.fromkeys(joined, joined))
    return People(keys={key: same[min(names)] for key, names in named}, same=same)


def objection(evidence: Evidence, signer: str | None, emails: Sequence[str], *, names: bool) -> str:
    """Return why an approval by hand is not one of the person whom it names; empty if it is.

    Args:
        evidence: of any step.
        signer: who signed it; `None` for nobody.
        emails: of the signer; empty if the signer is no person.
        names: whether the word of a signer who is no person is enough.
    """
    given = _given(evidence)
    if given is None or given.url:
        return ""
    by = given.by
    if emails:
        own = person(by) in map(person, emails)
        return "" if own else f"signer {signer} may not approve as {by[:80]!r}"
    if names:
        return ""
    if signer is None:
        return f"the approval of {by[:80]!r} is not signed, and a name alone is not enough"
    return f"signer {signer} is no person, and the name {by[:80]!r} alone is not enough"


def _given(evidence: Evidence) -> _Given | None:
    """Return what an approval, or its withdrawal, says of itself; `None` for another step."""
    if evidence.step not in ("approve", "withdraw-approval"):
        return None
    try:
        return msgspec.convert(evidence.facts, _Given)
    except msgspec.ValidationError:
        # Who reads its facts fails; until then, it names nobody.
        return _Given()
