"""The changes that `mlship init` makes in a folder. What a user wrote is never lost."""

import re
import shlex
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from mlship import files
from mlship.config import installation, layers, requirements
from mlship.config.installation import FORM, Installation, Origin
from mlship.config.layers import Layer
from mlship.config.project import Config, json_schema
from mlship.config.requirements import REQUIREMENTS
from mlship.domain import digests
from mlship.domain.commit import Merger, Repository
from mlship.domain.storage import NOTHING, Kept
from mlship.errors import ConfigError
from mlship.templates import (
    existing,
    imports,
    names,
    neighbours,
    outside,
    shipped,
    sources,
    steps,
    workflows,
)
from mlship.templates.changes import (
    WRITTEN,
    Change,
    Way,
    check_folder,
    check_not_of_git,
    forced_names,
    place_of,
    shown,
    write,
)
from mlship.templates.generated import NEEDED, beside_package, is_untouched, text_of
from mlship.templates.imports import Required
from mlship.templates.names import Workflow
from mlship.templates.site import CONFIG, Site, all_changes, copies, site_of, upgrade_of
from mlship.templates.upgrades import Upgrade

EXAMPLES = ("iris", "sentiment", "churn")
SCHEMA = ".mlship/schema.json"
"""The JSON schema for editors; the first line of mlship.yaml names it."""

_LARGEST = 10_000_000
_SANITY = "tests/sanity/test_served_model.py"

_INSTALLS = b'pip install "..[all]" -r requirements.txt'
"""The line of a shipped README that is replaced by one for this installation of mlship."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The changes of `mlship init` in a folder, and the next steps of the user.

    Attributes:
        next: the next steps, in order.
        warning: why the user may not want a project here; may be empty.
        proposed: the text of mlship.yaml, made of what the folder has; else empty.
    """

    folder: Path
    changes: tuple[Change, ...]
    next: tuple[str, ...]
    warning: str = ""
    proposed: str = ""

    def names(self, what: Way) -> list[str]:
        """Return the names of the files with a kind of change."""
        return [change.name for change in self.changes if change.what == what]

    def shown(self, name: str) -> str:
        """Return the path of a file from where the user is, by its path from the project."""
        return shown(self.folder, name)

    def noting_ignored(self, not_ignored: Callable[[list[str]], Sequence[str]]) -> "Plan":
        """Return the plan with a next step for the files that git will ignore.

        Args:
            not_ignored: returns those of some absolute paths that git does not ignore.
        """
        there = [change.name for change in self.changes if change.what not in ("remove", "skip")]
        places = {name: str(place_of(self.folder, name)) for name in there}
        kept = not_ignored(list(places.values()))
        ignored = [name for name, place in places.items() if place not in kept]
        return msgspec.structs.replace(self, next=(*steps.of_ignored(ignored), *self.next))

    @property
    def conflicts(self) -> list[str]:
        """The names of the files in which a person must choose between two texts."""
        return [*self.names("conflict"), *self.names("unmerged")]


def plan(
    folder: Path,
    example: str | None,
    force: Sequence[str] = (),
    *,
    above: Sequence[Layer] = (),
    installed: Installation,
    repository: Repository | None = None,
    kept_by_dvc: Callable[[Path, Path, Config], Kept] = lambda *_: NOTHING,
    merge: Merger | None = None,
) -> Plan:
    """Return what `mlship init` would change in a folder. Nothing is changed.

    Args:
        folder: of the project; it need not exist.
        example: the name of a complete example, `None` for the skeleton of a project.
        force: files or folders to overwrite.
        above: the settings above those of mlship.yaml, of the environment and of flags.
        installed: how mlship was installed here, and from where jobs can install it.
        repository: around the project: its top folder gets the workflows.
        kept_by_dvc: tells what DVC keeps, from the folder, the repository's top and the settings.
        merge: the three-way merge of an upgrade; `None` to leave edited files alone.

    Raises:
        ConfigError: the example does not exist, mlship.yaml is wrong, a forced name is not a file
            of ours, jobs would not verifiably install this mlship, or there is nothing to upgrade.
    """
    if example is not None and example not in EXAMPLES:
        raise ConfigError(f"no example {example}", hint=f"the examples are {', '.join(EXAMPLES)}")
    check_folder(folder)
    site = site_of(folder, repository)
    upgrade = None if merge is None else upgrade_of(site, example, merge)
    is_new = example is None and _is_new(folder)
    found = existing.find(folder, _skeleton()) if is_new else existing.Found()
    others = neighbours.names_of_others(site)
    needs = imports.of_training(folder, found.training)
    contents = _project(folder, example, found, tuple(others.values()), needs)
    config = _config(folder, contents, above, is_new=is_new)
    lines = _requirements(folder, contents, upgrade)
    source = installation.source_for_jobs(config.workflows.mlship, lines, installed)
    _check_folder(site.top, source)
    kept = kept_by_dvc(folder.resolve(), site.top.resolve(), config)
    rendered = _rendered(config, source, site, kept)
    _write_install_line(contents, installed.origin, source, site.inside)
    for name, text in rendered.items():
        contents[site.name_of(name)] = text.encode()
    forced = forced_names(folder, force, contents)
    changes = all_changes(site, contents, forced, upgrade, _ours(folder) if is_new else ())
    changes += _replaced(folder, contents) if is_new else []
    _check_edited(folder, changes, site.present)
    written = _written(site, rendered, changes)
    notes = steps.of_new(folder, contents, found) if is_new else []
    notes += steps.of_environment(folder, changes, needs)
    notes += steps.of_installation(installed, source)
    notes += [*steps.of_others(others, config), *steps.of_data(kept, config)]
    notes += _of_repository(site, config, written)
    go = [] if folder.resolve() == Path.cwd() else [f"cd {shlex.quote(str(folder))}"]
    last = steps.last(site, config, written, changes, kept)
    return Plan(
        folder=folder,
        changes=(*changes, *copies(site, contents, changes, upgrade)),
        next=(*go, *notes, *last),
        warning=neighbours.warning(folder, repository.top if repository else None),
        proposed=contents[CONFIG].decode() if found != existing.Found() else "",
    )


