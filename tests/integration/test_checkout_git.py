"""What git says of a project: the commit, and what makes it dirty."""

import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from mlship.adapters.checkout.changes import absent_submodules, changed, changed_outside
from mlship.adapters.checkout.code import files_of, left_out, settings_of
from mlship.adapters.checkout.datafiles import sources
from mlship.adapters.checkout.differences import ignored_checks
from mlship.adapters.checkout.git import not_ignored
from mlship.adapters.checkout.source import GitSource
from mlship.config.check_files import CheckFiles
from mlship.config.data import DataConfig
from mlship.config.project import ReportConfig
from mlship.errors import ProjectError
from tests.harness.projects import config
from tests.harness.repositories import ADA


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *ADA, *arguments], cwd=root, check=True, capture_output=True, text=True
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


def test_a_branch_with_the_name_of_a_tag(root: Path) -> None:
    git(root, "tag", "develop")
    assert GitSource(root).commit().branch == "develop"


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
    first = files_of(root, config())
    (root / "tests" / "unit").mkdir(parents=True)
    (root / "tests" / "unit" / "test_x.py").write_text("")
    (root / ".gitignore").write_text("ignored.py\n")
    (root / "ignored.py").write_text("")
    assert files_of(root, config()) == first
    assert settings_of(config(params={"C": 2})) == settings_of(config())
    assert settings_of(config("price")) != settings_of(config())
    assert settings_of(config(task="regression")) != settings_of(config())
    assert settings_of(config(pickle_sha256="0")) == settings_of(config())
    shown = msgspec.structs.replace(config(), report=ReportConfig(include=("metrics.csv",)))
    assert settings_of(shown) != settings_of(config())
    (root / "new.py").write_text("")
    assert files_of(root, config()).keys() - first.keys() == {"new.py"}


def test_changes_are_named_by_their_path_in_the_project(root: Path) -> None:
    (root / "pipeline.py").write_text("x = 2\n")
    (root / "out").mkdir()
    for name in ("out/a.json", "out/b.json", "ünder √.txt"):
        (root / name).write_text("")
    assert GitSource(root).commit().changes == (
        "out/a.json",
        "out/b.json",
        "pipeline.py",
        "ünder √.txt",
    )
    (root / "pipeline.py").rename(root / "moved.py")
    git(root, "add", "-A")
    assert set(changed(root)) >= {"moved.py", "pipeline.py"}


def test_what_git_would_take_in_is_told_from_what_it_ignores(root: Path) -> None:
    (root / ".gitignore").write_text("*.joblib\nout/\n")
    (root / "kept.joblib").write_text("")
    git(root, "add", "--force", "kept.joblib")
    names = ["kept.joblib", "x.joblib", "out/a.json", "metrics.json", "ünder √.txt", "-x"]
    assert not_ignored(root, names) == ["kept.joblib", "metrics.json", "ünder √.txt", "-x"]
    assert not_ignored(root, []) == []


def test_a_submodule_that_is_not_there_is_named_with_the_command(root: Path) -> None:
    other = root.parent.parent / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    (other / "d.csv").write_text("a,y\n1,0\n")
    git(other, "add", "-A")
    git(other, "commit", "--quiet", "--message", "Begin")
    add = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other))
    git(root, *add, "shared")
    git(root.parent, "commit", "--quiet", "--message", "Share")
    assert absent_submodules(root) == []
    data = DataConfig(train="shared/d.csv", target="y")
    assert sources(root, data)
    git(root.parent, "submodule", "--quiet", "deinit", "--force", "--all")
    assert absent_submodules(root) == ["shared"]
    with pytest.raises(ProjectError, match="is in the submodule shared") as caught:
        sources(root, data)
    assert caught.value.hint == "git submodule update --init shared"


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_a_change_that_git_was_told_not_to_see_counts(root: Path, flag: str) -> None:
    git(root, "update-index", flag, "pipeline.py")
    assert not GitSource(root).commit().dirty
    (root / "pipeline.py").write_text("x = 2\n")
    assert changed(root) == ("pipeline.py",)
    (root / "other.txt").write_text("")
    assert changed(root) == ("other.txt", "pipeline.py")


