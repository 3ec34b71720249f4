"""The command watch: the challenger against the champion, on their requests."""

from typing import TYPE_CHECKING, Annotated

import typer

from mlship.cli import output
from mlship.cli.session import session

if TYPE_CHECKING:
    from mlship.steps.watch import Watch


def watch(
    context: typer.Context,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="How long to watch. Default: until production has no challenger with traffic."
        ),
    ] = None,
    every: Annotated[
        float, typer.Option(help="Seconds between two looks at the counts of the load balancer.")
    ] = 10.0,
) -> None:
    """Take a failing or slow challenger off traffic.

    Compares the requests of challenger and champion, as mlship's load balancer counts them, with
    `targets.production.challenger_bounds`. A challenger beyond a bound gets no traffic any more,
    which is recorded, and the exit code is 3. The champion is never taken off. If the counts cannot
    be read at the end, the exit code is 4. Too few requests decide nothing.

    Example: mlship watch --seconds 600
    """
    from mlship.cli import results
    from mlship.steps.watch import watch as watch_step

    options = session(context)
    result = watch_step(options.pipeline(), every=every, seconds=seconds)
    if result.champion and not options.json:
        _show(result)
    if result.record is not None:
        results.record(result.record, json=options.json)
    elif options.json:
        output.as_json(result)
    else:
        name = f" {result.challenger}" if result.challenger else ""
        output.line(f"watch{name}: {result.verdict}. {result.reason}")


def _show(result: "Watch") -> None:
    """Print the requests of both."""
    from mlship.reports import requests

    rows = requests.rows(
        f"champion {result.champion}",
        result.champion_side,
        f"challenger {result.challenger}",
        result.challenger_side,
    )
    output.table("", requests.HEADER, rows)
