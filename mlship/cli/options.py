"""Arguments and options that several commands share: RELEASE, --dry-run, --render."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlship.cli import output
from mlship.cli.session import Session
from mlship.errors import ConfigError

if TYPE_CHECKING:
    from mlship.domain.deployment import Change
    from mlship.steps.preview import Name

ReleaseName = Annotated[
    str | None,
    typer.Argument(
        metavar="RELEASE",
        help="iris@3f9a0c12be77, its digits, champion or challenger; "
        "by default the release that the current commit made",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Show the diff of what would change in the cluster, and change nothing. "
        "The exit code is 0 with and without a difference.",
    ),
]
Render = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Write the manifests into a folder instead, a file each. No cluster is asked.",
    ),
]
_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def preview(
    given: Session,
    name: "Name",
    release: str | None,
    *,
    dry_run: bool,
    render: Path | None,
    replace: bool = False,
) -> bool:
    """Show what deploying would do, where one of the options asks for it; tell whether one does.

    Raises:
        ConfigError: both ask for it.
    """
    if not dry_run and render is None:
        return False
    if dry_run and render is not None:
        raise ConfigError(
            "--dry-run asks the cluster and --render does not: they do not go together",
            hint="give one of them",
        )
    from mlship.steps import preview as steps

    pipeline = given.pipeline()
    found = pipeline.release(release)
    told = {"release": str(found), "target": name}
    if render is None:
        changes = steps.changes(pipeline, name, found, replace=replace)
        if given.json:
            output.as_json({**told, "changes": changes})
        else:
            _show(changes)
            pipeline.progress.note(f"{len(changes)} objects would change in {name}")
        return True
    files = [str(path) for path in steps.render(pipeline, name, found, render)]
    if given.json:
        output.as_json({**told, "files": files})
    else:
        for file in files:
            output.line(file)
    return True


def _show(changes: Sequence["Change"]) -> None:
    """Print a diff, in colours where somebody looks."""
    lines = [line for change in changes for line in change.diff.splitlines()]
    if not sys.stdout.isatty():
        for line in lines:
            output.line(line)
        return
    from rich.text import Text

    console = output.console()
    for line in lines:
        console.print(Text(line, style=_STYLES.get(line[:1], "")), soft_wrap=True)
