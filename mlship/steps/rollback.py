"""rollback: give the former champion its traffic and alias back. Nothing is built."""

from mlship.domain.evidence import Record
from mlship.domain.facts import Aliased, Crowned, Restored
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import NotFoundError
from mlship.steps.pipeline import PRODUCTION, Pipeline
from mlship.steps.transition import SubStep, carry_out, changing, ready, set_route


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
    with changing(pipeline, expected) as records:
        history = records.history
        last = history.last
        if last and last.evidence.step == "rollback" and to in (None, history.champion):
            pipeline.progress.note(f"{history.champion} is already champion again")
            return last
        former = history.former[-1] if history.former else None
        if former is None or to not in (None, former):
            raise NotFoundError(
                f"cannot roll back: no former champion{f' {to}' if to else ''} is running",
                hint="`mlship status` lists what runs; to remove a challenger, run "
                "`mlship traffic challenger=0` or `mlship retire challenger`",
            )
        return _rollback(pipeline, former, records)


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
