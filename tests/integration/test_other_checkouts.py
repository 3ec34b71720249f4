"""Code that Python reads from another checkout of the project, which `pip install -e .` does."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mlship.adapters.checkout.trainer import ChildTrainer
from mlship.domain.scores import Trained
from tests.harness.projects import config, flowers
from tests.harness.repositories import ADA

PIPELINE = """
from pathlib import Path
from sklearn.linear_model import LogisticRegression
from flowers import model

def train(data, params):
    return LogisticRegression(C=model.C).fit(data[["length", "width"]], data.species)
"""
MODULE = """
import json
from pathlib import Path

C = json.loads(Path(__file__).with_name("params.json").read_text())["C"]
"""


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *ADA, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a project of src layout, committed."""
    root = tmp_path / "main"
    package = root / "src" / "flowers"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model.py").write_text(MODULE)
    (package / "params.json").write_text('{"C": 1}')
    (root / "pyproject.toml").write_text('[project]\nname = "flowers"\nversion = "1"\n')
    (root / "pipeline.py").write_text(PIPELINE)
    (root / ".gitignore").write_text(".mlship/\n__pycache__/\n.trees/\n")
    flowers().to_csv(root / "data.csv", index=False)
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "--message", "Begin")
    return root


def reading(source: Path) -> str:
    """Return code that puts a folder on the path of Python, as `pip install -e .` does."""
    return f"import sys\nsys.path.insert(0, {str(source)!r})\n{PIPELINE}"


class Notes(list[str]):
    def note(self, text: str) -> None:
        self.append(text)


def trained(root: Path, source: Path) -> Trained:
    shutil.rmtree(root / ".mlship", ignore_errors=True)
    (root / "pipeline.py").write_text(reading(source))
    git(root, "commit", "--quiet", "--all", "--allow-empty", "--message", "Read")
    return ChildTrainer(root, config(), Notes()).train(root / ".mlship" / "bundle")


def worktree(root: Path) -> Path:
    git(root, "worktree", "add", "--quiet", "-b", "other", "../other")
    return root.parent / "other"


def nested_worktree(root: Path) -> Path:
    git(root, "worktree", "add", "--quiet", "-b", "other", ".trees/other")
    return root / ".trees" / "other"


def clone(root: Path) -> Path:
    git(root.parent, "clone", "--quiet", "main", "other")
    return root.parent / "other"


def plain_copy(root: Path) -> Path:
    shutil.copytree(root, root.parent / "other", ignore=shutil.ignore_patterns(".git"))
    return root.parent / "other"


@pytest.mark.parametrize("make", [worktree, nested_worktree, clone, plain_copy])
def test_code_of_another_checkout_is_no_code_of_the_commit(
    root: Path, make: Callable[[Path], Path]
) -> None:
    own = trained(root, root / "src").opened
    assert own.uncommitted(()) == ()
    other = make(root)
    made = trained(root, other / "src")
    place = os.path.relpath(other / "src" / "flowers", root)
    module, params = f"{place}/model.py", f"{place}/params.json"
    assert module in made.opened.uncommitted(())
    assert f"{place}/__init__.py" in made.opened.uncommitted(())
    said = [note for note in made.notes if "another checkout" in note]
    assert len(said) == 1
    assert module in said[0]
    assert f"cd {root} && pip install -e .; then train again" in said[0]
    assert made.opened.read.keys() >= {module}
    (other / "src" / "flowers" / "model.py").write_text("C = 2\n")
    again = trained(root, other / "src")
    assert again.opened.read[module] != made.opened.read[module]
    if make is not plain_copy:
        assert params in made.opened.read


def test_a_library_of_ones_own_elsewhere_is_only_noted(root: Path) -> None:
    library = root.parent / "library"
    (library / "tools").mkdir(parents=True)
    (library / "tools" / "__init__.py").write_text("")
    git(library, "init", "--quiet")
    (root / "pipeline.py").write_text(
        PIPELINE.replace("from flowers", "import tools\nfrom flowers")
    )
    code = f"import sys\nsys.path[:0] = [{str(root / 'src')!r}, {str(library)!r}]\n"
    (root / "pipeline.py").write_text(code + (root / "pipeline.py").read_text())
    git(root, "commit", "--quiet", "--all", "--message", "Use a library")
    made = ChildTrainer(root, config(), Notes()).train(root / ".mlship" / "bundle")
    assert made.opened.uncommitted(()) == ()
    about = [note for note in made.notes if "tools" in note]
    assert about == [f"training read {library}/tools/__init__.py, which is not part of the release"]


def test_code_on_the_path_is_taken_off_it_where_nothing_is_installed(root: Path) -> None:
    other = worktree(root)
    (other / "pyproject.toml").unlink()
    made = trained(root, other / "src")
    said = next(note for note in made.notes if "another checkout" in note)
    assert f"take {other / 'src'} out of PYTHONPATH and out of sys.path" in said


def test_a_release_of_another_checkout_is_not_that_of_the_tree_after_an_installation_here(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = worktree(root)
    made = trained(root, other / "src")
    trainer = ChildTrainer(root, config(), Notes())
    assert trainer.current(made.opened.read) == made.opened.read
    monkeypatch.syspath_prepend(str(root / "src"))
    assert trainer.current(made.opened.read)["../other/src/flowers/model.py"] is None
