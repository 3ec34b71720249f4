"""`mlship init` in real repositories: upgrades of edited files, and deletions that stay."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlship import files
from mlship.adapters.checkout.versions import repository
from tests.harness import commands
from tests.harness.team import git
from tests.harness.workflows import SOURCE

WRITER = "`mlship init` from mlship.yaml"
PLACE = Path(".github/workflows")
DEVELOP, MAIN = PLACE / "develop.yml", PLACE / "main.yml"
KINDS = ("develop", "feature", "main", "release")

TRAIN = "      - name: train\n"
MINE = "      - name: mine\n        run: make data\n"
EDITS: dict[str, Callable[[str], str]] = {
    "a number": lambda text: text.replace("timeout-minutes: 45", "timeout-minutes: 90", 1),
    "a runner": lambda text: text.replace("runs-on: ubuntu-latest", "runs-on: [self-hosted]", 1),
    "a step more": lambda text: text.replace(
        "      - name: train\n",
        "      - name: mine\n        run: make data\n      - name: train\n",
        1,
    ),
    "a step less": lambda text: re.sub(r"      - name: test\n        run: .*\n", "", text, count=1),
    "a line at the end": lambda text: f"{text}# the end\n",
}


def edited(text: str) -> str:
    """Return a workflow with edits in five places."""
    for edit in EDITS.values():
        assert edit(text) != text
        text = edit(text)
    return text


def former(text: str) -> str:
    """Return a workflow as a former version wrote it: other actions, a step less, other words."""
    body = text.partition("\n")[2]
    before = re.sub(r"(checkout)@\w+ # v[\d.]+", rf"\1@{'a' * 40} # v6.0.0", body)
    before = re.sub(r"      - name: report --to\n(?:        .*\n)+", "", before)
    before = before.replace("no credentials of a cloud", "no secrets of a cloud")
    assert len({len(before), len(body)}) == 2
    return files.signed(before, WRITER)


class Desk:
    """A repository, and the command line run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def init(self, *arguments: str, at: str = "", code: int = 0) -> str:
        """Run init; return what it printed, and check its exit code."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        done = commands.run(
            *(("--json",) if "--json" in arguments else ()),
            "init",
            "--yes",
            *(argument for argument in arguments if argument != "--json"),
            folder=self.folder / at,
            environment=kept | {"MLSHIP_WORKFLOWS__MLSHIP": SOURCE},
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if not code else done.stdout + done.stderr

    def upgrade(self, *arguments: str, at: str = "", code: int = 0) -> dict[str, Any]:
        """Run init --upgrade; return its JSON."""
        text = self.init("--upgrade", "--json", *arguments, at=at, code=code)
        answer: dict[str, Any] = json.loads(text.partition("\nerror: ")[0])
        return answer

    def git(self, *arguments: str) -> str:
        return git(*arguments, at=self.folder)

    def commit(self, subject: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", subject)

    def read(self, name: Path) -> str:
        return (self.folder / name).read_bytes().decode()

    def write(self, name: Path, text: str) -> None:
        (self.folder / name).write_bytes(text.encode())

    def set(self, section: str, value: str, at: str = "") -> None:
        """Set a section of mlship.yaml to a value on the same line."""
        path = self.folder / at / "mlship.yaml"
        text = re.sub(rf"(?m)^{section}:.*\n", "", path.read_text())
        path.write_text(f"{text.rstrip()}\n{section}: {value}\n")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("started")
    git("init", "-q", "-b", "develop", at=folder)
    here = Desk(folder)
    here.init()
    here.commit("Start with mlship")
    return here


@pytest.fixture
def desk(started: Desk, tmp_path: Path) -> Desk:
    """A repository with a project, all in one commit."""
    return Desk(Path(shutil.copytree(started.folder, tmp_path / "desk", symlinks=True)))


def aged(desk: Desk) -> dict[Path, str]:
    """Let the workflows be of a former version, and then edited; return what is generated now."""
    now = {PLACE / f"{kind}.yml": desk.read(PLACE / f"{kind}.yml") for kind in KINDS}
    for name, text in now.items():
        desk.write(name, former(text))
    desk.commit("Go back to a former version")
    for name in (DEVELOP, MAIN):
        desk.write(name, edited(desk.read(name)))
    desk.commit("Make them ours")
    return now


def test_edits_in_five_places_survive_three_upgrades(desk: Desk) -> None:
    now = aged(desk)
    answer = desk.upgrade()
    assert sorted(answer["merge"]) == [str(DEVELOP), str(MAIN)]
    assert sorted(answer["update"]) == [str(PLACE / "feature.yml"), str(PLACE / "release.yml")]
    assert answer["conflict"] == answer["unmerged"] == []
    assert answer["next"]
    for name in (DEVELOP, MAIN):
        assert desk.read(name) == edited(now[name])
    for python in ("3.12", "3.13"):
        desk.commit("Upgrade")
        desk.set("workflows", f'{{python: "{python}"}}')
        desk.write(DEVELOP, desk.read(DEVELOP) + f"# with {python}\n")
        assert sorted(desk.upgrade()["merge"]) == [str(DEVELOP), str(MAIN)]
        text = desk.read(DEVELOP)
        assert set(re.findall(r'python-version: "(.*)"', text)) == {python}
        generated = now[MAIN].partition("\n")[2].replace('"3.11"', f'"{python}"')
        assert desk.read(MAIN).partition("\n")[2] == edited(generated)
    assert "# the end\n# with 3.12\n# with 3.13\n" in text
    assert yaml.safe_load(text)["jobs"]["release"]["timeout-minutes"] == 90
    desk.commit("Upgrade")
    assert desk.upgrade()["merge"] == []
    assert desk.git("status", "--porcelain") == ""


def test_an_upgrade_in_a_new_clone_has_the_same_base(desk: Desk, tmp_path: Path) -> None:
    aged(desk)
    desk.upgrade()
    desk.commit("Upgrade")
    git("clone", "-q", "--depth", "1", f"file://{desk.folder}", "new", at=tmp_path)
    other = Desk(tmp_path / "new")
    other.set("workflows", '{python: "3.12"}')
    assert sorted(other.upgrade()["merge"]) == [str(DEVELOP), str(MAIN)]
    assert 'python-version: "3.12"' in other.read(DEVELOP)


def test_the_index_has_what_no_commit_has(tmp_path: Path) -> None:
    git("init", "-q", at=tmp_path)
    desk = Desk(tmp_path)
    desk.init()
    now = desk.read(DEVELOP)
    desk.write(DEVELOP, former(now))
    desk.git("add", "-A")
    desk.write(DEVELOP, edited(former(now)))
    assert desk.upgrade()["merge"] == [str(DEVELOP)]
    assert desk.read(DEVELOP) == edited(now)


def test_a_base_that_only_a_merged_branch_has_is_found(desk: Desk) -> None:
    now = desk.read(DEVELOP)
    desk.git("checkout", "-q", "-b", "side")
    desk.write(DEVELOP, former(now))
    desk.commit("Go back to a former version")
    desk.write(DEVELOP, edited(former(now)))
    desk.commit("Make it ours")
    desk.git("checkout", "-q", "develop")
    desk.write(Path("README.md"), "ours\n")
    desk.commit("Describe it")
    desk.git("merge", "-q", "--no-ff", "-m", "Merge", "side")
    desk.git("config", "log.showSignature", "true")
    desk.git("config", "log.diffMerges", "off")
    desk.git("config", "color.ui", "always")
    assert desk.upgrade()["merge"] == [str(DEVELOP)]
    assert desk.read(DEVELOP) == edited(now)


def test_conflicts_are_marked_as_git_marks_them(desk: Desk) -> None:
    now = aged(desk)
    mine = f"actions/checkout@{'b' * 40} # mine"
    desk.write(DEVELOP, re.sub(r"actions/checkout@.*", mine, desk.read(DEVELOP), count=1))
    desk.commit("Pin another checkout")
    output = desk.init("--upgrade", code=8)
    assert f"merged {DEVELOP}, with conflicts\n" in output
    assert f"error: conflicts in {DEVELOP}; everything else was written\n" in output
    assert " next: choose between the lines from <<<<<<< to >>>>>>>" in output
    assert desk.read(MAIN) == edited(now[MAIN]), "everything else was written"
    marked = desk.read(DEVELOP)
    conflict = re.search(r"<<<<<<< yours\n.*# mine\n=======\n(.*)\n>>>>>>> generated now\n", marked)
    assert conflict
    assert conflict[1] in now[DEVELOP]
    answer = desk.upgrade(code=8)
    assert (answer["conflict"], answer["unmerged"]) == ([], [str(DEVELOP)])
    assert answer["error"] == "ConflictError"
    assert desk.read(DEVELOP) == marked
    resolved = re.sub(r"<<<<<<< .*\n(.*\n)=======\n.*\n>>>>>>> .*\n", r"\1", marked)
    assert resolved == re.sub(r"actions/checkout@.*", mine, edited(now[DEVELOP]), count=1)
    desk.write(DEVELOP, resolved)
    desk.commit("Upgrade")
    assert desk.upgrade()["merge"] == []
    desk.set("workflows", '{python: "3.12"}')
    assert str(DEVELOP) in desk.upgrade()["merge"]
    assert mine in desk.read(DEVELOP)


def test_the_repositorys_style_of_conflicts_is_used(desk: Desk) -> None:
    aged(desk)
    desk.write(DEVELOP, re.sub(r"# v6.0.0", "# mine", desk.read(DEVELOP), count=1))
    desk.git("config", "merge.conflictStyle", "diff3")
    assert desk.upgrade(code=8)["conflict"] == [str(DEVELOP)]
    assert "||||||| generated before\n" in desk.read(DEVELOP)


def test_a_deletion_stays_whether_committed_or_not(desk: Desk) -> None:
    (desk.folder / MAIN).unlink()
    told = f"left out {MAIN}: it was deleted; `mlship init --force {MAIN}` writes it\n"
    assert told in desk.init()
    desk.git("rm", "-q", "--cached", str(MAIN))
    assert told in desk.init()
    desk.commit("Deploy by hand")
    assert told in desk.init()
    assert desk.upgrade()["skip"] == [str(MAIN)]
    assert not (desk.folder / MAIN).exists()
    assert f"wrote {MAIN}\n" in desk.init("--force", str(MAIN))
    assert desk.git("status", "--porcelain") == f"?? {MAIN}"


def test_a_deletion_in_a_merge_counts(desk: Desk) -> None:
    desk.git("checkout", "-q", "-b", "side")
    desk.write(Path("README.md"), "ours\n")
    desk.commit("Describe it")
    desk.git("checkout", "-q", "develop")
    desk.git("merge", "-q", "--no-ff", "--no-commit", "side")
    desk.git("rm", "-q", str(MAIN))
    desk.commit("Merge")
    assert f"left out {MAIN}: it was deleted" in desk.init()


def test_a_workflow_that_never_was_is_written_beside_a_deleted_one(desk: Desk) -> None:
    desk.git("rm", "-q", str(DEVELOP))
    desk.commit("Deploy by hand")
    desk.set("image", "{repository: ghcr.io/ada/iris}")
    text = (desk.folder / "mlship.yaml").read_text().partition("\ntargets:")
    (desk.folder / "mlship.yaml").write_text(
        text[0] + "\nimage: {repository: ghcr.io/ada/iris}\n"
        "targets: {staging: {kind: kubernetes}, production: {kind: kubernetes}}\n"
    )
    output = desk.init()
    assert f"wrote {PLACE / 'promote.yml'}\n" in output
    assert f"left out {DEVELOP}" in output


def test_what_init_removed_itself_comes_back_when_it_is_needed_again(desk: Desk) -> None:
    desk.set("workflows", "{branches: {develop: null}}")
    assert f"removed {DEVELOP}" in desk.init()
    desk.commit("Have main alone")
    desk.set("workflows", "{branches: {develop: develop}}")
    assert f"wrote {DEVELOP}\n" in desk.init()
    desk.commit("Have develop again")
    desk.git("rm", "-q", str(DEVELOP))
    desk.commit("Deploy by hand")
    assert f"left out {DEVELOP}: it was deleted" in desk.init()


def test_a_shallow_clone_says_what_it_lacks_and_brings_nothing_back(
    desk: Desk, tmp_path: Path
) -> None:
    now = aged(desk)
    desk.git("rm", "-q", str(MAIN))
    desk.commit("Deploy by hand")
    git("clone", "-q", "--depth", "1", f"file://{desk.folder}", "new", at=tmp_path)
    other = Desk(tmp_path / "new")
    before = other.read(DEVELOP)
    answer = other.upgrade()
    assert (answer["merge"], answer["skip"]) == ([], [str(MAIN)])
    assert "git fetch --unshallow" in answer["reasons"][str(DEVELOP)]
    assert other.read(DEVELOP) == before
    assert not (other.folder / MAIN).exists()
    other.git("fetch", "-q", "--unshallow")
    answer = other.upgrade()
    assert (answer["merge"], answer["skip"]) == ([str(DEVELOP)], [str(MAIN)])
    assert other.read(DEVELOP) == edited(now[DEVELOP])


def test_a_plain_init_in_a_shallow_clone_brings_nothing_back_either(
    desk: Desk, tmp_path: Path
) -> None:
    desk.git("rm", "-q", str(MAIN))
    desk.commit("Deploy by hand")
    git("clone", "-q", "--depth", "1", f"file://{desk.folder}", "new", at=tmp_path)
    other = Desk(tmp_path / "new")
    answer = other.init()
    missing = f"left out {MAIN}: it is missing, and may have been deleted; this clone is shallow"
    assert f"{missing}: run `git fetch --unshallow`; `mlship init --force {MAIN}`" in answer
    assert not (other.folder / MAIN).exists()
    (other.folder / DEVELOP).write_text(former(other.read(DEVELOP)))
    assert f"updated {DEVELOP} from mlship.yaml" in other.init()


@pytest.mark.parametrize(("typed", "is_written"), [("n", False), ("", True)])
def test_init_asks_before_it_changes_a_folder_if_it_is_a_terminal(
    tmp_path: Path, typed: str, *, is_written: bool
) -> None:
    (tmp_path / "train.py").write_text("")
    ours, theirs = pty.openpty()
    os.write(ours, f"{typed}\n".encode())
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mlship", "init"],
            cwd=tmp_path,
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert "write mlship.yaml\n" in done.stdout
    assert "Continue? [Y/n]" in done.stdout + done.stderr
    assert (tmp_path / "mlship.yaml").exists() is is_written
    assert done.returncode == (0 if is_written else 1)


@pytest.mark.parametrize("stored", ["as LF", "as they are"])
def test_line_ends_of_windows_stay(desk: Desk, stored: str) -> None:
    desk.git("config", "core.autocrlf", "true" if stored == "as LF" else "false")
    now = desk.read(DEVELOP)
    for text in (former(now), edited(former(now))):
        desk.write(DEVELOP, text.replace("\n", "\r\n"))
        desk.commit("Write it on Windows")
    assert desk.upgrade()["merge"] == [str(DEVELOP)]
    assert desk.read(DEVELOP) == edited(now).replace("\n", "\r\n")
    desk.commit("Upgrade")
    desk.set("workflows", '{python: "3.12"}')
    assert str(DEVELOP) in desk.upgrade()["merge"]
    text = desk.read(DEVELOP)
    assert text.count("\r\n") == text.count("\n")
    assert 'python-version: "3.12"' in text


@pytest.fixture(scope="module")
def started_models(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("started")
    git("init", "-q", "-b", "develop", at=folder)
    desk = Desk(folder)
    for name in ("churn", "fraud"):
        desk.init(f"models/{name}")
    desk.commit("Start two projects")
    return desk


@pytest.fixture
def models(started_models: Desk, tmp_path: Path) -> Desk:
    """A repository with two projects in it."""
    return Desk(Path(shutil.copytree(started_models.folder, tmp_path / "models", symlinks=True)))


def test_an_edited_workflow_of_a_former_name_is_merged_under_its_new_one(models: Desk) -> None:
    new = PLACE / "churn-main.yml"
    now = models.read(new)
    models.git("mv", str(new), str(MAIN))
    models.write(MAIN, former(now).replace("name: churn-main", "name: main"))
    models.write(MAIN, files.signed(models.read(MAIN).partition("\n")[2], WRITER))
    models.commit("Go back to a former version")
    models.write(MAIN, edited(models.read(MAIN)))
    models.commit("Make it ours")
    answer = models.upgrade(at="models/churn")
    assert answer["merge"] == [f"../../{new}"]
    assert answer["remove"] == [f"../../{MAIN}"]
    assert models.read(new) == edited(now)
    assert not (models.folder / MAIN).exists()


def test_a_workflow_that_init_renamed_is_merged_and_is_not_deleted(models: Desk) -> None:
    new = PLACE / "churn-main.yml"
    now = models.read(new)
    models.git("mv", str(new), str(MAIN))
    models.write(MAIN, former(now))
    models.commit("Go back to a former version")
    output = models.init(at="models/churn")
    assert f"wrote ../../{new}\n" in output
    assert f"removed ../../{MAIN}" in output
    assert "left out" not in models.init(at="models/churn")
    models.commit("Take the new names")
    assert "left out" not in models.init(at="models/churn")
    models.write(new, edited(now))
    models.commit("Make it ours")
    models.set("workflows", '{python: "3.12"}', at="models/churn")
    assert models.upgrade(at="models/churn")["merge"] == [f"../../{new}"]
    assert models.read(new).partition("\n")[2] == edited(
        now.partition("\n")[2].replace('"3.11"', '"3.12"')
    )
    models.commit("Upgrade")
    models.git("rm", "-q", str(new))
    assert f"left out ../../{new}: it was deleted" in models.init(at="models/churn")


def test_each_project_upgrades_its_own_files(models: Desk) -> None:
    names = {name: PLACE / f"{name}-develop.yml" for name in ("churn", "fraud")}
    now = {name: models.read(path) for name, path in names.items()}
    for change in (former, lambda text: edited(former(text))):
        for name, path in names.items():
            models.write(path, change(now[name]))
        models.commit("Change them")
    fraud = models.read(names["fraud"])
    before = ".mlship/\n.venv/\n__pycache__/\n"
    for text in (before, f"*.tmp\n{before}"):
        models.write(Path("models/churn/.gitignore"), text)
        models.commit("Change what git ignores")
    answer = models.upgrade(at="models/churn")
    assert answer["merge"] == [f"../../{names['churn']}", ".gitignore"]
    assert models.read(names["churn"]) == edited(now["churn"])
    assert models.read(names["fraud"]) == fraud
    ignored = models.read(Path("models/churn/.gitignore"))
    assert ignored.startswith(f"*.tmp\n{before}")
    assert "gha-creds-*.json" in ignored
    copies = sorted(path.name for path in (models.folder / ".github/mlship").iterdir())
    assert copies == ["churn-develop.yml", "churn-gitignore"]
    models.git("rm", "-q", str(names["fraud"]))
    models.commit("Deploy fraud by hand")
    assert models.upgrade(at="models/churn")["skip"] == []
    assert models.upgrade(at="models/fraud")["skip"] == [f"../../{names['fraud']}"]


def test_without_a_repository_edits_are_kept_and_the_reason_is_told(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.init()
    text = edited(former(desk.read(DEVELOP)))
    desk.write(DEVELOP, text)
    answer = desk.upgrade()
    assert answer["reasons"] == {str(DEVELOP): "it is in no git repository"}
    assert desk.read(DEVELOP) == text
    shutil.rmtree(tmp_path / ".mlship")
    git("init", "-q", at=tmp_path)
    answer = desk.upgrade()
    assert "no commit has it" in answer["reasons"][str(DEVELOP)]
    done = subprocess.run(["git", "-C", str(tmp_path), "log"], capture_output=True, check=False)
    assert done.returncode, "there is no commit at all"


def test_the_branches_of_a_repository_and_of_its_remotes_are_known(tmp_path: Path) -> None:

    for argv in (
        ("init", "-q", "-b", "master"),
        ("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "--allow-empty", "-m", "x"),
        ("branch", "feature/a"),
        ("update-ref", "refs/remotes/origin/develop", "HEAD"),
        ("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/develop"),
    ):
        subprocess.run(["git", *argv], cwd=tmp_path, check=True)
    assert repository(tmp_path, ["x"]).branches == ("develop", "feature/a", "master")