def _written(site: Site, rendered: Mapping[str, str], changes: Sequence[Change]) -> dict[str, str]:
    """Return those of the rendered workflows that the repository has when all is done."""
    absent = {change.name for change in changes if change.what == "skip" or change.is_foreign}
    return {name: text for name, text in rendered.items() if site.name_of(name) not in absent}


def _of_repository(site: Site, config: Config, written: Mapping[str, str]) -> list[str]:
    """Return next steps about other workflows and the branches of the repository."""
    branches = site.repository.branches if site.repository else ()
    return [
        *steps.of_gone(site.present, site.inside, site.repository),
        *steps.of_cml(site.present, config),
        *steps.of_branches(branches, config, written),
    ]


def _rendered(config: Config, source: str, site: Site, kept: Kept) -> dict[str, str]:
    """Return the project's workflows by their path in the repository; none without a source."""
    if not source:
        return {}
    elsewhere = (
        outside.patterns_of(config, site.inside, kept, site.repository) if site.inside else ()
    )
    return workflows.render(config, source, site.inside, site.prefix, kept, elsewhere)


def carry_out(planned: Plan) -> None:
    """Make the changes of a plan.

    Raises:
        OSError: the folder cannot be written.
    """
    state = {
        SCHEMA: digests.canonical_json(json_schema()),
        # `git add -A` must not add it where .gitignore does not have it.
        ".mlship/.gitignore": b"*\n",
    }
    for name, data in state.items():
        write(place_of(planned.folder, name), data)
    for change in planned.changes:
        if change.what in WRITTEN:
            write(place_of(planned.folder, change.name), change.data)
    for name in planned.names("remove"):
        place = place_of(planned.folder, name)
        place.unlink(missing_ok=True)
        if name.startswith("tests/"):
            with suppress(OSError):  # it is not empty
                place.parent.rmdir()


def _project(
    folder: Path,
    example: str | None,
    found: existing.Found,
    taken: Sequence[str],
    needs: Required | None,
) -> dict[str, bytes]:
    """Return the files of the project: all for a new one, a few beside what is there already."""
    check_not_of_git(folder)
    if example:
        return shipped.files(f"{example}_example")
    contents = _skeleton()
    if not _is_new(folder):
        return {name: contents[name] for name in NEEDED} | _kept_requirements(folder)
    name = _name_in_skeleton(folder) or existing.name_of(folder, taken)
    contents[CONFIG] = existing.settings(found, name, contents[CONFIG].decode()).encode()
    if found.training is not None:
        contents = {name: contents[name] for name in (*NEEDED, _SANITY, CONFIG)}
    else:
        contents = beside_package(folder, contents)
    if needs is not None:
        contents[REQUIREMENTS] = imports.text_of(needs.lines).encode()
    return {
        name: data
        for name, data in contents.items()
        if not (found.has_tests and name.startswith("tests/"))
    }


def _kept_requirements(folder: Path) -> dict[str, bytes]:
    """Return the requirements.txt that an earlier `init` made for the training that was there."""
    path = folder / REQUIREMENTS
    data = path.read_bytes() if path.is_file() else b""
    return {REQUIREMENTS: data} if text_of(data).startswith(imports.HEADER) else {}


def _skeleton() -> dict[str, bytes]:
    return shipped.files("templates/project")


def _is_new(folder: Path) -> bool:
    """Return whether a folder has no mlship.yaml of a person's: none, an empty or a skeleton's."""
    path = folder / CONFIG
    return not path.exists() or sources.has(path, b"") or _name_in_skeleton(folder) != ""


