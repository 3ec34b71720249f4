"""rollback: the former champion gets its traffic, alias and place back. Nothing is built."""

from mlship.domain.evidence import Record
from mlship.domain.facts import Aliased, Crowned, Restored
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import NotFoundError
from mlship.steps.pipeline import PRODUCTION, Pipeline
from mlship.steps.transition import SubStep, carry_out, changing, ready, set_route


def rollback(pipeline: Pipeline, to: Release | None = None, seen: Records | None = None) -> Record:
    """Make the former champion champion again; what was champion stays, without traffic.

    Sub-steps: capacity, route, alias, archive. The route moves before the names in the registry,
    as in a promotion: users come first.

    Args:
        pipeline: the project.
        to: the release that is meant to be champion afterwards. By default the champion before
            this one; right after a rollback that changes nothing, so name one to go further back.
        seen: what was read when the release was chosen; by default the ledger is read now.

    Raises:
        NotFoundError: there is no former champion that still runs, or `to` is not it.
        ConflictError: another process changes production, or has since this one began.
    """
    with changing(pipeline, seen) as records:
        history = records.history
        last = history.last
        if last and last.evidence.step == "rollback" and to in (None, history.champion):
            pipeline.progress.note(f"{history.champion} is already champion again")
            return last
        former = history.former[-1] if history.former else None
        if former is None or to not in (None, former):
            raise NotFoundError(
                f"no former champion{f' {to}' if to else ''} is running to roll back to",
                hint="`mlship status` lists what runs; `mlship traffic challenger=0` or "
                "`mlship retire challenger` takes a challenger out",
            )
        return _rollback(pipeline, former, records)


def _rollback(pipeline: Pipeline, former: Release, records: Records) -> Record:
    target, config = pipeline.target(PRODUCTION), pipeline.target_config(PRODUCTION)
    fallen, challenger = records.history.champion, records.history.challenger

    def alias() -> Aliased:
        pipeline.store.point("champion", former)
        if challenger is None:
            pipeline.store.point("challenger", fallen)
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
    facts = Crowned(old=str(fallen) if fallen else None, new=str(former))
    return carry_out(pipeline, former, "rollback", substeps, lambda: facts, records)
