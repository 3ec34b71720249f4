"""Which files belong to another checkout of a project."""

import sys
from pathlib import Path

import pytest

from mlship.adapters.checkout.copies import Copies


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a project with a package, at the top of a repository."""
    root = tmp_path / "main"
    (root / ".git" / "worktrees" / "other").mkdir(parents=True)
    (root / ".git" / "worktrees" / "other" / "commondir").write_text("../..\n")
    package(root / "src" / "flowers")
    return root


def package(folder: Path) -> Path:
    """Write a package with a module; return the module."""
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "model.py").touch()
    return folder / "model.py"


def worktree(root: Path, place: Path) -> Path:
    place.mkdir(parents=True)
    (place / ".git").write_text(f"gitdir: {root / '.git' / 'worktrees' / 'other'}\n")
    return place


@pytest.mark.parametrize("place", ["other", "main/.trees/other"])
def test_all_files_of_another_work_tree_of_the_repository_are_of_a_copy(
    root: Path, tmp_path: Path, place: str
) -> None:
    other = worktree(root, tmp_path / place)
    module = package(other / "lib" / "elsewhere")
    copies = Copies(root, root)
    for path in (module, other / "params.json", module.with_name("none.json")):
        assert copies.of(str(path)) == other
    assert copies.has(str(module))
    assert copies.of(str(root / "src" / "flowers" / "model.py")) is None
    assert copies.of(str(root / "data.csv")) is None
    assert copies.of(str(tmp_path / "data.csv")) is None


def test_a_project_in_another_work_tree_does_not_own_the_first_one(
    root: Path, tmp_path: Path
) -> None:
    other = worktree(root, tmp_path / "other")
    assert Copies(other, other).of(str(root / "src" / "flowers" / "model.py")) == root
    below = worktree(root, root / ".trees" / "below")
    assert Copies(below, below).of(str(root / "src" / "flowers" / "model.py")) == root


@pytest.mark.parametrize("is_repository", [True, False])
def test_elsewhere_a_module_counts_that_the_project_has_and_then_its_folder(
    root: Path, tmp_path: Path, is_repository: bool
) -> None:
    other = tmp_path / "clone"
    module = package(other / "src" / "flowers")
    if is_repository:
        (other / ".git").mkdir()
    copies = Copies(root, root)
    params = str(module.with_name("params.json"))
    assert copies.of(params) is None
    assert copies.of(str(module)) == (other if is_repository else other / "src")
    assert copies.of(params) is not None
    assert copies.of(str(package(tmp_path / "library" / "tools"))) is None


def test_an_installed_package_and_a_submodule_are_no_copies(root: Path, tmp_path: Path) -> None:
    installed = package(worktree(root, tmp_path / "other") / "site-packages" / "flowers")
    library = package(tmp_path / "python" / "flowers")
    submodule = root / "vendored"
    (root / ".git" / "modules" / "vendored").mkdir(parents=True)
    vendored = package(submodule / "src" / "flowers")
    (submodule / ".git").write_text("gitdir: ../.git/modules/vendored\n")
    copies = Copies(root, root, [str(tmp_path / "python")])
    assert [copies.of(str(path)) for path in (installed, library, vendored)] == [None] * 3


def test_a_link_in_the_project_is_its_own_for_data_and_not_for_code(
    root: Path, tmp_path: Path
) -> None:
    other = worktree(root, tmp_path / "other")
    module = package(other / "files" / "flowers")
    (other / "files" / "data.csv").touch()
    (root / "data").symlink_to(other / "files")
    copies = Copies(root, root)
    assert copies.of(str(root / "data" / "data.csv")) is None
    assert copies.of(str(root / "data" / "flowers" / module.name)) == other


def test_the_command_is_of_the_folder_that_is_installed(root: Path, tmp_path: Path) -> None:
    other = worktree(root, tmp_path / "other")
    module = package(other / "libs" / "tools" / "src" / "tools")
    path = f"../other/libs/tools/src/tools/{module.name}"
    (root / "libs" / "tools").mkdir(parents=True)
    [note] = Copies(root, root).notes([path])
    assert f"take {module.parents[1]} out of PYTHONPATH and out of sys.path" in note
    (other / "libs" / "tools" / "pyproject.toml").touch()
    [note] = Copies(root, root).notes([path])
    assert f"training read {path} of {other}, another checkout" in note
    assert f"cd {root / 'libs' / 'tools'} && pip install -e .; then train again" in note


def test_a_module_that_python_finds_elsewhere_is_read_no_more(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = worktree(root, tmp_path / "other")
    package(other / "src" / "flowers")
    copies, path = Copies(root, root), "../other/src/flowers/model.py"
    monkeypatch.delitem(sys.modules, "flowers", raising=False)
    assert not copies.is_read_no_more(path), "code of the project may put it on the path"
    monkeypatch.syspath_prepend(str(other / "src"))
    assert not copies.is_read_no_more(path)
    monkeypatch.syspath_prepend(str(root / "src"))
    assert copies.is_read_no_more(path)
