"""The user's tests as they are run and counted.

Tests marked `cold` are about the process itself, or what it imports and leaves behind.
"""

import importlib.util
import os
import py_compile
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mlship.adapters.checkout.changes import changed
from mlship.adapters.checkout.tester import PytestTester
from mlship.config import layers
from mlship.config.project import Config
from mlship.domain import gates
from mlship.domain.scores import Server, TestRun
from mlship.errors import ConfigError, ProjectError
from tests.harness.projects import config
from tests.harness.repositories import ADA


def run(root: Path, text: str, file: str = "test_x.py") -> TestRun:
    folder = root / "tests" / "unit"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(text)
    found = PytestTester(root, config()).test("unit", bundle=None, server=None)
    assert found is not None
    return found


def test_no_folder_is_no_suite(tmp_path: Path) -> None:
    assert PytestTester(tmp_path, config()).test("unit", bundle=None, server=None) is None


@pytest.mark.parametrize("named", ["checks", ["checks", "absent.py"]])
def test_named_path_that_is_not_there_is_refused(named: Any, tmp_path: Path) -> None:
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    (tmp_path / "absent").mkdir()
    if isinstance(named, list):
        (tmp_path / "checks").mkdir()
    tester = PytestTester(tmp_path, with_tests(named))
    path = named[-1] if isinstance(named, list) else named
    with pytest.raises(ConfigError, match=f"tests.unit names {path}, which is not in"):
        tester.test("unit", bundle=None, server=None)


def test_files_and_folders_may_be_named_and_each_must_have_tests(tmp_path: Path) -> None:
    (tmp_path / "shared.py").write_text("class Base:\n    def test_shared(self): pass\n")
    (tmp_path / "test_model.py").write_text("def test_one(): pass\n")
    folder = tmp_path / "checks.v2"
    folder.mkdir()
    inherited = "from shared import Base\nclass TestIt(Base): pass\n"
    (folder / "test_it.py").write_text(inherited)
    named = ["test_model.py", "./checks.v2/"]
    found = PytestTester(tmp_path, with_tests(named)).test("unit", bundle=None, server=None)
    assert found is not None
    assert (found.passed, found.failures) == (2, ())
    (folder / "test_it.py").write_text("def helper(): pass\n")
    found = PytestTester(tmp_path, with_tests(named)).test("unit", bundle=None, server=None)
    assert found is not None
    assert (found.passed, found.failures) == (1, ("no tests in ./checks.v2/",))


def with_tests(named: Any) -> Config:
    values = {
        "name": "price",
        "data": {"train": "a.csv", "test": "b.csv", "target": "y"},
        "model": {"train": "pipeline:train"},
        "tests": {"unit": named},
    }
    return layers.resolve([layers.Layer(name="mlship.yaml", values=values)]).config


@pytest.mark.cold
def test_counts_and_reasons(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("x = 1\n")
    # A configuration above the project's folder is not the project's.
    (tmp_path.parent / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    found = run(
        tmp_path,
        "import pytest, own\n"
        "def test_good(): assert own.x == 1\n"
        "class TestGroup:\n    def test_bad(self): assert own.x == 2, 'two\\nlines'\n"
        "@pytest.mark.skip\ndef test_skipped(): pass\n"
        "@pytest.fixture\ndef broken(): raise ValueError('no')\n"
        "def test_setup(broken): pass\n",
    )
    (tmp_path.parent / "pytest.ini").unlink()
    assert (found.passed, found.failed, found.skipped) == (1, 2, 1)
    assert found.failures[0].startswith("tests/unit/test_x.py::TestGroup::test_bad: Assertion")
    assert "ValueError: no" in found.failures[1]
    assert not any("\n" in line for line in found.failures)
    assert not list(tmp_path.rglob("__pycache__"))
    assert not list(tmp_path.rglob(".pytest_cache"))


@pytest.mark.cold
def test_tests_leave_nothing_that_makes_the_tree_dirty_or_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Hypothesis's plugin of pytest, too, which other tests leave out.
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    folder = tmp_path / "tests" / "unit"
    folder.mkdir(parents=True)
    (tmp_path / "own.py").write_text("x = 1\n")
    (folder / "conftest.py").write_text(
        "import coverage\n"
        "measured = coverage.Coverage()\nmeasured.start()\n"
        "def pytest_sessionfinish():\n    measured.stop()\n    measured.save()\n"
    )
    body = "def test_x(number):\n    import own\n    assert number < 9\n"
    given = "from hypothesis import given, strategies\n@given(strategies.integers())\n"
    (folder / "test_x.py").write_text(given + body)
    for argv in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "Begin"]):
        subprocess.run(["git", *ADA, *argv], cwd=tmp_path, check=True)
    notes: list[str] = []
    tester = PytestTester(tmp_path, config(), notes.append)
    found = tester.test("unit", bundle=None, server=None)
    assert found is not None
    assert found.failed == 1
    assert changed(tmp_path) == ()
    assert notes == []
    # The control: what a test writes itself is seen.
    (folder / "test_x.py").write_text("def test_x():\n    open('made.html', 'w').close()\n")
    tester.test("unit", bundle=None, server=None)
    assert notes == ["the tests wrote made.html: commit it, or add it to .gitignore"]


