"""The next steps that `mlship init` names: what to check, what is missing, how to go on."""

import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from mlship import files
from mlship.config.commands import TRAINING_ROWS
from mlship.config.installation import FORM, MODULE, Installation
from mlship.config.project import Config
from mlship.config.requirements import REQUIREMENTS
from mlship.domain.commit import Repository, named
from mlship.domain.storage import Kept
from mlship.templates import existing, workflows
from mlship.templates.changes import WRITTEN, Change
from mlship.templates.generated import PIPELINE, has_package
from mlship.templates.imports import Required
from mlship.templates.names import Workflow
from mlship.templates.site import Site

_CONFIG = "mlship.yaml"
_ENVIRONMENTS = {
    "uv.lock": "uv export --no-hashes --no-emit-project --output-file requirements.txt",
    "poetry.lock": "poetry export --without-hashes --output requirements.txt",
    "Pipfile.lock": "pipenv requirements > requirements.txt",
    "environment.yml": "",
    "environment.yaml": "",
    "pyproject.toml": "",
    "setup.py": "",
}
"""What lists the packages of a project, with the command that writes a requirements.txt of it."""
_LARGEST = 1_000_000
_SERVER: Final = (
    *("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    "MLFLOW_TRACKING_TOKEN",
)
"""What jobs need for a tracking server: a user and a password, or a token."""
_CML = re.compile(r"^[^#\n]*\bcml(?:-| )(?:send-)?comment\b", re.MULTILINE)


def of_found(found: existing.Found) -> list[str]:
    """Ask to check what was taken from the repository, and say what was not."""
    if found.training is not None:
        return [*_of_training(found.training), *found.notes]
    if found.notes:
        return list(found.notes)
    return [
        f"{name} is a notebook, and mlship runs scripts: `jupyter nbconvert --to script "
        f"{shlex.quote(name)}`, let the script save its model, then `mlship init` again"
        for name in found.notebooks[:1]
    ]


def of_new(folder: Path, contents: Mapping[str, bytes], found: existing.Found) -> list[str]:
    """Return next steps about what a new project's folder had before."""
    told = of_found(found)
    return told if found.training else [*told, *_of_package(folder, contents)]


def _of_package(folder: Path, contents: Mapping[str, bytes]) -> list[str]:
    """Say why a folder with modules got no module of the same name, and what to do."""
    if PIPELINE in contents or not has_package(folder):
        return []
    name = PIPELINE.removesuffix(".py")
    told = f"{PIPELINE} was not written, since `import {name}` means the folder {name} here"
    return [
        f"{told}: write `train` into a module of yours, and name it in {_CONFIG} as model.train"
    ]


def _of_training(training: existing.Existing) -> list[str]:
    how = f"with `{training.command}`, which saves {training.saved}"
    if training.function:
        how = f"by {training.function}"
    data = training.train or "data that you must name"
    predicts = f"predicts {training.target or 'a column that you must name'}"
    if training.task in ("clustering", "anomaly"):
        predicts = f"is of the task {training.task}"
    steps = [f"check {_CONFIG}: it trains {how}, on {data}, and {predicts}", *_of_rows(training)]
    if training.package:
        steps.append(
            f"the script imports {training.package}, the package that it is in: `pip install -e .` "
            "here, and add a line `-e .` to requirements.txt for the jobs"
        )
    if training.also_saved:
        steps.append(
            f"the script also saves {', '.join(training.also_saved)}: the model is served from "
            f"{training.saved} alone, which must contain all that it needs, as a Pipeline of "
            "scikit-learn does"
        )
    return steps


def _of_rows(training: existing.Existing) -> list[str]:
    """Say how the script leaves the held-out rows alone, if it is a command and reads them."""
    if training.function or training.test or training.reads_rows:
        return []
    change = training.change or (
        f"read the file that ${TRAINING_ROWS} names, if it is set (`mlship guide your-own-model`)"
    )
    why = "mlship holds out a fifth of the rows, and metrics are too good if the script trains on "
    return [f"{why}them: {change}; or name a file of test data as data.test"]


def of_environment(
    folder: Path, changes: Sequence[Change], needs: Required | None = None
) -> list[str]:
    """Say what a new requirements.txt lacks, and which other file has the packages.

    Args:
        folder: of the project.
        changes: of all files.
        needs: of its training, if they are known.
    """
    if not any(change.name == REQUIREMENTS and change.what == "write" for change in changes):
        return []
    steps = []
    if needs is not None and needs.unknown:
        modules = ", ".join(needs.unknown)
        steps.append(f"add to {REQUIREMENTS} the packages that the training imports as {modules}")
    name = next((name for name in _ENVIRONMENTS if _lists_packages(folder / name)), "")
    if name:
        known = "compare" if needs is not None and needs.lines else "list"
        action = (
            f"`{_ENVIRONMENTS[name]}`" if _ENVIRONMENTS[name] else f"{known} the packages there"
        )
        steps.append(f"jobs install {REQUIREMENTS}, and not {name}: {action}")
    return steps


def _lists_packages(path: Path) -> bool:
    """Return whether a file is there; pyproject.toml and setup.py may have no packages."""
    try:
        text = files.read_regular(path, _LARGEST).decode("utf-8", "replace")
    except OSError:
        return False
    is_optional = path.suffix in (".toml", ".py")
    return not is_optional or "dependencies" in text or "install_requires" in text


def of_installation(installed: Installation, source: str) -> list[str]:
    """Return next steps about the installation of mlship, here and in jobs."""
    steps = [
        f"uninstall {other}: it provides the module or the command {MODULE} too"
        for other in installed.others
    ]
    if not source:
        steps.append(
            f"no workflows were written: {installed.reason}; set `workflows.mlship` in {_CONFIG} "
            f"({FORM}), then `mlship init` again"
        )
    return steps


def of_others(others: Mapping[str, str], config: Config) -> list[str]:
    """Return next steps about other projects in the repository."""
    return [
        f"the project in {other or 'the repository'} is called {config.name} too: "
        f"give each project a `name` of its own in {_CONFIG}"
        for other, name in others.items()
        if name == config.name
    ]


def of_data(kept: Kept, config: Config) -> list[str]:
    """Return the next step about data that DVC keeps where jobs cannot fetch them."""
    if not kept.files or kept.storage is not None or config.workflows.dvc is False:
        return []
    return [f"DVC keeps {kept.files[0]}, and jobs cannot fetch it: {kept.reason}"]


def of_cml(present: Mapping[str, Workflow], config: Config) -> list[str]:
    """Say how to have one comment where a workflow of the repository's own posts one by CML."""
    action = (
        "name its tables and plots in `report.include`, which the comment of mlship then shows, "
        "and remove that step"
    )
    if config.report.include:
        action = "remove that step, if the comment of mlship shows all by `report.include`"
    return [
        f"{name} comments by CML too: {action}"
        for name, workflow in present.items()
        if not workflow.is_ours and _CML.search(workflow.text)
    ]


def of_gone(
    present: Mapping[str, Workflow], inside: str, repository: Repository | None
) -> list[str]:
    """Say which workflows are of a folder that has no project any more: it was moved or deleted.

    Args:
        present: the workflows of the repository.
        inside: the folder of this project, from its top.
        repository: itself. What a sparse checkout leaves out is there.
    """
    if repository is None:
        return []
    top = repository.top
    gone: dict[str, list[str]] = {}
    for name, workflow in present.items():
        settings = str(PurePosixPath(workflow.project) / _CONFIG)
        is_there = settings in repository.sparse or (top / settings).is_file()
        if workflow.is_ours and workflow.project != inside and not is_there:
            gone.setdefault(workflow.project, []).append(f"{workflows.FOLDER}/{name}")
    return [
        f"workflows still work in {folder or 'the top folder'}, which has no {_CONFIG} any more: "
        f"`git -C {shlex.quote(str(top))} rm {shlex.join(names)}`"
        for folder, names in gone.items()
    ]


def of_ignored(names: Sequence[str]) -> list[str]:
    """Say which files git ignores, so that nobody gets them by a commit."""
    if not names:
        return []
    is_workflow = any(workflows.FOLDER in name for name in names)
    why = (
        "GitHub runs no workflow that is in no commit" if is_workflow else "a clone has none of it"
    )
    add = shlex.join(["git", "add", "--force", *names])
    return [f"git ignores {named(names)}, and {why}: correct .gitignore, or `{add}`"]


def of_branches(branches: Sequence[str], config: Config, rendered: Mapping[str, str]) -> list[str]:
    """Say which branches the workflows wait for, and the repository does not have."""
    named = config.workflows.branches
    wanted = [name for name in (named.develop, named.main) if name and "*" not in name]
    missing = [name for name in wanted if name not in branches]
    if not rendered or not branches or not missing:
        return []
    make = " and ".join(f"`git branch {shlex.quote(name)}`" for name in missing)
    lacks = f"the workflows run for {' and '.join(wanted)}, and the repository has no "
    lacks += f"{' and no '.join(missing)}: {make}, or name your branches in `workflows.branches` "
    return [f"{lacks}(`mlship guide github`)"]


def last(
    site: Site,
    config: Config,
    written: Mapping[str, str],
    changes: Sequence[Change],
    kept: Kept,
) -> list[str]:
    """Return the next steps, in order.

    Args:
        site: of the project.
        config: its settings.
        written: the texts of the workflows that the repository has now.
        changes: of all files.
        kept: what DVC keeps of its data.
    """
    steps = [
        _of_edited(change)
        for change in changes
        if is_edited_workflow(change) and not change.is_current
    ]
    if merged := [change.name for change in changes if change.what in ("merge", "conflict")]:
        steps.append(f"read what was merged: git diff -- {shlex.join(merged)}")
    ignore = site.folder / ".gitignore"
    if ignore.is_file() and ".mlship" not in ignore.read_text("utf-8", "replace"):
        steps.append("add a line `.mlship/` to .gitignore")
    data = config.data.train
    comes = {change.name for change in changes}
    is_there = "://" in data or data in comes or (site.folder / data).exists()
    if not is_there and data in kept.files:
        steps.append("dvc pull")
    elif not is_there:
        steps.append(f"put your data at {data}, or name another place in mlship.yaml")
    steps += [*_of_commit(site, config, changes), "mlship doctor && mlship run"]
    shares = {"promote", workflows.OF_SCHEDULES}.intersection(workflows.kinds(config))
    if written and shares and config.ledger.kind == "directory":
        steps.append(
            "jobs share no folder: in mlship.yaml, set `kind: mlflow` under ledger for a tracking "
            "server, or `kind: registry` under ledger and store (`mlship guide without-a-server`)"
        )
    return [*steps, *_of_github(config, written)]


def _of_commit(site: Site, config: Config, changes: Sequence[Change]) -> list[str]:
    """Return what commits the files that change, or a new project."""
    versions = site.repository.versions if site.repository else ()
    settings = posixpath.join(site.inside, _CONFIG)
    is_begun = any(version.path == settings for version in versions)
    if is_begun and not any(change.what in (*WRITTEN, "remove") for change in changes):
        return []
    message = "Update the files of mlship" if is_begun else "Start with mlship"
    begin = "" if site.repository else f"git init -b {config.workflows.branches.reviewed} && "
    return [f'{begin}git add -A && git commit -m "{message}"']


def _of_github(config: Config, written: Mapping[str, str]) -> list[str]:
    """Return what to set on GitHub, and what it means that own steps name secrets."""
    steps: list[str] = []
    kinds: tuple[tuple[Literal["vars", "secrets"], str], ...] = (
        ("vars", "variables"),
        ("secrets", "secrets"),
    )
    names = {word: workflows.asked_for(written.values(), kind) for kind, word in kinds}
    wants_server = _SERVER[0] in names["variables"]
    others = {
        word: [name for name in listed if not (wants_server and name in _SERVER)]
        for word, listed in names.items()
    }
    asked = [f"{word} {', '.join(listed)}" for word, listed in others.items() if listed]
    if own := config.workflows.steps.secrets:
        steps.append(
            f"your own steps name {', '.join(own)}: the code of a feature branch can read it; give "
            "the environments review and build a secret that is worth no more than that"
        )
    if asked:
        steps.append(f"on GitHub, for the workflows: {'; '.join(asked)} (`mlship guide github`)")
    if wants_server:
        address, user, password, token = _SERVER
        is_optional = config.ledger.kind != "mlflow"
        steps.append(
            f"on GitHub, {'if you have' if is_optional else 'for'} a tracking server: variable "
            f"{address}; secrets {user} and {password}, or {token}"
            f"{'; without one, none of them' if is_optional else ''} "
            "(`mlship guide tracking-server`)"
        )
    return steps


def is_edited_workflow(change: Change) -> bool:
    """Return whether a workflow is kept that a person wrote or edited."""
    return change.is_edited and workflows.FOLDER in change.name


def is_merged_workflow(change: Change) -> bool:
    """Return whether a workflow was merged, without a conflict."""
    return change.what == "merge" and workflows.FOLDER in change.name


def _of_edited(change: Change) -> str:
    if change.is_foreign:
        return (
            f"{change.name} is not mlship's and stays: the workflow of that name is missing; "
            "rename yours, then `mlship init` again"
        )
    if change.is_obsolete:
        return f"{change.name} is not needed any more, and you edited it: delete it if you agree"
    name = shlex.quote(change.name)
    renew = f"`mlship init --force {name}` renews it without your edits"
    if change.reason:
        return (
            f"{change.name} cannot be merged with what is generated now: {change.reason}; or "
            f"commit it, {renew}, and `git checkout -p {name}` brings back those that you choose"
        )
    merge = "`mlship init --upgrade` merges your edits with what is generated now"
    if change.rename:
        move = f"`git mv {name} {shlex.quote(change.rename)}`"
        return f"{change.name} was edited: {merge}; {move} gives it its new name; {renew}"
    return f"{change.name} was edited: {merge}; {renew}"
