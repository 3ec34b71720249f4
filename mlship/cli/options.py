"""What several commands share: RELEASE, --dry-run, --render, --from-pull-request, and groups."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlship.cli import output
from mlship.cli.session import Session
from mlship.errors import ConfigError

if TYPE_CHECKING:
    from mlship.domain.deployment import Change, TargetName


def group(text: str) -> typer.Typer:
    """Return a command that has commands, which its help text names."""
    return typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help=text,
    )


def _number_of_pull(text: str) -> int:
    """Parse the number of a pull request, which people type into a form of GitHub.

    Raises:
        ConfigError: it is not a number.
    """
    if not re.fullmatch("[1-9][0-9]{0,17}", text):
        raise ConfigError(
            f"invalid pull request number: {text[:80]!r}",
            hint="give the number after the #, such as 7",
        )
    return int(text)


ReleaseName = Annotated[
    str | None,
    typer.Argument(
        metavar="RELEASE",
        help="A release such as iris@3f9a0c12be77 or 3f9a0c, or champion or challenger. "
        "Default: the release of the current commit.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Show what would change in the cluster, as a diff, without changing it. "
        "The exit code is 0 with or without differences.",
    ),
]
Render = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Write the manifests to a folder instead, without contacting the cluster.",
    ),
]
Older = Annotated[
    bool,
    typer.Option("--older", help="Deploy it although a later release was deployed since."),
]
FromPullRequest = Annotated[
    int | None,
    typer.Option(
        "--from-pull-request",
        metavar="N",
        parser=_number_of_pull,
        help="Use the approvals in the reviews of this pull request.",
    ),
]
_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def preview(
    session: Session,
    name: "TargetName",
    release: str | None,
    *,
    dry_run: bool,
    render: Path | None,
    replace: bool = False,
    older: bool = False,
) -> bool:
    """Show a deployment without doing it, for --dry-run or --render; return whether one is set.

    Raises:
        ConfigError: both are set.
    """
    if not dry_run and render is None:
        return False
    if dry_run and render is not None:
        raise ConfigError(
            "--dry-run and --render cannot be used together",
            hint="use --dry-run to compare with the cluster, or --render to write manifests",
        )
    from mlship.steps import preview as steps

    pipeline = session.pipeline()
    records = pipeline.read()
    chosen = pipeline.release(release, records)
    facts = {"release": str(chosen), "target": name}
    if render is None:
        changes = steps.changes(pipeline, name, chosen, records, replace=replace, older=older)
        if session.json:
            output.as_json({**facts, "changes": changes})
        else:
            _show(changes)
            pipeline.progress.note(f"{len(changes)} objects would change in {name}")
        return True
    files = [str(path) for path in steps.render(pipeline, name, chosen, render, records)]
    if session.json:
        output.as_json({**facts, "files": files})
    else:
        for file in files:
            output.line(file)
    return True


def _show(changes: Sequence["Change"]) -> None:
    """Print a diff, coloured on a terminal."""
    lines = [line for change in changes for line in change.diff.splitlines()]
    if not sys.stdout.isatty():
        for line in lines:
            output.line(line)
        return
    from rich.text import Text

    console = output.console()
    for line in lines:
        console.print(Text(line, style=_STYLES.get(line[:1], "")), soft_wrap=True)
