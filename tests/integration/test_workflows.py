"""The workflows as GitHub's tools see them: linted, audited, read by the shell."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import commands, workflows
from tests.harness.services import installed, require

ROOT = Path(__file__).parents[2]
ZIZMOR = Path(sys.executable).with_name("zizmor")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the workflows of every kind of project, and this repository's own."""
    top = tmp_path_factory.mktemp("workflows")
    for number, project in enumerate(workflows.PROJECTS):
        workflows.write(
            workflows.rendered(project, "models/iris" if number else ""), top / str(number)
        )
    workflows.write(workflows.committed(), top / "own")
    workflows.write(workflows.shown(), top / "guide")
    return top


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = installed("actionlint")
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
    text = (folder / "own/.github/workflows/iris_example-feature.yml").read_text()
    (tmp_path / "wrong.yml").write_text(text.replace("steps.train.outcome", "steps.trian.outcome"))
    assert "trian" in lint(tmp_path).stdout


@pytest.mark.parametrize("persona", ["regular", "pedantic", "auditor"])
def test_zizmor_finds_nothing_with_no_finding_ignored(folder: Path, persona: str) -> None:
    done = audit(folder, persona)
    assert done.returncode == 0, done.stdout
    assert "No findings to report" in done.stdout + done.stderr


def test_zizmor_would_find_an_input_in_a_script(folder: Path, tmp_path: Path) -> None:
    text = (folder / "2/.github/workflows/iris-promote.yml").read_text()
    wrong = tmp_path / ".github/workflows/iris-promote.yml"
    wrong.parent.mkdir(parents=True)
    wrong.write_text(text.replace('-- "$RELEASE"', "${{ inputs.release }}"))
    done = audit(tmp_path, "regular")
    assert done.returncode != 0
    assert "template-injection" in done.stdout


def test_every_script_is_one_that_bash_can_read(folder: Path) -> None:
    scripts = [
        step["run"]
        for path in sorted(folder.rglob("*.yml"))
        for job in workflows.parsed(path.read_text("utf-8"))["jobs"].values()
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
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / ".git").mkdir()
    told = next(line for line in (ROOT / "Makefile").read_text().splitlines() if " init " in line)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = commands.run(*told.split()[1:], folder=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    written = {
        path.relative_to(tmp_path).as_posix(): path.read_text("utf-8")
        for path in (tmp_path / ".github/workflows").iterdir()
    }
    own = workflows.committed()
    del own[".github/workflows/ci.yml"]
    assert written == own, "run `make workflows`"
