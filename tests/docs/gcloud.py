"""The commands of gcloud that the guide shows, and those that gcloud has, recorded from it.

`python -m tests.docs.gcloud FOLDER` records again, where FOLDER is the one of the Google Cloud SDK.
"""

import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.docs.blocks import PAGES, ROOT, blocks

RECORDED = ROOT / "tests" / "recorded" / "gcloud.json"
_CALL = re.compile(
    r"(?:^|[;(&|]|\bdo)[ \t]*gcloud ((?:\"[^\"]*\"|'[^']*'|[^;|)&\n\"'])*)", re.MULTILINE
)


class Call(NamedTuple):
    """A call of gcloud: its words before the first option, and its options with their values."""

    words: tuple[str, ...]
    options: tuple[tuple[str, str], ...]


def calls(page: Path) -> list[Call]:
    """Return the calls of gcloud in a page's blocks."""
    texts = [block.text.replace("\\\n", " ") for block in blocks(page, "bash", "text")]
    return [_parsed(match[1]) for text in texts for match in _CALL.finditer(text)]


def _parsed(text: str) -> Call:
    words: list[str] = []
    options: list[tuple[str, str]] = []
    for word in shlex.split(text):
        if word.startswith("--"):
            name, _, value = word.partition("=")
            options.append((name, value))
        elif options and not options[-1][1]:
            options[-1] = (options[-1][0], word)
        else:
            words.append(word)
    return Call(tuple(words), tuple(options))


def problems(call: Call, tree: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a call: a command or an option that gcloud does not have.

    Args:
        call: of gcloud.
        tree: for each command, its options, each with its possible values where they are listed.
    """
    command = named(call, tree)
    if command is None:
        yield f"gcloud has no command {' '.join(call.words)}"
        return
    known = tree[command] | tree[""]
    for option, value in call.options:
        kind = known.get(option) or known.get(option.replace("--no-", "--", 1))
        if kind is None:
            yield f"gcloud {command} has no {option}"
        elif isinstance(kind, list) and "$" not in value and value.lower() not in kind:
            yield f"gcloud {command} {option} may be {', '.join(kind)}, not {value}"


def named(call: Call, tree: dict[str, Any]) -> str | None:
    """Return the longest command that begins a call."""
    ends = range(len(call.words), 0, -1)
    return next((name for end in ends if (name := " ".join(call.words[:end])) in tree), None)


def _recorded(completions: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the commands that the pages use, and of gcloud itself."""
    tree = dict(_flattened("", completions))
    used = {named(call, tree) for page in PAGES for call in calls(page)}
    return {name: tree[name] for name in sorted({"", *filter(None, used)})}


def _flattened(name: str, node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if not node["commands"] or not name:
        kinds = {flag: _kind(kind) for flag, kind in sorted(node["flags"].items())}
        yield name, kinds
    for part, below in node["commands"].items():
        yield from _flattened(f"{name} {part}".strip(), below)


def _kind(kind: object) -> object:
    return sorted(str(one).lower() for one in kind) if isinstance(kind, list) else "any"


if __name__ == "__main__":
    places = Path(sys.argv[1]) / "data" / "cli" / "gcloud_completions.py"
    found = _recorded(runpy.run_path(str(places))["STATIC_COMPLETION_CLI_TREE"])
    RECORDED.write_text(json.dumps(found, indent=1) + "\n")
