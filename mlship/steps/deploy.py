"""deploy-staging and deploy-production: run a release in a target and route traffic to it."""

from functools import partial
from typing import Final, Literal

import msgspec

from mlship.config.project import TargetConfig
from mlship.domain import checks, gates, shapes
from mlship.domain.checks import Check
from mlship.domain.deployment import slot_of
from mlship.domain.evidence import Record, Saw
from mlship.domain.facts import Aliased, Deployed, Displaced, Routed, Staged, Waiting
from mlship.domain.history import History
from mlship.domain.policy import Occupied
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.domain.versions import Alias
from mlship.errors import NotFoundError, RefusedError
from mlship.steps import compatibility
from mlship.steps.api_keys import openness
from mlship.steps.generation import check_generation, later
from mlship.steps.pipeline import PRODUCTION, STAGING, Pipeline
from mlship.steps.restore import restored
from mlship.steps.spooled import check_delivered
from mlship.steps.transition import SubStep, carry_out, changing, ready, recorded, set_route
from mlship.steps.verify_image import check_image

LOST: Final = "predictions in production are lost when its pods stop, and nothing can be evaluated"
INCOMPATIBLE: Final = (
    "keep the champion's inputs and outputs, or accept the errors with `gates.compatible: false`; "
    "if it is another problem, give the project another `name` in mlship.yaml"
)
SAME: Final = (
    "its commit changed nothing that the model is made of, and an evaluation will find no "
    "difference; to take it back, run `mlship retire challenger`"
)
KEEP: Final = "set observations.url to a PostgreSQL database; see `mlship guide predictions`"


def deploy_staging(pipeline: Pipeline, release: Release, *, older: bool = False) -> Record:
    """Run a release in staging with all traffic; the release that ran there before is removed.

    Args:
        pipeline: the project.
        release: the release to run.
        older: deploy it although a later release was deployed since.

    Raises:
        RefusedError: a later release was deployed since, or its image could not be verified.
        TimedOutError: it did not become ready; traffic still goes to the earlier release.
        ConflictError: another process is changing staging.
    """
    config = pipeline.target_config(STAGING)
    started = pipeline.clock()
    with pipeline.locks.exclusive(STAGING) as fence:
        pipeline = pipeline.under(STAGING, fence)
        target = pipeline.target(STAGING)
        records, slot = pipeline.read(), slot_of(release)
        check_generation(pipeline, release, STAGING, records, older=older)
        artifact = pipeline.artifact(release, STAGING, records)
        check_image(pipeline, release, STAGING, records)
        deployment = target.deploy(release, artifact, slot, replicas=config.replicas)
        set_route(target, {release: 100})
        for running in target.inspect():
            if running != slot:
                target.remove(running)
        facts = Staged(
            target=STAGING,
            endpoint=target.routes().endpoint,
            replicas=deployment.ready,
            seconds=round((pipeline.clock() - started).total_seconds(), 3),
        )
        last = records.latest("deploy-staging")
        if last and last.evidence.release == release and _is_same(facts, last):
            return last
        saw = Saw(artifact=deployment.artifact)
        return pipeline.learn(release, "deploy-staging", "passed", facts, saw, after=records)


def _is_same(facts: Staged, last: Record) -> bool:
    """Return whether a deployment had the same result as the last one, apart from its duration."""
    before = shapes.of(last, Staged)
    return msgspec.structs.replace(before, seconds=facts.seconds) == facts


