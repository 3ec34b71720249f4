"""How a project's workflows are called, and whose the workflows of a repository are.

A project at the repository's top has `main.yml`, one in models/churn has `churn-main.yml`. Where
another project, or a person, has such names already, more of the folder's path is taken:
`models-churn-main.yml`. A project keeps the names that it has.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mlship.errors import ConfigError
from mlship.templates import workflows

_FOLDER = re.compile(
    r'^defaults:\n  run:\n    working-directory: ("(?:[^"\\]|\\.)*"|[^\s"#]+)$', re.MULTILINE
)

_COMMANDS = re.compile(r"\bmlship (?:train|deploy-|evaluate|promote)")


class Workflow(NamedTuple):
    """A workflow that is in a repository.

    Attributes:
        text: what is in the file.
        project: the folder in which it works, empty for the repository's top.
        is_ours: whether `mlship init` wrote it, edited since or not.
    """

    text: str
    project: str
    is_ours: bool


def existing(top: Path) -> dict[str, Workflow]:
    """Return the workflows of a repository by the names of their files."""
    folder = top / workflows.FOLDER
    paths = [*folder.glob("*.yml"), *folder.glob("*.yaml")] if folder.is_dir() else []
    return {
        path.name: workflow_of(path.read_text("utf-8", "replace"))
        for path in sorted(paths)
        if path.is_file()
    }


def workflow_of(text: str) -> Workflow:
    """Return what the text of a workflow tells of it."""
    found = _FOLDER.search(text)
    folder = ""
    if found:
        folder = str(json.loads(found[1])) if found[1].startswith('"') else found[1]
    return Workflow(text=text, project=folder, is_ours=workflows.is_ours(text))


def prefix(folder: str, present: Mapping[str, Workflow]) -> str:
    """Return what the names of a project's workflows begin with: empty, or `churn-`.

    Args:
        folder: of the project, from the top of its repository; empty for the top.
        present: the workflows of the repository.

    Raises:
        ConfigError: GitHub would replace a part of the folder's name in workflows; or the project
            is at the top, and a former version of mlship gave the names of its workflows to a project
            in a folder.
    """
    if "${{" in folder:
        raise ConfigError(
            f"{folder}: GitHub takes ${{{{ in workflows for an expression",
            hint="rename the folder",
        )
    if not folder:
        _check_free(present)
        return ""
    candidates = list(_candidates(folder))
    for candidate in candidates:
        if any(_is_of(folder, present, name) for name in names(candidate)):
            return candidate
    taken = {name.casefold() for name in present}
    free = (
        candidate
        for candidate in candidates
        if not any(name.casefold() in taken for name in names(candidate))
    )
    return next(free, candidates[-1])


def names(prefix: str) -> list[str]:
    """Return the file names of all workflows that a project may have."""
    return [f"{prefix}{name}.yml" for name in (*workflows.ALWAYS, *workflows.OF_PRODUCTION)]


def former(folder: str, present: Mapping[str, Workflow]) -> list[str]:
    """Return the file names of a project's workflows that a former version named without it."""
    return [
        name
        for name in names("")
        if folder
        and _is_of(folder, present, name)
        and is_of_mlship(present[name].text)
    ]


def is_of_mlship(text: str) -> bool:
    """Tell whether `mlship init` wrote a workflow: one without its first line still deploys."""
    return workflows.is_ours(text) or _COMMANDS.search(text) is not None


def projects(present: Mapping[str, Workflow], folder: str) -> list[str]:
    """Return the folders of the other projects that have workflows of ours, sorted."""
    ours = {workflow.project for workflow in present.values() if workflow.is_ours}
    return sorted(ours - {folder})


def _candidates(folder: str) -> Iterator[str]:
    parts = [_plain(part) for part in PurePosixPath(folder).parts]
    for count in range(1, len(parts) + 1):
        wanted = "-".join(filter(None, parts[-count:]))
        if wanted:
            yield f"{wanted}-"
    digest = hashlib.sha256(folder.encode()).hexdigest()[:8]
    yield "-".join(filter(None, (*parts, digest, "")))


def _plain(text: str) -> str:
    """Return a name in the characters that files, jobs and groups can all have."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")


def _is_of(folder: str, present: Mapping[str, Workflow], name: str) -> bool:
    return name in present and present[name].project == folder


def _check_free(present: Mapping[str, Workflow]) -> None:
    for name in names(""):
        if name in present and present[name].is_ours and present[name].project:
            folder = present[name].project
            raise ConfigError(
                f"{workflows.FOLDER}/{name} belongs to the project in {folder}",
                hint=f"`mlship init {folder}`, from the repository's top, gives its workflows "
                "names of their own; then run this again",
            )
