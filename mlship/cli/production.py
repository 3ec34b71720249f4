"""Commands that change production or use its outcomes: deploy-production to retire."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mlship.cli import output
from mlship.cli.options import DryRun, FromPullRequest, Older, ReleaseName, Render, preview
from mlship.cli.session import session
from mlship.errors import ConfigError

if TYPE_CHECKING:
    from mlship.domain.policy import Occupied


def deploy_production(
    context: typer.Context,
    release: ReleaseName = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Replace the running challenger; discards its outcomes."),
    ] = False,
    wait: Annotated[
        bool | None,
        typer.Option(
            "--wait/--queue", help="While a challenger runs, wait alone or behind others."
        ),
    ] = None,
    following: Annotated[
        bool, typer.Option("--next", help="Deploy the release that waits, if the place is free.")
    ] = False,
    older: Older = False,
    dry_run: DryRun = False,
    render: Render = None,
) -> None:
    """Deploy a release to production as challenger.

    The first release becomes champion. Only one challenger runs at a time: a release that waits is
    deployed with --next, after the challenger was promoted, rolled back or retired. A release of an
    earlier commit than one that was deployed since is refused.

    Example: mlship deploy-production
    """
    from mlship.cli import results
    from mlship.steps import deploy, restore

    options = session(context)
    occupied = _occupied(replace=replace, wait=wait)
    if following:
        if release or occupied != "refuse" or older or dry_run or render:
            raise ConfigError("--next is used alone", hint="omit the release and other options")
        deployed = deploy.deploy_next(options.pipeline())
        if deployed is not None:
            results.record(deployed, json=options.json)
        elif options.json:
            output.as_json({"release": None})
        return
    if preview(
        options,
        "production",
        release,
        dry_run=dry_run,
        render=render,
        replace=replace,
        older=older,
    ):
        return
    pipeline = options.pipeline()
    records = pipeline.read()
    chosen = pipeline.release(release, records)
    record = deploy.deploy_production(pipeline, chosen, records, occupied=occupied, older=older)
    results.deployed(record, restore.standing(pipeline, record, records), json=options.json)


def _occupied(*, replace: bool, wait: bool | None) -> "Occupied":
    """Return what to do while another challenger runs.

    Raises:
        ConfigError: two options say so.
    """
    if wait is None:
        return "replace" if replace else "refuse"
    if replace:
        name = "--wait" if wait else "--queue"
        message = f"--replace and {name} cannot be used together"
        raise ConfigError(message, hint="give one of them")
    return "wait" if wait else "queue"


def traffic(
    context: typer.Context,
    shares: Annotated[
        list[str] | None,
        typer.Argument(metavar="ROLE=PERCENT...", help="Weights, such as challenger=20."),
    ] = None,
    shadow: Annotated[
        bool | None,
        typer.Option("--shadow/--no-shadow", help="Mirror all traffic to the challenger."),
    ] = None,
    override: Annotated[
        str | None,
        typer.Option(
            metavar="WHY", help="Give more than configured without the gate; WHY is recorded."
        ),
    ] = None,
) -> None:
    """Show or set the traffic split in production.

    More for the challenger than `targets.production.challenger_weight` needs what a promotion
    needs: evaluation and approvals. An override of that is shown in red by `mlship status` and in
    reports, until the share is back or the release was promoted.

    Example: mlship traffic challenger=20
    """
    from mlship.domain.history import overridden
    from mlship.reports.override import sentence
    from mlship.steps.traffic import traffic as set_traffic

    options = session(context)
    pipeline = options.pipeline()
    route = set_traffic(pipeline, _shares(shares or []), shadow=shadow, override=override)
    records = pipeline.read()
    history = records.history
    found = overridden(history.challenger, records) if history.challenger else None
    deployments = pipeline.target("production").inspect()
    rows = []
    for slot, deployment in deployments.items():
        share = "shadow" if route.split.shadow == slot else f"{route.split.share(slot)} %"
        rows.append((slot, history.role(deployment.release) or "none", share))
    if options.json:
        output.as_json({**msgspec.structs.asdict(route), "override": found})
        return
    output.table(route.endpoint, ("slot", "role", "traffic"), rows)
    if found:
        output.alarm(sentence(found))


def _shares(texts: list[str]) -> dict[str, int]:
    shares: dict[str, int] = {}
    for text in texts:
        role, _, percent = text.partition("=")
        if not re.fullmatch("[0-9]{1,9}", percent):
            raise ConfigError(
                f"invalid share of the traffic: {text!r}",
                hint="write ROLE=PERCENT in whole percent, such as challenger=20",
            )
        if role in shares:
            message = f"{role} has two shares of the traffic: {shares[role]} and {percent}"
            raise ConfigError(message, hint="name each role once")
        shares[role] = int(percent)
    return shares


def promote(
    context: typer.Context,
    release: ReleaseName = None,
    reconcile: Annotated[
        bool,
        typer.Option("--reconcile", help="First make production as recorded, if it is not."),
    ] = False,
    adopt: Annotated[
        bool,
        typer.Option("--adopt", help="First record production as it is, if that was changed."),
    ] = False,
    number: FromPullRequest = None,
) -> None:
    """Make the challenger the champion.

    Reads the reviews again, on GitHub: an approval counts if its review is still as it was. Moves
    traffic and the alias in the model registry. The old champion keeps running, so that a
    rollback is fast. If production is not as recorded, because somebody changed it by hand, nothing
    is promoted without --reconcile or --adopt. What runs another image cannot be adopted.

    Example: mlship promote challenger
    """
    from mlship.cli import results
    from mlship.steps.promote import chosen
    from mlship.steps.promote import promote as promote_step

    options = session(context)
    pipeline = options.pipeline()
    records = pipeline.read()
    if reconcile and adopt:
        message = "--reconcile and --adopt cannot be used together"
        raise ConfigError(message, hint="give one of them")
    record = promote_step(
        pipeline,
        chosen(pipeline, release, records),
        records,
        on_drift="reconcile" if reconcile else "adopt" if adopt else "refuse",
        number=number,
    )
    results.record(record, json=options.json)


def rollback(
    context: typer.Context,
    to: Annotated[
        str | None, typer.Option(help="The release to go back to. Default: the previous champion.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would happen; change nothing.")
    ] = False,
) -> None:
    """Make the former champion the champion again.

    Nothing is built or started, because it still runs.

    Example: mlship rollback --dry-run
    """
    from mlship.cli import results
    from mlship.steps.rollback import prospect
    from mlship.steps.rollback import rollback as rollback_step

    options = session(context)
    pipeline = options.pipeline()
    records = pipeline.read()
    chosen = pipeline.release(to, records) if to else None
    if not dry_run:
        results.record(rollback_step(pipeline, chosen, records), json=options.json)
        return
    found = prospect(pipeline, chosen, records)
    if options.json:
        output.as_json(found)
        return
    if found.deposed is None:
        output.line(f"nothing would change: {found.champion} is champion again already")
        return
    output.line(f"{found.champion} would be champion, with all traffic at {found.endpoint}")
    output.line(f"{found.ready} of its {found.wanted} replicas are ready now")
    output.line(f"{found.deposed} would keep running without traffic")


def retire(
    context: typer.Context,
    release: Annotated[
        str | None,
        typer.Argument(
            help="A release, or challenger. Default: the oldest former champion. "
            "To retire another one after that, name it."
        ),
    ] = None,
    early: Annotated[bool, typer.Option("--early", help="Do not wait for warm_minutes.")] = False,
    lose_spooled: Annotated[
        bool,
        typer.Option(
            "--lose-spooled", help="Also if predictions in its pods are not in the database yet."
        ),
    ] = False,
) -> None:
    """Drain, stop and archive a release.

    The release can be a challenger or a former champion, but not the champion; or one whose slot
    a failed deployment left. While predictions are in spools of its pods only, it is refused: they
    would be lost.

    Example: mlship retire
    """
    from mlship.cli import results
    from mlship.steps.retire import retire as retire_step

    options = session(context)
    pipeline = options.pipeline()
    records = pipeline.read()
    chosen = pipeline.release(release, records) if release else None
    record = retire_step(pipeline, chosen, records, early=early, lose_spooled=lose_spooled)
    results.record(record, json=options.json)


def approve(
    context: typer.Context,
    release: ReleaseName = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="The email of the approver. Default: whose key signs, else git's user.email."
        ),
    ] = None,
    comment: Annotated[str, typer.Option(help="A comment to record.")] = "",
    number: FromPullRequest = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help="Sign with this SSH key of the approver: a private key, or FILE.pub if ssh-agent "
            "has it."
        ),
    ] = None,
) -> None:
    """Record an approval of a release.

    It is valid for this release only, and the commit's author cannot approve. Where records are
    signed, an approval is one of the person whose key signs it; a name alone is enough only where
    `trust.names` says so. With --from-pull-request, reviews count if they approve this commit and
    the reviewer may push.

    Example: mlship approve challenger --key ~/.ssh/id_ed25519.pub
    """
    from mlship.cli import results
    from mlship.domain import shapes
    from mlship.domain.facts import Withdrawn
    from mlship.steps.approve import approve_by_hand, approve_from_pull_request

    options = session(context)
    if number is not None and (by or comment or key):
        message = "--from-pull-request cannot be used with --by, --comment or --key"
        raise ConfigError(message, hint="omit these; the approvers come from the reviews")
    pipeline = options.pipeline(key=key)
    if number is not None:
        records = pipeline.read()
        chosen = pipeline.release(release, records)
        result = approve_from_pull_request(pipeline, chosen, number, records)
        if options.json:
            output.as_json(result)
            return
        output.line(f"approve {chosen}: {result.count}, by {', '.join(result.people)}")
        for record in result.withdrawn:
            withdrawal = shapes.of(record, Withdrawn)
            output.line(f"  withdrawn: {withdrawal.by}: {withdrawal.reason}")
        for reason in result.left_out:
            output.line(f"  not counted: {reason}")
        return
    records = pipeline.read()
    chosen = pipeline.release(release, records)
    record = approve_by_hand(pipeline, chosen, by, comment, records=records)
    results.record(record, json=options.json)
