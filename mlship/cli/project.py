"""Commands for a project on this machine: init, serve, down."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlship.cli import output
from mlship.cli.options import ReleaseName
from mlship.cli.session import session
from mlship.errors import ConflictError

if TYPE_CHECKING:
    from mlship.templates.project import Plan


def init(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Where to write; created if missing.")] = Path(),
    example: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Write a complete example: iris, sentiment or churn."),
    ] = None,
    force: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Overwrite this file or folder. May be repeated."),
    ] = None,
    upgrade: Annotated[
        bool,
        typer.Option("--upgrade", help="Merge what is generated now into files that you edited."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before writing.")] = False,
) -> None:
    """Create a project, or update its workflows.

    The workflows are generated from mlship.yaml: run init again after a change there. Files that
    you wrote or edited are listed and left unchanged. In a repository with several projects, each
    has its own workflows, named after its folder. A workflow that you deleted is not written again,
    unless you --force it.

    With --upgrade, files that you edited get what is new in them by a three-way merge. Git marks
    conflicts in the files, and the exit code is 8.

    Example: mlship init --example iris
    """
    import sys
    from functools import partial

    from mlship import wire
    from mlship.config import layers
    from mlship.templates.changes import check_folder
    from mlship.templates.project import carry_out, plan
    from mlship.templates.site import tracked

    call = session(context)
    check_folder(folder)
    top = wire.top_of(folder)
    planned = plan(
        folder,
        example,
        force or (),
        above=(layers.from_environment(wire.environment()), layers.from_flags(call.flags)),
        installed=wire.installed(top),
        repository=wire.repository(top, tracked(folder, top), folder) if top else None,
        kept_by_dvc=wire.kept_by_dvc,
        merge=partial(wire.merge, top or folder) if upgrade else None,
    ).noting_ignored(partial(wire.not_ignored, top))
    if planned.warning:
        output.warning(planned.warning)
    if planned.proposed and not call.json:
        output.line("mlship.yaml, as it fits what is here:\n")
        output.line(planned.proposed)
    if not (yes or call.json) and sys.stdin.isatty():
        _confirm(planned)
    carry_out(planned)
    _show(planned, is_json=call.json)
    _refuse_conflicts(planned)


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
    # The server tells its address itself, when it listens there.
    output.line(f"starting {chosen}; Ctrl-C ends it")
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
    """Stop everything that runs on this machine.

    That is, local targets and the stream. The route, the ledger and the logs are kept. To start
    production again, run `mlship deploy-production champion`.

    Example: mlship down
    """
    from mlship import wire

    options = session(context)
    pipeline = options.pipeline()
    stopped: dict[str, tuple[str, ...]] = {}
    stream = wire.stream_background(pipeline).stop()
    if stream is not None:
        stopped["stream"] = (f"process {stream}",)
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


def _confirm(planned: "Plan") -> None:
    """Ask before something changes in a folder that has files already."""
    from mlship.templates.changes import WRITTEN

    made = [change for change in planned.changes if change.what in (*WRITTEN, "remove")]
    if not made or not planned.folder.is_dir() or not any(planned.folder.iterdir()):
        return
    for change in made:
        output.line(f"{change.what} {planned.shown(change.name)}")
    typer.confirm("Continue?", default=True, abort=True)


def _show(planned: "Plan", *, is_json: bool) -> None:
    import shlex
    from typing import get_args

    from mlship.templates.changes import Way

    if is_json:
        if not planned.conflicts:
            output.as_json(_facts(planned))
        return
    sentences: dict[Way, str] = {
        "write": "wrote {}",
        "update": "updated {} from mlship.yaml",
        "merge": "merged your edits of {} with what is generated now",
        "conflict": "merged {}, with conflicts",
        "overwrite": "overwrote {}",
        "remove": "removed {}, which is not needed any more",
        "skip": "left out {}: {reason}; `mlship init {folder}--force {}` writes it",
        "unmerged": "left {} as it is: it has marks of a conflict",
        "keep": "{} is up to date",
    }
    ways: tuple[Way, ...] = get_args(Way)
    is_here = planned.folder.resolve() == Path.cwd()
    folder = "" if is_here else f"{shlex.quote(str(planned.folder))} "
    for way in ways:
        for change in planned.changes:
            if change.what == way:
                kept = "kept {}, which you wrote or edited"
                kept += ": {reason}" if change.reason else ""
                sentence = kept if change.is_edited else sentences[way]
                if change.is_sparse:
                    sentence = "left out {}: {reason}"
                name = planned.shown(change.name)
                output.line(sentence.format(name, name, folder=folder, reason=change.reason))
    output.line("next:")
    for step in planned.next:
        output.line(f"  {step}")


def _facts(planned: "Plan") -> dict[str, object]:
    """Return the changes for `--json`: the names of files by what was done to them."""
    from typing import get_args

    from mlship.templates.changes import Way

    ways: tuple[Way, ...] = get_args(Way)
    names: dict[str, object] = {way: planned.names(way) for way in ways}
    edited = [change.name for change in planned.changes if change.is_edited]
    reasons = {change.name: change.reason for change in planned.changes if change.reason}
    return names | {"edited": edited, "reasons": reasons, "next": planned.next}


def _refuse_conflicts(planned: "Plan") -> None:
    """Refuse to end well while files have marks of conflicts.

    Raises:
        ConflictError: there are such files.
    """
    from mlship.domain.commit import named

    if planned.conflicts:
        names = [planned.shown(name) for name in planned.conflicts]
        raise ConflictError(
            f"conflicts in {named(names)}; everything else was written",
            hint="choose between the lines from <<<<<<< to >>>>>>> in each file, remove these "
            "marks, and commit",
            facts=_facts(planned),
        )
