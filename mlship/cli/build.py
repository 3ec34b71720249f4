"""Commands that build and test a release: run, fetch-data, train, test, containerize, push."""

from pathlib import Path
from typing import Annotated

import typer

from mlship.cli import output
from mlship.cli.options import Older, ReleaseName
from mlship.cli.session import session


def run(
    context: typer.Context,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the running challenger.")
    ] = False,
    older: Older = False,
) -> None:
    """Run all steps from training to production.

    Does not promote. Steps that this release passed before are skipped.

    Example: mlship run
    """
    import sys

    from mlship import wire
    from mlship.cli import results
    from mlship.cli.progress import Lines, View
    from mlship.steps.run import names
    from mlship.steps.run import run as run_steps

    options = session(context)
    lines = Lines(folded=wire.environment().get("GITHUB_ACTIONS") == "true")
    with View(names(options.pipeline())) if sys.stderr.isatty() else lines as view:
        record, found = run_steps(options.pipeline(view), view, replace=replace, older=older)
    results.deployed(record, found, json=options.json)


def fetch_data(
    context: typer.Context,
    to: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="A new folder for the data; paths are as in the repository."
        ),
    ],
    remote: Annotated[
        str, typer.Option(metavar="URL", help="The storage of DVC, such as s3://bucket/folder.")
    ],
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="An option of DVC for it, such as region=eu-west-1. May be repeated.",
        ),
    ] = None,
) -> None:
    """Fetch the data that DVC keeps into a folder.

    For the job of a workflow that holds the storage's credentials. It takes the storage from its
    options, and only MD5s from the branch: .dvc/config and dvc.yaml are not read. On your own
    machine, use `dvc pull`.

    Example: mlship fetch-data --to=fetched --remote=s3://bucket/folder --option=region=eu-west-1
    """
    from mlship import wire
    from mlship.domain.storage import storage
    from mlship.errors import ConfigError

    call = session(context)
    given = dict(option.partition("=")[::2] for option in options or ())
    place = storage(remote, given)
    if unknown := sorted(set(given) - set(place.options)):
        message = f"--option {unknown[0]} is no option of a storage by {place.kind}"
        raise ConfigError(message, hint="`mlship init` writes those that jobs may use")
    config = call.resolved().config
    top = wire.top_of(call.root) or call.root
    fetched = wire.fetch_data(call.root, top, config, place, to, wire.environment())
    if call.json:
        output.as_json({"files": fetched})
    for name in () if call.json else fetched:
        output.line(f"fetched {name}")


def train(
    context: typer.Context,
    anew: Annotated[
        bool, typer.Option("--anew", help="Train even if these inputs were trained before.")
    ] = False,
) -> None:
    """Train a model from the current commit.

    Creates a release. If the same inputs were trained before, their release is reused.

    Example: mlship train
    """
    from mlship.cli import results
    from mlship.steps.train import train as train_step

    options = session(context)
    results.record(train_step(options.pipeline(), anew=anew), json=options.json)


def test(
    context: typer.Context,
    release: ReleaseName = None,  # noqa: PT028 (no test)
    container: Annotated[
        bool, typer.Option("--container", help="Test the container image instead; needs Docker.")
    ] = False,  # noqa: PT028 (the same)
) -> None:
    """Test a release and check its metrics.

    Runs the unit and sanity tests with pytest, scores the model on held-out data, and checks
    gates.test. With --container, runs the image and checks that it becomes ready, predicts like
    the bundle, rejects invalid requests and shuts down cleanly.

    Example: mlship test --container
    """
    from mlship.cli import results
    from mlship.steps.container import check_container
    from mlship.steps.test import check_data
    from mlship.steps.test import test as test_step

    options = session(context)
    pipeline = options.pipeline()
    records = pipeline.read()
    chosen = pipeline.release(release, records)
    if container:
        record = check_container(pipeline, chosen, records=records)
    else:
        if release is not None:
            check_data(pipeline, chosen)
        record = test_step(pipeline, chosen, records)
    results.record(record, json=options.json)


def containerize(
    context: typer.Context,
    release: ReleaseName = None,
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the image to a file for `docker load`."),
    ] = None,
) -> None:
    """Build the container image of a release.

    The default builder, oci, needs no Docker and gives the same digest on every machine. With
    image.builder docker, the image is built once from a Dockerfile that image.extend can add to;
    use --to to move it to other machines.

    Example: mlship containerize
    """
    from mlship.cli import results
    from mlship.steps.containerize import containerize as make
    from mlship.steps.containerize import hand_over

    options = session(context)
    pipeline = options.pipeline()
    records = pipeline.read()
    record = make(pipeline, pipeline.release(release, records), records)
    if to is not None:
        hand_over(pipeline, record, to)
    results.record(record, json=options.json)


def push_to_registry(
    context: typer.Context,
    release: ReleaseName = None,
    archive: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="Push the file that `containerize --to` wrote."
        ),
    ] = None,
) -> None:
    """Push the image of a release to its registry.

    Prints the image reference with its digest. In GitHub Actions, sets the step outputs
    `reference` and `digest`.

    Example: mlship push-to-registry
    """
    from mlship.cli import results
    from mlship.steps.push import push

    options = session(context)
    pipeline = options.pipeline()
    records = pipeline.read()
    record = push(pipeline, pipeline.release(release, records), archive, records)
    results.record(record, json=options.json)
