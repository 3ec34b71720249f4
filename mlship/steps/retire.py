"""retire: take a release that is not champion out of production and archive it."""

from contextlib import suppress
from datetime import timedelta
from typing import Final

from mlship.domain import shapes
from mlship.domain.clusters import Clustered
from mlship.domain.deployment import Role, slot_of
from mlship.domain.drift import ABSENT
from mlship.domain.evidence import Record
from mlship.domain.facts import Aliased, Archived, Removed, Retired, Routed
from mlship.domain.history import History
from mlship.domain.ports import Target
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import MlshipError, NotFoundError, RefusedError, UnavailableError
from mlship.steps.pipeline import PRODUCTION, Pipeline
from mlship.steps.spooled import WAIT_SECONDS, check_delivered
from mlship.steps.transition import SubStep, carry_out, changing, recorded, set_route

_FORMER: Final[Role] = "former champion"


def retire(
    pipeline: Pipeline,
    release: Release | None = None,
    expected: Records | None = None,
    *,
    early: bool = False,
    lose_spooled: bool = False,
) -> Record:
    """Drain and stop a release; its traffic goes to the champion.

    Args:
        pipeline: the project.
        release: a challenger, a former champion or a release on standby; or one that is not in
            production, but whose slot was left there. By default the oldest former champion; right
            after a retirement, the default changes nothing.
        expected: the records read when the release was chosen; by default the ledger is read now.
        early: do not keep a former champion for `warm_minutes`.
        lose_spooled: also if predictions in its pods are not in the database yet.

    Raises:
        NotFoundError: it does not run in production.
        RefusedError: it is the champion, or `warm_minutes` have not passed, or predictions would be
            lost with its pods.
        UnavailableError: the database does not say whether they would, or the cluster of the
            release does not answer. Nothing was changed.
        ConflictError: another process is changing production, or has changed it since the start.
    """
    with changing(pipeline, expected) as (fenced, records):
        history = records.history
        if release is None:
            last = history.last
            if last and _was_former_champion(last):
                fenced.progress.note(f"{last.evidence.release} is already retired")
                return last
            if not history.former:
                raise NotFoundError(
                    "no former champion is running",
                    hint="name a release: `mlship retire challenger`",
                )
            release = history.former[0]
        role = history.role(release)
        is_left = role in ABSENT and _is_left(fenced, release, records)
        if role == "retired" and not is_left:
            record = records.latest("retire", release)
            if record is not None:
                fenced.progress.note(f"{release} is already retired")
                return record
        if not is_left:
            _check(fenced, release, history, early=early)
        _check_answers(fenced, release)
        if not lose_spooled:
            check_delivered(fenced, release)
        return _retire(fenced, release, records, lose_spooled=lose_spooled)


def _is_left(pipeline: Pipeline, release: Release, records: Records) -> bool:
    """Return whether a slot is there, or its retirement was interrupted, although no role is."""
    begun = bool(recorded("retire", release, records))
    return begun or slot_of(release) in pipeline.target(PRODUCTION).inspect()


def _was_former_champion(last: Record) -> bool:
    return last.evidence.step == "retire" and shapes.of(last, Retired).role == _FORMER


def _check(pipeline: Pipeline, release: Release, history: History, *, early: bool) -> None:
    role = history.role(release)
    if role == "champion":
        raise RefusedError(
            f"{release} is champion",
            hint="promote another release or run `mlship rollback` first",
        )
    if not role:
        raise NotFoundError(
            f"{release} is not running in production", hint="`mlship status` lists what runs"
        )
    if role == _FORMER and not early:
        warm = timedelta(minutes=pipeline.target_config(PRODUCTION).warm_minutes)
        ends = [reign.until for reign in history.reigns if reign.release == release and reign.until]
        until = max(ends) + warm if ends else pipeline.clock()
        if until > pipeline.clock():
            raise RefusedError(
                f"{release} is kept for a rollback until {until:%Y-%m-%d %H:%M} UTC",
                hint="wait until then, or use --early",
            )


def _check_answers(pipeline: Pipeline, release: Release) -> None:
    """Check that the cluster of a release answers, before its alias and its traffic are gone."""
    target, slot = pipeline.target(PRODUCTION), slot_of(release)
    for cluster in target.clusters() if isinstance(target, Clustered) else ():
        if cluster.fault and slot in cluster.slots:
            message = f"cluster {cluster.name}, where {release} runs: {cluster.fault}"
            hint = "repeat it when the cluster answers; or, if it is gone for good, remove it from "
            raise UnavailableError(message, hint=f"{hint}mlship.yaml, then retire the release")


def _retire(
    pipeline: Pipeline, release: Release, records: Records, *, lose_spooled: bool
) -> Record:
    target = pipeline.target(PRODUCTION)
    history = records.history
    is_left = history.role(release) in ABSENT

    def alias() -> Aliased:
        # A deployment that was cut off may have set it for a release that is no challenger.
        if history.challenger == release or (is_left and history.challenger is None):
            pipeline.store.point("challenger", None)
        return Aliased()

    def remove() -> Removed:
        if not lose_spooled:
            # Its last requests may have been spooled since.
            check_delivered(pipeline, release, WAIT_SECONDS)
        target.remove(slot_of(release))
        return Removed(slot=slot_of(release))

    def archive() -> Archived:
        # Its deployment may have been cut off before it had a version.
        if not is_left or release.id in {found.release for found in pipeline.store.versions()}:
            pipeline.store.archive(release, archived=True)
        return Archived(archived=str(release))

    substeps = [
        SubStep("retire/route", lambda: _without(target, release, history)),
        SubStep("retire/alias", alias),
        SubStep("retire/remove", remove),
        SubStep("retire/archive", archive),
    ]
    facts = Retired(role=history.role(release))
    record = carry_out(pipeline, release, "retire", substeps, lambda: facts, records)
    _note_empty_clusters(pipeline, target)
    return record


def _without(target: Target, release: Release, history: History) -> Routed:
    """Give the traffic of a release, and of copies, to the champion."""
    split, slot = target.routes().split, slot_of(release)
    if history.champion and (split.share(slot) or split.shadow == slot):
        remaining = {
            running: split.share(slot_of(running))
            for running in (history.challenger, *history.standby)
            if running and running != release
        }
        return set_route(target, {history.champion: 100 - sum(remaining.values()), **remaining})
    return Routed(weights=split.weights, shadow=split.shadow)


def _note_empty_clusters(pipeline: Pipeline, target: Target) -> None:
    """Report clusters in which nothing runs any more; mlship itself deletes none."""
    if not isinstance(target, Clustered):
        return
    with suppress(MlshipError):  # the release is retired, whatever can be seen now
        for cluster in target.clusters():
            if cluster.slots or cluster.fault:
                continue
            text = f"cluster {cluster.name} ({cluster.place}) runs no release"
            if cluster.is_parent:
                pipeline.progress.note(f"{text}, but the load balancer: keep it")
            else:
                text += ": it may be scaled down, or kept for the next challenger"
                pipeline.progress.note(f"{text}; see `{cluster.command}`")
