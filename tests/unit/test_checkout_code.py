"""Which files a module is made of, and which distributions they need."""

from importlib.metadata import version
from pathlib import Path

import pytest

from mlship.adapters.checkout import code, lock
from mlship.config import packages
from mlship.config.project import ModelConfig
from mlship.errors import ConfigError, ProjectError


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(root: Path, *modules: str) -> list[str]:
    return [path.relative_to(root).as_posix() for path in code.closure(root, modules)]


def test_closure_follows_every_kind_of_import(tmp_path: Path) -> None:
    write(
        tmp_path,
        hooks="import pkg.deep.one\nfrom pkg import two\nimport numpy\n",
        pkg__deep__one="def late():\n    from . import near\n",
        pkg__deep__near="from ..two import x\nfrom ...outside import y\n",
        pkg__two="import json\n",
        pkg__unused="",
        other="",
    )
    (tmp_path / "pkg" / "__init__.py").write_text("import other\n")
    assert names(tmp_path, "hooks") == [
        "hooks.py",
        "other.py",
        "pkg/__init__.py",
        "pkg/deep/near.py",
        "pkg/deep/one.py",
        "pkg/two.py",
    ]


def test_modules_that_import_each_other_are_no_endless_loop(tmp_path: Path) -> None:
    write(tmp_path, a="import b", b="import a")
    assert names(tmp_path, "a") == ["a.py", "b.py"]


def test_a_file_that_is_not_python_is_named_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, a="import b", b="x = 1\ndef (")
    with pytest.raises(ProjectError, match=r"b\.py:2"):
        names(tmp_path, "a")


def test_third_parties_are_distributions_and_not_the_projects_own(tmp_path: Path) -> None:
    write(tmp_path, a="import os, yaml, b\nfrom sklearn.svm import SVC\nimport unheard_of", b="")
    assert code.third_party(tmp_path, [tmp_path / "a.py"]) == {"PyYAML", "scikit-learn"}


def test_included_files_must_be_there_and_inside(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.json").write_text("{}")
    assert [name for name, _ in code.included(tmp_path, ("labels/*",))] == ["labels/a.json"]
    with pytest.raises(ProjectError, match="no file matches it"):
        code.included(tmp_path, ("label/*",))
    with pytest.raises(ProjectError, match="outside of the project"):
        code.included(tmp_path, ("../*",))


def test_closure_of_pins_is_sorted_canonical_and_free_of_places() -> None:
    pins = lock.closure(["mlship-cd", "PyYAML", "scikit_learn"])
    assert list(pins) == sorted(pins, key=lambda pin: pin.partition("==")[0])
    found = dict(pin.split("==") for pin in pins)
    assert found["mlship-cd"] == "0.1.0"
    assert {"pyyaml", "scikit-learn", "numpy", "joblib", "typer"} <= set(found)
    assert not any("/" in pin or "@" in pin for pin in pins)
    assert "uvloop" not in found
    assert "uvloop" in dict(pin.split("==") for pin in lock.closure(["mlship-cd[serve]"]))


def test_a_missing_root_is_an_error_with_what_to_install() -> None:
    with pytest.raises(ProjectError, match="unheard-of is not installed") as caught:
        lock.closure(["unheard-of"])
    assert caught.value.hint == "pip install unheard-of"


def test_mlship_is_this_distribution_whatever_else_provides_the_module(tmp_path: Path) -> None:
    write(tmp_path, a="import mlship\nfrom mlship.testing import client")
    assert code.third_party(tmp_path, [tmp_path / "a.py"]) == {"mlship-cd"}


@pytest.mark.parametrize("line", ["mlship[all]", "mlship==0.1.0", "MLship"])
def test_requirements_that_name_another_program_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "requirements.txt").write_text(f"numpy\n{line}\n")
    with pytest.raises(ProjectError, match=r"requirements\.txt:2: .*unrelated package") as caught:
        lock.roots_of(tmp_path)
    assert caught.value.hint.startswith("delete the line")


