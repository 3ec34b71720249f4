"""`mlship guide` shows the pages that are shipped, and messages name pages that exist."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlship.cli.main import app
from mlship.domain.job import inert
from mlship.errors import NotFoundError
from mlship.templates import shipped

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / name
    for name in re.findall(
        r"\((docs/(?:guide|reference)/[a-z-]+\.md)\)",
        ROOT.joinpath("README.md").read_text("utf-8").partition("## Read on")[2],
    )
]
"""As the README lists them, which has all: `test_pages` says so."""
PACKAGE = ROOT / "mlship"


def told(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_all_pages_are_listed_with_their_titles_in_the_order_of_the_readme() -> None:
    listed = json.loads(told("--json", "guide"))
    assert list(listed) == [page.stem for page in PAGES]
    assert all(title and not title.startswith("#") for title in listed.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_printed_as_it_is(page: Path) -> None:
    assert json.loads(told("--json", "guide", page.stem))["text"] == page.read_text("utf-8")
    text = inert(page.read_text("utf-8"))
    assert told("guide", f"docs/guide/{page.name}").strip() == text.strip()


def test_a_page_that_is_not_there_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(NotFoundError) as caught:
        CliRunner().invoke(app, ["guide", "githb"], catch_exceptions=False)
    assert caught.value.hint == "`mlship guide github`"


def test_messages_name_pages_that_are_shipped() -> None:
    named = {
        name
        for path in PACKAGE.rglob("*.py")
        for name in re.findall(r"`mlship guide ([a-z-]+)`", path.read_text("utf-8"))
    }
    assert "predictions" in named
    assert "settings" in re.findall(
        r"`mlship guide ([a-z-]+)`", shipped.files("templates/project")["mlship.yaml"].decode()
    )
    assert named <= {page.stem for page in PAGES}
