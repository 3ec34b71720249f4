"""mlship.yaml in a git repository: what the commit has, and a commit of it alone."""

from pathlib import Path

import pytest

from mlship.adapters.checkout.settings_file import GitSettingsFile
from mlship.errors import ProjectError
from tests.integration.test_checkout_git import git

FORMER, LATTER = "name: iris\r\n", "name: iris  # a flower\r\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GitSettingsFile:
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "ada@example.org")
    root = tmp_path / "repository" / "iris"
    root.mkdir(parents=True)
    git(root, "init", "--quiet", str(root.parent))
    path = root / "mlship.yaml"
    path.write_bytes(FORMER.encode())
    (root / "train.py").write_text("x = 1\n")
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "--message", "Begin")
    return GitSettingsFile(path)


def test_a_commit_has_this_file_alone(file: GitSettingsFile, tmp_path: Path) -> None:
    root = tmp_path / "repository" / "iris"
    (root / "train.py").write_text("x = 2\n")
    assert file.read() == file.committed() == FORMER
    file.write(LATTER)
    assert file.committed() == FORMER
    commit = file.commit("Pin the base image\n\nwas not pinned\n")
    assert commit == git(root, "rev-parse", "HEAD")
    assert file.committed() == file.read() == LATTER
    assert git(root, "show", "--no-patch", "--format=%B").splitlines()[2] == "was not pinned"
    assert git(root, "show", "--format=", "--name-only", commit) == "iris/mlship.yaml"
    assert git(root, "status", "--porcelain", "--", ".") == "M iris/train.py"


def test_other_staged_files_are_named(file: GitSettingsFile, tmp_path: Path) -> None:
    root = tmp_path / "repository" / "iris"
    (root.parent / "README").write_text("iris")
    file.write(LATTER)
    assert file.staged() == []
    git(root, "add", "-A", str(root.parent))
    assert file.staged() == ["README"]


def test_a_file_that_no_commit_has_is_told(file: GitSettingsFile, tmp_path: Path) -> None:
    root = tmp_path / "repository" / "iris"
    git(root, "rm", "--quiet", "--cached", "mlship.yaml")
    git(root, "commit", "--quiet", "--message", "Forget it")
    with pytest.raises(ProjectError, match=r"no commit has mlship\.yaml yet"):
        file.committed()
    with pytest.raises(ProjectError, match="not in a git repository"):
        GitSettingsFile(tmp_path / "mlship.yaml").committed()


def test_a_hook_that_refuses_is_told(file: GitSettingsFile, tmp_path: Path) -> None:
    hook = tmp_path / "repository" / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'no pins on Fridays' >&2\nexit 1\n")
    hook.chmod(0o755)
    file.write(LATTER)
    with pytest.raises(ProjectError, match="no pins on Fridays"):
        file.commit("Pin")
    assert file.committed() == FORMER
