"""The keys of mlship.yaml, read from Config's classes, and messages for invalid values."""

import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from mlship.config.data import ReadConfig
from mlship.config.project import Config
from mlship.domain.notation import literal
from mlship.errors import ConfigError

PREFIX = "MLSHIP_"
_FILE: Final = "mlship.yaml"
_WORDS: Mapping[str, str] = {
    " | null`": "`",
    "`int`": "a whole number",
    "`float`": "a number",
    "`str`": "a string",
    "`bool | int | float | str`": "a string, a number, true or false",
    "`bool | array`": "true, false or a list",
    "`bool`": "true or false",
    "`object`": "a mapping",
    "`array`": "a list",
    "`null`": "nothing",
    "Invalid enum value": "Unknown value",
}


def fields_of(kind: Any) -> dict[str, Any] | None:
    """Return the fields of a section's class with their types; `None` for anything else."""
    kind = _bare(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return typing.get_type_hints(kind, include_extras=True)
    return None


def value_kind(kind: Any) -> Any | None:
    """Return the type of a mapping's values if they are sections; else `None`."""
    kind = _bare(kind)
    if typing.get_origin(kind) is dict:
        inner = typing.get_args(kind)[1]
        return inner if fields_of(inner) is not None else None
    return None


def _bare(kind: Any) -> Any:
    while typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        return _bare(options[0])
    return kind


def hint_of_reading(config: ReadConfig, **options: Any) -> str:
    """Return how to read the data with more options: the whole line that mlship.yaml needs then.

    Args:
        config: how they are read now; its options stay.
        options: of `data.read`, with the values to set.
    """
    values = {
        field.name: getattr(config, field.name)
        for field in msgspec.structs.fields(config)
        if getattr(config, field.name) != getattr(ReadConfig(), field.name)
    } | options
    line = ", ".join(f"{name}: {literal(value)}" for name, value in values.items())
    return f"set `read: {{{line}}}` under data in mlship.yaml"


def place_of(layer: str, path: str) -> str:
    """Return where a key was set: the file, the variable's name, or the option."""
    if layer == "environment":
        return f"environment variable {PREFIX}{path.upper().replace('.', '__')}"
    return f"--set {path}" if layer == "flags" else layer


@contextmanager
def in_file(layers: Iterable[str]) -> Iterator[None]:
    """Name the file that was read in errors of checks, which know its usual name only."""
    file = next((name for name in layers if name not in ("environment", "flags")), _FILE)
    try:
        yield
    except ConfigError as error:
        message = error.message.replace(f"{_FILE}: ", f"{file}: ", 1)
        raise ConfigError(message, hint=error.hint.replace(_FILE, file)) from error


def explained(
    error: msgspec.ValidationError, merged: Mapping[str, Any], origins: Mapping[str, str]
) -> ConfigError:
    """Return the error for an invalid value in plain words, with its key and allowed values."""
    text, _, path = str(error).partition(" - at ")
    key = path.replace("`key` in ", "").strip("`").removeprefix("$").strip(".")
    if path.startswith("`key` in "):
        return _of_name(key, merged, origins)
    missing = re.fullmatch(r"Object missing required field `(\w+)`", text)
    if missing:
        key = f"{key}.{missing[1]}".strip(".")
        hint = f"add {_meaning(key)} (`mlship init` in a new folder writes an example)"
        return ConfigError(f"mlship.yaml: missing key {key}", hint=hint)
    key, value = _at_fault(key, merged)
    for technical, plain in _WORDS.items():
        text = text.replace(technical, plain)
    text = re.sub(r" matching regex .*", " in another format", text, flags=re.DOTALL)
    written = repr(value) if isinstance(value, str) else literal(value)
    if isinstance(value, str | int | float) and written not in text:
        text = f"{text}: {written[:60]}"
    source = place_of(origins.get(_listed(key), "mlship.yaml"), key)
    place = source if key in source else f"{source}: {key}"
    return ConfigError(f"{place}: {text[:1].lower()}{text[1:]}", hint=_meaning(key))


def _of_name(key: str, merged: Mapping[str, Any], origins: Mapping[str, str]) -> ConfigError:
    """Return the error for a name in a mapping, such as that of a target, in another form."""
    for where, named, kind in _places(merged, Config, _parts(key), ""):
        form = typing.get_args(_bare(kind))[0]
        for name in named:
            try:
                msgspec.convert(name, form)
            except msgspec.ValidationError:
                sources = [layer for path, layer in origins.items() if path.startswith(where)]
                place = place_of((sources or ["mlship.yaml"])[0], where)
                message = f"{place}: {where}: invalid name {str(name)[:60]!r}"
                notes = _notes(form)
                hint = f"a name has {notes}" if notes else f"correct {where}"
                return ConfigError(message, hint=hint)
    return ConfigError(f"mlship.yaml: {key}: invalid name", hint=_meaning(key))


def _parts(key: str) -> list[str]:
    return re.findall(r"\[\.\.\.\]|\[\d+\]|[^.\[\]]+", key)


def _places(
    value: Any, kind: Any, parts: Sequence[str], where: str
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the key, the value and the type of all that a path such as `targets[...].port` names.

    Keys in a mapping may have dots, and are not told apart from parts of a path afterwards.
    """
    if not parts:
        yield where, value, kind
        return
    kind, part, rest = _bare(kind), parts[0], parts[1:]
    kinds, fields = typing.get_args(kind), fields_of(kind) or {}
    if part == "[...]" and isinstance(value, Mapping) and kinds:
        for name, inner in value.items():
            yield from _places(inner, kinds[-1], rest, f"{where}.{name}")
    elif part.startswith("[") and isinstance(value, list) and kinds:
        yield from _places(value[int(part[1:-1])], kinds[0], rest, where + part)
    elif isinstance(value, Mapping) and part in value and part in fields:
        yield from _places(value[part], fields[part], rest, f"{where}.{part}".strip("."))


def _at_fault(key: str, merged: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the key that `targets[...].port` stands for, the first with an invalid value, and it.

    A check of a whole value, such as a list, names the value.
    """
    for where, value, kind in _places(merged, Config, _parts(key), ""):
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            return where, value
    return key.replace("[...]", ".*"), _value_at(key, merged)


def _value_at(key: str, merged: Mapping[str, Any]) -> Any:
    value: Any = merged
    for part, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", key):
        if index:
            value = value[int(index)] if isinstance(value, list | tuple) else None
        else:
            value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _listed(key: str) -> str:
    """Return the key of the list that `report.include[1]` is in; another key as it is."""
    return re.sub(r"\[.*", "", key)


def _kind_at(key: str) -> Any:
    kind: Any = Config
    for part in key.split("."):
        fields = fields_of(kind)
        kind = fields[part] if fields is not None else value_kind(kind)
    return kind


def _meaning(key: str) -> str:
    """Return what a key means and which values it takes, from its type."""
    try:
        kind = _kind_at(_listed(key))
    except KeyError:
        return f"correct {key}; `mlship init` in a new folder writes an example"
    notes = _notes(kind, is_part=_listed(key) != key)
    return f"{key}: {notes}" if notes else f"correct {key}"


def _notes(kind: Any, *, is_part: bool = False) -> str:
    """Return what a type means; of a list, what its parts mean."""
    metas: list[msgspec.Meta] = []
    wrappers = [typing.Annotated, typing.Union, types.UnionType]
    if is_part:
        wrappers.append(tuple)
    while typing.get_origin(kind) in wrappers:
        metas += getattr(kind, "__metadata__", ())
        kind = typing.get_args(kind)[0]
    notes = [meta.description for meta in metas if meta.description]
    notes += [str(meta.extra["form"]) for meta in metas if meta.extra]
    notes += [f"at least {meta.ge}" for meta in metas if meta.ge is not None]
    notes += [f"at most {meta.le}" for meta in metas if meta.le is not None]
    if typing.get_origin(kind) is typing.Literal:
        notes.append(f"one of {', '.join(typing.get_args(kind))}")
    if fields_of(kind) is not None:
        names = [field.encode_name for field in msgspec.structs.fields(kind)]
        notes.append(f"a section with {', '.join(names)}")
    return "; ".join(notes)
