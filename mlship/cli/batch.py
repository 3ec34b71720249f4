"""The command batch: files of rows, scored by a release."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from mlship.cli import output
from mlship.cli.options import ReleaseName
from mlship.cli.session import session

if TYPE_CHECKING:
    from mlship.config.project import Config


def batch(
    context: typer.Context,
    release: ReleaseName = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="FILES",
            help="A path, folder, glob, fsspec URL, or a query or table of PostgreSQL. May be "
            "repeated. Default: batch.input.",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--output",
            metavar="PLACE",
            help="A folder, URL or table for the outputs. Default: batch.output.",
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="COLUMN",
            help="A column to copy to the output. May be repeated. Default: batch.keep.",
        ),
    ] = None,
    max_rejected: Annotated[
        int | None,
        typer.Option(min=0, help="Rows that may be rejected. Default: batch.max_rejected."),
    ] = None,
) -> None:
    """Score files of rows with a release.

    Each row is answered as over HTTP. Outputs are published together, in a folder of the release
    and the run; rows that the model refuses are written to `_rejected` there. After a crash, run
    the same command again: it goes on. A second run with the same inputs and release does nothing.

    Example: mlship batch champion --input "lake/2026-11/*.parquet" --output scores
    """
    from mlship import wire
    from mlship.steps.batch import batch as batch_step

    options = session(context)
    pipeline = options.pipeline()
    config = _changed(pipeline.config, inputs, to, keep, max_rejected)
    pipeline = dataclasses.replace(pipeline, config=config)
    records = pipeline.read()
    chosen = pipeline.release(release, records)
    ports = wire.batching(config, options.root, wire.environment())
    result = batch_step(pipeline, ports, chosen, records)
    for reason in result.reasons:
        pipeline.progress.note(f"rejected: {reason}")
    if not result.is_new:
        pipeline.progress.note("nothing to do: these inputs were scored by this release before")
    output.record(result.record, json=options.json)


def _changed(
    config: "Config",
    inputs: list[str] | None,
    to: str | None,
    keep: list[str] | None,
    max_rejected: int | None,
) -> "Config":
    """Return the Config with what options say about the batch."""
    import msgspec

    given = {
        "input": tuple(inputs) if inputs else None,
        "output": to,
        "keep": tuple(keep) if keep else None,
        "max_rejected": max_rejected,
    }
    options = {name: value for name, value in given.items() if value is not None}
    return msgspec.structs.replace(config, batch=msgspec.structs.replace(config.batch, **options))