def test_a_file_that_cannot_be_imported_is_a_failure(tmp_path: Path) -> None:
    found = run(tmp_path, "import not_installed_here\n")
    assert (found.passed, found.failed) == (0, 1)
    assert "No module named 'not_installed_here'" in found.failures[0]


def test_a_broken_conftest_is_a_failure(tmp_path: Path) -> None:
    found = run(tmp_path, "1 / 0\n", "conftest.py")
    assert (found.passed, found.failed) == (0, 1)
    assert "ZeroDivisionError" in found.failures[0]


def test_no_tests_is_a_failure(tmp_path: Path) -> None:
    found = run(tmp_path, "", "empty.py")
    assert (found.passed, found.failures) == (0, ("no tests in tests/unit",))


def test_the_error_of_pytest_is_shown_and_not_its_last_line(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    found = run(tmp_path, "def test_one(): pass\n")
    assert found.failures[0].endswith("error: unrecognized arguments: --no-such-option")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pytest.ini", "[pytest]\naddopts = -k one\n"),
        ("conftest.py", "def pytest_collection_modifyitems(items): del items[1:]\n"),
    ],
)
def test_tests_that_options_or_hooks_take_away_are_counted(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    found = run(tmp_path, "def test_one(): pass\ndef test_two(): assert 0\ndef test_3(): pass\n")
    check = gates.on_tests(found)
    assert (check.holds, check.text) == (True, "unit tests: 1 passed, 0 failed, 2 deselected")
    assert run(tmp_path, "def test_one(): pass\n").deselected == 0


def test_skipped_tests_are_counted_and_prove_nothing(tmp_path: Path) -> None:
    text = "import pytest\n@pytest.mark.{}\ndef test_{}(): assert 0\n"
    found = run(tmp_path, text.format("skip", "a") + text.format("xfail", "b"))
    check = gates.on_tests(found)
    assert not check.holds
    assert check.text == "unit tests: 0 passed, 0 failed, 2 skipped"


@pytest.mark.cold
def test_a_test_that_ends_pytest_is_a_failure_that_says_so(tmp_path: Path) -> None:
    found = run(tmp_path, "import os\ndef test_one(): os._exit(0)\n")
    assert "ended with exit code 0 before it had run the tests" in found.failures[0]
    assert "no tests" not in found.failures[0]


def test_sanity_tests_are_told_what_to_test(tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "sanity"
    folder.mkdir(parents=True)
    (folder / "test_env.py").write_text(
        "import os\ndef test_env():\n"
        "    assert os.environ['MLSHIP_SANITY_BUNDLE'].endswith('/made')\n"
        "    assert os.environ['MLSHIP_SANITY_ENDPOINT'] == 'http://127.0.0.1:1'\n"
    )
    tester = PytestTester(tmp_path, config())
    found = tester.test("sanity", bundle=tmp_path / "made", server=Server("http://127.0.0.1:1"))
    assert found is not None
    assert (found.passed, found.failures) == (1, ())


def test_no_pytest_is_an_error_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ProjectError, match="need pytest") as caught:
        PytestTester(tmp_path, config()).test("unit", bundle=None, server=None)
    assert caught.value.hint == "pip install pytest"


@pytest.mark.cold
def test_a_crash_is_named_by_its_signal(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="was killed by SIGKILL"):
        run(tmp_path, "import os\ndef test_x(): os.kill(os.getpid(), 9)\n")


@pytest.mark.cold
def test_what_is_tested_is_the_source_and_not_a_cached_file_of_another(tmp_path: Path) -> None:
    source = tmp_path / "own.py"
    source.write_text("x = 1\n")
    status = source.stat()
    py_compile.compile(str(source))
    source.write_text("x = 2\n")
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    found = run(tmp_path, "import own\ndef test_it(): assert own.x == 2\n")
    assert (found.passed, found.failed) == (1, 0)
