"""Commands that bring a release to staging and to main, and publish its report."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from mlship.cli import output
from mlship.cli.options import DryRun, ReleaseName, Render, preview
from mlship.cli.session import Session, session
from mlship.domain.job import Way
from mlship.errors import ConfigError

if TYPE_CHECKING:
    from mlship.domain.release import Release
    from mlship.steps.pipeline import Pipeline


def deploy_staging(
    context: typer.Context,
    release: ReleaseName = None,
    dry_run: DryRun = False,
    render: Render = None,
) -> None:
    """Run a release in staging, alone.

    Example: mlship deploy-staging
    """
    from mlship.steps.deploy import deploy_staging as deploy

    given = session(context)
    if preview(given, "staging", release, dry_run=dry_run, render=render):
        return
    pipeline = given.pipeline()
    output.record(deploy(pipeline, pipeline.release(release)), json=given.json)


def verify_staging_workload(
    context: typer.Context,
    release: ReleaseName = None,
    recorded: Annotated[
        int, typer.Option(min=0, help="Replay so many logged requests of production besides.")
    ] = 0,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where staging answers; by default the target is asked."),
    ] = None,
) -> None:
    """Replay recorded requests on staging; compare.

    Answers are compared with those recorded and with what the bundle gives offline.

    Example: mlship verify-staging-workload --recorded 100
    """
    from mlship.steps.verify import verify

    given = session(context)
    pipeline = given.pipeline()
    found = verify(pipeline, pipeline.release(release), recorded=recorded, endpoint=endpoint)
    output.record(found, json=given.json)


def open_release_pr(
    context: typer.Context,
    release: ReleaseName = None,
    head: Annotated[str, typer.Option(help="The branch that has the release.")] = "develop",
    base: Annotated[str, typer.Option(help="The branch that it is to go to.")] = "main",
) -> None:
    """Open or update the pull request to main.

    It has the release's report. In a GitHub job the output `url` names it.

    Example: mlship open-release-pr
    """
    from mlship import wire
    from mlship.cli import actions
    from mlship.domain import job
    from mlship.steps.open_release_pr import open_release_pr as open_step

    given = session(context)
    pipeline = given.pipeline()
    here = job.of(wire.environment())
    chosen = pipeline.release(release)
    found, posted = open_step(pipeline, chosen, head, base, run=here.url)
    if here.outputs is not None:
        actions.set_outputs(here.outputs, {"url": posted.url})
    if given.json:
        output.as_json(
            {"release": str(chosen), "url": posted.url, "change": posted.change}
            | {"record": found.digest}
        )
    else:
        output.line(f"{posted.url} ({posted.change})")


def publish_report(
    given: Session, pipeline: "Pipeline", release: "Release", names: Sequence[str]
) -> None:
    """Publish a release's report and say where it went.

    Raises:
        ConfigError: a name is no way of publishing.
    """
    from mlship import wire
    from mlship.steps.publish import publish

    ways = [_way(name) for name in names]
    publishing = wire.publishing(pipeline, wire.environment())
    done = publish(pipeline, release, ways, publishing)
    for one in done:
        if one.note and publishing.job.pull is not None:
            output.notice(f"the report of {release} was not posted: {one.note}")
    if given.json:
        output.as_json(done)
        return
    for one in done:
        where = f"{one.change}: {one.where}" if one.change else "not posted"
        output.line(f"{one.way}: {where}{f'; {one.note}' if one.note else ''}")


def _way(name: str) -> Way:
    if name not in get_args(Way):
        raise ConfigError(
            f"{name[:80]!r} is no way to publish a report",
            hint=f"one of {', '.join(get_args(Way))}",
        )
    return cast("Way", name)
