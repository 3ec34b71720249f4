"""Commands about outcomes: feedback, evaluate."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlship.cli import output
from mlship.cli.session import session
from mlship.errors import ConfigError, some

if TYPE_CHECKING:
    from mlship.steps.outcome_files import Received


Source = Annotated[
    str,
    typer.Argument(
        metavar="FILE|PREDICTION_ID",
        help="A CSV or JSON lines file, or a prediction id; with --key, a value of the column.",
    ),
]
KeyColumn = Annotated[
    str,
    typer.Option(
        "--key",
        metavar="COLUMN",
        help="Rows of a batch are named by this column, which its output keeps.",
    ),
]
RunName = Annotated[
    str,
    typer.Option(
        "--run",
        metavar="NAME",
        help="The run that has the key. Default: the last one published before the outcome.",
    ),
]


def feedback(
    context: typer.Context,
    source: Source,
    outcome: Annotated[
        str | None, typer.Argument(help="The true value, for a single prediction.")
    ] = None,
    correct: Annotated[
        bool, typer.Option("--correct", help="Replace other outcomes of these predictions.")
    ] = False,
    new_labels: Annotated[
        bool, typer.Option("--new-labels", help="Accept labels that the release does not know.")
    ] = False,
    key: KeyColumn = "",
    run: RunName = "",
) -> None:
    """Record outcomes of predictions.

    A file needs the columns prediction_id and outcome. With several targets it may have a column
    for each of them, and a single outcome is a JSON object. What cannot be the true value of its
    prediction is refused, with file and line, and nothing of the file is recorded. With --key, the
    file has that column instead of prediction_id.

    Example: mlship feedback outcomes.csv
    """
    from mlship import wire
    from mlship.steps.batch_feedback import Key
    from mlship.steps.feedback import feedback as feedback_step

    if run and not key:
        message = "--run names the run that has a key, and there is no --key"
        raise ConfigError(message, hint="give --key COLUMN, or omit --run")
    options = session(context)
    pipeline = options.pipeline()
    result = feedback_step(
        pipeline,
        _received(source, outcome, pipeline.config.data.targets, key),
        corrects=correct,
        new_labels=new_labels,
        batching=wire.batching(pipeline.config, options.root, wire.environment()),
        key=Key(key, _name_of(run)) if key else None,
    )
    if options.json:
        output.as_json(result)
        return
    corrected = f", {result.corrected} of them corrections" if result.corrected else ""
    output.line(f"{result.new} new outcomes{corrected}, {result.known} already known")
    if result.unknown:
        where = f"{key} not found in the batch" if key else "predictions not found"
        hint = "; if they are about another run, name it with --run" if key and not run else ""
        output.line(f"{len(result.unknown)} {where}: {some(result.unknown)}{hint}")


def _received(
    source: str, outcome: str | None, targets: Sequence[str], key: str
) -> "list[Received]":
    from mlship.steps.outcome_files import Received, parsed, read

    if outcome is None:
        return read(Path(source), targets, key)
    return [Received(source, parsed(outcome, targets))]


def evaluate(context: typer.Context) -> None:
    """Compare challenger and champion on outcomes.

    You can run it as often as you like: its confidence interval stays valid.

    Example: mlship evaluate
    """
    from mlship import wire
    from mlship.cli import results
    from mlship.domain import shapes
    from mlship.domain.facts import Evaluated
    from mlship.reports import outcomes
    from mlship.steps.evaluate import evaluate as evaluate_step

    options = session(context)
    pipeline = options.pipeline()
    ports = wire.batching(pipeline.config, options.root, wire.environment())
    record = evaluate_step(pipeline, batching=ports)
    facts = shapes.of(record, Evaluated)
    if not options.json:
        if rows := outcomes.rows(facts, "champion", "challenger"):
            output.table("", outcomes.header(facts), rows)
        if sentence := outcomes.sentence(facts):
            output.line(f"{sentence} ({facts.method})")
        output.line(facts.reason)
    results.record(record, json=options.json, refuse=record.evidence.verdict == "failed")


def _name_of(run: str) -> str:
    """Return the name of a run, which may be given as its folder."""
    return run.rstrip("/").rpartition("/")[2].removeprefix("run-")