def test_a_file_that_a_sparse_checkout_leaves_out_is_no_change(root: Path) -> None:
    git(root, "update-index", "--skip-worktree", "pipeline.py")
    (root / "pipeline.py").unlink()
    assert changed(root) == ()


@pytest.fixture
def nested(root: Path) -> Path:
    """Return a submodule of a submodule of the project."""
    add = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add")
    origins = [root.parent.parent / name for name in ("inner", "outer")]
    for origin in origins:
        origin.mkdir()
        (origin / "x.py").write_text("x = 1\n")
        git(origin, "init", "--quiet")
        git(origin, "add", "-A")
        git(origin, "commit", "--quiet", "--message", "Begin")
    git(origins[1], *add, str(origins[0]), "inner")
    git(origins[1], "commit", "--quiet", "--message", "Nest")
    git(root, *add, str(origins[1]), "outer")
    git(root.parent, "commit", "--quiet", "--message", "Share")
    update = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "update")
    git(root, *update, "--init", "--recursive")
    return root / "outer" / "inner"


@pytest.mark.parametrize("how", ["dirty", "all"])
def test_a_change_in_a_submodule_that_git_was_told_to_ignore_counts(
    root: Path, nested: Path, how: str
) -> None:
    outer = nested.parent
    for folder, name in ((root, "project/outer"), (outer, "inner")):
        git(folder, "config", f"submodule.{name}.ignore", how)
        git(folder, "config", "diff.ignoreSubmodules", how)
    assert changed(root) == ()
    for place in (outer, nested):
        (place / "x.py").write_text("x = 2\n")
        assert git(root, "status", "--porcelain") == ""
        assert changed(root) == ("outer",)
        git(place, "update-index", "--assume-unchanged", "x.py")
        assert changed(root) == ("outer",)
        git(place, "update-index", "--no-assume-unchanged", "x.py")
        git(place, "checkout", "--quiet", "x.py")
        assert changed(root) == ()
    (nested / "new.py").write_text("")
    assert changed(root) == ("outer",)
    (nested / "new.py").unlink()
    git(nested, "commit", "--quiet", "--allow-empty", "--message", "Move")
    assert changed(root) == ("outer",)
    assert changed_outside(outer, ["inner/x.py"]) == ("inner",)


CHECKS = CheckFiles(settings=("mlship.yaml", "../shared/work.jsonl"), suites=("tests", "../all"))


def different(root: Path, commit: str = "HEAD") -> tuple[str, ...]:
    return GitSource(root, CHECKS).differences(git(root, "rev-parse", commit))


def test_what_differs_from_a_commit_whatever_is_checked_out(root: Path) -> None:
    (root / "mlship.yaml").write_text("name: iris\n")
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "--message", "Configure")
    assert different(root) == ()
    git(root, "config", "diff.relative", "true")
    git(root, "config", "diff.autoRefreshIndex", "false")
    (root / "pipeline.py").touch()
    assert different(root) == ()
    assert different(root, "HEAD~1") == ("mlship.yaml",)
    # A merge to main makes another commit, with the same files.
    git(root, "commit", "--quiet", "--allow-empty", "--message", "Merge")
    assert different(root, "HEAD~1") == ()
    (root / "pipeline.py").write_text("x = 2\n")
    (root / "new.py").write_text("")
    (root / "other").mkdir()
    git(root / "other", "init", "--quiet")
    (root / "other" / "ünder √.txt").write_text("")
    assert different(root) == ("new.py", "other", "pipeline.py")
    shutil.rmtree(root / "other")
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "--message", "Change")
    assert different(root) == ()
    git(root, "checkout", "--quiet", "HEAD~1", "--", ".")
    assert different(root) == ("pipeline.py",)
    elsewhere = root.parent / "a\nb"
    shutil.copytree(root, elsewhere)
    assert different(elsewhere) == ("mlship.yaml", "new.py", "pipeline.py")
    shutil.rmtree(elsewhere)
    (absent,) = GitSource(root, CHECKS).differences("f" * 40)
    assert absent == "commit ffffffffffff itself, which this clone does not have"


