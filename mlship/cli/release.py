"""Commands for staging and the pull request to main, and publishing of reports."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from mlship.cli import output
from mlship.cli.options import DryRun, Older, ReleaseName, Render, preview
from mlship.cli.session import Session, session
from mlship.domain.job import Way
from mlship.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from mlship.domain.job import Job
    from mlship.domain.records import Records
    from mlship.domain.release import Release
    from mlship.reports.report import Report
    from mlship.steps.pipeline import Pipeline
    from mlship.steps.publish import Published, Publishing


def deploy_staging(
    context: typer.Context,
    release: ReleaseName = None,
    older: Older = False,
    dry_run: DryRun = False,
    render: Render = None,
) -> None:
    """Deploy a release to staging.

    It replaces the release that runs there. A release of an earlier commit than one that was
    deployed since is refused.

    Example: mlship deploy-staging
    """
    from mlship.cli import results
    from mlship.steps.deploy import deploy_staging as deploy

    options = session(context)
    if preview(options, "staging", release, dry_run=dry_run, render=render, older=older):
        return
    pipeline = options.pipeline()
    results.record(deploy(pipeline, pipeline.release(release), older=older), json=options.json)


def verify_staging_workload(
    context: typer.Context,
    release: ReleaseName = None,
    recorded: Annotated[
        int, typer.Option(min=0, help="Also replay this many logged requests from production.")
    ] = 0,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="URL of staging. Default: the target's endpoint."),
    ] = None,
) -> None:
    """Replay the workload on staging and check it.

    Responses are compared with the expected outputs in the workload, and with the predictions of
    the bundle offline. gates.staging sets the limits.

    Example: mlship verify-staging-workload --recorded 100
    """
    from mlship.cli import results
    from mlship.steps.verify import verify

    options = session(context)
    pipeline = options.pipeline()
    records = pipeline.read()
    chosen = pipeline.release(release, records)
    record = verify(pipeline, chosen, records, recorded=recorded, endpoint=endpoint)
    results.record(record, json=options.json)


def open_release_pr(
    context: typer.Context,
    release: ReleaseName = None,
    head: Annotated[
        str | None,
        typer.Option(help="The branch with the release. Default: workflows.branches.develop."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="The branch to merge into. Default: workflows.branches.main."),
    ] = None,
) -> None:
    """Open or update the pull request to main.

    Its text is the report of the release. In GitHub Actions, sets the step output `url`.

    Example: mlship open-release-pr
    """
    from mlship import wire
    from mlship.cli import actions
    from mlship.domain import job
    from mlship.steps.open_release_pr import open_release_pr as open_step

    options = session(context)
    pipeline = options.pipeline()
    current = job.of(wire.environment())
    records = pipeline.read()
    chosen = pipeline.release(release, records)
    branches = pipeline.config.workflows.branches
    source, goal = head or branches.develop, base or branches.main
    if source is None:
        message = "mlship.yaml: workflows.branches has no develop, so no branch is offered to main"
        raise ConfigError(message, hint="name the branch: --head BRANCH")
    record, posted = open_step(pipeline, chosen, source, goal, run=current.url, records=records)
    if current.outputs is not None:
        actions.set_outputs(current.outputs, {"url": posted.url})
    if options.json:
        output.as_json(
            {"release": str(chosen), "url": posted.url, "change": posted.change}
            | {"record": record.digest}
        )
    else:
        output.line(f"{posted.url} ({posted.change})")


def publish_report(
    options: Session,
    pipeline: "Pipeline",
    release: "Release",
    names: Sequence[str],
    records: "Records",
    *,
    pictures: bool,
) -> None:
    """Publish the report of a release and print where.

    Raises:
        ConfigError: a name is not a way of publishing, or there is no pull request here.
    """
    from mlship.steps.publish import publish

    ways = [_way(name) for name in names]
    publishing = _publishing(pipeline.config.name, ways, pictures=pictures)
    results = publish(pipeline, release, ways, publishing, records)
    _print_published(options, release, results, publishing.job)


def publish_folder(
    options: Session, folder: "Path", report: "Report", names: Sequence[str], *, pictures: bool
) -> None:
    """Publish a report that another job wrote into a folder, and print where.

    Raises:
        ConfigError: a name is not a way of publishing, or there is no pull request here.
    """
    from mlship.steps.pictures import of_folder
    from mlship.steps.publish import post

    ways = [_way(name) for name in names]
    publishing = _publishing(report.release.name, ways, pictures=pictures)
    results = post(report, of_folder(folder, report), ways, publishing)
    _print_published(options, report.release, results, publishing.job)


def _publishing(project: str, ways: Sequence[Way], *, pictures: bool) -> "Publishing":
    """Return the ports to publish a report.

    Raises:
        ConfigError: a comment is asked for outside of a workflow, which knows the repository.
    """
    from mlship import wire

    environment = wire.environment()
    if not environment.get("GITHUB_REPOSITORY") and set(ways) - {"summary"}:
        raise ConfigError(
            "--publish comments on a pull request, from a workflow on GitHub: GITHUB_REPOSITORY "
            "is not set here",
            hint="`mlship report --markdown` prints the report that would be posted",
        )
    return wire.publishing(project, environment, pictures=pictures)


def _print_published(
    options: Session, release: "Release", results: "Sequence[Published]", job: "Job"
) -> None:
    for result in results:
        if result.note and result.change is not None:
            output.notice(f"the report of {release} was {result.note}")
        elif result.note and job.pull is not None:
            output.notice(f"the report of {release} was not posted: {result.note}")
    if options.json:
        output.as_json(results)
        return
    for result in results:
        outcome = f"{result.change}: {result.where}" if result.change else "not posted"
        output.line(f"{result.way}: {outcome}{f'; {result.note}' if result.note else ''}")


def _way(name: str) -> Way:
    if name not in get_args(Way):
        raise ConfigError(
            f"cannot publish a report to {name[:80]!r}",
            hint=f"use one of {', '.join(get_args(Way))}",
        )
    return cast("Way", name)
