"""The place of a project in its repository, and the changes of `mlship init` there."""

import os
import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from mlship.domain.commit import Merger, Repository
from mlship.errors import ConfigError
from mlship.templates import deletions, names, sources, upgrades, workflows
from mlship.templates.changes import Change, changes_of, check_forced, place_of
from mlship.templates.generated import NEEDED, text_of
from mlship.templates.names import Workflow
from mlship.templates.upgrades import Upgrade

CONFIG = deletions.SETTINGS


class Site(NamedTuple):
    """The place of a project.

    Attributes:
        folder: of the project.
        repository: around it.
        inside: the folder, from the top of the repository; empty for the top.
        present: the workflows of the repository.
        prefix: of the names of the project's workflows.
    """

    folder: Path
    repository: Repository | None
    inside: str
    present: Mapping[str, Workflow]
    prefix: str

    @property
    def top(self) -> Path:
        """The folder that has the workflows."""
        return self.repository.top if self.repository else self.folder

    def name_of(self, path: str) -> str:
        """Return the name, from the project's folder, of a path from the repository's top."""
        back = os.path.relpath(self.top, self.folder.resolve()) if self.repository else "."
        return os.path.normpath(f"{back}/{path}")


def site_of(folder: Path, repository: Repository | None) -> Site:
    """Return the place of the project in a folder.

    Raises:
        ConfigError: its workflows cannot be named, see `names.prefix`.
    """
    inside = _inside(folder, repository.top) if repository else ""
    present = names.existing(repository.top if repository else folder)
    return Site(folder, repository, inside, present, names.prefix(inside, present))


def _inside(folder: Path, top: Path) -> str:
    inside = folder.resolve().relative_to(top).as_posix()
    if not sources.is_utf8(inside):
        message = f"the name of the folder {sources.shown(inside)} is not UTF-8"
        raise ConfigError(message, hint="rename it, then `mlship init` again")
    return "" if inside == "." else inside


def tracked(folder: Path, top: Path) -> list[str]:
    """Return the paths, from the repository's top, of which a plan needs former versions."""
    inside = _inside(folder, top)
    return [
        workflows.FOLDER,
        upgrades.FOLDER,
        posixpath.join(inside, CONFIG),
        *(posixpath.join(inside, name) for name in NEEDED),
    ]


def upgrade_of(site: Site, example: str | None, merge: Merger) -> Upgrade:
    """Return the upgrade of a project.

    Raises:
        ConfigError: there is no mlship.yaml, or an example is asked for too.
    """
    if example is not None:
        raise ConfigError("--upgrade and --example exclude each other", hint="use one of them")
    if not (site.folder / CONFIG).exists():
        raise ConfigError(
            f"there is nothing to upgrade: no {CONFIG} in {site.folder}",
            hint="`mlship init` starts a project; or name the folder of yours",
        )
    return Upgrade(
        repository=site.repository,
        inside=site.inside,
        prefix=site.prefix,
        copies=upgrades.copies(site.top),
        merge=merge,
    )


def all_changes(
    site: Site,
    contents: Mapping[str, bytes],
    force: Sequence[str],
    upgrade: Upgrade | None,
    ours: Collection[str],
) -> list[Change]:
    """Return the changes of all files, in the order in which they are made.

    Args:
        site: of the project.
        contents: of the files, by their names.
        force: files or folders to overwrite.
        upgrade: of edited files; `None` to leave them alone.
        ours: the files of an earlier `init` that give way, whatever is in them.

    Raises:
        ConfigError: a forced name is not a file of ours, or a link leads out of the repository.
    """
    _check_links(site, contents)
    left_out = _left_out(site, contents)
    sparse = {change.name for change in left_out}
    is_begun, is_upgrade = (site.folder / CONFIG).exists(), upgrade is not None

    def absence(name: str) -> str:
        if not is_begun:
            return ""
        place = (site.inside, site.prefix, site.repository)
        return deletions.reason(name, *place, is_upgrade=is_upgrade)

    former = _former(site, contents)
    # The settings come last: without them, an interrupted init starts again.
    ordered = sorted(contents.keys() - sparse, key=lambda name: (name == CONFIG, name))
    changes = [
        change
        for name in ordered
        for change in changes_of(
            site.folder,
            name,
            contents[name],
            force=force,
            former=former.get(name),
            upgrade=upgrade,
            absence=absence,
            is_ours=name in ours,
        )
    ]
    check_forced(force, [*sparse, *(change.name for change in changes)])
    return [*left_out, *changes, *_obsolete(site, {*contents, *former.values()})]


