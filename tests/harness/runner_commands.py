"""What a GitHub runner would obey in the log of a step, by the rules of its own source.

Source: https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs and
ActionCommandManager.cs beside Runner.Worker: a line is tried as `::name key=value::data` after its
leading space, then as `##[name key=value]data` from anywhere in it.
"""

import re
from typing import NamedTuple

_KNOWN = frozenset(
    [
        "add-mask",
        "add-matcher",
        "add-path",
        "debug",
        "echo",
        "endgroup",
        "error",
        "group",
        "internal-set-repo-path",
        "notice",
        "remove-matcher",
        "save-state",
        "set-env",
        "set-output",
        "stop-commands",
        "warning",
    ]
)
_ENDS = re.compile(r"\r\n|\r|\n")


class Command(NamedTuple):
    """A command that a runner would obey, and what it would work on."""

    name: str
    data: str


def obeyed(log: str) -> list[Command]:
    """Return the commands in what a step printed, in order."""
    return [found for line in _ENDS.split(log) if (found := _newer(line) or _older(line))]


def _newer(line: str) -> Command | None:
    text = line.lstrip()
    end = text.find("::", 2) if text.startswith("::") else -1
    return _known(text[2:end], text[end + 2 :]) if end >= 0 else None


def _older(line: str) -> Command | None:
    begin = line.find("##[")
    end = line.find("]", begin) if begin >= 0 else -1
    return _known(line[begin + 3 : end], line[end + 1 :]) if end >= 0 else None


def _known(told: str, data: str) -> Command | None:
    name = told.split(" ", 1)[0].lower()
    return Command(name, data) if name in _KNOWN else None
