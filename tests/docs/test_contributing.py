"""The pages for contributors name files that exist, and their sizes are about right."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

PAGES = (ROOT / "CONTRIBUTING.md", ROOT / "docs/architecture/11-extending.md")
_PATH = re.compile(r"`((?:mlship|tests|docs|benchmarks)/[\w./-]+|\.ci/run|[\w-]+\.(?:md|txt))`")
_ROW = re.compile(r"^\| `([\w./-]+\.py)` \| (\d+) \|", re.MULTILINE)
_TARGET = re.compile(r"`make (\w+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_named_file_exists(page: Path) -> None:
    paths = set(_PATH.findall(page.read_text()))
    assert len(paths) > 5
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_the_number_of_lines_of_an_example_is_about_right() -> None:
    rows = _ROW.findall(PAGES[1].read_text())
    assert len(rows) > 20
    stated = {path: int(lines) for path, lines in rows}
    actual = {path: len((ROOT / path).read_text().splitlines()) for path in stated}
    wrong = [
        f"{path}: {actual[path]} lines"
        for path in stated
        if not 0.6 * actual[path] <= stated[path] <= 1.6 * actual[path]
    ]
    assert wrong == []


def test_a_named_target_of_make_exists() -> None:
    targets = set(_TARGET.findall(PAGES[0].read_text()))
    rules = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"unit", "check", "test"} <= targets <= set(rules)
