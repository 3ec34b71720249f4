"""Which settings differ from their defaults, for people who look for what they set."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mlship.config.layers import Resolved

_NOTHING: Final = object()
"""Stands for a value or a default that does not exist."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A setting that is not the default: its key, its value, and the layer that set it."""

    key: str
    value: Any
    layer: str


def differing(resolved: Resolved) -> list[Setting]:
    """Return the settings with another value than their default, sorted by key."""
    settings = []
    origins = resolved.origins
    for key, layer in sorted(origins.items()):
        if any(other.startswith(f"{key}.") for other in origins):
            continue  # an empty section, which other layers fill
        value, default = _at(resolved.config, _NOTHING, key)
        if value is not _NOTHING and value != default:
            settings.append(Setting(key=key, value=value, layer=layer))
    return settings


def _at(value: Any, default: Any, key: str) -> tuple[Any, Any]:
    """Return the value of a key such as `targets.staging.port`, and its default.

    Args:
        value: what holds the key; a stronger layer may have replaced it by something else.
        default: of what holds the key.
        key: the rest of the path. A name in a mapping may contain dots.
    """
    if isinstance(value, Mapping):
        names = {str(name): name for name in value}
        part = key if key in names else key.partition(".")[0]
        inner = value[names[part]] if part in names else _NOTHING
        known = default if isinstance(default, Mapping) else {}
        own = known.get(names.get(part), _NOTHING)
    elif isinstance(value, msgspec.Struct):
        part = key.partition(".")[0]
        fields = {field.encode_name: field for field in msgspec.structs.fields(value)}
        inner = getattr(value, fields[part].name)
        is_known = isinstance(default, type(value))
        own = getattr(default, fields[part].name) if is_known else _default(fields[part])
    else:
        return _NOTHING, _NOTHING
    rest = key.removeprefix(part).removeprefix(".")
    return _at(inner, own, rest) if rest else (inner, own)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return _NOTHING if field.required else field.default
