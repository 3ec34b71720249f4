"""images update: pin the base image of mlship.yaml to what its tag names now."""

from collections.abc import Sequence

import msgspec

from mlship.config import yaml_edit
from mlship.config.layers import from_yaml
from mlship.config.project import ImageConfig
from mlship.domain.bases import BaseImage, Bases, BaseUpdate, SettingsFile, message_of, tagged
from mlship.domain.commit import named
from mlship.domain.image import Platform, reference
from mlship.errors import ConfigError, RefusedError
from mlship.steps.pipeline import Pipeline

_SETTING = ("image", "base")


def update_base(
    pipeline: Pipeline, file: SettingsFile, bases: Bases, *, commit: bool = False
) -> BaseUpdate:
    """Write the digest of the base image that its tag names now into mlship.yaml.

    A second run changes nothing until the tag moves. With `commit`, a run after a crash commits
    what the first one wrote.

    Args:
        pipeline: the project.
        file: mlship.yaml.
        bases: describes base images.
        commit: commit the change, and nothing else.

    Raises:
        ConfigError: the base image does not exist or has no tag, or is not set by mlship.yaml.
        RefusedError: with `commit`, there are other changes that a commit would mix with it.
        ProjectError: git cannot commit.
        UnavailableError: the registry does not answer.
    """
    image = pipeline.config.image
    if ".".join(_SETTING) in pipeline.overridden:
        message = "image.base comes from --set or MLSHIP_IMAGE__BASE, not from mlship.yaml"
        raise ConfigError(message, hint="unset it, and run the command again")
    text = _committed(file) if commit else file.read()
    name = tagged(image.base)
    now = bases.describe(reference(name), image.platforms)
    after = next(iter(now.values())).digest
    changed = yaml_edit.with_value(text, _SETTING, f"{name}@{after}")
    current = file.read()
    if commit and current not in (text, changed):
        message = "mlship.yaml has uncommitted changes, which the commit would have too"
        raise RefusedError(message, hint="commit or restore them, then run the command again")
    before = reference(_base_of(text)).digest
    update = BaseUpdate(
        name=name,
        before=before,
        after=after,
        was=_former(bases, _base_of(text), image.platforms) if before not in (None, after) else (),
        now=tuple(now.values()),
        changed=changed != text,
    )
    if not update.changed:
        return update
    if current != changed:
        file.write(changed)
    if not commit:
        return update
    return msgspec.structs.replace(update, commit=file.commit(message_of(update)))


def _committed(file: SettingsFile) -> str:
    staged = file.staged()
    if staged:
        message = f"other changes are staged: {named(staged)}"
        raise RefusedError(message, hint="commit or unstage them (`git restore --staged .`)")
    return file.committed()


def _base_of(text: str) -> str:
    section = from_yaml(text, "mlship.yaml").values.get("image")
    base = section.get("base") if isinstance(section, dict) else None
    return base if isinstance(base, str) else ImageConfig().base


def _former(bases: Bases, base: str, platforms: Sequence[Platform]) -> Sequence[BaseImage]:
    """Return what the former digest names; nothing if its registry has removed it."""
    try:
        return tuple(bases.describe(reference(base), platforms).values())
    except ConfigError:
        return ()