def deploy_production(
    pipeline: Pipeline,
    release: Release,
    expected: Records | None = None,
    *,
    occupied: Occupied = "refuse",
    older: bool = False,
) -> Record:
    """Run a release in production as challenger; the first release becomes champion.

    A challenger that a rollback deposed, and that gets no traffic since, gives way by itself.

    Args:
        pipeline: the project.
        release: the release to run. It must come from a clean tree and have passed its tests and
            staging; if production runs images, also the container test.
        expected: the records read when the release was chosen; by default the ledger is read now.
        occupied: what to do while another challenger runs: refuse; replace it, which discards its
            outcomes; or let the release wait for the place, see `deploy_next`.
        older: deploy it although a later release was deployed since.

    Returns:
        The evidence `deploy-production`, or `await-production` if the release waits. Of a release
        that is in production, nothing is recorded: it is the evidence of how it came there.

    Raises:
        RefusedError: the release is not fit for production, another challenger runs, or a later
            release was deployed since.
        NotFoundError: the champion does not run here.
        TimedOutError: it did not become ready; the champion is unchanged.
        ConflictError: another process is changing production, or has changed it since the start.
    """
    if pipeline.loses_predictions():
        pipeline.progress.note(f"{LOST}: {KEEP}")
    if is_open := openness(pipeline.target_config(PRODUCTION), PRODUCTION):
        detail, hint = is_open
        pipeline.progress.note(f"warning: target {PRODUCTION}: {detail}; {hint}")
    with changing(pipeline, expected) as (fenced, records):
        history = records.history
        # A release that has passed the gate is restored without asking the gate again.
        if history.role(release) in ("champion", "challenger"):
            return restored(fenced, release, records)
        passed = check_fitness(fenced, release, records)
        passed += check_image(fenced, release, PRODUCTION, records)
        # An interrupted deployment was allowed: beside a challenger, it was started with --replace.
        begun = bool(recorded("deploy-production", release, records))
        challenger = blocking(fenced, history)
        if challenger and not begun and occupied in ("wait", "queue"):
            check_former(release, history)
            check_generation(fenced, release, PRODUCTION, records, older=older)
            return _wait(fenced, release, challenger, records, passed, occupied)
        check_role(release, history, challenger, replace=occupied == "replace" or begun)
        check_generation(fenced, release, PRODUCTION, records, older=older or begun)
        return _deploy(fenced, release, records, passed)


def deploy_next(pipeline: Pipeline) -> Record | None:
    """Deploy the release that waits for the challenger's place, if it is free.

    Returns:
        The evidence of its deployment; `None` if no release waits, or a challenger runs. A release
        that was superseded gives way to the next one.

    Raises:
        RefusedError, TimedOutError, ConflictError: as `deploy_production`.
    """
    records = pipeline.read()
    history = records.history
    if not history.waiting:
        pipeline.progress.note("no release waits for production")
        return None
    challenger = blocking(pipeline, history)
    for release in history.waiting:
        if challenger:
            pipeline.progress.note(f"{release} still waits: {challenger} is challenger")
            return None
        other = later(pipeline, release, PRODUCTION, records)
        if other is None:
            return deploy_production(pipeline, release, records)
        pipeline.progress.note(f"{release} waits no longer: it was superseded by {other}")
    return None


def blocking(pipeline: Pipeline, history: History) -> Release | None:
    """Return the challenger that keeps others from its place; `None` if there is none."""
    challenger = history.challenger
    if challenger is None or history.challenger_by != "rollback":
        return challenger
    split = pipeline.target(PRODUCTION).routes().split
    slot = slot_of(challenger)
    return challenger if split.share(slot) or split.shadow == slot else None


def _wait(
    pipeline: Pipeline,
    release: Release,
    challenger: Release,
    records: Records,
    passed: tuple[Check, ...],
    policy: Literal["wait", "queue"],
) -> Record:
    """Record that a release waits; it is the same record when it is asked to again."""
    facts = Waiting(behind=str(challenger), policy=policy, checks=passed)
    last = records.latest("await-production", release)
    if last and release in records.history.waiting and shapes.of(last, Waiting) == facts:
        return last
    saw = Saw(challenger=challenger.id)
    return pipeline.learn(release, "await-production", "passed", facts, saw, after=records)


def check_fitness(pipeline: Pipeline, release: Release, records: Records) -> tuple[Check, ...]:
    """Return the checks of a release for production.

    Raises:
        RefusedError: a check failed.
    """
    container_test = pipeline.container_test(PRODUCTION)
    beside = compatibility.checked(pipeline, release, records)
    decision = gates.for_production(release, records, container_test, beside)
    if decision.verdict == "passed":
        return decision.checks
    lacks_container_test = all(check.name == "test-container" for check in decision.failed)
    hint = f"`mlship test --container {release}`" if lacks_container_test else "`mlship run`"
    if any(check.name == gates.COMPATIBLE for check in decision.failed):
        hint = INCOMPATIBLE
    if differing := [check for check in decision.failed if gates.DIFFERS in check.text]:
        names = " and ".join(f"`mlship {_command(check)} {release}`" for check in differing)
        hint = f"`git checkout {release.commit[:12]}`, with nothing changed, then {names}"
    if release.dirty:
        hint = "commit all changes, then `mlship run`"
    message = f"{release} is not fit for production: {checks.joined(decision.failed)}"
    raise RefusedError(message, hint=hint)


def _command(check: Check) -> str:
    return "test --container" if check.name == "test-container" else check.name


