"""Which repository a folder belongs to, and from where others get what a checkout holds."""

import subprocess
import sys
from pathlib import Path

import pytest

from mlship.adapters.checkout.repository import (
    email,
    home,
    ignored_workflows,
    published,
    settings,
    top_of,
)
from mlship.adapters.checkout.versions import repository
from mlship.config.installation import Origin, refusal
from mlship.errors import ProjectError
from mlship.wire.installed import source_of
from tests.harness.team import git

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    git("init", "-q", "-b", "main", at=folder)
    (folder / "pyproject.toml").write_text('[project]\nname = "mlship-cd"\n')
    (folder / ".gitignore").write_text(".demo/\n/scratch\n")
    git("add", "-A", at=folder)
    git("commit", "-q", "-m", "Begin", at=folder)
    return folder


def pushed(checkout: Path, address: str) -> str:
    """Let a remote at an address be known to have the commit; return the commit."""
    git("remote", "add", "origin", address, at=checkout)
    commit = git("rev-parse", "HEAD", at=checkout)
    git("update-ref", "refs/remotes/origin/main", commit, at=checkout)
    return commit


def test_a_folder_that_git_ignores_is_a_repository_to_be(checkout: Path) -> None:
    assert top_of(checkout) == checkout
    assert top_of(checkout / "models" / "churn") == checkout
    for folder in (".demo", ".demo/inner", "scratch"):
        assert top_of(checkout / folder) is None
        (checkout / folder).mkdir()
        assert top_of(checkout / folder) is None
    git("init", "-q", at=checkout / ".demo")
    assert top_of(checkout / ".demo" / "inner") == checkout / ".demo"
    (checkout / "scratch" / "kept").write_text("")
    git("add", "-f", "scratch/kept", at=checkout)
    assert top_of(checkout / "scratch") == checkout


def test_init_in_an_ignored_folder_leaves_the_repository_around_it_alone(checkout: Path) -> None:
    demo = checkout / ".demo"
    demo.mkdir()
    told = subprocess.run(
        [sys.executable, "-m", "mlship", "init", "--example", "iris", "--yes"],
        cwd=demo,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(checkout.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "git init -b develop" in told.stdout
    assert git("status", "--porcelain", at=checkout) == ""
    assert not (checkout / ".github").exists()


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("https://github.com/ada/mlship.git", "https://github.com/ada/mlship.git"),
        ("https://ada:secret@example.org/mlship", "https://example.org/mlship"),
        ("git@github.com:ada/mlship.git", "https://github.com/ada/mlship.git"),
        ("ssh://git@gitlab.com/ada/mlship.git", "https://gitlab.com/ada/mlship.git"),
    ],
)
def test_a_checkout_is_got_by_its_remote_and_commit(checkout: Path, address: str, url: str) -> None:
    commit = pushed(checkout, address)
    assert published(checkout) == f"git+{url}@{commit}"
    assert refusal(published(checkout)) == ""
    origin = Origin(kind="folder", url=str(checkout), is_editable=True)
    assert source_of(origin, None) == (f"git+{url}@{commit}", "")


def test_what_others_cannot_get_is_told_with_the_reason(checkout: Path) -> None:
    with pytest.raises(ProjectError, match="on no remote"):
        published(checkout)
    pushed(checkout, "/somewhere/mlship.git")
    with pytest.raises(ProjectError, match="by HTTPS"):
        published(checkout)
    git("remote", "set-url", "origin", "https://example.org/mlship", at=checkout)
    (checkout / "new.py").write_text("")
    with pytest.raises(ProjectError, match="in no commit"):
        published(checkout)
    git("add", "-A", at=checkout)
    git("commit", "-q", "-m", "Not pushed", at=checkout)
    with pytest.raises(ProjectError, match="on no remote"):
        published(checkout)
    source, reason = source_of(Origin(kind="folder", url=str(checkout)), None)
    assert source == ""
    assert "on no remote" in reason