def test_tests_and_workload_outside_of_the_project_count(root: Path, tmp_path: Path) -> None:
    (root.parent / "all").mkdir()
    (root.parent / "shared").mkdir()
    (root.parent / "all" / "test_a.py").write_text("")
    (root.parent / "shared" / "work.jsonl").write_text("")
    (root / "tests").symlink_to("../linked")
    (root.parent / "linked").mkdir()
    (root.parent / "linked" / "test_b.py").write_text("")
    git(root.parent, "add", "-A")
    git(root, "commit", "--quiet", "--message", "Share")
    assert different(root) == ()
    (root.parent / "all" / "test_a.py").write_text("assert 1")
    (root.parent / "shared" / "work.jsonl").write_text("{}")
    (root.parent / "linked" / "test_b.py").write_text("assert 1")
    (root.parent / "other.txt").write_text("")
    commit = git(root, "rev-parse", "HEAD")
    assert GitSource(root).differences(commit, ["../other.txt"]) == ("../other.txt",)
    assert different(root) == ("../all/test_a.py", "../linked/test_b.py", "../shared/work.jsonl")
    (root.parent / ".gitignore").write_text("test_c.py\n*.jsonl\n")
    git(root.parent, "rm", "--quiet", "--cached", "--force", "shared/work.jsonl")
    (root.parent / "all" / "test_c.py").write_text("")
    assert ignored_checks(root, CHECKS) == ["../all/test_c.py", "../shared/work.jsonl"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    source = GitSource(root, CheckFiles(suites=(str(elsewhere),)))
    assert source.differences(git(root, "rev-parse", "HEAD")) == (str(elsewhere),)


def test_tests_in_a_submodule_outside_of_the_project_count(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "all").mkdir(parents=True)
    git(tmp_path, "init", "--quiet", str(other))
    (other / "all" / "test_a.py").write_text("")
    git(other, "add", "-A")
    git(other, "commit", "--quiet", "--message", "Begin")
    add = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other))
    git(root.parent, *add, "sub")
    git(root.parent, "config", "--file", ".gitmodules", "submodule.sub.ignore", "all")
    git(root.parent, "add", "-A")
    git(root.parent, "commit", "--quiet", "--message", "Share")
    source = GitSource(root, CheckFiles(suites=("../sub/all",)))
    commit = git(root, "rev-parse", "HEAD")
    assert source.differences(commit) == ()
    (root.parent / "sub" / "all" / "test_a.py").write_text("assert 1")
    assert source.differences(commit) == ("../sub",)
    (root.parent / ".gitignore").write_text("ignored.py\n")
    (root / "ignored.py").write_text("")
    paths = ["../sub/all/test_a.py", "ignored.py", "pipeline.py"]
    assert not_ignored(root, paths) == ["../sub/all/test_a.py", "pipeline.py"]


def test_checks_that_git_ignores_are_in_no_commit(root: Path) -> None:
    ignored = "test_a.py\nconftest.py\nmlship.yaml\n__pycache__/\nenv/\n.tox/\n*.csv\n"
    (root / ".gitignore").write_text(ignored)
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "--message", "Ignore")
    for name in ("env/pyvenv.cfg", "env/lib/conftest.py", "tests/unit/env/test_a.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    for name in ("tests/__pycache__", ".tox", "tests/unit"):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "test_a.py").write_text("")
    (root / "tests" / "rows.csv").write_text("")
    (root / "tests" / "test_kept.py").write_text("")
    (root / "conftest.py").write_text("")
    (root / "mlship.yaml").write_text("")
    git(root, "add", "tests")
    git(root, "commit", "--quiet", "--message", "Test")
    own = ["conftest.py", "mlship.yaml", "tests/unit/env/test_a.py", "tests/unit/test_a.py"]
    assert ignored_checks(root, CHECKS) == own
    assert ignored_checks(root, CheckFiles(suites=(".",))) == [own[0], *own[2:]]
    assert different(root) == tuple(own)
    assert left_out(root, config()) == [
        *("mlship.yaml", "conftest.py", "tests/unit/env/test_a.py", "tests/unit/test_a.py"),
        "data.csv",
    ]
    git(root, "add", "--force", "conftest.py", "tests", "mlship.yaml")
    git(root, "commit", "--quiet", "--message", "Track")
    assert different(root) == ()


def test_tests_in_a_repository_of_their_own_that_git_ignores_are_named(root: Path) -> None:
    (root / ".gitignore").write_text("tests/\n")
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "--message", "Ignore")
    (root / "tests").mkdir()
    (root / "tests" / "test_a.py").write_text("")
    git(root / "tests", "init", "--quiet")
    git(root / "tests", "add", "-A")
    git(root / "tests", "commit", "--quiet", "--message", "Begin")
    assert different(root) == ("tests/test_a.py",)


