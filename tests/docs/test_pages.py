"""What the pages say is so: links lead somewhere, commands and settings exist, code is code."""

import functools
import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mlship.cli.main import app
from mlship.cli.reference import declared
from mlship.config.layers import Layer, from_yaml, resolve
from tests.docs.blocks import PAGES, ROOT, blocks, without_blocks

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CALL = re.compile(r"(?<![\w/.-])mlship((?: +(?![|&;>#])[^\s|&;>`]+)*)")
_GLOBALS = {"--config": 1, "--set": 1, "--json": 0, "--debug": 0, "--version": 0, "--help": 0}
_NEEDED: dict[str, object] = {
    "name": "project",
    "data": {"train": "data.csv", "test": "held-out.csv"},
    "model": {"train": "pipeline:train"},
}


@functools.cache
def help_of(command: str) -> str:
    """Return what `mlship COMMAND --help` prints at 80 columns."""
    arguments = [*command.split(), "--help"]
    told = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"}, terminal_width=80)
    assert told.exit_code == 0, command
    return told.output


def commands() -> list[str]:
    return [name for name, _ in declared()]


def calls(page: Path) -> list[str]:
    """Return every call of mlship in a page's blocks and code spans."""
    typed = [
        line
        for block in blocks(page, "bash", "console", "text")
        for line in block.text.splitlines()
        if block.language != "text" or line.startswith("mlship ")
    ]
    shown = "".join(block.text for block in blocks(page, "text", "console"))
    spans = re.findall(r"`+([^`\n]+)`+", without_blocks(page) + shown)
    return [match[1] for text in [*typed, *spans] for match in _CALL.finditer(text)]


def problem(call: str) -> str:
    """Return what is wrong with a call, or nothing."""
    words = shlex.split(call.replace('"$(', " ").replace("'", " "), posix=False)
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    plain = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word.startswith("--"):
            waiting = waiting[_GLOBALS.get(word, 0) :]
        else:
            plain.append(word)
    command = plain[0] if plain else ""
    is_group = command in {name.split()[0] for name in commands() if " " in name}
    if command == "COMMAND" or (is_group and not plain[1:]):
        return ""
    command = " ".join(plain[:2]) if is_group else command
    if command and command not in commands():
        return f"no command {command}"
    known = set(re.findall(r"--[a-z][a-z0-9-]*", help_of(command) + help_of("")))
    return ", ".join(f"{command} has no {option}" for option in options if option not in known)


def anchors(page: Path) -> set[str]:
    """Return the anchors that a forge makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in _LINK.findall(without_blocks(page)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        place = page.parent / name if name else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            wrong.append(link)
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_that_a_page_mentions_exist(page: Path) -> None:
    assert not [f"mlship{call}: {wrong}" for call in calls(page) if (wrong := problem(call))]


def test_calls_that_do_not_exist_are_found() -> None:
    assert problem(" promot challenger") == "no command promot"
    assert problem(" retire --now") == "retire has no --now"
    assert not problem(" --set store.kind=directory status --json")
    assert calls(ROOT / "docs" / "guide" / "first-promotion.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_zsh_reads_a_page_as_bash_does(page: Path) -> None:
    assert not [found for block in blocks(page, "bash", "text") if (found := modifiers(block.text))]


def test_a_colon_after_a_variable_without_braces_is_found() -> None:
    assert modifiers('"repo:$OWNER/$NAME:environment"') == ["$NAME:e"]
    assert modifiers('"$PROJECT:$REGION" "${NAME}:environment" "$NAME: x"') == []


def modifiers(text: str) -> list[str]:
    """Return where zsh changes a variable's value: `$NAME:e` is the ending of a file's name."""
    return re.findall(r"\$[A-Za-z_]\w*:[A-Za-z]", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_that_a_page_shows_are_accepted(page: Path) -> None:
    for block in blocks(page, "yaml"):
        shown = from_yaml(block.text, f"{page.name}:{block.line}")
        needed = {key: value for key, value in _NEEDED.items() if key not in shown.values}
        resolve([Layer(name="needed", values=needed), shown])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_that_a_page_shows_is_python(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block.text, f"{page.name}:{block.line}", "exec")


def test_help_is_whole_at_80_columns() -> None:
    listed = help_of("").partition("Commands:")[2]
    assert "..." not in listed
    shown = [line.split()[0] for line in listed.strip().splitlines()]
    assert set(shown) == {name.split()[0] for name in commands()}
    assert [name for name in shown if name in commands()] == [
        name for name in commands() if " " not in name
    ]


@pytest.mark.parametrize("command", commands())
def test_the_example_of_a_command_can_be_called(command: str) -> None:
    examples = re.findall(r"Example: (mlship.*?)(?:\n\n|$)", help_of(command), flags=re.DOTALL)
    assert len(examples) == 1
    assert not [wrong for call in _CALL.findall(examples[0]) if (wrong := problem(call))]
    assert f"mlship {command}" in " ".join(examples[0].split())


def test_every_page_of_the_guide_and_the_architecture_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    folders = [ROOT / "docs" / name for name in ("guide", "architecture", "reference")]
    pages = [page for folder in folders for page in sorted(folder.iterdir())]
    assert len(pages) >= 10
    assert not [page.name for page in pages if f"({page.relative_to(ROOT)})" not in text]


def test_the_example_and_the_skeleton_hold_settings_that_exist() -> None:
    for folder in ("iris_example", "sentiment_example", "churn_example", "templates/project"):
        text = (ROOT / folder / "mlship.yaml").read_text()
        resolve([from_yaml(text, folder)])
        assert yaml.safe_load(text)["name"]