def test_requirements_in_the_encoding_of_another_system_name_roots(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_bytes("numpy\r\npandas==2.0\r\n".encode("utf-16"))
    assert lock.roots_of(tmp_path) == ["numpy", "pandas"]
    path.write_bytes(b"numpy # caf\xe9\n")
    with pytest.raises(ConfigError, match=r"requirements\.txt is not valid UTF-8"):
        lock.roots_of(tmp_path)


def test_requirements_name_roots(tmp_path: Path) -> None:
    assert lock.roots_of(tmp_path) == []
    (tmp_path / "requirements.txt").write_text(
        "# ours\n-e ./ours\nnumpy>=1  # why\npandas[test]==2.0; python_version > '3'\n"
        "winreg; sys_platform == 'win32'\n./local\nhttps://host/x.whl\n"
        "pyyaml==6.0 \\\n    --hash=sha256:0\n"
    )
    assert lock.roots_of(tmp_path) == ["numpy", "pandas[test]", "pyyaml"]
    (tmp_path / "requirements.txt").write_text("numpy\nnot a requirement\n")
    with pytest.raises(ProjectError, match=r"requirements\.txt:2"):
        lock.roots_of(tmp_path)


def requires(root: Path, **files: str) -> None:
    for name, text in files.items():
        (root / f"{name}.txt").write_text(text)


def test_requirements_of_included_files_name_roots(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    requires(tmp_path, requirements="numpy\n-r more/base.txt\n-c limits.txt\n", limits="pip<99\n")
    requires(
        tmp_path / "more", base="pandas\n-rdeep.txt\n", deep="pyyaml\n-r ../requirements.txt\n"
    )
    assert sorted(lock.roots_of(tmp_path)) == ["numpy", "pandas", "pyyaml"]
    (tmp_path / "more" / "deep.txt").write_text("not a requirement\n")
    with pytest.raises(ProjectError, match=r"more/deep\.txt:1: 'not a requirement'"):
        lock.roots_of(tmp_path)
    (tmp_path / "more" / "deep.txt").unlink()
    with pytest.raises(ConfigError, match=r"more/base\.txt:2: cannot read more/deep\.txt"):
        lock.roots_of(tmp_path)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"requirements": "numpy==1.0\n"}, r"requirements\.txt:1: numpy==1\.0 is required, but"),
        ({"requirements": "NumPy<1.0 ; python_version>'3'\n"}, r"NumPy<1\.0 is required"),
        (
            {"requirements": "-r base.txt\n", "base": "\npandas==0.1\n"},
            r"base\.txt:2: pandas==0\.1",
        ),
        ({"requirements": "numpy\n-c base.txt\n", "base": "numpy<1\n"}, r"base\.txt:1: numpy<1 "),
        ({"requirements": "joblib\nnumpy==1\nscipy==1\n"}, r"numpy==1 .*; requirements\.txt:3: sc"),
    ],
)
def test_another_version_than_the_required_one_is_refused(
    tmp_path: Path, files: dict[str, str], says: str
) -> None:
    write(tmp_path, pipeline="import numpy\n")
    requires(tmp_path, **files)
    with pytest.raises(ProjectError, match=says) as caught:
        lock.training_environment(tmp_path, ModelConfig(train="pipeline:train"))
    assert caught.value.hint == "pip install -r requirements.txt"


@pytest.mark.parametrize(
    "text",
    [
        "numpy>=1\npandas\n",
        "numpy==1.0; python_version < '3'\n",
        "numpy @ file:///conda/numpy-1.0\n",
        "-c limits.txt\n",
        f"numpy=={version('numpy')}\n",
        "-e ./ours\n",
    ],
)
def test_versions_that_fit_are_no_matter(tmp_path: Path, text: str) -> None:
    write(tmp_path, pipeline="import numpy\n")
    requires(tmp_path, requirements=text, limits="not-installed-anywhere==1.0\n")
    pins = lock.training_environment(tmp_path, ModelConfig(train="pipeline:train"))
    assert f"numpy=={version('numpy')}" in pins


