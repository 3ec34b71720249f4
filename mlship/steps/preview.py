"""The effect of a deployment, as a diff or as files. Nothing is locked, changed or recorded."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from mlship import files
from mlship.domain.deployment import Change, Plan, Slot, Split, TargetName, slot_of
from mlship.domain.ports import Declarative, Target
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import ConfigError, ConflictError
from mlship.steps.deploy import blocking, check_fitness, check_role, share, shares
from mlship.steps.drift import due_split
from mlship.steps.generation import check_generation
from mlship.steps.pipeline import PRODUCTION, STAGING, Pipeline
from mlship.steps.transition import split_of

_WRITERS: Final[dict[TargetName, str]] = {
    "staging": "`mlship deploy-staging --render`",
    "production": "`mlship deploy-production --render`",
}


def changes(
    pipeline: Pipeline,
    name: TargetName,
    release: Release,
    records: Records | None = None,
    *,
    replace: bool = False,
    older: bool = False,
) -> Sequence[Change]:
    """Return how deploying a release would change each object of a target.

    Args:
        pipeline: the project.
        name: of the target.
        release: the release to deploy.
        records: the records that the command has read; by default the ledger is read.
        replace: whether to replace the running challenger.
        older: whether to replace a later release.

    Raises:
        ConfigError: the target is local.
        RefusedError: the deployment would be refused.
        NotFoundError: the release has no image in a registry, or the target no Gateway.
    """
    target = pipeline.target(name)
    declarative = _declarative(name, target)
    records = pipeline.read(records)
    history = records.history
    if name == STAGING:
        check_generation(pipeline, release, name, records, older=older)
        plan = _in_staging(pipeline, release, records)
        removed = tuple(slot for slot in target.inspect() if slot != plan.slot)
        return declarative.changes(msgspec.structs.replace(plan, removed=removed))
    plan = _in_production(pipeline, release, records)
    if history.role(release) in ("champion", "challenger"):
        lost = history.champion == release and not target.routes().split.weights
        split = split_of({release: 100}) if lost else None
        return declarative.changes(msgspec.structs.replace(plan, split=split))
    check_fitness(pipeline, release, records)
    check_role(release, history, blocking(pipeline, history), replace=replace)
    check_generation(pipeline, release, name, records, older=older)
    displaced: tuple[Slot, ...] = (slot_of(history.challenger),) if history.challenger else ()
    return declarative.changes(msgspec.structs.replace(plan, removed=displaced))


def render(
    pipeline: Pipeline,
    name: TargetName,
    release: Release,
    into: Path,
    records: Records | None = None,
) -> list[Path]:
    """Write the manifests of a release to a folder, one file each, without cluster or gates.

    The same release, settings and split give the same bytes. Unchanged files are not written
    again, and no file is removed.

    Args:
        pipeline: the project.
        name: of the target.
        release: the release that the manifests run.
        into: the folder, created if missing.
        records: the records that the command has read; by default the ledger is read.

    Raises:
        ConfigError: the target is local, or `into` is not a folder.
        NotFoundError: the release has no image in a registry.
        ConflictError: a file of that name was written or edited by hand; nothing is written.
    """
    declarative = _declarative(name, pipeline.target(name))
    in_target = _in_staging if name == STAGING else _in_production
    plan = in_target(pipeline, release, pipeline.read(records))
    texts = {
        into / file: files.signed(text, _WRITERS[name])
        for file, text in declarative.render(plan).items()
    }
    return write_rendered(texts, into, tuple(_WRITERS.values()))


def write_rendered(texts: Mapping[Path, str], into: Path, writers: Collection[str]) -> list[Path]:
    """Write signed files to a folder and return them; unchanged files are not written again.

    Args:
        texts: of the files, by path.
        into: the folder, created if missing.
        writers: the commands that write such files.

    Raises:
        ConfigError: `into` is not a folder.
        ConflictError: a file of that name was written or edited by hand; nothing is written.
    """
    if any(place.exists() and not place.is_dir() for place in (into, *into.parents)):
        raise ConfigError(f"{into} is not a folder", hint="give a folder, or the name of a new one")
    for path in texts:
        if path.exists() and not _is_untouched(path, writers):
            message = f"{path} was changed since mlship wrote it"
            hint = "move the file, or give another folder; put settings in mlship.yaml"
            raise ConflictError(message, hint=hint)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            files.write_atomically(path, text.encode())
    return list(texts)


def _declarative(name: TargetName, target: Target) -> Declarative:
    if isinstance(target, Declarative):
        return target
    raise ConfigError(
        f"target {name} is local and has no manifests",
        hint=f"omit the option, or set targets.{name}.kind to kubernetes",
    )


def _in_staging(pipeline: Pipeline, release: Release, records: Records) -> Plan:
    return Plan(
        release=release,
        artifact=pipeline.artifact(release, STAGING, records),
        slot=slot_of(release),
        replicas=pipeline.target_config(STAGING).replicas,
        split=split_of({release: 100}),
    )


def _in_production(pipeline: Pipeline, release: Release, records: Records) -> Plan:
    history = records.history
    config, role = pipeline.target_config(PRODUCTION), history.role(release)
    is_champion = role in ("champion", "former champion") or history.champion is None
    _, replicas = share("champion" if is_champion else "challenger", config)
    split: Split | None
    if role in ("champion", "challenger", "former champion"):
        # The release is in the route already, and the split may have changed since.
        split = due_split(records)
    else:
        split = split_of(*shares(release, history.champion, config))
    return Plan(
        release=release,
        artifact=pipeline.artifact(release, PRODUCTION, records),
        slot=slot_of(release),
        replicas=replicas,
        split=split,
    )


def _is_untouched(path: Path, writers: Collection[str]) -> bool:
    """Return whether a file is unchanged since it was rendered, with any settings."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return any(files.is_untouched(text, by) for by in writers)
