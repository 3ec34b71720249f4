"""Files that a person deleted, and that `mlship init` therefore does not write again."""

from pathlib import PurePosixPath

from mlship.domain.commit import Repository
from mlship.templates import names, workflows
from mlship.templates.generated import text_of

_DELETED = "it was deleted"
_MISSING = "it is missing, and may have been deleted"


def reason(
    name: str, inside: str, prefix: str, repository: Repository | None, *, is_upgrade: bool
) -> str:
    """Return why a missing file of a project is not written; empty if it is written.

    Without an upgrade, only workflows stay away, and only if git shows that they were there. An
    upgrade also leaves out what may have been deleted, for all that is known.

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
    # A former version may have written it, without the prefix.
    if repository and any(
        _is_deleted(former, inside, repository) for former in {file, file.removeprefix(prefix)}
    ):
        return _DELETED
    is_known = repository is not None and not repository.gap
    return _MISSING if is_upgrade and not is_known else ""


def _is_deleted(file: str, inside: str, repository: Repository) -> bool:
    """Return whether git has a workflow of a project, and it is not there any more.

    A file of the same name that was another project's, or a person's own, is none of this project.
    """
    path = f"{workflows.FOLDER}/{file}"
    versions = (version.data for version in repository.versions if version.path == path)
    newest = next(versions, None)
    if newest is None or (repository.top / path).exists():
        return False
    workflow = names.workflow_of(text_of(newest))
    return workflow.project == inside and names.is_of_mlship(workflow.text)
