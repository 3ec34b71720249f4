"""Drift of production: what is refused because of it, undone, or accepted."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from mlship.domain import drift, shapes
from mlship.domain.deployment import Slot, Split, slot_of
from mlship.domain.drift import Altered, Guarded
from mlship.domain.evidence import Record
from mlship.domain.facts import Drifted, Routed
from mlship.domain.override import Override, Weighted
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import ConflictError, IntegrityError, RefusedError
from mlship.steps.pipeline import PRODUCTION, Pipeline
from mlship.steps.transition import ready

OnDrift = Literal["refuse", "reconcile", "adopt"]
"""What a promotion does about drift."""

_HINT = "`--reconcile` makes production as recorded, `--adopt` records it as it is; see "
_GUIDE = "`mlship guide when-it-fails`"


class Found(NamedTuple):
    """The drift of production that somebody made; see `mlship.domain.drift` for the lines.

    Attributes:
        altered: objects.
        split: differences of the traffic split.
        slots: releases that do not run, or run and should not, or get traffic and should not.
        aliases: in the store.
        missing: slots that do not exist, and should.
        is_readable: whether the route can be read.
    """

    altered: Sequence[Altered] = ()
    split: Sequence[str] = ()
    slots: Sequence[str] = ()
    aliases: Sequence[str] = ()
    missing: frozenset[Slot] = frozenset()
    is_readable: bool = True

    @property
    def lines(self) -> tuple[str, ...]:
        """Every difference in one line."""
        return (*map(str, self.altered), *self.split, *self.slots, *self.aliases)

    @property
    def lasting(self) -> tuple[str, ...]:
        """The differences that nobody may accept."""
        return (*(str(each) for each in self.altered if not each.is_adoptable), *self.slots)


def recorded_split(records: Records) -> Split | None:
    """Return the last recorded split; after a kill, the route may have a later one."""
    record = split_record(records)
    return None if record is None else shapes.of(record, Routed).split


def split_record(records: Records) -> Record | None:
    """Return the record of the last recorded split."""
    for record in reversed(records):
        facts = shapes.read(record)
        if isinstance(facts, Routed) and facts.split is not None:
            return record
    return None


def undone(records: Records, challenger: Release) -> Record | None:
    """Return the decision of `watch` to take a challenger off that was not carried out.

    A split that was recorded after it has carried it out, or is a later decision of a person.
    """
    for record in reversed(records):
        if record.evidence.release == challenger and record.evidence.step == "watch":
            return record if record.evidence.verdict == "failed" else None
        if isinstance(shapes.read(record), Routed):
            return None
    return None


def due_split(records: Records) -> Split | None:
    """Return the split that production should have.

    It is the last recorded one, without the challenger if a decision of `watch` to take it off was
    not carried out.
    """
    split, history = recorded_split(records), records.history
    champion, challenger = history.champion, history.challenger
    if split is None or champion is None or challenger is None:
        return split
    if undone(records, challenger) is None:
        return split
    return Split(weights={slot_of(champion): 100}, shadow=split.shadow)


def of_split(records: Records, observed: Split) -> list[str]:
    """Compare the traffic split with the ledger.

    While a decision of `watch` is being carried out, or after a kill in it, neither the split
    before nor the one after it is drift.
    """
    if observed == due_split(records):
        return []
    return drift.of_split(records.history, recorded_split(records), observed)


def find(pipeline: Pipeline, records: Records) -> Found:
    """Return the drift of production. Clusters that do not answer are left out; nothing is changed.

    Raises:
        UnavailableError: the target, or the store, does not answer.
    """
    target, history = pipeline.target(PRODUCTION), records.history
    altered = tuple(target.altered()) if isinstance(target, Guarded) else ()
    aliases = tuple(drift.of_aliases(history, pipeline.store.versions()))
    try:
        deployments, route = target.inspect(), target.routes()
    except IntegrityError:
        return Found(altered=altered, aliases=aliases, is_readable=False)
    expected = {slot_of(each) for each in (history.champion, history.challenger) if each}
    return Found(
        altered=altered,
        split=tuple(of_split(records, route.split)),
        slots=tuple(
            drift.of_slots(history, deployments, route, records.releases, due_split(records))
        ),
        aliases=aliases,
        missing=frozenset(expected - set(deployments)),
    )


def check(pipeline: Pipeline, records: Records, on_drift: OnDrift) -> None:
    """Refuse to go on from a state that nobody recorded.

    Raises:
        RefusedError: there is drift; the message has each difference. Aliases that were adopted
            are none: the promotion sets them.
    """
    found = find(pipeline, records)
    lines = found._replace(aliases=()).lines if on_drift == "adopt" else found.lines
    if lines:
        message = f"production is not as recorded: {'; '.join(lines)}"
        raise RefusedError(message, hint=f"{_HINT}{_GUIDE}")


def settle(pipeline: Pipeline, records: Records, on_drift: OnDrift) -> Records:
    """Undo or accept the drift of production, and record it; the caller holds its lock.

    Raises:
        as `reconcile` and `adopt`.
    """
    if on_drift == "refuse":
        return records
    found = find(pipeline, records)
    if not found.lines:
        return records
    act = reconcile if on_drift == "reconcile" else adopt
    return act(pipeline, records, found)


def restore_split(pipeline: Pipeline, records: Records) -> None:
    """Write the split that is due, if the route has drifted; the caller holds the lock.

    Raises:
        IntegrityError: the route cannot be read, nor written over.
    """
    target, split = pipeline.target(PRODUCTION), due_split(records)
    if split is None:
        return
    try:
        route = target.routes()
    except IntegrityError as error:
        if not isinstance(target, Guarded):
            raise
        pipeline.progress.note(f"writing the route as recorded: {error}")
        target.rewrite(split)
        return
    lines = of_split(records, route.split)
    if lines:
        pipeline.progress.note(f"writing the route as recorded: {'; '.join(lines)}")
        target.route(split, expected=route.revision)


def reconcile(pipeline: Pipeline, records: Records, found: Found) -> Records:
    """Make production as recorded: slots, route and aliases.

    Raises:
        ConflictError: some drift is left.
        TimedOutError: a release did not become ready.
    """
    target, history = pipeline.target(PRODUCTION), records.history
    split = due_split(records)
    if not found.is_readable and split is not None and isinstance(target, Guarded):
        target.rewrite(split)
    _redeploy(pipeline, records, found)
    if split is not None:
        # Also if it is the recorded one: somebody may have edited what it is written in.
        target.route(split, expected=target.routes().revision)
    for slot, deployment in target.inspect().items():
        if history.role(deployment.release) in drift.ABSENT:
            target.remove(slot)
    if found.aliases:
        for alias, release in drift.roles(history).items():
            pipeline.store.point(alias, release)
    records = _recorded(pipeline, records, "reconcile", found)
    left = find(pipeline, records).lines
    if left:
        message = f"production is still not as recorded: {'; '.join(left)}"
        raise ConflictError(message, hint="something else writes there: find it, then run it again")
    return records


def adopt(pipeline: Pipeline, records: Records, found: Found) -> Records:
    """Record production as it is: objects and split. Aliases are left to the promotion.

    Raises:
        RefusedError: something cannot be accepted, because it was never tested; nothing is changed.
    """
    if not found.is_readable or found.lasting:
        message = f"this cannot be accepted: {'; '.join(found.lasting)}"
        hint = "use --reconcile; or change the project, and release it from a commit"
        raise RefusedError(message, hint=hint)
    target = pipeline.target(PRODUCTION)
    if isinstance(target, Guarded):
        target.adopt()
    route = target.routes()
    # Written anew as mlship writes it, with the weights that it has.
    target.route(route.split, expected=route.revision)
    if found.split:
        records = records.plus(_adopted(pipeline, records, route.split))
    return _recorded(pipeline, records, "adopt", found)


def _adopted(pipeline: Pipeline, records: Records, split: Split) -> Record:
    """Record a split that somebody made by hand; more than configured, that is an override."""
    configured = pipeline.target_config(PRODUCTION).challenger_weight
    challenger, before = records.history.challenger, recorded_split(records) or split
    slot = slot_of(challenger) if challenger else None
    override = None
    if slot is not None and split.share(slot) > max(configured, before.share(slot)):
        override = Override(by=pipeline.actor, why="adopted: the split was changed by hand")
    facts = Weighted(
        weights=split.weights, shadow=split.shadow, configured=configured, override=override
    )
    subject = challenger or _subject(records)
    return pipeline.learn(subject, "traffic", "passed", facts, after=records)


def _redeploy(pipeline: Pipeline, records: Records, found: Found) -> None:
    """Write the slots anew that were changed, with the replicas of their roles."""
    config, challenger = pipeline.target_config(PRODUCTION), records.history.challenger
    for release in _concerned(records, found):
        count = config.challenger_replicas if release == challenger else config.replicas
        ready(pipeline, release, count, records)


def _concerned(records: Records, found: Found) -> list[Release]:
    """Return the releases whose slots are to be written anew, the champion first."""
    history = records.history
    slots = {each.slot for each in found.altered} | found.missing
    running = (history.champion, history.challenger, *history.former, *history.standby)
    known = [release for release in running if release is not None]
    own = {slot_of(release) for release in known}
    concerned = [release for release in known if slot_of(release) in slots]
    if history.champion and history.champion not in concerned and slots - own - {None}:
        # The load balancer, which each deployment writes.
        concerned.insert(0, history.champion)
    return concerned


def _recorded(
    pipeline: Pipeline, records: Records, step: Literal["reconcile", "adopt"], found: Found
) -> Records:
    facts = Drifted(differences=found.lines)
    subject = _subject(records)
    return records.plus(pipeline.learn(subject, step, "passed", facts, after=records))


def _subject(records: Records) -> Release:
    """Return the release that a record about all of production is attached to.

    Raises:
        ConflictError: no release is in production.
    """
    history = records.history
    subject = history.champion or history.challenger
    if subject is None:
        raise ConflictError("no release is in production", hint="run `mlship deploy-production`")
    return subject
