"""The command batch: files of rows, scored by a release."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mlship.cli import output
from mlship.cli.options import ReleaseName
from mlship.cli.session import session
from mlship.errors import shown

if TYPE_CHECKING:
    from mlship.cli.session import Session
    from mlship.config.batch import BatchConfig
    from mlship.config.project import Config
    from mlship.steps.batch_challenger import Compared
    from mlship.steps.pipeline import Pipeline

WRITER = "`mlship batch --render`"

_Challenger = Annotated[
    Literal["shadow", "split"] | None,
    typer.Option(
        help="How production's challenger takes part: it scores each row, too, apart, or some "
        "rows, by the route's weights. Default: batch.challenger."
    ),
]
_Render = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Write the batch to a folder instead, as a job for spark-submit, and show the "
        "command that submits it.",
    ),
]


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
    challenger: _Challenger = None,
    render: _Render = None,
) -> None:
    """Score files of rows with a release.

    Each row is answered as over HTTP. Outputs are published together, in a folder of the release
    and the run; rows that the model refuses are written to `_rejected` there. After a crash, run
    the same command again: it goes on. A second run with the same inputs and release does nothing.
    With a challenger, RELEASE is by default the champion. With --render, a job that does the same
    on Spark's cluster is written, for this release.

    Example: mlship batch champion --input "lake/2026-11/*.parquet" --output scores
    """
    options = session(context)
    pipeline = options.pipeline()
    config = _changed(pipeline.config, inputs, to, keep, max_rejected, challenger)
    pipeline = dataclasses.replace(pipeline, config=config)
    if render is not None:
        _render(pipeline, options, release, render)
        return
    result = _scored(pipeline, options.root, release)
    _print(pipeline, result, json=options.json)


def _scored(pipeline: "Pipeline", root: "Path", release: str | None) -> "Compared":
    """Score the rows, with a challenger if one takes part."""
    from mlship import wire
    from mlship.steps.batch import batch as batch_step
    from mlship.steps.batch_challenger import Compared, compared

    config, records = pipeline.config, pipeline.read()
    mode = config.batch.challenger
    chosen = pipeline.release(release or ("champion" if mode else None), records)
    ports = wire.batching(config, root, wire.environment())
    if mode is None:
        return Compared(published=batch_step(pipeline, ports, chosen, records))
    return compared(pipeline, ports, chosen, records, mode)


def _render(pipeline: "Pipeline", options: "Session", release: str | None, into: Path) -> None:
    """Write the batch as a job for spark-submit. The release is that of now."""
    from mlship import files
    from mlship.config.spark import check_spark
    from mlship.steps.batch import output_of
    from mlship.steps.preview import write_rendered
    from mlship.templates import batch_job

    batch, to = pipeline.config.batch, output_of(pipeline)
    check_spark(batch.spark)
    chosen = pipeline.release(release or ("champion" if batch.challenger else None))
    path = into / batch_job.NAME
    text = batch_job.render(
        release=str(chosen),
        to=shown(to),
        config=options.config.name,
        flags=(*options.flags, "batch.engine=spark"),
        arguments=("batch", str(chosen), *_options(batch, to)),
        settings=batch.spark,
        path=str(path),
    )
    write_rendered({path: files.signed(text, WRITER)}, into, (WRITER,))
    command = batch_job.submit(batch.spark, str(chosen), str(path))
    if options.json:
        output.as_json({"release": str(chosen), "files": [str(path)], "submit": command})
        return
    output.line(str(path))
    output.line(command)


def _options(batch: "BatchConfig", to: str) -> list[str]:
    """Return the options with which a job asks for this batch."""
    named = [("--input", each) for each in batch.patterns]
    named += [("--output", to), *(("--keep", each) for each in batch.keep)]
    named.append(("--max-rejected", str(batch.max_rejected)))
    if batch.challenger:
        named.append(("--challenger", batch.challenger))
    return [part for pair in named for part in pair]


def _print(pipeline: "Pipeline", result: "Compared", *, json: bool) -> None:
    from mlship.cli import results

    for each in (result.published, result.shadow):
        for reason in each.reasons if each else ():
            pipeline.progress.note(f"rejected: {reason}")
    if not result.is_new:
        pipeline.progress.note("nothing to do: these inputs were scored by this release before")
    shadow = result.shadow.record if result.shadow else None
    results.beside(result.published.record, shadow, json=json)


def _changed(
    config: "Config",
    inputs: list[str] | None,
    to: str | None,
    keep: list[str] | None,
    max_rejected: int | None,
    challenger: str | None,
) -> "Config":
    """Return the Config with what options say about the batch."""
    import msgspec

    given = {
        "input": tuple(inputs) if inputs else None,
        "output": to,
        "keep": tuple(keep) if keep else None,
        "max_rejected": max_rejected,
        "challenger": challenger,
    }
    options = {name: value for name, value in given.items() if value is not None}
    return msgspec.structs.replace(config, batch=msgspec.structs.replace(config.batch, **options))
