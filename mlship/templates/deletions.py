"""Files that a person deleted, and that `mlship init` therefore does not write again."""

import posixpath
import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

from mlship.config import layers
from mlship.domain.commit import FileVersion, Repository
from mlship.errors import ConfigError
from mlship.templates import names, workflows
from mlship.templates.generated import text_of

SETTINGS = "mlship.yaml"

_DELETED = "it was deleted"
_MISSING = "it is missing, and may have been deleted"


def left_out(name: str, inside: str, repository: Repository | None) -> str:
    """Return how to get a file that a sparse checkout leaves out; empty if it does not.

    Args:
        name: of the file, from the project's folder.
        inside: the project's folder, from the top of its repository.
        repository: around the project.
    """
    path = posixpath.normpath(posixpath.join(inside, name))
    if repository is None or path not in repository.sparse:
        return ""
    place = shlex.quote(posixpath.dirname(path) or path)
    return f"a sparse checkout leaves it out: `git sparse-checkout add {place}`, then this again"


def reason(
    name: str, inside: str, prefix: str, repository: Repository | None, *, is_upgrade: bool
) -> str:
    """Return why a missing file of a project is not written; empty if it is written.

    Without an upgrade, only workflows stay away: those that git shows to have been deleted, and in
    a clone without the whole history those that may have been. An upgrade also leaves out other
    files that may have been deleted, for all that is known.

    Args:
        name: of the file, from the project's folder.
        inside: the project's folder, from the top of its repository.
        prefix: of the names of its workflows: empty, or `churn-`.
        repository: around the project.
        is_upgrade: whether edited files are merged.
    """
    if workflows.FOLDER not in name:
        return _MISSING if is_upgrade else ""
    file = PurePosixPath(name).name
    kind = file.removeprefix(prefix)
    settings = posixpath.join(inside, SETTINGS)
    # A former version may have written it, without the prefix.
    if repository and any(
        _is_deleted(former, kind, inside, settings, repository) for former in {file, kind}
    ):
        return _DELETED
    if repository is None:
        return _MISSING if is_upgrade else ""
    # A project that no commit has yet begins here, and had no workflows to delete.
    is_begun = is_upgrade or any(one.path == settings for one in repository.versions)
    return f"{_MISSING}; {repository.gap}" if repository.gap and is_begun else ""


def _is_deleted(file: str, kind: str, inside: str, settings: str, repository: Repository) -> bool:
    """Return whether git shows that a person deleted a workflow of a project.

    A file of the same name that was another project's, or a person's own, is none of this project.
    What the settings of that time did not ask for, `init` may have removed itself.
    """
    path = f"{workflows.FOLDER}/{file}"
    place = next((at for at, one in enumerate(repository.versions) if one.path == path), None)
    if place is None or (repository.top / path).exists():
        return False
    workflow = names.workflow_of(text_of(repository.versions[place].data))
    if workflow.project != inside or not names.is_of_mlship(workflow.text):
        return False
    return _was_needed(kind, settings, repository.versions[place:])


def _was_needed(kind: str, settings: str, versions: Sequence[FileVersion]) -> bool:
    """Return whether the settings asked for a kind of workflow when it was deleted.

    Args:
        kind: such as `promote.yml`.
        settings: the path of mlship.yaml.
        versions: those up to the deletion, newest first: in a commit, workflows are before
            mlship.yaml.
    """
    text = next((text_of(one.data) for one in versions if one.path == settings), None)
    if text is None:
        return True
    try:
        config = layers.resolve([layers.from_yaml(text, SETTINGS)]).config
    except ConfigError:  # of a former version, or wrong
        return True
    return kind in {f"{name}.yml" for name in workflows.kinds(config)}
