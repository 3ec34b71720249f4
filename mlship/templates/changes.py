"""The changes of `mlship init` to each file of a project."""

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from mlship import files
from mlship.errors import ConfigError
from mlship.templates import names, workflows
from mlship.templates.generated import is_untouched, text_of
from mlship.templates.upgrades import Upgrade, covers

Way = Literal[
    "write", "update", "merge", "conflict", "overwrite", "remove", "skip", "unmerged", "keep"
]

WRITTEN: tuple[Way, ...] = ("write", "update", "merge", "conflict", "overwrite")
"""The ways in which a file gets new content."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The change of a file.

    Attributes:
        name: its path from the project's folder.
        what: `write` if it does not exist, `update` if mlship wrote it and nobody edited it,
            `merge` or `conflict` if an upgrade merged it, `overwrite` if forced, `remove` if it has
            another name now or is not needed any more, `skip` if a person deleted it or
            a sparse checkout leaves it out, `unmerged` if it has the marks of a conflict, otherwise
            `keep`.
        data: its new content.
        is_edited: whether it is kept and differs from the new content.
        is_current: whether it is edited, and nothing new is generated since.
        is_foreign: whether it is a workflow that mlship did not write.
        is_obsolete: whether the settings do not ask for it any more.
        is_sparse: whether it is skipped because a sparse checkout leaves it out.
        rename: its new name, if a former version named it.
        reason: why it is skipped, or cannot be merged.
    """

    name: str
    what: Way
    data: bytes = b""
    is_edited: bool = False
    is_current: bool = False
    is_foreign: bool = False
    is_obsolete: bool = False
    is_sparse: bool = False
    rename: str = ""
    reason: str = ""


def check_folder(folder: Path, hint: str = "name a new or an empty folder") -> None:
    """Refuse a path that is not a folder and cannot become one.

    Raises:
        ConfigError: a file is in the way, or the system does not allow the name.
    """
    for place in reversed((folder, *folder.parents)):
        try:
            is_other = (place.exists() or place.is_symlink()) and not place.is_dir()
        except OSError as error:
            message = f"{_short(place)} cannot be a folder: {error.strerror}"
            raise ConfigError(message, hint="name a new or an empty folder") from error
        if is_other:
            raise ConfigError(f"{place} is not a folder", hint=hint)


def check_not_of_git(folder: Path) -> None:
    """Refuse a folder in which git keeps a repository: a bare one, or `.git`.

    Raises:
        ConfigError: it is one.
    """
    if (folder / "HEAD").is_file() and all(
        (folder / each).is_dir() for each in ("objects", "refs")
    ):
        raise ConfigError(
            f"{folder.resolve()} is where git keeps a repository, and has no files of the project",
            hint="`git clone` it, or `git worktree add` a folder, and run `mlship init` there",
        )


def changes_of(
    folder: Path,
    name: str,
    data: bytes,
    *,
    force: Sequence[str],
    former: str | None,
    upgrade: Upgrade | None,
    absence: Callable[[str], str],
    is_ours: bool = False,
) -> list[Change]:
    """Return the changes of a file, and of the file with its former name.

    Args:
        folder: of the project.
        name: of the file.
        data: the content that is generated now.
        force: files or folders to overwrite.
        former: its name in a former version, if there is such a file.
        upgrade: of edited files; `None` to leave them alone.
        absence: why a file that is missing stays so; empty if it is written.
        is_ours: whether nobody edited the file that is there.
    """
    if former is None or former == name:
        return [_change(folder, name, data, force, upgrade, absence, is_ours=is_ours)]
    written = _change(folder, name, data, force, upgrade, lambda _: "")
    moved = Change(name=former, what="remove")
    yours = place_of(folder, former).read_bytes()
    is_forced = any(_covers(forced, former) for forced in force)
    if workflows.is_untouched(text_of(yours)) or is_forced:
        return [written, moved]
    # Two workflows for one event would deploy twice.
    if place_of(folder, name).exists():
        return [Change(name=former, what="keep", is_edited=True, rename=name), written]
    change = _edited(name, data, yours, upgrade, former)
    return [change, moved] if change.name == name else [change]


