"""The commands of gcloud that the guide shows, which nobody has run, exist with their options."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import PAGES
from tests.docs.gcloud import RECORDED, Call, calls, problems


@pytest.fixture(scope="module")
def tree() -> dict[str, Any]:
    """The commands of gcloud 528 with their options."""
    commands: dict[str, Any] = json.loads(RECORDED.read_text())
    return commands


@pytest.mark.parametrize(
    "page", [page for page in PAGES if calls(page)], ids=lambda page: page.stem
)
def test_commands_and_options_exist(page: Path, tree: dict[str, Any]) -> None:
    assert [wrong for call in calls(page) for wrong in problems(call, tree)] == []


def test_a_page_with_the_path_to_google_has_many() -> None:
    counts = {page.stem: len(calls(page)) for page in PAGES}
    assert counts["gke"] > 15
    assert counts["tracking-server"] > 15


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (Call(("run", "deply", "x"), ()), "gcloud has no command run deply x"),
        (Call(("run", "deploy", "x"), (("--sauce", "."),)), "gcloud run deploy has no --sauce"),
    ],
)
def test_what_gcloud_does_not_have_is_found(call: Call, problem: str, tree: dict[str, Any]) -> None:
    assert list(problems(call, tree)) == [problem]
