"""The app: global options, the commands in the order of the pipeline, and the error handler."""

import atexit
import errno
import gc
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from mlship import __version__
from mlship.cli import (
    api_keys,
    batch,
    build,
    evidence,
    guide,
    images,
    inspect,
    keys,
    ledger,
    load,
    outcomes,
    output,
    predictions,
    production,
    project,
    release,
    schedules,
    stream,
    verify,
    watch,
)
from mlship.cli.session import Session
from mlship.errors import MlshipError, UnavailableError

_FLAGS = ("--json", "--debug")
_OPTIONS = ("--config", "--set")
_DISK = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EFBIG)

_LAST = ("export-evidence", "import-evidence", "serve", "down", "guide")


class _Ordered(typer.core.TyperGroup):
    """The commands in the order of the pipeline; typer puts those with subcommands first."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands in the order of the help."""
        names = super().list_commands(ctx)
        groups = [group.name for group in app.registered_groups]
        return sorted(names, key=lambda name: 2 * (name in _LAST) + (name in groups))


app = typer.Typer(
    name="mlship",
    cls=_Ordered,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:  # noqa: FBT001 (typer's signature)
    if wanted:
        output.line(f"mlship {__version__}")
        raise typer.Exit


@app.callback()
def callback(
    context: typer.Context,
    config: Annotated[Path, typer.Option(help="The configuration file.")] = Path("mlship.yaml"),
    flags: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a setting, such as store.kind=directory. May be repeated.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print results as JSON.")] = False,
    debug: Annotated[  # noqa: ARG001 (main reads it from the arguments, before anything can fail)
        bool, typer.Option("--debug", help="Show the traceback of an error.")
    ] = False,
    version: Annotated[  # noqa: ARG001 (handled by its callback)
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Train, test, deploy, compare and promote machine-learning models.

    Start with `mlship init`, commit what it wrote with git, then `mlship run`.
    """
    context.obj = Session(config=config, json=json, flags=tuple(flags or ()))


for _name, _command in (
    ("init", project.init),
    ("doctor", inspect.doctor),
    ("run", build.run),
    ("fetch-data", build.fetch_data),
    ("train", build.train),
    ("test", build.test),
    ("containerize", build.containerize),
    ("push-to-registry", build.push_to_registry),
    ("deploy-staging", release.deploy_staging),
    ("verify-staging-workload", release.verify_staging_workload),
    ("open-release-pr", release.open_release_pr),
    ("deploy-production", production.deploy_production),
    ("traffic", production.traffic),
    ("watch", watch.watch),
    ("feedback", outcomes.feedback),
    ("evaluate", outcomes.evaluate),
    ("approve", production.approve),
    ("promote", production.promote),
    ("rollback", production.rollback),
    ("retire", production.retire),
    ("batch", batch.batch),
    ("loadtest", load.loadtest),
    ("status", inspect.status),
    ("report", inspect.report),
    ("trace", inspect.trace),
    ("verify", verify.verify),
    ("export-evidence", evidence.export_evidence),
    ("import-evidence", evidence.import_evidence),
    ("serve", project.serve),
    ("down", project.down),
    ("guide", guide.guide),
):
    app.command(_name)(_command)


app.add_typer(images.app, name="images")
app.add_typer(images.bundles, name="bundles")
app.add_typer(predictions.app, name="predictions")
app.add_typer(schedules.app, name="schedules")
app.add_typer(api_keys.app, name="api-keys")
app.add_typer(ledger.app, name="ledger")
app.add_typer(keys.app, name="keys")
app.add_typer(stream.app, name="stream")


def main() -> None:
    """Run the command line; on an error, exit with its exit code."""
    _collect_rarely()
    signal.signal(signal.SIGTERM, _end_by_signal)
    output.escape_foreign()
    arguments = globals_first(sys.argv[1:])
    debug = "--debug" in arguments
    try:
        app(args=arguments)
    except MlshipError as problem:
        if debug:
            raise
        _fail(problem, json="--json" in arguments)
    except Exception as problem:  # an unexpected error is one line too
        if debug:
            raise
        _fail(_unexpected(problem), json="--json" in arguments)


def _collect_rarely() -> None:
    """Search for garbage rarely, and not at the end.

    What a command imports lives until it ends. To search it again and again, as Python does while
    it grows, took a third of the time of an import of MLflow.
    """
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)


def _end_by_signal(number: int, _: object) -> NoReturn:
    """Exit as on Ctrl-C: stop child processes and remove partial files."""
    # The signal may arrive during a write to sys.stderr.
    with suppress(OSError):
        os.write(2, f"error: terminated by {signal.Signals(number).name}\n".encode())
    raise SystemExit(128 + number)


def _unexpected(problem: Exception) -> MlshipError:
    if isinstance(problem, OSError) and problem.errno in _DISK:
        return _of_disk(problem)
    text = " ".join(str(problem).split())
    return MlshipError(
        f"internal error: {type(problem).__name__}: {text[:500]}",
        hint="this is a bug in mlship: run the command again with --debug and report the output",
    )


def _of_disk(problem: OSError) -> UnavailableError:
    return UnavailableError(
        f"cannot write {problem.filename or 'to the disk'}: {problem.strerror}",
        hint="free disk space or fix the permissions, then run the command again",
    )


def _fail(problem: MlshipError, *, json: bool) -> None:
    output.error(problem, json=json, annotate=os.environ.get("GITHUB_ACTIONS") == "true")
    sys.exit(problem.exit_code)


def globals_first(arguments: Sequence[str]) -> list[str]:
    """Move global options to the front, so that `mlship status --json` works too."""
    front: list[str] = []
    rest: list[str] = []
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        if argument == "--":
            return [*front, *rest, argument, *pending]
        if argument in _FLAGS or argument.startswith(tuple(f"{name}=" for name in _OPTIONS)):
            front.append(argument)
        elif argument in _OPTIONS and pending:
            front += [argument, pending.pop(0)]
        else:
            rest.append(argument)
    return [*front, *rest]
