"""What git says of a project: the commit, and what makes it dirty."""

import subprocess
from pathlib import Path

import pytest

from mlship.adapters.checkout.code import project_code
from mlship.adapters.checkout.git import GitSource
from mlship.errors import ProjectError
from tests.harness.projects import config

WHO = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *WHO, *arguments], cwd=root, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "repository" / "project"
    folder.mkdir(parents=True)
    git(tmp_path / "repository", "init", "--quiet", "--initial-branch=develop")
    (folder / "pipeline.py").write_text("x = 1\n")
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "--message", "Begin: | `x`")
    return folder


def test_commit_of_a_project_in_a_folder_of_a_repository(root: Path) -> None:
    commit = GitSource(root).commit()
    assert commit.sha == git(root, "rev-parse", "HEAD")
    assert (commit.branch, commit.author) == ("develop", "ada@example.org")
    assert (commit.subject, commit.dirty) == ("Begin: | `x`", False)


def test_only_the_projects_own_files_make_it_dirty(root: Path) -> None:
    (root.parent / "elsewhere.py").write_text("")
    (root / ".mlship").mkdir()
    (root / ".mlship" / "state").write_text("")
    assert not GitSource(root).commit().dirty
    (root / "new\nfile -x.py").write_text("")
    assert GitSource(root).commit().dirty


def test_a_changed_a_staged_and_a_removed_file_make_it_dirty(root: Path) -> None:
    (root / "pipeline.py").write_text("x = 2\n")
    assert GitSource(root).commit().dirty
    git(root, "add", "-A")
    assert GitSource(root).commit().dirty
    git(root, "checkout", "--quiet", "HEAD", "--", ".")
    assert not GitSource(root).commit().dirty
    (root / "pipeline.py").unlink()
    assert GitSource(root).commit().dirty


def test_a_commit_without_a_branch(root: Path) -> None:
    git(root, "checkout", "--quiet", "--detach")
    assert GitSource(root).commit().branch == ""


def test_no_repository_no_commit_and_no_file_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ProjectError, match="is not in a git repository") as caught:
        GitSource(tmp_path).commit()
    assert "git init && git add -A && git commit" in caught.value.hint
    git(tmp_path, "init", "--quiet")
    with pytest.raises(ProjectError, match="has no commit yet"):
        GitSource(tmp_path).commit()
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "Begin")
    with pytest.raises(ProjectError, match="no file of"):
        GitSource(tmp_path).commit()


def test_no_git(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ProjectError, match="git is not installed"):
        GitSource(root).commit()


def test_a_git_hooks_own_variables_do_not_mislead(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    assert not GitSource(root).commit().dirty


def test_code_digest_follows_code_and_settings_and_not_tests_or_ignored_files(root: Path) -> None:
    first = project_code(root, config())
    (root / "tests" / "unit").mkdir(parents=True)
    (root / "tests" / "unit" / "test_x.py").write_text("")
    (root / ".gitignore").write_text("ignored.py\n")
    (root / "ignored.py").write_text("")
    assert project_code(root, config()) == first
    assert project_code(root, config(params={"C": 2})) == first
    assert project_code(root, config("price")) != first
    (root / "new.py").write_text("")
    assert project_code(root, config()) != first
