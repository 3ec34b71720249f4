"""Changes of one value in a YAML text: comments, order and layout of everything else stay."""

from collections.abc import Sequence
from typing import Any

import yaml

from mlship.config import yaml_text
from mlship.errors import ConfigError


def with_value(text: str, path: Sequence[str], value: str, name: str = "mlship.yaml") -> str:
    """Return a YAML text in which one setting has another value.

    A setting that the text does not have is added: to its section, or with the section at the end.

    Args:
        text: of a mapping.
        path: the keys of the setting, such as `("image", "base")`.
        value: text that needs no quotes in YAML.
        name: of the file, for errors.

    Raises:
        ConfigError: the setting cannot be changed without a change of others, such as one that is
            an anchor or an alias. The hint has the lines to write by hand.
    """
    try:
        before = yaml_text.load(text) or {}
        if _at(before, path) == value:
            return text
        changed = _edited(text, path, value)
        is_right = yaml_text.load(changed) == _with(before, path, value)
    except (yaml.YAMLError, TypeError) as error:
        raise _by_hand(path, value, name) from error
    if not is_right:
        raise _by_hand(path, value, name)
    return changed


def _edited(text: str, path: Sequence[str], value: str) -> str:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is None:
        return _appended(text, path, value)
    for depth, key in enumerate(path):
        if not isinstance(node, yaml.MappingNode):
            raise TypeError(key)
        found = next((value for name, value in node.value if name.value == key), None)
        if found is None:
            return _inserted(text, node, path[depth:], value)
        node = found
    if not isinstance(node, yaml.ScalarNode):
        raise TypeError(path[-1])
    quote = node.style if node.style in ("'", '"') else ""
    begin, end = node.start_mark.index, node.end_mark.index
    return f"{text[:begin]}{quote}{value}{quote}{text[end:]}"


def _inserted(text: str, node: yaml.MappingNode, path: Sequence[str], value: str) -> str:
    """Add a setting as the first of its section; a new section comes at the end of the text."""
    place = node.start_mark.index
    if node.flow_style:
        entry = f"{_flow(path, value)}{', ' if node.value else ''}"
        return f"{text[: place + 1]}{entry}{text[place + 1 :]}"
    if node.start_mark.column == 0:
        return _appended(text, path, value)
    if len(path) > 1:
        raise TypeError(path[0])
    return (
        f"{text[:place]}{path[0]}: {value}{_line_end(text)}{' ' * node.start_mark.column}"
        + (text[place:])
    )


def _appended(text: str, path: Sequence[str], value: str) -> str:
    end = _line_end(text)
    lines = [f"{'  ' * depth}{key}:" for depth, key in enumerate(path)]
    lines[-1] += f" {value}"
    start = text if not text or text.endswith("\n") else f"{text}{end}"
    return start + end.join(lines) + end


def _flow(path: Sequence[str], value: str) -> str:
    key, *rest = path
    return f"{key}: {value}" if not rest else f"{key}: {{{_flow(rest, value)}}}"


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _at(values: Any, path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(values, dict):
            return None
        values = values.get(key)
    return values


def _with(values: dict[str, Any], path: Sequence[str], value: str) -> dict[str, Any]:
    key, *rest = path
    inner: Any = _with(values.get(key) or {}, rest, value) if rest else value
    return {**values, key: inner}


def _by_hand(path: Sequence[str], value: str, name: str) -> ConfigError:
    return ConfigError(
        f"{name}: cannot change {'.'.join(path)} without a change of other settings",
        hint=f"set it there yourself: {_flow(path, value)}",
    )
