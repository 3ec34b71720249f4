"""What `mlship init` would change in a folder, and doing it. What a person wrote is never lost."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from mlship import files
from mlship.domain import digests
from mlship.config import layers
from mlship.config.project import Config, json_schema
from mlship.errors import ConfigError
from mlship.templates import shipped, workflows

CONFIG = "mlship.yaml"
SCHEMA = ".mlship/schema.json"
"""Where the JSON schema for editors lies; the first line of mlship.yaml names it."""

_NEEDED = (".dockerignore", ".gitignore", "requirements.txt")
"""What a project that has its own mlship.yaml gets besides the workflows."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is done to a file.

    Attributes:
        name: its path from the project's folder.
        what: `write` where there was none, `update` where mlship wrote it and nobody edited it,
            `overwrite` where a person said so, `keep` for any other.
        data: what it shall hold.
        is_edited: whether it is kept, and holds something else than it would be written with.
    """

    name: str
    what: Literal["write", "update", "overwrite", "keep"]
    data: bytes
    is_edited: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What `mlship init` is about to do in a folder, and what is left to a person."""

    folder: Path
    changes: tuple[Change, ...]
    next: tuple[str, ...]

    def names(self, what: str) -> list[str]:
        """Return the names of the files that a thing is done to."""
        return [change.name for change in self.changes if change.what == what]


def plan(
    folder: Path, example: str | None, force: Sequence[str] = (), flags: Sequence[str] = ()
) -> Plan:
    """Look at a folder and say what is to be written there. Nothing is touched.

    Args:
        folder: of the project; it need not exist. Where it lies in a git repository, the
            workflows go to the repository's top.
        example: `iris` for a whole example, `None` for the skeleton of a project.
        force: files, or folders of them, that are written whatever is in them.
        flags: settings that the workflows are made from beside mlship.yaml's, as KEY=VALUE.

    Raises:
        ConfigError: there is no such example, the folder's mlship.yaml is wrong, or a forced name
            is no file of ours.
    """
    if example not in (None, "iris"):
        raise ConfigError(f"no example {example}", hint="there is one: mlship init --example iris")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is no folder", hint="name a new folder, or an empty one")
    wanted = _project(folder, example)
    config = _config(folder, wanted, flags)
    top = _top(folder)
    inside = folder.resolve().relative_to(top or folder.resolve()).as_posix()
    rendered = workflows.render(config, "" if inside == "." else inside)
    back = os.path.relpath(top, folder.resolve()) if top else "."
    for name, text in rendered.items():
        wanted[os.path.normpath(f"{back}/{name}")] = text.encode()
    # The settings come last: without them an interrupted init begins again.
    names = sorted(wanted, key=lambda name: (name == CONFIG, name))
    changes = tuple(_change(folder, name, wanted[name], force) for name in names)
    _check_forced(force, names)
    return Plan(folder=folder, changes=changes, next=_next(folder, config, top, rendered, changes))


def carry_out(made: Plan) -> None:
    """Do what a plan says.

    Raises:
        OSError: the folder cannot be written.
    """
    ours = {
        SCHEMA: digests.canonical_json(json_schema()),
        # `git add -A` in a repository whose .gitignore does not know mlship must not take it in.
        ".mlship/.gitignore": b"*\n",
    }
    for name, data in ours.items():
        _write(made.folder / name, data)
    for change in made.changes:
        if change.what != "keep":
            _write(made.folder / change.name, change.data)


def _project(folder: Path, example: str | None) -> dict[str, bytes]:
    """Return the files of the project: all of a new one, few for one that has its settings."""
    if example:
        return shipped.files("iris_example")
    files = shipped.files("templates/project")
    if (folder / CONFIG).exists():
        return {name: files[name] for name in _NEEDED}
    return files


def _config(folder: Path, wanted: Mapping[str, bytes], flags: Sequence[str]) -> Config:
    """Return the settings that the project will have."""
    path = folder / CONFIG
    try:
        text = path.read_text("utf-8") if path.exists() else wanted[CONFIG].decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", hint="it must be UTF-8") from error
    return layers.resolve([layers.from_yaml(text, CONFIG), layers.from_flags(flags)]).config


def _top(folder: Path) -> Path | None:
    """Return the top of the git repository that a folder lies in, if it is in one."""
    here = folder.resolve()
    return next((path for path in (here, *here.parents) if (path / ".git").exists()), None)


def _change(folder: Path, name: str, data: bytes, force: Sequence[str]) -> Change:
    place = folder / name
    if not place.exists():
        return Change(name=name, what="write", data=data)
    is_other = not place.is_file() or place.read_bytes() != data
    if not is_other:
        return Change(name=name, what="keep", data=data)
    if any(_covers(one, name) for one in force):
        return Change(name=name, what="overwrite", data=data)
    if place.is_file() and workflows.is_untouched(place.read_text("utf-8", "replace")):
        return Change(name=name, what="update", data=data)
    return Change(name=name, what="keep", data=data, is_edited=True)


def _covers(forced: str, name: str) -> bool:
    return Path(name).is_relative_to(os.path.normpath(forced))


def _check_forced(force: Sequence[str], names: Sequence[str]) -> None:
    for one in force:
        if not any(_covers(one, name) for name in names):
            raise ConfigError(
                f"--force {one}: mlship init writes no such file",
                hint=f"it writes {', '.join(names)}",
            )


def _next(
    folder: Path,
    config: Config,
    top: Path | None,
    rendered: Mapping[str, str],
    changes: Sequence[Change],
) -> tuple[str, ...]:
    """Return what is left to do, in order."""
    steps = [
        f"{change.name} was edited: `mlship init --force {change.name}` renews it"
        for change in changes
        if change.is_edited and workflows.FOLDER in change.name
    ]
    ignore = folder / ".gitignore"
    if ignore.is_file() and ".mlship" not in ignore.read_text("utf-8", "replace"):
        steps.append("add a line `.mlship/` to .gitignore")
    data = config.data.train
    comes = {change.name for change in changes}
    if "://" not in data and data not in comes and not (folder / data).exists():
        steps.append(f"put your data at {data}, or name another place in mlship.yaml")
    begin = "" if top else "git init -b develop && "
    steps.append(f'{begin}git add -A && git commit -m "Start with mlship"')
    steps.append("mlship doctor && mlship run")
    if len(rendered) > len(workflows.ALWAYS) and config.ledger.kind != "mlflow":
        steps.append("set `ledger: {kind: mlflow}` in mlship.yaml: jobs share no folder")
    kinds: tuple[tuple[Literal["vars", "secrets"], str], ...] = (
        ("vars", "variables"),
        ("secrets", "secrets"),
    )
    asked = [
        f"{word} {', '.join(names)}"
        for kind, word in kinds
        if (names := workflows.asked_for(rendered.values(), kind))
    ]
    steps.append(f"on GitHub, for the workflows: {'; '.join(asked)} (docs/guide/github.md)")
    return tuple(steps)


def _write(place: Path, data: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(place, data)