def check_role(
    release: Release, history: History, challenger: Release | None, *, replace: bool
) -> None:
    """Check that the release can become challenger.

    Args:
        release: to deploy.
        history: of production.
        challenger: the one that keeps others from its place, see `blocking`.
        replace: whether it is replaced.

    Raises:
        RefusedError: another challenger runs, or the release is a former champion.
    """
    check_former(release, history)
    if challenger and not replace:
        raise RefusedError(
            f"{challenger} is already challenger",
            hint="promote or retire it first; --wait lets this release wait for that, and "
            "--replace discards the challenger's outcomes",
        )


def check_former(release: Release, history: History) -> None:
    """Check that the release is not a former champion that still runs.

    Raises:
        RefusedError: it is.
    """
    if history.role(release) == "former champion":
        raise RefusedError(
            f"{release} is a former champion that is still running",
            hint="run `mlship rollback` to make it champion again",
        )


def _deploy(
    pipeline: Pipeline, release: Release, records: Records, passed: tuple[Check, ...]
) -> Record:
    target, config = pipeline.target(PRODUCTION), pipeline.target_config(PRODUCTION)
    champion, displaced = records.history.champion, records.history.challenger
    role: Alias = "champion" if champion is None else "challenger"
    if champion is not None:
        _check_runs(pipeline, champion, records)
    is_same = champion is not None and champion.bundle == release.bundle
    if is_same:
        pipeline.progress.note(f"{release} is the same model as the champion, {champion}: {SAME}")
    if displaced is not None:
        check_delivered(pipeline, displaced)
    weight, replicas = share(role, config)

    def route() -> Routed:
        return set_route(target, *shares(release, champion, config))

    def alias() -> Aliased:
        pipeline.store.point(role, release)
        pipeline.store.archive(release, archived=False)
        return Aliased(alias=role)

    substeps = [
        SubStep("deploy-production/capacity", lambda: ready(pipeline, release, replicas, records)),
        SubStep("deploy-production/route", route),
        SubStep("deploy-production/alias", alias),
    ]
    if displaced:
        displace = partial(_displace, pipeline, displaced)
        substeps.append(SubStep("deploy-production/displace", displace))

    def facts() -> Deployed:
        return Deployed(
            role=role,
            weight=weight,
            shadow=config.shadow and role == "challenger",
            endpoint=target.routes().endpoint,
            champion=str(champion) if champion else None,
            predictions_last=not pipeline.loses_predictions(),
            same_model=is_same,
            cluster=target.inspect()[slot_of(release)].cluster if config.clusters else "",
            checks=passed,
        )

    return carry_out(pipeline, release, "deploy-production", substeps, facts, records)


def _check_runs(pipeline: Pipeline, champion: Release, records: Records) -> None:
    """Refuse to route beside a champion that was deployed elsewhere: the ledger is shared.

    Two projects of one name, or two machines with targets of their own, may write to one ledger.

    Raises:
        NotFoundError: the champion has no slot in production.
    """
    if slot_of(champion) in pipeline.target(PRODUCTION).inspect():
        return
    record = records.latest("deploy-production", champion)
    who = ""
    if record is not None:
        evidence = record.evidence
        place = f" from {evidence.home}" if evidence.home else ""
        who = f", which {evidence.actor} deployed on {evidence.time:%Y-%m-%d %H:%M} UTC{place}"
    raise NotFoundError(
        f"the champion of the ledger, {champion} of commit {champion.commit[:12]}{who}, does not "
        "run in production here: it was stopped, or comes from another machine or another project",
        hint="if it is this project's, restore it: `mlship deploy-production champion`; if it is "
        f"another project called {champion.name}, give this one another `name` in mlship.yaml",
    )


def _displace(pipeline: Pipeline, displaced: Release) -> Displaced:
    pipeline.target(PRODUCTION).remove(slot_of(displaced))
    pipeline.store.archive(displaced, archived=True)
    return Displaced(displaced=str(displaced))


def shares(
    release: Release, champion: Release | None, config: TargetConfig
) -> tuple[dict[Release, int], Release | None]:
    """Return the percentage of each release when a new one starts, and the shadowed release."""
    if champion is None:
        return {release: 100}, None
    weight, _ = share("challenger", config)
    return {champion: 100 - weight, release: weight}, release if config.shadow else None


def share(role: Alias, config: TargetConfig) -> tuple[int, int]:
    """Return the percentage of the traffic and the replicas that a role starts with."""
    if role == "champion":
        return 100, config.replicas
    return 0 if config.shadow else config.challenger_weight, config.challenger_replicas
