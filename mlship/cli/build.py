"""Commands that make and prove a release: run, train, test, containerize, push-to-registry."""

from pathlib import Path
from typing import Annotated

import typer

from mlship.cli import output
from mlship.cli.options import ReleaseName
from mlship.cli.session import session


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


def containerize(
    context: typer.Context,
    release: ReleaseName = None,
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the image to a file too, for `docker load`."),
    ] = None,
) -> None:
    """Make the container image of a release.

    By mlship itself: no Docker is needed, and the same release gives the same digest on any
    machine. Or by Docker, from a Dockerfile that you may extend (image.builder): once, and --to
    hands it to other machines.

    Example: mlship containerize
    """
    from mlship.steps.containerize import containerize as make
    from mlship.steps.containerize import hand_over

    given = session(context)
    pipeline = given.pipeline()
    found = make(pipeline, pipeline.release(release))
    if to is not None:
        hand_over(pipeline, found, to)
    output.record(found, json=given.json)


def push_to_registry(
    context: typer.Context,
    release: ReleaseName = None,
    archive: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="What `containerize --to` wrote elsewhere."),
    ] = None,
) -> None:
    """Push the image of a release to its registry.

    Prints the reference by digest; in GitHub Actions the step has the outputs `reference` and
    `digest`.

    Example: mlship push-to-registry
    """
    from mlship.steps.push import push

    given = session(context)
    pipeline = given.pipeline()
    output.record(push(pipeline, pipeline.release(release), archive), json=given.json)
