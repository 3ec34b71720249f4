"""YAML as mlship reads it: what YAML 1.1 silently takes for something else is refused."""

import re
from collections.abc import Hashable
from typing import Any, Final

import yaml

_BASE_60: Final = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_BASE_8: Final = re.compile(r"[-+]?0[0-9_]+")


def load(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        yaml.YAMLError: it is not YAML, has a duplicate key, or a number that YAML 1.1 reads with
            another base than it seems: `1:30` as 90, `0100` as 64.
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506 (it is a SafeLoader)


class _Loader(yaml.SafeLoader):
    """Refuses what plain YAML silently takes: the last of duplicate keys, numbers of base 60."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 (PyYAML's signature)
        keys = set()
        for key, _ in node.value:
            if key.value in keys:
                problem = f"duplicate key {key.value!r}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            keys.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """Return a number that is written as it is read."""
        is_whole = node.tag == "tag:yaml.org,2002:int"
        convert = self.construct_yaml_int if is_whole else self.construct_yaml_float
        if _BASE_60.fullmatch(node.value) or (is_whole and _BASE_8.fullmatch(node.value)):
            problem = f"{node.value} is {convert(node)} in YAML: write that number, or quote it"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return convert(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)
