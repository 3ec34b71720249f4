"""Nothing that mlship writes or says asks an installer for what indexes call `mlship`."""

import re
from pathlib import Path

import pytest

from mlship.config import installation
from tests.docs.blocks import PAGES, ROOT
from tests.harness.workflows import PROJECTS, committed, rendered

FOLDERS = (
    "mlship",
    "templates",
    "iris_example",
    "sentiment_example",
    "churn_example",
    "benchmarks",
    "docs",
    ".ci",
)
SUFFIXES = {".py", ".md", ".yml", ".yaml", ".txt", ".jinja", ".json", ".toml", ".html", ""}
ALLOWED = {
    # What finds such lines, and the page that says what was accepted before.
    ROOT / "mlship/config/installation.py",
    ROOT / "mlship/templates/generated.py",
    ROOT / "docs/decisions/0027-the-distribution-is-mlship-cd.md",
}


def read() -> dict[Path, str]:
    """Return the text of all that is shipped or shown, but for what must have such a line."""
    paths = [ROOT / name for name in ("README.md", "Makefile", "pyproject.toml", "constraints.txt")]
    for folder in FOLDERS:
        paths += [
            path
            for path in sorted((ROOT / folder).rglob("*"))
            if path.is_file() and path.suffix in SUFFIXES and not _is_state(path)
        ]
    return {path: path.read_text("utf-8") for path in paths if path not in ALLOWED}


def _is_state(path: Path) -> bool:
    return bool({".mlship", "__pycache__", ".pytest_cache"} & set(path.parts))


def test_no_template_page_or_hint_asks_for_the_stranger() -> None:
    texts = read()
    assert len(texts) > 250
    wrong = {str(path): lines for path, text in texts.items() if (lines := _named(text))}
    assert not wrong


def _named(text: str) -> list[str]:
    return installation.strangers_named(text)


@pytest.mark.parametrize("project", PROJECTS)
@pytest.mark.parametrize("folder", ["", "models/iris"])
def test_every_workflow_installs_mlship_verifiably_or_the_repositorys_own(
    project: str, folder: str
) -> None:
    for name, text in rendered(project, folder).items():
        assert not _named(text), name
        for line in re.findall(r"pip install (.*)", text):
            is_ours = re.search(
                r"'mlship-cd(\[[\w,]+\])? @ (git\+https://[^ ]+@[0-9a-f]{40}|"
                r"https://[^ ]+#sha256=[0-9a-f]{64})'",
                line,
            )
            # A branch's pull request takes what the default branch has.
            reviewed = r"(--require-hashes -r )?(\./|(\.\./)*)reviewed-mlship/[\w./-]+"
            is_reviewed = re.fullmatch(reviewed, line)
            own = r"'?(\./|(\.\./)*)tools/mlship(\[[\w,]+\])?'?( -r requirements\.txt)?"
            is_own = re.fullmatch(own, line)
            is_pinned = line == "--require-hashes -r requirements.txt"
            assert is_ours or is_reviewed or is_own or is_pinned, (name, line)


def test_this_repositorys_workflows_install_what_is_checked_out() -> None:
    texts = committed()
    assert not [name for name, text in texts.items() if _named(text)]
    assert any("pip install '..[" in text for text in texts.values())


def test_a_page_that_asks_for_it_would_be_found() -> None:
    page = PAGES[0].read_text()
    assert _named(page.replace('pip install ".[all]"', 'pip install "mlship[all]"'))
    assert _named(page.replace('pip install ".[all]"', "pip install mlship"))