def _name_in_skeleton(folder: Path) -> str:
    """Return the name in the mlship.yaml of a skeleton, of which nothing else was edited."""
    try:
        text = files.read_regular(folder / CONFIG, _LARGEST).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    pattern = re.escape(_skeleton()[CONFIG].decode()).replace("my\\-model", "([a-z][a-z0-9-]*)")
    match = re.fullmatch(pattern, text)
    return match[1] if match else ""


def _ours(folder: Path) -> list[str]:
    """Return the files of an earlier `init` that nobody edited and that a new one makes anew."""
    is_skeleton = sources.has(folder / REQUIREMENTS, _skeleton()[REQUIREMENTS])
    return [CONFIG, *([REQUIREMENTS] if is_skeleton else [])]


def _replaced(folder: Path, contents: Mapping[str, bytes]) -> list[Change]:
    """Return the changes of the skeleton's files that nobody edited and nothing needs any more."""
    return [
        Change(name=name, what="remove")
        for name, data in _skeleton().items()
        if name not in contents and sources.has(folder / name, data)
    ]


def _config(
    folder: Path, contents: Mapping[str, bytes], above: Sequence[Layer], *, is_new: bool
) -> Config:
    """Return the settings of the project, with layers above mlship.yaml."""
    path = folder / CONFIG
    try:
        is_kept = path.exists() and not is_new
        data = files.read_regular(path, _LARGEST) if is_kept else contents[CONFIG]
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read {path}: {error}", hint=layers.hint_of_unread(error)
        ) from error
    return layers.resolve([layers.from_yaml(text, CONFIG), *above]).config


def _requirements(
    folder: Path, contents: Mapping[str, bytes], upgrade: Upgrade | None
) -> list[requirements.Line]:
    """Return the requirements that the project will have, apart from those of new files.

    Raises:
        ConfigError: they cannot be read.
    """
    path = folder / REQUIREMENTS
    data = path.read_bytes() if path.is_file() else b""
    if is_untouched(REQUIREMENTS, text_of(data)):
        return []
    if data and upgrade:
        outcome = upgrade.of(REQUIREMENTS, data, contents[REQUIREMENTS])
        if outcome.what == "merge":
            return requirements.read(path, outcome.data)
    return requirements.read(path)


def _check_folder(top: Path, source: str) -> None:
    """Refuse a folder of the repository that does not contain mlship.

    Raises:
        ConfigError: the folder or wheel does not exist, is elsewhere, or has another distribution.
    """
    place = top / source
    if source.startswith(".") and not place.resolve().is_relative_to(top.resolve()):
        raise ConfigError(
            f"{CONFIG}: workflows.mlship: {source} is a link that leads out of the repository",
            hint=f"copy mlship into the repository, or set it to {FORM}",
        )
    if not source.startswith(".") or (place.suffix == ".whl" and place.is_file()):
        return
    try:
        project = tomllib.loads((place / "pyproject.toml").read_text("utf-8")).get("project", {})
    except (OSError, ValueError):
        project = {}
    if project.get("name") != installation.DISTRIBUTION:
        raise ConfigError(
            f"{CONFIG}: workflows.mlship: {source} has no pyproject.toml of "
            f"{installation.DISTRIBUTION}",
            hint=f"set it to {FORM}",
        )


def _write_install_line(
    contents: dict[str, bytes], origin: Origin, source: str, inside: str
) -> None:
    """Write into a README how to install mlship: as jobs do, or else as it was installed here."""
    readme = contents.get("README.md")
    if readme is None:
        return
    line = f"{installation.command(origin, ['all'])} -r requirements.txt"
    if source:
        needs = installation.arguments(source, ["all"], inside)
        line = f"pip install {shlex.join(installation.with_requirements(needs))}"
    elif origin.kind == "none":
        line = "# install mlship first, from its source\npip install -r requirements.txt"
    elif origin.kind == "folder":
        line = f"# this folder has mlship where `mlship init` was run\n{line}"
    contents["README.md"] = readme.replace(_INSTALLS, line.encode())


def _check_edited(folder: Path, changes: Sequence[Change], present: Mapping[str, Workflow]) -> None:
    """Refuse workflows that stay and install another program in jobs with secrets.

    Raises:
        ConfigError: a workflow that is kept installs the `mlship` of package indexes.
    """
    kept = {
        change.name: place_of(folder, change.name).read_text("utf-8", "replace")
        for change in changes
        if steps.is_edited_workflow(change)
    }
    kept |= {
        change.name: text_of(change.data) for change in changes if steps.is_merged_workflow(change)
    }
    foreign = {
        f"{workflows.FOLDER}/{name}": workflow.text
        for name, workflow in present.items()
        if not names.is_of_mlship(workflow.text)
    }
    for name, text in (kept | foreign).items():
        if lines := installation.strangers_named(text):
            hint = "correct the line as in the other workflows"
            if name in kept and names.is_of_mlship(text):
                hint += f"; or, without your edits, `mlship init --force {name}`"
            message = f"{name} installs another program that is called {installation.MODULE} on "
            raise ConfigError(f"{message}package indexes: {lines[0][:120]}", hint=hint)
