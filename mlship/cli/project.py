"""Commands for a project on this machine: init, serve, down."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlship.cli import output
from mlship.cli.options import ReleaseName
from mlship.cli.session import session

if TYPE_CHECKING:
    from mlship.templates.project import Plan


def init(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Where to write; created if missing.")] = Path(),
    example: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Write a complete example: iris or sentiment."),
    ] = None,
    force: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Overwrite this file or folder. May be repeated."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before writing.")] = False,
) -> None:
    """Create a project, or update its workflows.

    The workflows are generated from mlship.yaml: run init again after a change there. Files that
    you wrote or edited are listed and left unchanged. In a repository with several projects, each
    has its own workflows, named after its folder.

    Example: mlship init --example iris
    """
    import sys
    from typing import get_args

    from mlship import wire
    from mlship.templates.changes import Way, check_folder
    from mlship.templates.project import carry_out, plan

    call = session(context)
    check_folder(folder)
    top = wire.top_of(folder)
    planned = plan(
        folder,
        example,
        force or (),
        call.flags,
        environment=wire.environment(),
        installed=wire.installed(top),
        top=top,
        kept_by_dvc=wire.kept_by_dvc,
    )
    if planned.warning:
        output.warning(planned.warning)
    ways: tuple[Way, ...] = get_args(Way)
    if planned.proposed and not call.json:
        output.line("mlship.yaml, as it fits what is here:\n")
        output.line(planned.proposed)
    asks = not (yes or call.json) and sys.stdin.isatty() and folder.is_dir()
    if asks and any(folder.iterdir()):
        for way in ways[:-1]:
            for name in planned.names(way):
                output.line(f"{way} {name}")
        typer.confirm("Continue?", default=True, abort=True)
    carry_out(planned)
    _show(planned, is_json=call.json)


def serve(
    context: typer.Context,
    release: ReleaseName = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on.")] = 8080,
) -> None:
    """Serve a release on this machine until Ctrl-C.

    Example: mlship serve --port 8080
    """
    import os
    import sys

    from mlship.domain.deployment import slot_of
    from mlship.domain.environment import of_serving

    options = session(context)
    pipeline = options.pipeline()
    chosen = pipeline.release(release)
    folder = pipeline.bundle(chosen)
    output.line(f"{chosen} on http://127.0.0.1:{port}/docs")
    sys.stdout.flush()
    flags = {
        "--bundle": str(folder),
        "--digest": chosen.bundle,
        "--release": chosen.id,
        "--name-of-release": str(chosen),
        "--slot": slot_of(chosen),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--log": str(pipeline.state / "predictions" / "serve"),
    }
    arguments = [part for pair in flags.items() for part in pair]
    command = [sys.executable, "-P", "-m", "mlship.runtime", "serve", *arguments]
    # The server replaces this process, with its signals and exit code.
    os.execve(sys.executable, command, of_serving(os.environ))  # noqa: S606


def down(context: typer.Context) -> None:
    """Stop everything that local targets run.

    The route, the ledger and the logs are kept. To start production again, run
    `mlship deploy-production champion`.

    Example: mlship down
    """
    from mlship import wire

    options = session(context)
    pipeline = options.pipeline()
    stopped: dict[str, tuple[str, ...]] = {}
    for name in dict.fromkeys(("staging", "production", *pipeline.config.targets)):
        if pipeline.target_config(name).kind != "local":
            continue
        with pipeline.locks.exclusive(name):
            target = wire.local_target(name, pipeline.config, pipeline.state, pipeline.progress)
            stopped[name] = target.down()
    if options.json:
        output.as_json(stopped)
        return
    for name, parts in stopped.items():
        output.line(f"{name}: {', '.join(parts) if parts else 'nothing was running'}")


def _show(planned: "Plan", *, is_json: bool) -> None:
    from typing import get_args

    from mlship.templates.changes import Way

    ways: tuple[Way, ...] = get_args(Way)
    if is_json:
        edited = [change.name for change in planned.changes if change.is_edited]
        names = {way: planned.names(way) for way in ways}
        output.as_json(names | {"edited": edited, "next": planned.next})
        return
    sentences: dict[Way, str] = {
        "write": "wrote {}",
        "update": "updated {} from mlship.yaml",
        "overwrite": "overwrote {}",
        "remove": "removed {}, which is not needed any more",
        "keep": "{} is up to date",
    }
    for way in ways:
        for change in planned.changes:
            if change.what == way:
                kept = "kept {}, which you wrote or edited"
                sentence = kept if change.is_edited else sentences[way]
                output.line(sentence.format(change.name))
    output.line("next:")
    for step in planned.next:
        output.line(f"  {step}")
