"""The commands of streams: run, stop, render and replay."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from mlship.cli import output
from mlship.cli.options import group
from mlship.cli.session import session

app = group("Answer messages of Kafka.")

WRITER = "`mlship stream render`"


@app.command("run")
def run(
    context: typer.Context,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Processes that read. Default: stream.workers."),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when it is ready; it goes on.")
    ] = False,
) -> None:
    """Answer messages until Ctrl-C, or `mlship stream stop`.

    Reads stream.input, and writes an output for each message to stream.output, or the message with
    the reason to the dead-letter topic. The route of production says which release answers: the
    same key gets the same side as over HTTP. A change of the route is followed within 2 s, without
    a restart. Workers that end are started again; after a crash, messages are answered once.

    Example: mlship stream run --workers 2
    """
    from mlship import wire
    from mlship.steps.stream import run as run_stream
    from mlship.steps.stream import section

    options = session(context)
    pipeline = options.pipeline()
    config, environment = section(pipeline), os.environ
    background = wire.stream_background(pipeline)
    if detach:
        command = [sys.executable, "-P", "-m", "mlship", "--config", str(options.config.resolve())]
        command += [part for flag in options.flags for part in ("--set", flag)]
        command += ["stream", "run", *(["--workers", str(workers)] if workers else [])]
        pid = background.start(command, environment)
        output.line(f"the stream runs in process {pid}; its log is {background.log}")
        return
    processes = wire.stream_workers(pipeline, config, environment, pipeline.progress)
    outcomes = wire.outcome_messages(pipeline, config, environment)
    with background.held():
        run_stream(pipeline, processes, outcomes, count=workers, ready=background.ready)


@app.command("stop")
def stop(context: typer.Context) -> None:
    """Stop the stream of this project on this machine.

    A transaction that has begun is finished. Messages that arrive meanwhile wait in their topic.

    Example: mlship stream stop
    """
    from mlship import wire

    options = session(context)
    pid = wire.stream_background(options.pipeline()).stop()
    if options.json:
        output.as_json({"stopped": pid})
        return
    output.line(f"stopped process {pid}" if pid else "no stream was running")


@app.command("render")
def render(
    context: typer.Context,
    into: Annotated[Path, typer.Argument(metavar="DIR", help="The folder, created if missing.")],
    engine: Annotated[
        Literal["kubernetes", "spark"], typer.Option(help="What the workers run on.")
    ] = "kubernetes",
) -> None:
    """Write a stream for Kubernetes or Spark to a folder.

    On Kubernetes, for `kubectl apply`: workers that run the image of the champion, which needs
    confluent-kafka and xxhash, ask the pods of production, and follow its route. With --engine
    spark, a job of Structured Streaming for `spark-submit`, by the route as it is now; its outputs
    are written at least once. A file that you edited is left alone, with exit code 8.

    Example: mlship stream render deploy
    """
    from mlship import files, wire
    from mlship.steps.preview import write_rendered
    from mlship.templates import stream_job

    options = session(context)
    pipeline = options.pipeline()
    if engine == "spark":
        texts = {stream_job.NAME: stream_job.render(*wire.stream_plan(pipeline))}
    else:
        texts = wire.stream_files(pipeline)
    signed = {into / name: files.signed(text, WRITER) for name, text in texts.items()}
    paths = [str(path) for path in write_rendered(signed, into, (WRITER,))]
    if options.json:
        output.as_json({"files": paths})
        return
    for path in paths:
        output.line(path)


@app.command("replay")
def replay(
    context: typer.Context,
    partition: Annotated[
        int | None,
        typer.Option(min=0, help="Only of this partition of the dead-letter topic, each time."),
    ] = None,
    first: Annotated[
        int | None, typer.Option("--from", min=0, help="The first offset in the partition.")
    ] = None,
    last: Annotated[
        int | None, typer.Option("--to", min=0, help="The last offset in the partition.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent; change nothing.")
    ] = False,
) -> None:
    """Send dead letters to the input topic again.

    By default all that were not sent again yet, each exactly once: keys, values, headers and times
    are those received. With --partition, dead letters of that partition, also if they were sent
    again before.

    Example: mlship stream replay --dry-run
    """
    from mlship import wire
    from mlship.steps.stream import section, selection

    options = session(context)
    chosen = selection(partition, first, last)
    pipeline = options.pipeline()
    config = section(pipeline)
    letters = wire.dead_letters(pipeline, config, os.environ)
    result = letters.replay(chosen, dry_run=dry_run)
    if options.json:
        output.as_json(result)
        return
    verb = "would be sent" if dry_run else "sent"
    output.line(f"{result.count} messages {verb} to {config.input} again")
    for reason, count in result.reasons.items():
        output.line(f"  {count}: {reason}")
    if result.left_out:
        output.line(f"{result.left_out} dead letters of other topics left out")
