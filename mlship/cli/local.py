"""Commands of this machine: init, serve, down."""

from pathlib import Path
from typing import Annotated

import typer

from mlship.cli import output
from mlship.cli.making import ReleaseName
from mlship.cli.session import session


def init(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Where to write; made if need be.")] = Path(),
    example: Annotated[
        str | None, typer.Option(metavar="iris", help="Write a whole example that runs.")
    ] = None,
) -> None:
    """Write the files that a new project starts with.

    A file that exists is never changed: it is named, and left alone.

    Example: mlship init --example iris
    """
    from mlship.templates import write

    given = session(context)
    written, kept = write(folder, example)
    if given.json:
        output.as_json({"written": written, "kept": kept})
        return
    for name in written:
        output.line(f"wrote {name}")
    for name in kept:
        output.line(f"kept  {name}, which was there")


def serve(
    context: typer.Context,
    release: ReleaseName = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="To listen on.")] = 8080,
) -> None:
    """Serve a release here, until Ctrl-C.

    Example: mlship serve --port 8080
    """
    import os
    import sys

    from mlship.deployment import slot_of

    given = session(context)
    pipeline = given.pipeline()
    found = pipeline.release(release)
    folder = pipeline.bundle(found)
    output.line(f"{found} on http://127.0.0.1:{port}/docs")
    sys.stdout.flush()
    options = {
        "--bundle": str(folder),
        "--digest": found.bundle,
        "--release": found.id,
        "--name-of-release": str(found),
        "--slot": slot_of(found),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--log": str(pipeline.state / "predictions" / "serve"),
    }
    arguments = [part for pair in options.items() for part in pair]
    os.execv(  # noqa: S606 (the foreground is the server's: signals and exit code are its own)
        sys.executable, [sys.executable, "-m", "mlship.runtime", "serve", *arguments]
    )


def down(context: typer.Context) -> None:
    """Stop all that the local targets run.

    The route, the ledger and the logs stay; deploying again brings it back.

    Example: mlship down
    """
    from mlship import wire

    given = session(context)
    pipeline = given.pipeline()
    stopped = {}
    for name in dict.fromkeys(("staging", "production", *pipeline.config.targets)):
        with pipeline.locks.exclusive(name):
            target = wire.local_target(name, pipeline.config, pipeline.state, pipeline.progress)
            stopped[name] = target.down()
    if given.json:
        output.as_json(stopped)
        return
    for name, what in stopped.items():
        output.line(f"{name}: {', '.join(what) if what else 'nothing ran'}")
