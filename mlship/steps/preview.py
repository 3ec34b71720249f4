"""What a deployment would do, as a diff or as files. Nothing is locked, changed or recorded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from mlship import files
from mlship.domain.deployment import Change, Plan, Slot, Split, TargetName, slot_of
from mlship.domain.ports import Declarative, Target
from mlship.domain.records import Records
from mlship.domain.release import Release
from mlship.errors import ConfigError, ConflictError
from mlship.steps.deploy import check_fitness, check_role, share, shares
from mlship.steps.pipeline import PRODUCTION, STAGING, Pipeline
from mlship.steps.traffic import recorded_split
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
) -> Sequence[Change]:
    """Return how deploying a release would change each object of a target.

    Args:
        pipeline: the project.
        name: of the target.
        release: what would be deployed.
        records: what the command has read; by default the ledger is read.
        replace: the challenger that runs would be retired.

    Raises:
        ConfigError: the target is local.
        RefusedError: deploying it would be refused.
        NotFoundError: the release has no image in a registry, or the target no Gateway.
    """
    target = pipeline.target(name)
    shown = _declarative(name, target)
    records = pipeline.read(records)
    history = records.history
    if name == STAGING:
        plan = _in_staging(pipeline, release, records)
        removed = tuple(slot for slot in target.inspect() if slot != plan.slot)
        return shown.changes(msgspec.structs.replace(plan, removed=removed))
    plan = _in_production(pipeline, release, records)
    if history.role(release) in ("champion", "challenger"):
        lost = history.champion == release and not target.routes().split.weights
        split = split_of({release: 100}) if lost else None
        return shown.changes(msgspec.structs.replace(plan, split=split))
    check_fitness(pipeline, release, records)
    check_role(release, history, replace=replace)
    displaced: tuple[Slot, ...] = (slot_of(history.challenger),) if history.challenger else ()
    return shown.changes(msgspec.structs.replace(plan, removed=displaced))


def render(
    pipeline: Pipeline,
    name: TargetName,
    release: Release,
    into: Path,
    records: Records | None = None,
) -> list[Path]:
    """Write the objects of a release into a folder, a file each; no cluster and no gate is asked.

    The same release, settings and split give the same bytes. A file that is there already so is
    not written; none is removed.

    Args:
        pipeline: the project.
        name: of the target.
        release: what the objects run.
        into: the folder, made if need be.
        records: what the command has read; by default the ledger is read.

    Raises:
        ConfigError: the target is local, or `into` is no folder.
        NotFoundError: the release has no image in a registry.
        ConflictError: a file of that name was written or edited by somebody else; none is written.
    """
    shown = _declarative(name, pipeline.target(name))
    in_target = _in_staging if name == STAGING else _in_production
    plan = in_target(pipeline, release, pipeline.read(records))
    texts = {
        into / file: files.signed(text, _WRITERS[name]) for file, text in shown.render(plan).items()
    }
    if any(place.exists() and not place.is_dir() for place in (into, *into.parents)):
        raise ConfigError(f"{into} is not a folder", hint="give --render a folder, or a new name")
    for path in texts:
        if path.exists() and not _is_untouched(path):
            message = f"{path} was changed since mlship wrote it"
            hint = "move it away, or give --render another folder; settings belong in mlship.yaml"
            raise ConflictError(message, hint=hint)
    into.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            files.write_atomically(path, text.encode())
    return list(texts)


def _declarative(name: TargetName, target: Target) -> Declarative:
    if isinstance(target, Declarative):
        return target
    raise ConfigError(
        f"target {name} is local: it has no manifests, and nothing to compare with",
        hint=f"leave the option out, or set targets.{name}.kind to kubernetes",
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
    reigned = role in ("champion", "former champion") or history.champion is None
    _, replicas = share("champion" if reigned else "challenger", config)
    split: Split | None
    if role in ("champion", "challenger", "former champion"):
        # It is in the route already, which may have been changed since.
        split = recorded_split(records)
    else:
        split = split_of(*shares(release, history.champion, config))
    return Plan(
        release=release,
        artifact=pipeline.artifact(release, PRODUCTION, records),
        slot=slot_of(release),
        replicas=replicas,
        split=split,
    )


def _is_untouched(path: Path) -> bool:
    """Return whether a file is unchanged since it was rendered, with whatever settings."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return any(files.is_untouched(text, by) for by in _WRITERS.values())
