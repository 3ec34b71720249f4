"""`mlship api-keys`: who may ask a target: add, list, remove."""

from typing import TYPE_CHECKING, Annotated

import typer

from mlship.cli import output
from mlship.cli.options import group
from mlship.cli.session import Session, session

if TYPE_CHECKING:
    from mlship.steps.api_keys import KeyPlace

app = group("Say who may ask a target: add, list, remove.")

Name = Annotated[str, typer.Argument(help="The name of the key, which logs and metrics show.")]
Target = Annotated[str, typer.Option(help="The target whose setting `api_keys` names the file.")]


@app.command("add")
def add(context: typer.Context, name: Name, target: Target = "production") -> None:
    """Add a key, and print it. It is shown only once: the file has a hash of it.

    Running replicas accept it within a second, without a restart; in a cluster, after the Secret
    was updated. To replace a key, add one of another name, give it to the clients, then remove the
    former one.

    Example: mlship api-keys add web
    """
    from datetime import UTC, datetime

    from mlship.steps import api_keys as steps

    options = session(context)
    place = _place(options, target)
    token = steps.add(place, name, datetime.now(UTC))
    if options.json:
        output.as_json({"name": name, "key": token, "file": str(place.path), "apply": place.apply})
        return
    output.line(token)
    _note(f"this key is not shown again; its hash is in {place.path}")
    _note_apply(place)


@app.command("list")
def show(context: typer.Context, target: Target = "production") -> None:
    """List the names of the keys, and when they were added.

    Example: mlship api-keys list
    """
    from mlship.steps import api_keys as steps

    options = session(context)
    keys = steps.keys_in(_place(options, target)).keys
    if options.json:
        output.as_json([{"name": key.name, "added": key.added} for key in keys])
        return
    rows = [(key.name, f"{key.added:%Y-%m-%d %H:%M} UTC") for key in keys]
    output.table(f"API keys of {target}", ("name", "added"), rows)


@app.command("remove")
def remove(context: typer.Context, name: Name, target: Target = "production") -> None:
    """Remove a key. Running replicas refuse it within a second, without a restart.

    In a cluster, they do so after the Secret was updated. Without any key, nobody is answered.

    Example: mlship api-keys remove web
    """
    from mlship.steps import api_keys as steps

    options = session(context)
    place = _place(options, target)
    steps.remove(place, name)
    if options.json:
        output.as_json({"name": name, "file": str(place.path), "apply": place.apply})
        return
    output.line(f"key {name} was removed from {place.path}")
    _note_apply(place)


def _place(options: Session, target: str) -> "KeyPlace":
    from mlship.steps import api_keys as steps

    return steps.place_of(options.resolved().config, options.root, target)


def _note_apply(place: "KeyPlace") -> None:
    if place.apply:
        _note(f"next: {place.apply}")


def _note(text: str) -> None:
    from mlship.cli.progress import Lines

    Lines().note(text)
