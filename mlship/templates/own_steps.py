"""Steps of the user in generated workflows: `workflows.steps`, written as YAML."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from mlship.config.own_steps import StepsConfig

_INDENT: Final = " " * 6
_PLACE: Final = re.compile(r"^      # (before_train|after_test)\n", re.MULTILINE)
_WORD: Final = re.compile(r"[A-Za-z$./][^\n]*")


class _Steps(yaml.SafeDumper):
    """Writes lines of a script as they are, and no text that could be read as a number."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None if _WORD.fullmatch(value) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Steps.add_representer(str, _text)


def put_into(text: str, steps: StepsConfig) -> str:
    """Put the steps into the jobs of a workflow that train and test.

    Args:
        text: the workflow; comments mark the places.
        steps: by the names of the places.
    """
    places = steps.places
    return _PLACE.sub(lambda match: _written([step.plain() for step in places[match[1]]]), text)


def _written(steps: Sequence[Mapping[str, Any]]) -> str:
    if not steps:
        return ""
    text = yaml.dump(
        list(steps), Dumper=_Steps, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    # A block that keeps its last line ends is followed by the mark of a document's end.
    lines = re.sub(r"\n\.\.\.\n\Z", "\n", text).removesuffix("\n").split("\n")
    return "".join(f"{_INDENT}{line}\n" if line else "\n" for line in lines)
