"""Modules are compiled from their sources, whatever lies in `__pycache__`."""

import importlib
import os
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlship.runtime.sources import compile_anew


@pytest.fixture(autouse=True)
def _paths() -> Iterator[None]:
    """Leave imports as they were."""
    hooks, path, modules = list(sys.path_hooks), list(sys.path), set(sys.modules)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    yield
    sys.path_hooks[:], sys.path[:], sys.dont_write_bytecode = hooks, path, writes
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path_importer_cache.clear()


def stale(source: Path, *, is_checked: bool) -> None:
    """Compile a module that says old, then write one that says new, of the same size and time."""
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text("SAYS = 'old'\n")
    os.utime(source, (1_000_000, 1_000_000))
    mode = py_compile.PycInvalidationMode
    chosen = mode.TIMESTAMP if is_checked else mode.UNCHECKED_HASH
    py_compile.compile(str(source), invalidation_mode=chosen)
    source.write_text("SAYS = 'new'\n")
    os.utime(source, (1_000_000, 1_000_000))


def said(folder: Path, module: str) -> str:
    sys.path.insert(0, str(folder))
    return str(importlib.import_module(module).SAYS)


@pytest.mark.parametrize("is_checked", [True, False])
@pytest.mark.parametrize("module", ["stale_module", "stale_package.inner"])
def test_a_cached_file_of_other_code_is_not_used(
    tmp_path: Path, module: str, is_checked: bool
) -> None:
    stale(tmp_path.joinpath(*module.split(".")).with_suffix(".py"), is_checked=is_checked)
    compile_anew(tmp_path, is_project=True)
    assert said(tmp_path, module) == "new"


def test_without_it_the_cached_file_is_what_runs(tmp_path: Path) -> None:
    """The control."""
    stale(tmp_path / "stale_module.py", is_checked=False)
    assert said(tmp_path, "stale_module") == "old"


def test_a_folder_that_python_has_looked_at_before_counts_too(tmp_path: Path) -> None:
    (tmp_path / "other_module.py").write_text("SAYS = 'other'\n")
    assert said(tmp_path, "other_module") == "other"
    stale(tmp_path / "stale_module.py", is_checked=False)
    compile_anew(tmp_path, is_project=True)
    assert said(tmp_path, "stale_module") == "new"


def test_a_link_to_the_folder_is_the_folder(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    stale(real / "stale_module.py", is_checked=False)
    link.symlink_to(real)
    compile_anew(link, is_project=True)
    assert said(real, "stale_module") == "new"


def test_installed_packages_in_a_project_are_left_to_python(tmp_path: Path) -> None:
    installed = tmp_path / ".venv" / "lib" / "site-packages"
    stale(installed / "stale_module.py", is_checked=False)
    compile_anew(tmp_path, is_project=True)
    assert said(installed, "stale_module") == "old"


def test_a_bundle_has_no_installed_packages(tmp_path: Path) -> None:
    code = tmp_path / "site-packages"
    stale(code / "stale_module.py", is_checked=False)
    compile_anew(tmp_path)
    assert said(code, "stale_module") == "new"


def test_a_module_without_its_source_is_not_found(tmp_path: Path) -> None:
    source = tmp_path / "gone_module.py"
    source.write_text("SAYS = 'gone'\n")
    py_compile.compile(str(source), cfile=str(tmp_path / "gone_module.pyc"))
    source.unlink()
    compile_anew(tmp_path, is_project=True)
    with pytest.raises(ModuleNotFoundError):
        said(tmp_path, "gone_module")