def _change(
    folder: Path,
    name: str,
    data: bytes,
    force: Sequence[str],
    upgrade: Upgrade | None,
    absence: Callable[[str], str],
    *,
    is_ours: bool = False,
) -> Change:
    place = place_of(folder, name)
    check_folder(place.parent, hint="rename it or move it away")
    try:
        exists = place.exists()
    except OSError as error:
        raise ConfigError(f"{_short(name)} cannot be written: {error.strerror}") from error
    if not exists and place.is_symlink():
        raise ConfigError(
            f"{name} is a link to {place.readlink()}, which does not exist",
            hint="restore the file that it names, or remove the link",
        )
    is_forced = any(_covers(forced, name) for forced in force)
    if not exists:
        reason = "" if is_forced else absence(name)
        return Change(name=name, what="skip" if reason else "write", data=data, reason=reason)
    if not place.is_file():
        raise ConfigError(
            f"{name} is not a file, and mlship init writes one of that name",
            hint="rename it or move it away",
        )
    yours = place.read_bytes()
    text = text_of(yours)
    if text == text_of(data):
        return Change(name=name, what="keep", data=data)
    if is_forced:
        return Change(name=name, what="overwrite", data=data)
    if is_ours or is_untouched(name, text):
        return Change(name=name, what="update", data=data)
    return _edited(name, data, yours, upgrade)


def _edited(
    name: str, data: bytes, yours: bytes, upgrade: Upgrade | None, former: str = ""
) -> Change:
    """Return the change of a file that a person wrote or edited."""
    text = text_of(yours)
    is_foreign = workflows.FOLDER in name and not names.is_of_mlship(text)
    signature = workflows.signature(text)
    is_current = bool(signature) and signature == workflows.signature(text_of(data))
    kept = Change(
        name=former or name,
        what="keep",
        data=data,
        is_edited=True,
        is_current=is_current and not former,
        is_foreign=is_foreign,
        rename=name if former else "",
    )
    if upgrade is None or is_foreign or not covers(name):
        return kept
    outcome = upgrade.of(name, yours, data, former)
    if outcome.what == "unmerged":
        return Change(name=former or name, what="unmerged")
    if outcome.what == "keep":
        is_current = not (outcome.reason or former)
        return msgspec.structs.replace(kept, reason=outcome.reason, is_current=is_current)
    return Change(name=name, what=outcome.what, data=outcome.data)


def place_of(folder: Path, name: str) -> Path:
    """Return the path of a file, from its path in a folder that may not exist yet."""
    return Path(os.path.normpath(folder.resolve() / name))


def _short(place: Path | str) -> str:
    """Return a path for a message, without the middle of a very long one."""
    text = str(place)
    return text if len(text) <= 120 else f"{text[:60]}...{text[-40:]}"


def _covers(forced: str, name: str) -> bool:
    return Path(name).is_relative_to(os.path.normpath(forced))


def shown(folder: Path, name: str) -> str:
    """Return the path of a file from the current folder, by its path from the project's folder."""
    place = str(place_of(folder, name))
    return min(os.path.relpath(place), place, key=len)


def forced_names(folder: Path, force: Sequence[str], known: Collection[str]) -> list[str]:
    """Return the names, from the project's folder, of files and folders to overwrite.

    Args:
        folder: of the project.
        force: paths from there, or from the current folder.
        known: the names of the files that are written.
    """
    here = [os.path.relpath(Path.cwd() / forced, folder.resolve()) for forced in force]
    return [
        other if not _covers_any(forced, known) and _covers_any(other, known) else forced
        for forced, other in zip(force, here, strict=True)
    ]


def _covers_any(forced: str, names: Collection[str]) -> bool:
    return any(_covers(forced, name) for name in names)


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
    """Write a file, and create its folders; remove what a killed process left beside it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    files.remove_leftovers(place)
    files.write_atomically(place, data)
