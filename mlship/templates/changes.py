"""The changes of `mlship init` to each file of a project."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from mlship import files
from mlship.config.requirements import REQUIREMENTS
from mlship.errors import ConfigError
from mlship.templates import names, workflows

Way = Literal["write", "update", "overwrite", "remove", "keep"]

FORMER = {
    REQUIREMENTS: (
        b"mlship[all]\nscikit-learn\npandas\n",
        b"mlship[all]\npandas\nscikit-learn\n",
    )
}
"""Unedited contents from former versions: they name another distribution."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The change of a file.

    Attributes:
        name: its path from the project's folder.
        what: `write` if it does not exist, `update` if mlship wrote it and nobody edited it,
            `overwrite` if forced, `remove` if it has another name now or is not needed any more,
            otherwise `keep`.
        data: its new content.
        is_edited: whether it is kept and differs from the new content.
        is_foreign: whether it is a workflow that mlship did not write.
        is_obsolete: whether the settings do not ask for it any more.
        rename: its new name, if a former version named it.
    """

    name: str
    what: Way
    data: bytes = b""
    is_edited: bool = False
    is_foreign: bool = False
    is_obsolete: bool = False
    rename: str = ""


def check_folder(folder: Path, hint: str = "name a new or an empty folder") -> None:
    """Refuse a path that is not a folder and cannot become one.

    Raises:
        ConfigError: a file is in the way, or the system does not allow the name.
    """
    for place in reversed((folder, *folder.parents)):
        try:
            is_other = place.exists() and not place.is_dir()
        except OSError as error:
            message = f"{_short(place)} cannot be a folder: {error.strerror}"
            raise ConfigError(message, hint="name a new or an empty folder") from error
        if is_other:
            raise ConfigError(f"{place} is not a folder", hint=hint)


def changes_of(
    folder: Path,
    name: str,
    data: bytes,
    force: Sequence[str],
    former: str | None,
    *,
    is_ours: bool = False,
) -> list[Change]:
    """Return the changes of a file, and of the file with its former name.

    Args:
        folder: of the project.
        name: of the file.
        data: its new content.
        force: names to overwrite.
        former: its former name.
        is_ours: whether nobody edited the file that is there.
    """
    if former is None or former == name:
        return [_change(folder, name, data, force, is_ours=is_ours)]
    text = place_of(folder, former).read_text("utf-8", "replace")
    if workflows.is_untouched(text) or any(_covers(forced, former) for forced in force):
        return [_change(folder, name, data, force), Change(name=former, what="remove")]
    kept = Change(name=former, what="keep", is_edited=True, rename=name)
    # Two workflows for one event would deploy twice.
    return [kept, _change(folder, name, data, force)] if place_of(folder, name).exists() else [kept]


def _change(
    folder: Path, name: str, data: bytes, force: Sequence[str], *, is_ours: bool = False
) -> Change:
    place = place_of(folder, name)
    check_folder(place.parent, hint="rename it or move it away")
    try:
        exists = place.exists()
    except OSError as error:
        raise ConfigError(f"{_short(name)} cannot be written: {error.strerror}") from error
    if not exists:
        return Change(name=name, what="write", data=data)
    if not place.is_file():
        raise ConfigError(
            f"{name} is not a file, and mlship init writes one of that name",
            hint="rename it or move it away",
        )
    if place.read_bytes() == data:
        return Change(name=name, what="keep", data=data)
    if any(_covers(forced, name) for forced in force):
        return Change(name=name, what="overwrite", data=data)
    text = place.read_text("utf-8", "replace")
    if is_ours or workflows.is_untouched(text) or place.read_bytes() in FORMER.get(name, ()):
        return Change(name=name, what="update", data=data)
    is_foreign = workflows.FOLDER in name and not names.is_of_mlship(text)
    return Change(name=name, what="keep", data=data, is_edited=True, is_foreign=is_foreign)


def place_of(folder: Path, name: str) -> Path:
    """Return the path of a file, from its path in a folder that may not exist yet."""
    return Path(os.path.normpath(folder.resolve() / name))


def _short(place: Path | str) -> str:
    """Return a path for a message, without the middle of a very long one."""
    text = str(place)
    return text if len(text) <= 120 else f"{text[:60]}...{text[-40:]}"


def _covers(forced: str, name: str) -> bool:
    return Path(name).is_relative_to(os.path.normpath(forced))


def check_forced(force: Sequence[str], written: Sequence[str]) -> None:
    """Refuse a forced name that is not a file of ours.

    Raises:
        ConfigError: mlship does not write such a file.
    """
    for forced in force:
        if not any(_covers(forced, name) for name in written):
            raise ConfigError(
                f"--force {forced} is not a file that mlship init writes",
                hint=f"it writes {', '.join(written)}",
            )


def write(place: Path, data: bytes) -> None:
    """Write a file, and create its folders."""
    place.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(place, data)
