"""The names of a project's workflows, and the projects of a repository's workflows.

A project at the repository's top has `main.yml`, one in models/churn has `churn-main.yml`. Where
another project or the user has such names already, more of the folder's path is used:
`models-churn-main.yml`, and `mlship-main.yml` at the top. A project keeps its names.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from mlship.errors import ConfigError
from mlship.templates import workflows

_FOLDER = re.compile(
    r'^defaults:\n  run:\n    working-directory: ("(?:[^"\\]|\\.)*"|[^\s"#]+)$', re.MULTILINE
)

_COMMANDS = re.compile(r"\bmlship (?:train|deploy-|evaluate|promote|schedules run)")


_BESIDE: Final = "mlship-"
"""The prefix at the top of a repository whose own workflows have our names."""


class Workflow(NamedTuple):
    """A workflow in a repository.

    Attributes:
        text: the contents of the file.
        project: the folder of its project, empty for the repository's top.
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
        path.name: workflow_of(path.read_text("utf-8-sig", "replace"))
        for path in sorted(paths)
        if path.is_file()
    }


def workflow_of(text: str) -> Workflow:
    """Return the workflow with a text."""
    match = _FOLDER.search(text)
    folder = ""
    if match:
        folder = str(json.loads(match[1])) if match[1].startswith('"') else match[1]
    return Workflow(text=text, project=folder, is_ours=workflows.is_ours(text))


def prefix(folder: str, present: Mapping[str, Workflow]) -> str:
    """Return the prefix of the names of a project's workflows: empty, or `churn-`.

    Args:
        folder: of the project, from the top of its repository; empty for the top.
        present: the workflows of the repository.

    Raises:
        ConfigError: GitHub would replace a part of the folder's name in workflows; or the project
            is at the top, and a former version of mlship used its names for another project.
    """
    if "${{" in folder:
        raise ConfigError(
            f"{folder}: ${{{{ starts an expression in GitHub's workflows",
            hint="rename the folder",
        )
    if not folder:
        _check_free(present)
        return _of_top(present)
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
    kinds = (*workflows.ALWAYS, *workflows.OF_PRODUCTION, workflows.OF_SCHEDULES)
    return [f"{prefix}{name}.yml" for name in kinds]


def former(folder: str, prefix: str, present: Mapping[str, Workflow]) -> list[str]:
    """Return the file names of a project's workflows from before it had its prefix."""
    return [
        name
        for name in names("")
        if prefix and _is_of(folder, present, name) and is_of_mlship(present[name].text)
    ]


def is_of_mlship(text: str) -> bool:
    """Return whether a workflow deploys with mlship: it may have lost its first line."""
    return workflows.is_ours(text) or _COMMANDS.search(text) is not None


def projects(present: Mapping[str, Workflow], folder: str) -> list[str]:
    """Return the folders of the other projects that have workflows of ours, sorted."""
    ours = {workflow.project for workflow in present.values() if workflow.is_ours}
    return sorted(ours - {folder})


def _of_top(present: Mapping[str, Workflow]) -> str:
    """Return the prefix at the top: `mlship-` where a person has workflows of our names."""
    if any(name in present and present[name].is_ours for name in names(_BESIDE)):
        return _BESIDE
    own = {name.casefold() for name in names("")}
    is_taken = any(
        name.casefold() in own and not is_of_mlship(workflow.text)
        for name, workflow in present.items()
    )
    return _BESIDE if is_taken else ""


def _candidates(folder: str) -> Iterator[str]:
    parts = [_plain(part) for part in PurePosixPath(folder).parts]
    for count in range(1, len(parts) + 1):
        wanted = "-".join(filter(None, parts[-count:]))
        if wanted:
            yield f"{wanted}-"
    digest = hashlib.sha256(folder.encode()).hexdigest()[:8]
    unique = "-".join(filter(None, (*parts, digest)))
    yield f"{unique}-"
    # A former version wrote `churn-ddc6e2b2main.yml`, and a project keeps its names.
    yield unique


def _plain(text: str) -> str:
    """Return a name in characters that are valid for files, jobs and groups."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")


def _is_of(folder: str, present: Mapping[str, Workflow], name: str) -> bool:
    return name in present and present[name].project == folder


def _check_free(present: Mapping[str, Workflow]) -> None:
    for name in names(""):
        if name in present and present[name].is_ours and present[name].project:
            folder = present[name].project
            raise ConfigError(
                f"{workflows.FOLDER}/{name} belongs to the project in {folder}",
                hint=f"run `mlship init {folder}` at the repository's top to rename its workflows, "
                "then run this again",
            )