def test_a_change_that_a_clean_filter_hides_counts(root: Path) -> None:
    (root / "mlship.yaml").write_text("min: 2.0\n")
    (root / "secret.txt").write_text("abc\n")
    (root / "note.ipynb").write_text("{}\n")
    attributes = "mlship.yaml filter=high\nsecret.txt filter=upper\n*.ipynb filter=high\n"
    (root / ".gitattributes").write_text(attributes)
    git(root, "config", "filter.upper.clean", "tr a-z A-Z")
    git(root, "config", "filter.upper.smudge", "tr A-Z a-z")
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "--message", "Configure")
    git(root, "config", "filter.high.clean", "sed s/0.0/2.0/")
    assert changed(root) == ()
    (root / "mlship.yaml").write_text("min: 0.0\n")
    (root / "note.ipynb").write_text("{}\n\n")
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "Nothing")
    assert changed(root) == ("mlship.yaml",)
    assert different(root) == ("mlship.yaml",)
    (root / "secret.txt").write_text("abd\n")
    assert changed(root) == ("mlship.yaml", "secret.txt")


def test_code_of_a_script_in_an_ignored_repository_is_named(root: Path) -> None:
    (root / ".gitignore").write_text("lib/\nbeside.py\n")
    (root / "src").mkdir()
    (root / "src" / "train.py").write_text("import beside\nimport lib.model\n")
    (root / "src" / "beside.py").write_text("")
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "--message", "Train")
    (root / "lib").mkdir()
    (root / "lib" / "model.py").write_text("")
    git(root / "lib", "init", "--quiet")
    git(root / "lib", "add", "-A")
    git(root / "lib", "commit", "--quiet", "--message", "Begin")
    by_script = config(train=None, command="python src/train.py", saved="model.joblib")
    assert left_out(root, by_script) == ["lib/model.py", "src/beside.py"]
    git(root, "add", "--force", "src")
    assert left_out(root, by_script) == ["lib/model.py"]


def test_code_with_a_name_that_no_record_can_have_is_named(root: Path) -> None:
    (root / os.fsdecode(b"odd\xff.py")).write_text("x = 1\n")
    git(root, "add", "-A")
    with pytest.raises(ProjectError, match=r"the name of the file odd\\xff\.py is not UTF-8"):
        files_of(root, config())


def committed(root: Path, subject: str) -> str:
    git(root, "commit", "--quiet", "--allow-empty", "--message", subject)
    return git(root, "rev-parse", "HEAD").strip()


def test_which_commit_was_made_from_which(root: Path) -> None:
    first = git(root, "rev-parse", "HEAD").strip()
    second, third = committed(root, "second"), committed(root, "third")
    git(root, "checkout", "--quiet", "-b", "feature", first)
    feature = committed(root, "feature")
    source = GitSource(root)
    assert source.descends(third, first) is True
    assert source.descends(first, third) is False
    assert source.descends(second, feature) is source.descends(feature, second) is False
    assert source.descends(third, "0" * 40) is None
    assert source.descends("0" * 40, third) is None
    assert source.descends(third, "--help") is None


def test_a_shallow_clone_says_only_what_it_knows(root: Path) -> None:
    first = git(root, "rev-parse", "HEAD").strip()
    committed(root, "second")
    third, fourth = committed(root, "third"), committed(root, "fourth")
    clone = root.parent.parent / "clone"
    git(root, "clone", "--quiet", "--depth", "2", f"file://{root.parent}", str(clone))
    source = GitSource(clone)
    assert source.descends(fourth, third) is True
    assert source.descends(third, fourth) is False
    assert source.descends(fourth, first) is None
    assert GitSource(root.parent / "nowhere").descends(fourth, third) is None
