"""Commands that make and prove a release: run, train, test, deploy-staging, verify."""

from typing import Annotated

import typer

from mlship.cli import output
from mlship.cli.previewing import DryRun, Render, preview
from mlship.cli.session import session

ReleaseName = Annotated[
    str | None,
    typer.Argument(
        metavar="RELEASE",
        help="iris@3f9a0c12be77, its digits, champion or challenger; "
        "by default the release that the current commit made",
    ),
]


def run(
    context: typer.Context,
    replace: Annotated[
        bool, typer.Option("--replace", help="Retire the challenger that runs.")
    ] = False,
) -> None:
    """Carry this commit from training to production.

    It ends before promotion. What was proven of the release before is not done again.

    Example: mlship run
    """
    import sys

    from mlship import wire
    from mlship.cli.progress import Lines, View
    from mlship.steps.run import names
    from mlship.steps.run import run as run_steps

    given = session(context)
    lines = Lines(folded=wire.environment().get("GITHUB_ACTIONS") == "true")
    with View(names(given.pipeline())) if sys.stderr.isatty() else lines as view:
        record = run_steps(given.pipeline(view), view, replace=replace)
    output.record(record, json=given.json)


def train(
    context: typer.Context,
    anew: Annotated[
        bool, typer.Option("--anew", help="Train even where the same inputs made a release.")
    ] = False,
) -> None:
    """Train the model of this commit: a new release.

    The same inputs find the release that they made before.

    Example: mlship train
    """
    from mlship.steps.train import train as train_step

    given = session(context)
    output.record(train_step(given.pipeline(), anew=anew), json=given.json)


def test(
    context: typer.Context,
    release: ReleaseName = None,  # noqa: PT028 (no test)
    container: Annotated[
        bool, typer.Option("--container", help="Test the image in a Docker engine instead.")
    ] = False,  # noqa: PT028 (the same)
) -> None:
    """Run the tests, score held-out data, and decide.

    Unit and sanity tests by pytest, metrics by the bounds of gates.test. With --container: the
    release's image gets ready, answers as offline, refuses what is wrong, and drains.

    Example: mlship test --container
    """
    from mlship.steps.container import check_container
    from mlship.steps.test import test as test_step

    given = session(context)
    pipeline = given.pipeline()
    if container:
        output.record(check_container(pipeline, pipeline.release(release)), json=given.json)
        return
    output.record(test_step(pipeline, pipeline.release(release)), json=given.json)


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
