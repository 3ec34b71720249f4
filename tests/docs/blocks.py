"""Fenced blocks of the documentation: found, and run as a reader would."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests import conftest
from tests.harness import shim

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "iris_example" / "README.md",
    ROOT / "sentiment_example" / "README.md",
    ROOT / "churn_example" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

_PLUGINS = "-p no:hypothesispytest"
"""An option of pytest: only mlship's own tests need Hypothesis, whose import takes half a start."""

# Stands in for pip: what is asked for is there already, so it checks that it exists.
_PIP = """
import re, sys
from importlib.metadata import version
for asked in sys.argv[2:]:
    ours = re.fullmatch(r"\\.\\[(.*)\\]", asked)
    if ours and (missing := set(ours[1].split(",")) - set(EXTRAS)):
        sys.exit(f"no extra {missing}")
    if not ours:
        version(re.match(r"[A-Za-z][\\w.-]*", asked)[0])
"""


class Block(NamedTuple):
    """A fenced block: its language, its text, and the line of the page that it begins in."""

    language: str
    text: str
    line: int


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return the blocks of a page in these languages, in order."""
    text = page.read_text(encoding="utf-8")
    found = [
        Block(match[1], match[2], text.count("\n", 0, match.start()) + 2)
        for match in _FENCE.finditer(text)
    ]
    return [block for block in found if block.language in languages]


def without_blocks(page: Path) -> str:
    """Return the prose of a page."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def environment(home: Path, *, is_cold: bool = True) -> dict[str, str]:
    """Return a reader's environment: a home of their own, this version of mlship, a fake pip.

    Args:
        home: an empty folder.
        is_cold: commands of mlship are processes of their own, from the start of Python on.
    """
    programs = home / "bin"
    programs.mkdir(parents=True)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    commands = {
        "mlship": "from mlship.cli.main import main\nmain()",
        "mlflow": "from mlflow.cli import cli\ncli()",
        "pip": f"EXTRAS = {json.dumps(sorted(extras))}\n{_PIP}",
    }
    for name, text in commands.items():
        (programs / name).write_text(f"#!{sys.executable}\n{text}\n")
        (programs / name).chmod(0o755)
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python").chmod(0o755)
    if not is_cold:
        shim.write(programs / "mlship")
        shim.write_python(programs / "python")
    (home / ".gitconfig").write_text("[user]\nname = Ada\nemail = ada@example.org\n")
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "GIT_CONFIG_NOSYSTEM": "1",
        "COLUMNS": "160",
        "PYTEST_ADDOPTS": _PLUGINS if is_cold else conftest.PLUGINS,
    }


class Reader:
    """Types blocks into a shell, one after the other; the folder that one leaves is the next's."""

    def __init__(self, home: Path, *, is_cold: bool = True) -> None:
        self.environment = environment(home, is_cold=is_cold)
        self.folder = home / "checkout"
        self.folder.mkdir()
        self._last = home / "last-folder"

    def run(self, script: str, *, seconds: float = 240, check: bool = True) -> str:
        """Run a script in bash and return what it printed; it must succeed if `check` is set."""
        strict = "set -euo pipefail" if check else ":"
        ending = f"trap 'pwd > {self._last}' EXIT"
        done = subprocess.run(
            ["bash", "-c", f"{strict}\n{ending}\n{script}"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=seconds,
            check=False,
        )
        if check and done.returncode:
            message = f"exit code {done.returncode} of\n{script}\n{done.stdout[-4000:]}"
            raise AssertionError(message)
        self.folder = Path(self._last.read_text().strip())
        return done.stdout

    def leave(self) -> None:
        """Stop what the page started, in each project."""
        for state in sorted(Path(self.environment["HOME"]).rglob(".mlship/targets")):
            self.folder = state.parents[1]
            self.run("mlship down", seconds=60, check=False)


def dialogue(block: Block) -> Iterator[tuple[str, str]]:
    """Give each command of a `console` block with the output that stands below it."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output.strip()


def fits(expected: str, output: str) -> bool:
    """Tell whether an output is as shown, where `...` stands for anything."""
    pattern = re.escape(expected).replace(re.escape("..."), ".*?")
    return re.fullmatch(pattern, output.strip(), flags=re.DOTALL) is not None
