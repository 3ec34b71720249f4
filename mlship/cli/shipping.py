"""Commands that change production: deploy-production, traffic, promote, rollback, retire."""

from typing import Annotated

import typer

from mlship.cli import output
from mlship.cli.making import ReleaseName
from mlship.cli.previewing import DryRun, Render, preview
from mlship.cli.session import session
from mlship.errors import ConfigError


def deploy_production(
    context: typer.Context,
    release: ReleaseName = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Retire the challenger that runs; its outcomes go.")
    ] = False,
    dry_run: DryRun = False,
    render: Render = None,
) -> None:
    """Run a release as challenger of the champion.

    The first release of all becomes champion.

    Example: mlship deploy-production
    """
    from mlship.steps.deploy import deploy_production as deploy

    given = session(context)
    if preview(given, "production", release, dry_run=dry_run, render=render, replace=replace):
        return
    pipeline = given.pipeline()
    found = deploy(pipeline, pipeline.release(release), replace=replace)
    output.record(found, json=given.json)


def traffic(
    context: typer.Context,
    shares: Annotated[
        list[str] | None, typer.Argument(metavar="ROLE=PERCENT...", help="challenger=20")
    ] = None,
    shadow: Annotated[
        bool | None,
        typer.Option("--shadow/--no-shadow", help="Copy all traffic to the challenger."),
    ] = None,
) -> None:
    """Show or set the split of production's requests.

    Example: mlship traffic challenger=20
    """
    from mlship.steps.traffic import traffic as set_traffic

    given = session(context)
    pipeline = given.pipeline()
    route = set_traffic(pipeline, _shares(shares or []), shadow=shadow)
    history = pipeline.history()
    deployments = pipeline.target("production").inspect()
    rows = []
    for slot, found in deployments.items():
        share = "a copy" if route.split.shadow == slot else f"{route.split.share(slot)} %"
        rows.append((slot, history.role(found.release) or "none", share))
    if given.json:
        output.as_json(route)
    else:
        output.table(route.endpoint, ("slot", "role", "traffic"), rows)


def _shares(texts: list[str]) -> dict[str, int]:
    shares = {}
    for text in texts:
        role, _, percent = text.partition("=")
        if not percent.isdigit():
            raise ConfigError(
                f"{text!r} is no share of the traffic", hint="write challenger=20, in whole percent"
            )
        shares[role] = int(percent)
    return shares


def promote(context: typer.Context, release: ReleaseName = None) -> None:
    """Make the challenger champion.

    Route, alias and archive move as one; the old champion stays warm for a rollback.

    Example: mlship promote challenger
    """
    from mlship.steps.promote import chosen
    from mlship.steps.promote import promote as promote_step

    given = session(context)
    pipeline = given.pipeline()
    seen = pipeline.history()
    found = promote_step(pipeline, chosen(pipeline, release, seen), seen)
    output.record(found, json=given.json)


def rollback(
    context: typer.Context,
    to: Annotated[
        str | None, typer.Option(help="The release to go back to; by default the one before.")
    ] = None,
) -> None:
    """Make the former champion champion again.

    Nothing is built: it still runs.

    Example: mlship rollback
    """
    from mlship.steps.rollback import rollback as rollback_step

    given = session(context)
    pipeline = given.pipeline()
    found = rollback_step(pipeline, pipeline.release(to) if to else None)
    output.record(found, json=given.json)


def retire(
    context: typer.Context,
    release: Annotated[
        str | None,
        typer.Argument(
            help="By default the former champion that waited longest; "
            "right after one was retired, name the next."
        ),
    ] = None,
    early: Annotated[
        bool, typer.Option("--early", help="Do not wait until it was warm for warm_minutes.")
    ] = False,
) -> None:
    """Drain, stop and archive a release.

    A challenger or a former champion; never the champion.

    Example: mlship retire
    """
    from mlship.steps.retire import retire as retire_step

    given = session(context)
    pipeline = given.pipeline()
    found = retire_step(pipeline, pipeline.release(release) if release else None, early=early)
    output.record(found, json=given.json)
