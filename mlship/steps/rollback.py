"""rollback: give the former champion its traffic and alias back. Nothing is built."""

import msgspec

from mlship.domain.deployment import slot_of
from mlship.domain.evidence import Record
from mlship.domain.facts import Aliased, Crowned, Restored
from mlship.domain.history import History
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import NotFoundError
from mlship.steps import drift
from mlship.steps.pipeline import PRODUCTION, Pipeline
from mlship.steps.transition import SubStep, carry_out, changing, ready, set_route


class Prospect(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollback would do.

    Attributes:
        champion: the release that would become champion; it may be it already.
        deposed: the one that would keep running without traffic; `None` if nothing would change.
        ready: replicas of the next champion that are ready.
        wanted: replicas that it gets.
        endpoint: the URL of production.
    """

    champion: str
    deposed: str | None
    ready: int
    wanted: int
    endpoint: str


def prospect(pipeline: Pipeline, to: Release | None, records: Records) -> Prospect:
    """Return what `rollback` would do now. Nothing is locked, changed or recorded.

    Raises:
        NotFoundError: as `rollback`.
    """
    history = records.history
    is_done = _is_done(history, to)
    champion = history.champion if is_done else _former(history, to)
    target = pipeline.target(PRODUCTION)
    running = target.inspect().get(slot_of(champion)) if champion else None
    return Prospect(
        champion=str(champion),
        deposed=None if is_done else str(history.champion),
        ready=running.ready if running else 0,
        wanted=pipeline.target_config(PRODUCTION).replicas,
        endpoint=target.routes().endpoint,
    )


def rollback(
    pipeline: Pipeline, to: Release | None = None, expected: Records | None = None
) -> Record:
    """Make the former champion the champion again; the current one keeps running without traffic.

    Sub-steps: capacity, route, alias, archive. As in a promotion, the route changes before the
    aliases in the registry, because users depend on it.

    Args:
        pipeline: the project.
        to: the release to make champion. By default the previous champion; right after a rollback,
            the default changes nothing.
        expected: the records read when the release was chosen; by default the ledger is read now.

    Raises:
        NotFoundError: no former champion is running, or it is not `to`.
        ConflictError: another process is changing production, or has changed it since the start.
    """
    with changing(pipeline, expected) as (fenced, records):
        history = records.history
        if history.last and _is_done(history, to):
            fenced.progress.note(f"{history.champion} is already champion again")
            drift.restore_split(fenced, records)
            return history.last
        return _rollback(fenced, _former(history, to), records)


def _is_done(history: History, to: Release | None) -> bool:
    """Return whether the last transition was this rollback."""
    last = history.last
    is_rollback = last is not None and last.evidence.step == "rollback"
    return is_rollback and to in (None, history.champion)


def _former(history: History, to: Release | None) -> Release:
    """Return the release to go back to.

    Raises:
        NotFoundError: no former champion is running, or it is not `to`.
    """
    former = history.former[-1] if history.former else None
    if former is None or to not in (None, former):
        raise NotFoundError(
            f"cannot roll back: no former champion{f' {to}' if to else ''} is running",
            hint="`mlship status` lists what runs; to remove a challenger, run "
            "`mlship traffic challenger=0` or `mlship retire challenger`",
        )
    return former


def _rollback(pipeline: Pipeline, former: Release, records: Records) -> Record:
    target, config = pipeline.target(PRODUCTION), pipeline.target_config(PRODUCTION)
    deposed, challenger = records.history.champion, records.history.challenger

    def alias() -> Aliased:
        pipeline.store.point("champion", former)
        if challenger is None:
            pipeline.store.point("challenger", deposed)
        return Aliased(alias="champion")

    def archive() -> Restored:
        pipeline.store.archive(former, archived=False)
        return Restored(restored=str(former))

    substeps = [
        SubStep("rollback/capacity", lambda: ready(pipeline, former, config.replicas, records)),
        SubStep("rollback/route", lambda: set_route(target, {former: 100})),
        SubStep("rollback/alias", alias),
        SubStep("rollback/archive", archive),
    ]
    facts = Crowned(old=str(deposed) if deposed else None, new=str(former))
    return carry_out(pipeline, former, "rollback", substeps, lambda: facts, records)
