"""Commands that make and move a release's image: containerize, push-to-registry."""

import os
from pathlib import Path

import typer

from mlship.cli import actions, output
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

    Prints the reference by digest; in GitHub Actions it is the step's output `reference`.

    Example: mlship push-to-registry
    """
    from mlship.steps.push import push

    given = session(context)
    pipeline = given.pipeline()
    found = push(pipeline, pipeline.release(release))
    if os.environ.get("GITHUB_OUTPUT"):
        reference = {"reference": str(found.evidence.facts["reference"])}
        actions.set_outputs(Path(os.environ["GITHUB_OUTPUT"]), reference)
    output.record(found, json=given.json)
