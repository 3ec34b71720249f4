"""promote: the challenger becomes champion; route, alias and archive move as one."""

from mlship.domain import checks, gates
from mlship.domain.deployment import slot_of
from mlship.domain.evidence import Record, Transition
from mlship.domain.facts import Aliased, Archived, Crowned, GatePassed
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import ConflictError, RefusedError
from mlship.steps import drift
from mlship.steps.drift import OnDrift
from mlship.steps.pipeline import PRODUCTION, Pipeline
from mlship.steps.transition import SubStep, carry_out, changing, ready, set_route


def chosen(pipeline: Pipeline, reference: str | None, records: Records) -> Release:
    """Return the release to promote.

    Right after a promotion, `challenger` still means the release that was promoted, so that the
    same command can be retried after a crash.

    Raises:
        NotFoundError: there is none.
    """
    history = records.history
    last = history.last.evidence if history.last else None
    if (reference, history.challenger) == ("challenger", None) and last and last.step == "promote":
        return last.release
    return pipeline.release(reference, records)


def promote(
    pipeline: Pipeline,
    release: Release,
    expected: Records | None = None,
    *,
    on_drift: OnDrift = "refuse",
) -> Record:
    """Make a release champion. The old champion keeps running, for a rollback.

    Sub-steps: gate, capacity, route, alias, archive. After a kill at any point, the next run
    completes it.

    Args:
        pipeline: the project.
        release: the challenger, or a release on standby.
        expected: the records read when the release was chosen; by default the ledger is read now.
        on_drift: what to do if production is not as recorded, also if the release is champion
            already.

    Raises:
        RefusedError: the gate did not pass, or production is not as recorded; the message has each
            reason.
        ConflictError: another process is changing production, or has changed it since the start;
            or the release is not a challenger.
        TimedOutError: the missing replicas did not become ready; the route is unchanged.
    """
    with changing(pipeline, expected) as (fenced, found):
        records = drift.settle(fenced, found, on_drift)
        history = records.history
        role = history.role(release)
        if role == "champion":
            drift.check(fenced, records, on_drift)
            fenced.progress.note(f"{release} is already champion")
            return _crowning(release, records)
        if role not in ("challenger", "standby"):
            challenger = f"; {history.challenger} is" if history.challenger else ""
            raise ConflictError(
                f"{release} is not a challenger{challenger}",
                hint="deploy it with `mlship deploy-production`, or name the challenger",
            )
        return _promote(fenced, release, records, on_drift)


def _crowning(release: Release, records: Records) -> Record:
    steps: tuple[Transition, ...] = ("promote", "rollback", "deploy-production")
    for step in steps:
        record = records.latest(step, release)
        if record is not None:
            return record
    raise ConflictError(
        f"the ledger has no record of how {release} became champion", hint="run `mlship status`"
    )


def _promote(pipeline: Pipeline, release: Release, records: Records, on_drift: OnDrift) -> Record:
    target, config = pipeline.target(PRODUCTION), pipeline.target_config(PRODUCTION)
    history = records.history
    old = history.champion

    def gate() -> GatePassed:
        decision = gates.for_promotion(
            release,
            records,
            history,
            pipeline.config.gates.promote,
            pipeline.clock(),
            pipeline.container_test(PRODUCTION),
        )
        if decision.verdict != "passed":
            raise RefusedError(
                f"{release} is not promoted: {checks.joined(decision.failed)}",
                hint="run `mlship evaluate` and `mlship approve`, then `mlship promote` again",
            )
        drift.check(pipeline, records, on_drift)
        return GatePassed(checks=decision.checks)

    def alias() -> Aliased:
        pipeline.store.point("champion", release)
        if history.challenger == release:
            pipeline.store.point("challenger", None)
        return Aliased(alias="champion")

    def archive() -> Archived:
        if old:
            pipeline.store.archive(old, archived=True)
        return Archived(archived=str(old) if old else None)

    # A recorded gate counts only if the route has moved already; otherwise it may be out of date.
    moved = target.routes().split.share(slot_of(release)) == 100
    substeps = [
        SubStep("promote/gate", gate, once=moved),
        SubStep("promote/capacity", lambda: ready(pipeline, release, config.replicas, records)),
        SubStep("promote/route", lambda: set_route(target, {release: 100})),
        SubStep("promote/alias", alias),
        SubStep("promote/archive", archive),
    ]
    facts = Crowned(old=str(old) if old else None, new=str(release))
    return carry_out(pipeline, release, "promote", substeps, lambda: facts, records)
