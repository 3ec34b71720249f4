"""`mlship fetch-data` with the real dvc: what comes, and who is asked for it."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.harness import commands, dvc
from tests.harness.team import git

pytestmark = [pytest.mark.service("dvc"), pytest.mark.timeout(300)]

TRAIN, TEST, WORDS = "a,y\n1,0\n", "a,y\n2,1\n", "words\n"
SETTINGS = """
name: iris
data: {train: data/train.csv, test: prepared.csv, target: y}
model: {train: "pipeline:train"}
workflows: {dvc: [assets/words.txt]}
"""
STAGE = "stages: {prepare: {cmd: cp data/train.csv prepared.csv, outs: [prepared.csv]}}\n"


@dataclasses.dataclass(frozen=True)
class Project:
    """A project whose data DVC keeps, as its author has it and as a job checks it out."""

    home: Path
    storage: Path
    desk: Path
    checkout: Path

    def begin(self) -> None:
        """Write the project, and put its data into the storage."""
        for folder in (self.home, self.storage, self.desk / "data", self.desk / "assets/more"):
            folder.mkdir(parents=True)
        git("init", "-q", "-b", "main", at=self.desk)
        (self.desk / "mlship.yaml").write_text(SETTINGS)
        for name, text in {"data/train.csv": TRAIN, "assets/words.txt": WORDS}.items():
            (self.desk / name).write_text(text)
        (self.desk / "assets/more/.hidden").write_text(TEST)
        (self.desk / "dvc.yaml").write_text(STAGE)
        self.dvc("init", "-q")
        self.dvc("remote", "add", "-q", "--default", "storage", str(self.storage))
        self.dvc("add", "-q", "data/train.csv", "assets")
        self.dvc("repro", "-q")
        said = self.dvc("push")
        assert "pushed" in said, said
        self.commit("Keep the data by DVC")

    def copy(self, top: Path) -> "Project":
        """Return a copy with the same storage, which no test writes to."""
        shutil.copytree(self.desk, top / "desk", symlinks=True)
        return dataclasses.replace(self, desk=top / "desk", checkout=top / "checkout")

    def configure(self, folder: Path, file: str, **options: str) -> None:
        """Set the options of the storage, in a file that DVC reads."""
        lines = ["[core]", "remote = storage", "['remote \"storage\"']"]
        lines += [f"{name} = {value}" for name, value in options.items()]
        (folder / ".dvc" / file).write_text("\n".join(lines))

    def dvc(self, *arguments: str, at: Path | None = None) -> str:
        return dvc.run(at or self.desk, *arguments, home=self.home)

    def commit(self, subject: str) -> None:
        git("add", "-A", at=self.desk)
        git("commit", "-q", "-m", subject, at=self.desk)

    def fetch(self, remote: str, *options: str, **environment: str) -> tuple[int, str]:
        """Check out and fetch as a job does; return the exit code and the output."""
        if not self.checkout.exists():
            git("clone", "-q", str(self.desk), str(self.checkout), at=self.desk)
        path = f"{Path(dvc.program()).parent}{os.pathsep}{os.environ['PATH']}"
        done = commands.run(
            *("--json", "fetch-data", "--to=../fetched", f"--remote={remote}", *options),
            folder=self.checkout,
            environment={**os.environ, "PATH": path, **environment},
        )
        return done.returncode, done.stdout + done.stderr

    def fetched(self) -> dict[str, str]:
        folder = self.checkout.parent / "fetched"
        return {
            path.relative_to(folder).as_posix(): path.read_text()
            for path in folder.rglob("*")
            if path.is_file()
        }


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Project:
    dvc.program()
    top = tmp_path_factory.mktemp("data")
    made = Project(top / "home", top / "storage", top / "desk", top / "checkout")
    made.begin()
    return made


@pytest.fixture
def project(begun: Project, tmp_path: Path) -> Project:
    return begun.copy(tmp_path)


EXPECTED = {
    "data/train.csv": TRAIN,
    "prepared.csv": TRAIN,
    "assets/words.txt": WORDS,
    "assets/more/.hidden": TEST,
}


def test_files_folders_and_outputs_of_stages_come_as_dvc_pushed_them(project: Project) -> None:
    code, said = project.fetch(str(project.storage))
    assert code == 0, said
    assert set(json.loads(said)["files"]) == {"data/train.csv", "prepared.csv", "assets"}
    assert project.fetched() == EXPECTED
    # DVC itself puts the same files there.
    project.dvc("pull", "-q", at=project.checkout)
    assert {name: (project.checkout / name).read_text() for name in EXPECTED} == EXPECTED


def test_what_was_not_pushed_is_named(project: Project) -> None:
    (project.desk / "data/train.csv").write_text("a,y\n7,7\n")
    project.dvc("add", "-q", "data/train.csv")
    project.commit("Change the data")
    code, said = project.fetch(str(project.storage))
    assert code in (4, 5), said
    assert "dvc push" in said
    assert project.fetched() == {}


def test_the_password_goes_where_the_workflow_says_whatever_a_branch_says(
    project: Project, tmp_path: Path
) -> None:
    options = ("--option=auth=basic", "--option=user=ci")
    with dvc.serving(project.storage) as ours, dvc.serving(tmp_path / "nothing") as evil:
        basic = {"auth": "basic", "user": "ci", "ask_password": "false"}
        project.configure(project.desk, "config", url=evil.url, **basic)
        project.commit("Ask somebody else")
        code, said = project.fetch(ours.url, *options, DVC_PASSWORD=dvc.PASSWORD)
        assert code == 0, said
        assert project.fetched() == EXPECTED
        assert set(ours.asked) == {dvc.PASSWORD}
        assert evil.asked == []
        # The control: dvc in the checkout, where a job would have written the password.
        project.configure(project.checkout, "config.local", password=dvc.PASSWORD)
        project.dvc("fetch", at=project.checkout)
        assert dvc.PASSWORD in evil.asked


def test_a_wrong_password_is_an_error_that_does_not_show_it(project: Project) -> None:
    with dvc.serving(project.storage) as ours:
        options = ("--option=auth=basic", "--option=user=ci")
        code, said = project.fetch(ours.url, *options, DVC_PASSWORD="not-this-one")
        assert code in (4, 5), said
        assert "check the" in said
        assert "not-this-one" not in said
        assert ours.url in said
        assert project.fetched() == {}
