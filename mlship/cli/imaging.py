"""Commands that make and move a release's image: containerize, push-to-registry."""

from pathlib import Path
from typing import Annotated

import typer

from mlship.cli import output
from mlship.cli.making import ReleaseName
from mlship.cli.session import session


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