def _left_out(site: Site, contents: Mapping[str, bytes]) -> list[Change]:
    """Return the files that a sparse checkout leaves out: what others wrote there is not seen.

    Raises:
        ConfigError: one is mlship.yaml, without which the project would begin anew.
    """
    reasons = {name: deletions.left_out(name, site.inside, site.repository) for name in contents}
    if reasons.get(CONFIG):
        raise ConfigError(f"{site.folder / CONFIG}: {reasons[CONFIG]}")
    return [
        Change(name=name, what="skip", data=contents[name], reason=reason, is_sparse=True)
        for name, reason in sorted(reasons.items())
        if reason
    ]


def _check_links(site: Site, contents: Collection[str]) -> None:
    """Refuse links to folders in which files would be written outside of the repository.

    GitHub reads no workflow behind a link, wherever it leads.

    Raises:
        ConfigError: there is one.
    """
    top = place_of(site.folder, site.name_of(""))
    for name in (*contents, site.name_of(f"{upgrades.FOLDER}/copy")):
        place = place_of(site.folder, name).parent
        links = [one for one in (place, *place.parents) if one.is_symlink() and top in one.parents]
        is_outside = not place.resolve().is_relative_to(top.resolve())
        if links and (is_outside or ".github" in PurePath(name).parts):
            link = links[-1].relative_to(top).as_posix()
            raise ConfigError(
                f"{link} is a link to {links[-1].readlink()}: {name} would not be written into "
                "the repository",
                hint="replace the link with a folder",
            )


def _obsolete(site: Site, known: Collection[str]) -> Iterator[Change]:
    """Yield the changes of the project's workflows that its settings do not ask for any more.

    Args:
        site: of the project.
        known: the names of the files that the settings ask for, and their former names.
    """
    if not any(workflows.FOLDER in name for name in known):
        return
    for name in names.names(site.prefix):
        workflow, place = site.present.get(name), site.name_of(f"{workflows.FOLDER}/{name}")
        if workflow is None or place in known:
            continue
        if workflow.is_ours and workflow.project == site.inside:
            if workflows.is_untouched(workflow.text):
                yield Change(name=place, what="remove")
            else:
                yield Change(name=place, what="keep", is_edited=True, is_obsolete=True)


def copies(
    site: Site,
    contents: Mapping[str, bytes],
    changes: Sequence[Change],
    upgrade: Upgrade | None,
) -> Iterator[Change]:
    """Yield the changes of the copies of what edited files were merged with."""
    present = upgrades.copies(site.top)
    for change in changes:
        if not upgrades.covers(change.name):
            continue
        copy = upgrades.copy_of(change.name, site.prefix)
        name = site.name_of(f"{upgrades.FOLDER}/{copy}")
        is_merged = change.what in ("merge", "conflict")
        if is_merged or (change.is_current and upgrade and upgrade.lacks(change.name, change.data)):
            data = contents[change.name]
            if present.get(copy) != text_of(data):
                yield Change(name=name, what="update" if copy in present else "write", data=data)
        elif copy in present and not change.is_edited and change.what != "unmerged":
            yield Change(name=name, what="remove")


def _former(site: Site, contents: Mapping[str, bytes]) -> dict[str, str]:
    """Return the names of workflows in a former version, by their current ones."""
    folder = workflows.FOLDER
    former = {
        site.name_of(f"{folder}/{site.prefix}{name}"): site.name_of(f"{folder}/{name}")
        for name in names.former(site.inside, site.prefix, site.present)
    }
    return {name: before for name, before in former.items() if name in contents}
