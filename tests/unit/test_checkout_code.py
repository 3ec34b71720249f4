"""Which files a module is made of, and which distributions they need."""

from pathlib import Path

import pytest

from mlship.adapters.checkout import code, lock
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
    assert "granian" not in found
    assert "granian" in dict(pin.split("==") for pin in lock.closure(["mlship-cd[serve]"]))


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
    with pytest.raises(ProjectError, match=r"requirements\.txt:2: .*another program") as caught:
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
        "# ours\n-r other.txt\nnumpy>=1  # why\npandas[test]==2.0; python_version > '3'\n"
        "winreg; sys_platform == 'win32'\n./local\nhttps://host/x.whl\n"
        "pyyaml==6.0 \\\n    --hash=sha256:0\n"
    )
    assert lock.roots_of(tmp_path) == ["numpy", "pandas[test]", "pyyaml"]
    (tmp_path / "requirements.txt").write_text("numpy\nnot a requirement\n")
    with pytest.raises(ProjectError, match=r"requirements\.txt:2"):
        lock.roots_of(tmp_path)
