"""promote: the challenger becomes champion; route, alias and archive move as one."""

from functools import partial

from mlship.domain.deployment import Split, slot_of
from mlship.domain.evidence import Record, Transition
from mlship.domain.facts import Aliased, Archived, Crowned, GatePassed
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import ConflictError
from mlship.steps import drift, promotion
from mlship.steps.attest import renew_statement
from mlship.steps.drift import OnDrift
from mlship.steps.pipeline import PRODUCTION, Pipeline
from mlship.steps.transition import SubStep, carry_out, changing, ready, recorded, set_route


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
    number: int | None = None,
) -> Record:
    """Make a release champion. The old champion keeps running, for a rollback.

    Sub-steps: gate, capacity, route, alias, archive. After a kill at any point, the next run
    completes it. Before the gate, reviews are read again, and what they say is recorded.

    Args:
        pipeline: the project.
        release: the challenger, or a release on standby.
        expected: the records read when the release was chosen; by default the ledger is read now.
        on_drift: what to do if production is not as recorded, also if the release is champion
            already.
        number: the pull request with the reviews, see `mlship.steps.promotion`.

    Raises:
        RefusedError: the gate did not pass, or production is not as recorded; the message has each
            reason.
        ConflictError: another process is changing production, or has changed it since the start;
            or the release is not a challenger.
        TimedOutError: the missing replicas did not become ready; the route is unchanged.
        ConfigError, NotFoundError, UnavailableError: the reviews cannot be read, and are needed.
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
        return _promote(fenced, release, records, on_drift, number)


def _crowning(release: Release, records: Records) -> Record:
    steps: tuple[Transition, ...] = ("promote", "rollback", "deploy-production")
    for step in steps:
        record = records.latest(step, release)
        if record is not None:
            return record
    raise ConflictError(
        f"the ledger has no record of how {release} became champion", hint="run `mlship status`"
    )


def _promote(
    pipeline: Pipeline, release: Release, records: Records, on_drift: OnDrift, number: int | None
) -> Record:
    target, config = pipeline.target(PRODUCTION), pipeline.target_config(PRODUCTION)
    history = records.history
    old = history.champion
    gate: list[SubStep] = []
    # A recorded gate counts only if the route has moved already; otherwise it may be out of date.
    moved = _has_moved(target.routes().split, release, records)
    if not moved or "promote/gate" not in recorded("promote", release, records):
        answer = promotion.ask(pipeline, release, records, number)
        records = answer.records
        gate = [SubStep("promote/gate", partial(_gate, pipeline, release, answer, on_drift))]

    def alias() -> Aliased:
        pipeline.store.point("champion", release)
        if history.challenger == release:
            pipeline.store.point("challenger", None)
        return Aliased(alias="champion")

    def archive() -> Archived:
        if old:
            pipeline.store.archive(old, archived=True)
        return Archived(archived=str(old) if old else None)

    substeps = [
        *gate,
        SubStep("promote/capacity", lambda: ready(pipeline, release, config.replicas, records)),
        SubStep("promote/route", lambda: set_route(target, {release: 100})),
        SubStep("promote/alias", alias),
        SubStep("promote/archive", archive),
    ]
    facts = Crowned(old=str(old) if old else None, new=str(release))
    record = carry_out(pipeline, release, "promote", substeps, lambda: facts, records)
    renew_statement(pipeline, release, records.plus(record))
    return record


def _has_moved(split: Split, release: Release, records: Records) -> bool:
    """Return whether a promotion gave a release all traffic; a person may have, by `traffic`."""
    slot, last = slot_of(release), drift.split_record(records)
    by_hand = last is not None and last.evidence.step == "traffic"
    before = drift.recorded_split(records) if by_hand else None
    return split.share(slot) == 100 and (before is None or before.share(slot) != 100)


def _gate(
    pipeline: Pipeline, release: Release, answer: promotion.Answer, on_drift: OnDrift
) -> GatePassed:
    hint = "run `mlship evaluate` and `mlship approve`, then `mlship promote` again"
    answer.check(f"{release} is not promoted", hint)
    drift.check(pipeline, answer.records, on_drift)
    return GatePassed(checks=answer.decision.checks)