def test_a_folder_in_the_projects_repository_is_named_from_its_top(checkout: Path) -> None:
    assert source_of(Origin(kind="folder", url=str(checkout)), checkout) == (".", "")
    inner = Origin(kind="folder", url=str(checkout / "tools" / "mlship"))
    assert source_of(inner, checkout) == ("./tools/mlship", "")
    wheel = checkout / "mlship_cd-0.1.0-py3-none-any.whl"
    packed = Origin(kind="archive", url=f"file://{wheel}", pin="5e" * 32)
    assert source_of(packed, checkout) == (f"./{wheel.name}", "")
    assert "cannot reach" in source_of(packed, None)[1]


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        (Origin(kind="none"), "not installed"),
        (Origin(kind="index", version="0.1.0"), "no hash"),
        (Origin(kind="archive", url="https://h/mlship_cd-0.1.0-py3-none-any.whl"), "no #sha256="),
        (Origin(kind="git", url="ssh://h/mlship", pin="main"), "branches and tags can move"),
        (Origin(kind="git", url="file:///srv/mlship", pin="c0ffee" * 7), "jobs cannot reach"),
    ],
)
def test_an_installation_that_jobs_cannot_verify_is_told(origin: Origin, reason: str) -> None:
    source, told = source_of(origin, None)
    assert source == ""
    assert reason in told


def test_a_projects_home_is_its_remote_and_its_folder(checkout: Path, tmp_path: Path) -> None:
    inner = checkout / "models" / "churn \u00fc"
    inner.mkdir(parents=True)
    assert home(checkout) == "//"
    assert home(inner) == "//models/churn \u00fc"
    git("remote", "add", "mirror", "git@example.org:ada/homework.git", at=checkout)
    assert home(inner) == "example.org/ada/homework//models/churn \u00fc"
    git("remote", "add", "other", "https://example.org/bob/homework", at=checkout)
    assert home(checkout) == "//"
    git("remote", "add", "origin", "https://example.org/eve/homework", at=checkout)
    assert home(checkout) == "example.org/eve/homework"
    assert home(tmp_path) == "//"
    git("config", "core.worktree", "../..", at=checkout)
    assert home(checkout) == "example.org/eve/homework//checkout"


def test_git_says_who_runs_a_command(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    assert email(settings(checkout)) == ""
    for address in ("ada@example.org", "eve\udcff@example.org"):
        git("config", "--add", "user.email", address, at=checkout)
    assert email(settings(checkout)) == "eve\ufffd@example.org"
    monkeypatch.setenv("PATH", "")
    assert (settings(checkout), home(checkout)) == ({}, "//")


def test_links_and_what_a_sparse_checkout_leaves_out_are_known(checkout: Path) -> None:
    for name in ("models/a/mlship.yaml", "models/b/mlship.yaml", ".github/workflows/a-main.yml"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("")
    (checkout / "models/a/link").symlink_to("../b")
    git("add", "-A", at=checkout)
    git("commit", "-q", "-m", "Two", at=checkout)
    (checkout / "models/a/new").symlink_to("../b")
    (checkout / "models/new").symlink_to("b")
    (checkout / "models/a/scratch").symlink_to("../b")
    (checkout / ".gitignore").write_text("scratch\n")
    found = repository(checkout, [".github/workflows"], checkout / "models/a")
    assert found.links == ("models/a/link", "models/a/new")
    assert found.sparse == ()
    git("sparse-checkout", "set", "models/a", at=checkout)
    assert repository(checkout, [".github/workflows"]).sparse == (
        ".github/workflows/a-main.yml",
        "models/b/mlship.yaml",
    )


def test_doctor_and_init_name_workflows_that_git_ignores(checkout: Path) -> None:
    (checkout / ".gitignore").write_text("*.yml\n")
    told = subprocess.run(
        [sys.executable, "-m", "mlship", "init", "models/a", "--example", "iris", "--yes"],
        cwd=checkout,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "HOME": str(checkout.parent),
            "MLSHIP_WORKFLOWS__MLSHIP": f"git+https://github.com/ada/mlship@{'a' * 40}",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "git ignores ../../.github/workflows/a-develop.yml" in told.stdout
    names = ignored_workflows(checkout)
    assert ".github/workflows/a-main.yml" in names
    (checkout / ".gitignore").write_text("")
    assert ignored_workflows(checkout) == []
