"""`mlship predictions`: commands that remove logged predictions: erase, prune."""

from typing import TYPE_CHECKING, Annotated

import typer

from mlship.cli import output
from mlship.cli.options import group
from mlship.cli.session import Session, session
from mlship.errors import ConfigError

if TYPE_CHECKING:
    from mlship.domain.removal import Condition
    from mlship.steps.removal import Removal

app = group("Remove logged predictions: erase, prune.")

Counted = Annotated[bool, typer.Option("--dry-run", help="Show how many; remove nothing.")]


@app.command("erase")
def erase(
    context: typer.Context,
    ids: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="ID", help="The id of a prediction. May be repeated."),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="COLUMN=VALUE",
            help="Predictions with this value. Repeated, all of them must hold.",
        ),
    ] = None,
    dry_run: Counted = False,
) -> None:
    """Erase predictions, such as those of a person, with their outcomes.

    They are removed from all files and tables of the project. A record with their number, without
    any value, is added to the ledger. Training data, bundles and your own files stay as they are.
    After a crash, run the same command again.

    Example: mlship predictions erase --where email=ada@example.org
    """
    from mlship import wire
    from mlship.domain import private
    from mlship.domain.removal import Selection
    from mlship.steps.removal import erase as erase_step

    if bool(ids) == bool(where):
        message = "give either --id or --where, which say what to erase"
        raise ConfigError(message, hint="mlship predictions erase --where COLUMN=VALUE")
    options = session(context)
    key = wire.environment().get(private.KEY, "")
    conditions = tuple(_condition(text, key) for text in where or ())
    selection = Selection(ids=frozenset(ids or ()), where=conditions)
    result = erase_step(options.pipeline(), selection, dry_run=dry_run)
    _show(options, result, "erased", dry_run=dry_run)


@app.command("prune")
def prune(context: typer.Context, dry_run: Counted = False) -> None:
    """Remove predictions that are older than `observations.keep_days`, with their outcomes.

    Those that an evaluation of the running challenger counts stay. Run it every day. The ledger
    gets a record with their number.

    Example: mlship predictions prune --dry-run
    """
    from mlship.steps.removal import prune as prune_step

    options = session(context)
    result = prune_step(options.pipeline(), dry_run=dry_run)
    _show(options, result, "removed", dry_run=dry_run)


def _condition(text: str, key: str) -> "Condition":
    from mlship.domain import private
    from mlship.domain.removal import Condition

    column, separator, value = text.partition("=")
    if not (column and separator):
        # The text may be a value of a person, so it is not shown.
        message = "--where has no COLUMN=VALUE"
        raise ConfigError(message, hint="write such as --where email=ada@example.org")
    return Condition(
        column=column, text=value, hashed=private.hashed(key, column, value) if key else ""
    )


def _show(options: Session, result: "Removal", word: str, *, dry_run: bool) -> None:
    if options.json:
        output.as_json(result)
        return
    word = f"would be {word}" if dry_run else f"were {word}"
    number = sum(result.predictions.values())
    before = f" from before {result.before:%Y-%m-%d %H:%M} UTC" if result.before else ""
    output.line(f"{number} predictions{before} and {result.outcomes} outcomes {word}")
    for release, count in result.predictions.items():
        output.line(f"  {release}: {count}")