def test_modules_in_src_are_the_projects_by_the_names_that_they_are_imported_by(
    tmp_path: Path,
) -> None:
    write(
        tmp_path,
        src__bikes__features="from bikes import rows\nfrom .scales import x\nimport yaml, types",
        src__bikes__rows="",
        src__bikes__scales="",
        src__types="",
        src__yaml="",
    )
    (tmp_path / "src" / "bikes" / "__init__.py").write_text("")
    found = code.sources(tmp_path, ["bikes.features"])
    assert list(found) == [
        "bikes/__init__.py",
        "bikes/features.py",
        "bikes/rows.py",
        "bikes/scales.py",
    ]
    assert found["bikes/rows.py"] == tmp_path / "src" / "bikes" / "rows.py"
    # What Python or a distribution provides comes before src/.
    assert code.third_party(tmp_path, found.values()) == {"PyYAML"}
    assert code.folder_of(tmp_path, "bikes.rows") == tmp_path / "src"
    assert code.folder_of(tmp_path, "yaml") == tmp_path
    (tmp_path / "outside.py").write_text("")
    assert code.source_of(tmp_path / "src", f"x.{tmp_path}/outside") is None


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        ('[tool.poetry]\npackages = [{include = "bikes", from = "lib"}]', "lib"),
        ('[tool.setuptools]\npackage-dir = {"" = "lib"}', "lib"),
        ('[tool.setuptools.packages.find]\nwhere = ["lib"]', "lib"),
        ('[tool.hatch.build.targets.wheel]\npackages = ["python/own/bikes"]', "python/own"),
        ('[tool.pdm.build]\npackage-dir = "lib"', "lib"),
        ('[tool.uv.build-backend]\nmodule-root = "lib"', "lib"),
        ('[project]\nname = "bikes"', "src"),
        ("this is not toml", "src"),
    ],
)
def test_packages_are_where_the_build_tool_says(settings: str, folder: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(settings)
    write(tmp_path / folder, bikes__train="")
    assert packages.source_of(tmp_path, "bikes/train.py") == f"{folder}/bikes/train.py"
    assert packages.source_of(tmp_path, "bikes.py") == "bikes.py"
    (tmp_path / folder / "bikes" / "__main__.py").write_text("")
    assert packages.source_of(tmp_path, "bikes.py") == f"{folder}/bikes/__main__.py"


@pytest.mark.parametrize(
    "settings",
    [
        '[tool.poetry]\npackages = "lib"',
        '[tool.poetry]\npackages = [{include = "bikes", from = "../lib"}]',
        '[tool.setuptools]\npackage-dir = ["lib"]',
    ],
)
def test_folders_of_packages_are_in_the_project(settings: str, tmp_path: Path) -> None:
    root = tmp_path / "project"
    write(tmp_path / "lib", bikes="")
    (root / "src").mkdir(parents=True)
    (root / "src" / "__init__.py").write_text("")
    (root / "pyproject.toml").write_text(settings)
    # A folder src/ with an __init__.py is a package itself.
    assert packages.folders(root) == (root,)


def test_an_editable_installation_is_the_project_and_a_copy_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, installed = tmp_path / "project", tmp_path / "lib"
    write(root, src__bikes__features="")
    facts = installed / "bikes-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: bikes\nVersion: 1.0\n")
    (facts / "top_level.txt").write_text("bikes\n")
    monkeypatch.syspath_prepend(str(installed))
    (facts / "direct_url.json").write_text('{"url": "file:///x", "dir_info": {"editable": true}}')
    assert code.source_of(root, "bikes.features") == root / "src" / "bikes" / "features.py"
    assert code.hint_of_copy(root, "bikes.features") == ""
    (facts / "direct_url.json").write_text('{"url": "file:///x", "dir_info": {}}')
    assert code.source_of(root, "bikes.features") is None
    assert "pip install -e ." in code.hint_of_copy(root, "bikes.features")
