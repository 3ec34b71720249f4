"""`mlship images`: pin the base image."""

from typing import Annotated

import typer

from mlship.cli import output
from mlship.cli.session import session

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Look after images: update.",
)


@app.command("update")
def update(
    context: typer.Context,
    commit: Annotated[
        bool, typer.Option("--commit", help="Commit the change of mlship.yaml, and nothing else.")
    ] = False,
) -> None:
    """Pin the base image to the digest that its tag names now.

    Writes the digest after the tag of image.base in mlship.yaml, and shows the old and the new
    image. The next release is built on it; those that have an image keep theirs.

    Example: mlship images update --commit
    """
    from mlship import wire
    from mlship.domain.bases import lines_of
    from mlship.steps.images_update import update_base
    from mlship.wire.images import bases, settings_file

    options = session(context)
    pipeline = options.pipeline()
    described = bases(pipeline.config, wire.environment())
    result = update_base(pipeline, settings_file(options.config), described, commit=commit)
    if options.json:
        output.as_json(result)
        return
    output.line(f"image.base {result.name} {'' if result.changed else 'is up to date'}".rstrip())
    for text in lines_of(result):
        output.line(f"  {text}")
    if result.commit:
        output.line(f"committed as {result.commit[:12]}")
    elif result.changed:
        output.line(f"{options.config.name} was changed; commit it")
