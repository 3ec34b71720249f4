"""`mlship images` and `mlship bundles`: pin the base image, and remove what nothing needs."""

from typing import TYPE_CHECKING, Annotated

import typer

from mlship.cli import output
from mlship.cli.options import group
from mlship.cli.session import session

if TYPE_CHECKING:
    from mlship.domain.retention import Retention

app = group("Look after images: update, policy, prune.")

bundles = group("Look after the bundles on this machine: prune.")

Days = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="DAYS",
        help="Keep every release with evidence from the last so many days.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Remove them. Without it, they are only listed.")]


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


@app.command("policy")
def policy(context: typer.Context) -> None:
    """Print a policy by which a cluster admits only signed images.

    Those are admitted that a trusted build has signed. It is an ImageValidatingPolicy for Kyverno,
    which must run in the cluster. It guards the repository of this project, also against those who
    use the cluster without mlship.

    Example: mlship images policy | kubectl apply -f -
    """
    import yaml

    from mlship.steps.verify_image import admission_policy

    options = session(context)
    made = admission_policy(options.pipeline(purpose="read"))
    if options.json:
        output.as_json(made)
        return
    output.line(yaml.safe_dump(made, sort_keys=False, width=1_000).rstrip())


@app.command("prune")
def prune(context: typer.Context, keep_days: Days = 90, yes: Yes = False) -> None:
    """Remove images from the registry that nothing needs any more.

    Only images that this project's ledger has are removed, with their attachments and the layers
    of dependencies that no image has. What runs or may be rolled back to stays, and what somebody
    gave a tag of their own. The ledger gets a record of the removal. After a crash, run the same
    command again.

    Example: mlship images prune --keep-days 30
    """
    from mlship import wire
    from mlship.steps.images_prune import prune_images
    from mlship.wire.images import repository

    options = session(context)
    pipeline = options.pipeline(purpose="change" if yes else "read")
    with repository(pipeline.config, wire.environment()) as place:
        result = prune_images(pipeline, place, keep_days=keep_days, dry_run=not yes)
    _show(result, f"from {place.name}", json=options.json, dry_run=not yes)


@bundles.command("prune")
def prune_local(context: typer.Context, keep_days: Days = 90, yes: Yes = False) -> None:
    """Remove bundles from this machine that nothing needs any more.

    Only those that the store has too are removed, so that mlship can fetch them again.

    Example: mlship bundles prune --keep-days 30
    """
    from mlship.steps.bundles_prune import prune_bundles

    options = session(context)
    pipeline = options.pipeline(purpose="change" if yes else "read")
    result = prune_bundles(pipeline, keep_days=keep_days, dry_run=not yes)
    _show(result, "from .mlship/bundles", json=options.json, dry_run=not yes)


def _show(result: "Retention", place: str, *, json: bool, dry_run: bool) -> None:
    if json:
        output.as_json(result)
        return
    for each in result.removed:
        size = f", {each.size / 1e6:.1f} MB" if each.size else ""
        output.line(f"  {each.kind} {each.name}: {each.digest[:19]}{size}")
    word = "would be removed" if dry_run else "were removed"
    number = f"{len(result.removed)} {'item' if len(result.removed) == 1 else 'items'}"
    output.line(f"{number} {word} {place}; {len(result.kept)} are needed")
    for kept in result.kept:
        output.line(f"  {kept.name}: {kept.reason}")
    if dry_run and result.removed:
        output.line("run the command again with --yes to remove them")
