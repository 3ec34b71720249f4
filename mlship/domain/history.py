"""What the ledger says of production: a fold over evidence, never a field that someone sets."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from mlship.domain.commit import Commit
from mlship.domain.digests import Digest
from mlship.domain.evidence import Evidence, Record
from mlship.domain.release import Release
from mlship.domain.scores import Inputs

TRANSITIONS = ("deploy-production", "promote", "rollback", "retire")
"""The steps that change who plays which role; each ends with one record of that name."""


class Reign(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which one release was champion; `until` is open for the one that still is."""

    release: Release
    since: datetime
    until: datetime | None
    by: str


class History(msgspec.Struct, frozen=True, kw_only=True):
    """Who plays which role in production, and how it came to be.

    Attributes:
        former: champions before this one that still run, the latest last: where a rollback goes.
        standby: releases that were rolled back while another challenger ran.
        retired: releases that were taken away and not deployed again since.
        challenger_since: when the challenger was deployed; outcomes count from there.
        last: the record of the last transition; it tells one promotion of a release from the next.
    """

    champion: Release | None = None
    challenger: Release | None = None
    former: tuple[Release, ...] = ()
    standby: tuple[Release, ...] = ()
    retired: tuple[Release, ...] = ()
    challenger_since: datetime | None = None
    reigns: tuple[Reign, ...] = ()
    last: Record | None = None

    def role(self, release: Release | Digest) -> str:
        """Return the role of a release, by itself or its id; empty where it plays none."""
        wanted = release if isinstance(release, str) else release.id
        roles = {
            "champion": (self.champion,),
            "challenger": (self.challenger,),
            "former champion": self.former,
            "standby": self.standby,
            "retired": self.retired,
        }
        for role, players in roles.items():
            if any(player is not None and player.id == wanted for player in players):
                return role
        return ""


def fold(records: Iterable[Record]) -> History:
    """Return the roles after all records, oldest first."""
    history = History()
    for record in records:
        evidence = record.evidence
        if evidence.step in TRANSITIONS and evidence.verdict == "passed":
            history = msgspec.structs.replace(_after(history, evidence), last=record)
    return history


def releases(records: Iterable[Record]) -> list[Release]:
    """Return every release that the ledger knows, in the order of their first records."""
    return list(
        {record.evidence.release.id: record.evidence.release for record in records}.values()
    )


def made_from(records: Sequence[Record], commit: Commit, inputs: Inputs) -> Release | None:
    """Return the release that was trained last from a tree and its inputs, if there is one."""
    wanted = (commit.sha, commit.dirty, *msgspec.structs.astuple(inputs))
    for record in reversed(records):
        made = record.evidence.release
        found = (made.commit, made.dirty, made.data, made.params, made.code, made.environment)
        if record.evidence.step == "train" and found == wanted:
            return made
    return None


def latest(records: Iterable[Record], step: str, release: Release | None = None) -> Record | None:
    """Return the last record of a step, of one release or of any."""
    found = None
    for record in records:
        if record.evidence.step == step and release in (None, record.evidence.release):
            found = record
    return found


def _after(history: History, evidence: Evidence) -> History:
    old, release = history.champion, evidence.release
    history = _without(history, release)
    if evidence.step == "retire":
        return msgspec.structs.replace(history, retired=(*history.retired, release))
    if evidence.step == "deploy-production" and evidence.facts.get("role") != "champion":
        displaced = (history.challenger,) if history.challenger else ()
        return msgspec.structs.replace(
            history,
            challenger=release,
            challenger_since=evidence.time,
            retired=(*history.retired, *displaced),
        )
    history = _crowned(history, evidence)
    if old is None or old == release:
        return history
    if evidence.step == "promote":
        return msgspec.structs.replace(history, former=(*history.former, old))
    if history.challenger is None:
        return msgspec.structs.replace(history, challenger=old)
    return msgspec.structs.replace(history, standby=(*history.standby, old))


def _crowned(history: History, evidence: Evidence) -> History:
    ended = tuple(
        msgspec.structs.replace(reign, until=reign.until or evidence.time)
        for reign in history.reigns
    )
    reign = Reign(release=evidence.release, since=evidence.time, until=None, by=evidence.step)
    return msgspec.structs.replace(history, champion=evidence.release, reigns=(*ended, reign))


def _without(history: History, release: Release) -> History:
    """Take a release out of every role but the champion's, which only another one ends."""

    def others(players: tuple[Release, ...]) -> tuple[Release, ...]:
        return tuple(player for player in players if player != release)

    return msgspec.structs.replace(
        history,
        challenger=None if history.challenger == release else history.challenger,
        former=others(history.former),
        standby=others(history.standby),
        retired=others(history.retired),
    )
