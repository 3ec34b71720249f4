"""`mlship schedules`: run a tick, list the schedules, write what fires them."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from mlship.cli import output
from mlship.cli.options import group
from mlship.cli.session import session
from mlship.errors import ConfigError, NotFoundError

app = group("Run mlship on a schedule: run, list, render.")

_OF_JOB = re.compile(r"[a-z0-9.-]+-([0-9]{8,9})")
"""The name of a Job of a CronJob, which ends in the planned time in minutes since 1970."""
_NOT_KNOWN = ("", "None")


def _moment(text: str) -> datetime | None:
    """Parse a planned time; `None` if whoever fires the tick has none.

    Raises:
        ConfigError: it is neither a time with a zone nor the name of a CronJob's Job.
    """
    if text in _NOT_KNOWN:
        return None
    if match := _OF_JOB.fullmatch(text):
        return datetime.fromtimestamp(60 * int(match[1]), UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    # Of other years, the time in UTC or the tick before might not exist.
    if moment is None or moment.tzinfo is None or not 1970 <= moment.year <= 9000:
        raise ConfigError(
            f"--at {text[:60]!r} is neither a time with a time zone nor a Job of a CronJob",
            hint="give it such as 2026-11-23T03:00:00+00:00, or leave --at out for now",
        )
    return moment


@app.command("run")
def run(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the schedule.")],
    at: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="The planned time of the tick, with a time zone, or the name of the Job that a "
            "CronJob made. Default: now.",
        ),
    ] = "",
) -> None:
    """Run a tick of a schedule, once.

    The tick is the last planned one until TIME. If the ledger has its record, nothing runs. A tick
    that was killed, or whose command failed for a reason that may pass, has no record, and the same
    command goes on with it. Ticks that nobody fired before are recorded as missed.

    Example: mlship schedules run weekly
    """
    from mlship import wire
    from mlship.cli import results
    from mlship.steps.tick import shown, tick

    options = session(context)
    commands = wire.own_commands(options.config, options.flags, wire.environment())
    result = tick(options.pipeline(), name, commands, _moment(at))
    if not result.is_new and not options.json:
        output.line(f"schedule {name}: the tick of {shown(result.planned)} was run before")
    results.record(result.record, json=options.json)


@app.command("list")
def list_schedules(context: typer.Context) -> None:
    """List the schedules, with their last and next ticks.

    Example: mlship schedules list
    """
    from mlship.steps.tick import scheduled, shown

    options = session(context)
    pipeline = options.pipeline(purpose="read")
    states = scheduled(pipeline, pipeline.read())
    if options.json:
        output.as_json(states)
        return
    rows = [
        (
            *(each.name, each.run, each.cron, each.where),
            f"{shown(each.last)}, {each.verdict}" if each.last else "never",
            shown(each.next),
        )
        for each in states
    ]
    output.table("", ("schedule", "runs", "cron", "where", "last tick", "next tick"), rows)
    for each in states:
        if each.alarm:
            output.line(each.alarm)


@app.command("render")
def render(
    context: typer.Context,
    into: Annotated[Path, typer.Argument(metavar="DIR", help="The folder, created if missing.")],
) -> None:
    """Write the DAGs and the CronJobs of the schedules to a folder.

    There is a file for each schedule with `where: airflow` or `where: kubernetes`. The workflow for
    GitHub is written by `mlship init`. A file that you edited is left alone, with exit code 8.

    Example: mlship schedules render deploy
    """
    from mlship.steps.preview import write_rendered
    from mlship.templates import schedules

    options = session(context)
    texts = {
        into / name: text for name, text in schedules.render(options.resolved().config).items()
    }
    if not texts:
        raise NotFoundError(
            "mlship.yaml has no schedule with `where: airflow` or `where: kubernetes`",
            hint="add one to `schedules`; for `where: github`, run `mlship init`",
        )
    paths = [str(path) for path in write_rendered(texts, into, (schedules.WRITER,))]
    if options.json:
        output.as_json({"files": paths})
        return
    for path in paths:
        output.line(path)
