"""The facts that a store in a container registry has, and what they add up to. Pure functions.

Facts are added and never changed. Each has a turn, one more than the last one that its writer had
read, so that facts that were added one after the other are in order whatever the clocks say. Of
two that were added at once, the digest decides, for every reader alike.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, TypeVar

import msgspec

from mlship.domain import home as homes
from mlship.domain.digests import Digest
from mlship.domain.release import Release
from mlship.domain.versions import DataSet, Version


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a run."""

    digest: Digest
    size: int


class _Fact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="fact"):
    turn: int
    time: datetime
    home: str = homes.UNKNOWN


class RunFact(_Fact, frozen=True, kw_only=True, tag="run"):
    """A part of the run of a release.

    Attributes:
        has_bundle: whether the bundle of the release is among the files of this fact.
    """

    release: Release
    params: dict[str, str] = {}
    metrics: dict[str, float] = {}
    tags: dict[str, str] = {}
    files: dict[str, File] = {}
    data: tuple[DataSet, ...] = ()
    has_bundle: bool = False


class AliasFact(_Fact, frozen=True, kw_only=True, tag="alias"):
    """An alias was set to a release, or removed.

    Attributes:
        number: the version that the release should get if it is new; 0 if it had one.
    """

    alias: str
    release: Digest | None = None
    number: int = 0


class ArchiveFact(_Fact, frozen=True, kw_only=True, tag="archive"):
    """A version was archived, or the tag was removed."""

    release: Digest
    archived: bool


_Value = TypeVar("_Value")
Fact = RunFact | AliasFact | ArchiveFact
FACT: Final = msgspec.json.Decoder(Fact)


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What the facts of a project add up to.

    Attributes:
        home: of the project.
        turn: the last one.
        runs: all facts of each run as one, by release.
        numbers: the version of each release that is registered.
        created: when it was registered.
        aliases: the release of each alias.
        archived: the releases whose versions are archived.
    """

    home: str = homes.UNKNOWN
    turn: int = 0
    runs: dict[Digest, RunFact] = {}
    numbers: dict[Digest, int] = {}
    created: dict[Digest, datetime] = {}
    aliases: dict[str, Digest] = {}
    archived: frozenset[Digest] = frozenset()

    @property
    def next_number(self) -> int:
        """The number of the next version."""
        return max(self.numbers.values(), default=0) + 1

    def versions(self) -> list[Version]:
        """Return the registered versions, oldest first."""
        return [
            Version(
                number=str(number),
                release=release,
                aliases=tuple(sorted(a for a, named in self.aliases.items() if named == release)),
                archived=release in self.archived,
                created=self.created[release],
            )
            for release, number in sorted(self.numbers.items(), key=lambda pair: pair[1])
        ]


def fold(facts: Mapping[Digest, Fact]) -> State:
    """Return what facts add up to. Those of another project of the same name do not count."""
    ordered = [fact for _, fact in sorted(facts.items(), key=lambda pair: (pair[1].turn, pair[0]))]
    home = homes.UNKNOWN
    own: list[Fact] = []
    for fact in ordered:
        if homes.is_same(home, fact.home):
            home = homes.settled(home, fact.home)
            own.append(fact)
    runs: dict[Digest, RunFact] = {}
    aliases: dict[str, Digest] = {}
    archived: set[Digest] = set()
    for fact in own:
        if isinstance(fact, RunFact):
            release = fact.release.id
            runs[release] = merged(runs[release], fact) if release in runs else fact
        elif isinstance(fact, ArchiveFact):
            (archived.add if fact.archived else archived.discard)(fact.release)
        elif fact.release is None:
            aliases.pop(fact.alias, None)
        else:
            aliases[fact.alias] = fact.release
    claims = [fact for fact in own if isinstance(fact, AliasFact)]
    return State(
        home=home,
        turn=max((fact.turn for fact in own), default=0),
        runs=runs,
        numbers=_numbers(claims),
        created={fact.release: fact.time for fact in reversed(claims) if fact.release},
        aliases=aliases,
        archived=frozenset(archived),
    )


def merged(run: RunFact, later: RunFact) -> RunFact:
    """Return two facts of one run as one."""
    return msgspec.structs.replace(
        later,
        params={**run.params, **later.params},
        metrics={**run.metrics, **later.metrics},
        tags={**run.tags, **later.tags},
        files={**run.files, **later.files},
        data=tuple(dict.fromkeys((*run.data, *later.data))),
        has_bundle=run.has_bundle or later.has_bundle,
    )


def unknown(run: RunFact | None, fact: RunFact) -> RunFact:
    """Return what a fact adds to a run."""
    if run is None:
        return fact
    return msgspec.structs.replace(
        fact,
        params=_fresh(run.params, fact.params),
        metrics=_fresh(run.metrics, fact.metrics),
        tags=_fresh(run.tags, fact.tags),
        files=_fresh(run.files, fact.files),
        data=tuple(each for each in fact.data if each not in run.data),
        has_bundle=fact.has_bundle and not run.has_bundle,
    )


def is_empty(fact: RunFact) -> bool:
    """Return whether a fact says nothing but that the release has a run."""
    return not any((fact.params, fact.metrics, fact.tags, fact.files, fact.data, fact.has_bundle))


def _fresh(known: Mapping[str, _Value], new: Mapping[str, _Value]) -> dict[str, _Value]:
    return {key: value for key, value in new.items() if known.get(key) != value}


def _numbers(claims: Iterable[AliasFact]) -> dict[Digest, int]:
    """Return the version of each release, in the order of their first facts.

    Two releases that were registered at once have claimed one number: the first keeps it, and the
    other one gets the next number that nobody has claimed. So no version is renumbered when a fact
    is seen late, but for the other one.
    """
    first: dict[Digest, int] = {}
    for fact in claims:
        if fact.release is not None:
            first.setdefault(fact.release, fact.number)
    numbers: dict[Digest, int] = {}
    for release, number in first.items():
        if number > 0 and number not in numbers.values():
            numbers[release] = number
    for release in first:
        if release not in numbers:
            numbers[release] = max(numbers.values(), default=0) + 1
    return numbers
