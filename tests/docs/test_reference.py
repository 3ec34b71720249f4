"""The reference is made from the code, and whole."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from mlship import errors
from mlship.cli import reference
from mlship.config.project import json_schema
from tests.docs.blocks import ROOT
from tests.docs.test_pages import commands, help_of

FOLDER = ROOT / "docs" / "reference"


def settings(schema: dict[str, Any], node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Give every key below a section of the JSON schema, with `*` for a name of the user's own."""
    for option in [node, *node.get("anyOf", []), *node.get("allOf", [])]:
        if "$ref" in option:
            yield from settings(schema, schema["$defs"][option["$ref"].split("/")[-1]], prefix)
        if isinstance(option.get("additionalProperties"), dict):
            yield from settings(schema, option["additionalProperties"], f"{prefix}*.")
        for name, inner in option.get("properties", {}).items():
            below = list(settings(schema, inner, f"{prefix}{name}."))
            yield from below or [f"{prefix}{name}"]


@pytest.mark.parametrize("name", reference.pages())
def test_the_committed_page_is_current(name: str) -> None:
    written = (FOLDER / name).read_text(encoding="utf-8")
    assert written == reference.pages()[name], "run `make docs`"


def test_nothing_else_lies_there() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(reference.pages())


@pytest.mark.parametrize("command", commands())
def test_every_option_of_a_command_is_in_the_reference(command: str) -> None:
    page = reference.commands()
    section = page.partition(f"\n## `mlship {command}`\n")[2].partition("\n## ")[0]
    found = set(re.findall(r"--[a-z][a-z-]*", help_of(command).partition("Options:")[2]))
    assert section
    shown = [row for row in section.splitlines() if row.startswith("| `")]
    assert not {flag for flag in found - {"--help"} if not any(flag in row for row in shown)}
    for metavar in re.findall(r"^  ([A-Z][A-Z_|=.]+)\b", help_of(command), flags=re.MULTILINE):
        assert any(metavar.replace("|", r"\|") in row for row in shown), metavar


def test_every_global_option_is_in_the_reference() -> None:
    section = reference.commands().partition("## Global options")[2].partition("\n## ")[0]
    found = set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", help_of(""), flags=re.MULTILINE))
    assert {"--config", "--set", "--json", "--debug", "--version"} <= found
    assert not {flag for flag in found if "completion" not in flag and flag not in section} - {
        "--help"
    }


def test_every_setting_is_in_the_reference_with_type_meaning_and_variable() -> None:
    rows = [row for row in reference.settings().splitlines() if row.startswith("| `")]
    cells = {
        row[0]: row[1:] for line in rows if (row := re.split(r" (?<!\\)\| ", line.strip("| ")))
    }
    wanted = list(settings(json_schema(), json_schema()))
    assert len(wanted) > 40
    shown = {re.sub(r"NAME|METRIC|CLUSTER", "*", key.strip("`")): row for key, row in cells.items()}
    assert sorted(shown) == sorted(wanted)
    for key, (kind, default, meaning, variable) in shown.items():
        assert kind, key
        assert default, key
        assert meaning, key
        assert variable.startswith("`MLSHIP_"), key


def test_every_error_is_in_the_reference_with_its_exit_code() -> None:
    page = reference.error_page()
    for name, kind in errors.tree().items():
        assert f"| `{name}` | {kind.exit_code} |" in page


def test_a_default_in_the_reference_is_the_one_that_holds() -> None:
    text = reference.settings()
    assert "| `gates.promote.min_labels` | whole number ≥ 1 | `200` |" in text
    assert '{"staging":{},"production":{"replicas":2}}' in text
