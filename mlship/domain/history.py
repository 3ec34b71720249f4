"""The state of production in the ledger: a fold over evidence, never a field that is set."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property

import msgspec

from mlship.domain import shapes
from mlship.domain.commit import Commit
from mlship.domain.deployment import Role, slot_of
from mlship.domain.digests import Digest
from mlship.domain.evidence import TRANSITIONS, Record, Step
from mlship.domain.facts import Deployed, Routed, Trained, Waiting
from mlship.domain.inputs import Inputs, made, matches
from mlship.domain.override import Overridden, Weighted
from mlship.domain.release import Release


class Reign(msgspec.Struct, frozen=True, kw_only=True):
    """A period in which one release was champion; `until` is `None` for the current one."""

    release: Release
    since: datetime
    until: datetime | None
    by: Step


class History(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The roles in production, and their history.

    Attributes:
        former: former champions that still run, the latest last; a rollback restores the last one.
        standby: releases that were rolled back while another challenger ran.
        retired: releases that were retired and not deployed again since.
        waiting: releases that wait until there is no challenger, the next one first.
        challenger_by: the step that made it challenger: a `rollback` deposed it.
        challenger_since: when the challenger was deployed; earlier outcomes do not count.
        last: the record of the last transition; it distinguishes two promotions of a release.
    """

    champion: Release | None = None
    challenger: Release | None = None
    former: tuple[Release, ...] = ()
    standby: tuple[Release, ...] = ()
    retired: tuple[Release, ...] = ()
    waiting: tuple[Release, ...] = ()
    challenger_by: Step | None = None
    challenger_since: datetime | None = None
    reigns: tuple[Reign, ...] = ()
    last: Record | None = None

    @property
    def players(self) -> tuple[Release, ...]:
        """The champion and the challenger, as far as there are such."""
        return tuple(each for each in (self.champion, self.challenger) if each)

    @cached_property
    def roles(self) -> dict[Digest, Role]:
        """The role of each release that has one, by its id."""
        groups: tuple[tuple[Role, tuple[Release | None, ...]], ...] = (
            ("retired", self.retired),
            ("standby", self.standby),
            ("former champion", self.former),
            ("challenger", (self.challenger,)),
            ("champion", (self.champion,)),
        )
        return {release.id: role for role, group in groups for release in group if release}

    def role(self, release: Release | Digest) -> Role:
        """Return the role of a release or of its id; empty if it has none."""
        return self.roles.get(release if isinstance(release, str) else release.id, "")


def fold(records: Iterable[Record]) -> History:
    """Return the roles after all records, oldest first."""
    history = History()
    for record in records:
        evidence = record.evidence
        if evidence.step in TRANSITIONS and evidence.verdict == "passed":
            history = msgspec.structs.replace(_after(history, record), last=record)
        elif evidence.step == "await-production":
            history = msgspec.structs.replace(history, waiting=_waiting(history, record))
    return history


def _waiting(history: History, record: Record) -> tuple[Release, ...]:
    """Return who waits after a release began to: it takes the others' places, or is the last."""
    release = record.evidence.release
    if shapes.of(record, Waiting).policy == "wait":
        return (release,)
    return (*(other for other in history.waiting if other != release), release)


def releases(records: Iterable[Record]) -> list[Release]:
    """Return every release in the ledger, in the order of their first records."""
    return list(dict.fromkeys(record.evidence.release for record in records))


def made_from(
    records: Sequence[Record],
    commit: Commit,
    inputs: Inputs,
    current: Callable[[Iterable[str]], Mapping[str, Digest | None]],
) -> Release | None:
    """Return the release that was trained last from a tree and its inputs, if there is one.

    Args:
        records: of the ledger.
        commit: the tree.
        inputs: what is known of it without a training.
        current: gives the digests of files of the project as they are now.
    """
    now: dict[str, Digest | None] = {}
    for record in reversed(records):
        release = record.evidence.release
        if record.evidence.step == "train" and made(release, commit, inputs):
            opened = shapes.of(record, Trained).opened
            now.update(current([path for path in opened.read if path not in now]))
            if matches(release, opened, commit, inputs, now):
                return release
    return None


def latest(records: Iterable[Record], step: Step, release: Release | None = None) -> Record | None:
    """Return the last record of a step, for one release or for any."""
    last = None
    for record in records:
        if record.evidence.step == step and release in (None, record.evidence.release):
            last = record
    return last


def overridden(release: Release, records: Iterable[Record]) -> Overridden | None:
    """Return the override by which a release has more traffic than configured, if there is one.

    It ends with a split that gives the release no more than is configured then, or that the gate
    allowed, and with its promotion.
    """
    found: Overridden | None = None
    slot = slot_of(release)
    for record in records:
        evidence = record.evidence
        if evidence.step == "promote" and evidence.release == release:
            found = None
        if not issubclass(shapes.SHAPES[evidence.step], Routed):
            continue
        split = shapes.of(record, Routed).split
        if split is None:
            continue
        share = split.share(slot)
        facts = shapes.of(record, Weighted) if evidence.step == "traffic" else Weighted()
        if facts.override and evidence.release == release:
            found = Overridden(
                release=str(release),
                share=share,
                configured=facts.configured or 0,
                by=facts.override.by,
                why=facts.override.why,
                time=evidence.time,
            )
        elif found is not None:
            most = found.configured if facts.configured is None else facts.configured
            is_over = share <= most or bool(facts.checks)
            found = None if is_over else msgspec.structs.replace(found, share=share)
    return found


def _after(history: History, record: Record) -> History:
    evidence = record.evidence
    old, release = history.champion, evidence.release
    history = _without(history, release)
    if evidence.step == "retire":
        return msgspec.structs.replace(history, retired=(*history.retired, release))
    is_deployment = evidence.step == "deploy-production"
    if is_deployment and shapes.of(record, Deployed).role != "champion":
        displaced = (history.challenger,) if history.challenger else ()
        return msgspec.structs.replace(
            history,
            challenger=release,
            challenger_by=evidence.step,
            challenger_since=evidence.time,
            retired=(*history.retired, *displaced),
        )
    history = _crowned(history, record)
    if old is None or old == release:
        return history
    if evidence.step == "promote":
        return msgspec.structs.replace(history, former=(*history.former, old))
    if history.challenger is None:
        return msgspec.structs.replace(history, challenger=old, challenger_by=evidence.step)
    return msgspec.structs.replace(history, standby=(*history.standby, old))


def _crowned(history: History, record: Record) -> History:
    evidence = record.evidence
    reigns = history.reigns
    if reigns and reigns[-1].until is None:
        reigns = (*reigns[:-1], msgspec.structs.replace(reigns[-1], until=evidence.time))
    reign = Reign(release=evidence.release, since=evidence.time, until=None, by=evidence.step)
    return msgspec.structs.replace(history, champion=evidence.release, reigns=(*reigns, reign))


def _without(history: History, release: Release) -> History:
    """Remove a release from every role except champion, which ends only with a new champion."""

    def others(group: tuple[Release, ...]) -> tuple[Release, ...]:
        if release not in group:
            return group
        return tuple(member for member in group if member != release)

    return msgspec.structs.replace(
        history,
        challenger=None if history.challenger == release else history.challenger,
        waiting=others(history.waiting),
        former=others(history.former),
        standby=others(history.standby),
        retired=others(history.retired),
    )
