"""Commands that make and move a release's image: containerize, push-to-registry."""

import typer

from mlship.cli import output
from mlship.cli.making import ReleaseName
from mlship.cli.session import session


def containerize(context: typer.Context, release: ReleaseName = None) -> None:
    """Make the container image of a release.

    No Docker is needed; the same release gives the same digest on any machine.

    Example: mlship containerize
    """
    from mlship.steps.containerize import containerize as make

    given = session(context)
    pipeline = given.pipeline()
    output.record(make(pipeline, pipeline.release(release)), json=given.json)


def push_to_registry(context: typer.Context, release: ReleaseName = None) -> None:
    """Push the image of a release to its registry.

    Prints the reference by digest; in GitHub Actions the step has the outputs `reference` and
    `digest`.

    Example: mlship push-to-registry
    """
    from mlship.steps.push import push

    given = session(context)
    pipeline = given.pipeline()
    output.record(push(pipeline, pipeline.release(release)), json=given.json)
