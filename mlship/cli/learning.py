"""Commands that learn how a challenger does: feedback, evaluate, approve."""

import re
from pathlib import Path
from typing import Annotated

import typer

from mlship.cli import output
from mlship.cli.making import ReleaseName
from mlship.cli.session import session
from mlship.errors import ConfigError


def feedback(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="FILE|PREDICTION_ID", help="CSV or JSON lines, or one id.")
    ],
    outcome: Annotated[
        str | None, typer.Argument(help="What turned out to be true, for one prediction.")
    ] = None,
) -> None:
    """Take in what turned out to be true.

    A file has a column prediction_id and one named outcome.

    Example: mlship feedback outcomes.csv
    """
    from mlship.steps.feedback import feedback as take
    from mlship.steps.feedback import read

    given = session(context)
    outcomes = [(source, outcome)] if outcome is not None else read(Path(source))
    taken = take(given.pipeline(), outcomes)
    if given.json:
        output.as_json(taken)
    else:
        output.line(f"{taken.new} new outcomes, {taken.known} known before")
        if taken.unknown:
            shown = ", ".join(taken.unknown[:5])
            output.line(f"{len(taken.unknown)} predictions that no log knows: {shown}")


def evaluate(context: typer.Context) -> None:
    """Compare challenger and champion on outcomes.

    The interval stays valid however often it is looked at.

    Example: mlship evaluate
    """
    from mlship.steps.evaluate import evaluate as evaluate_step

    given = session(context)
    found = evaluate_step(given.pipeline())
    facts = found.evidence.facts
    if not given.json:
        rows = [
            (role, _number(facts[f"{role}_mean"]), str(facts[f"{role}_n"]))
            for role in ("champion", "challenger")
        ]
        output.table("", ("", str(facts["metric"]), "outcomes"), rows)
        interval = f"{_number(facts['low'])} to {_number(facts['high'])}"
        output.line(f"difference {_number(facts['estimate'])} ({interval}), {facts['method']}")
        output.line(str(facts["reason"]))
    output.record(found, json=given.json, refuse=found.evidence.verdict == "failed")


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4f}"


def _number_of_pull(text: str) -> int:
    """Return what a person typed into a form of GitHub as a number, or refuse it in our words."""
    if not re.fullmatch("[1-9][0-9]{0,17}", text):
        raise ConfigError(
            f"{text[:80]!r} is no number of a pull request", hint="give the one behind the #, as 7"
        )
    return int(text)


def approve(
    context: typer.Context,
    release: ReleaseName = None,
    by: Annotated[
        str | None, typer.Option(help="Who approves; by default git's user.email.")
    ] = None,
    comment: Annotated[str, typer.Option(help="Anything to add.")] = "",
    number: Annotated[
        int | None,
        typer.Option(
            "--from-pull-request",
            metavar="N",
            parser=_number_of_pull,
            help="Take the approvals of its reviews.",
        ),
    ] = None,
) -> None:
    """Record people's approval of one release.

    It holds for this release's digests only, and never comes from its author. Of a pull request's
    reviews those count that approve of the very commit, by people who may push.

    Example: mlship approve challenger --by ada@example.org
    """
    from mlship.steps.approve import approve as approve_step
    from mlship.steps.approve import approve_from_pull_request

    given = session(context)
    pipeline = given.pipeline()
    if number is not None:
        if by or comment:
            raise ConfigError(
                "--from-pull-request takes who approves from the reviews",
                hint="leave --by and --comment out",
            )
        chosen = pipeline.release(release)
        taken = approve_from_pull_request(pipeline, chosen, number)
        if given.json:
            output.as_json(taken)
            return
        output.line(f"approve {chosen}: {taken.count}, by {', '.join(taken.people)}")
        for record in taken.withdrawn:
            facts = record.evidence.facts
            output.line(f"  withdrawn: {facts['by']}: {facts['reason']}")
        for reason in taken.left_out:
            output.line(f"  not counted: {reason}")
        return
    found = approve_step(pipeline, pipeline.release(release), by or pipeline.actor, comment)
    output.record(found, json=given.json)
