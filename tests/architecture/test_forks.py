"""The workers of tests report what pytest without workers would, and lose no test."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = """
import os
import pytest

@pytest.fixture
def broken():
    yield
    raise ValueError("at the end")

def test_passes(): pass
def test_fails(): print("what it printed"); assert 1 == 2
def test_leaves_something(broken): pass
@pytest.mark.skip(reason="not today")
def test_is_skipped(): pass
@pytest.mark.xfail(strict=True)
def test_is_expected_to_fail(): assert False
"""
MEASURED = """
def one():
    return 1
def two():
    return 2
def three():
    return 3
"""
MEASURING = """
import pytest
import measured

def test_one(): assert measured.one() == 1
def test_two(): assert measured.two() == 2
@pytest.mark.no_cover
def test_three(): assert measured.three() == 3
"""
SERVER = """
import os, pathlib, signal, time
import pytest

pytestmark = pytest.mark.xdist_group("server")

@pytest.fixture(scope="module")
def server():
    yield
    pathlib.Path(__file__).with_name("ended").touch()

def test_fails(server): assert False
def test_is_left(server): os.kill(os.getppid(), signal.SIGKILL); time.sleep(0.6)
def test_after(server): pathlib.Path(__file__).with_name("after").touch()
"""
HELD = """
import ctypes

def test_holds_the_lock(): ctypes.PyDLL(None).sleep(20)
"""
AGAIN = """
import pathlib
import pytest

@pytest.mark.flaky(reruns=1)
def test_passes_the_second_time():
    file = pathlib.Path(__file__).with_name("tried")
    is_second = file.exists()
    file.touch()
    assert is_second
"""
CRASH = """
import os
def test_before(): pass
def test_ends_its_worker(): os._exit(3)
def test_after(): pass
"""

SLOW = """
import time
import pytest
@pytest.mark.timeout(1)
def test_waits_for_ever(): time.sleep(60)
def test_after(): pass
"""


def run(folder: Path, *options: str) -> tuple[int, str]:
    """Run the tests in a folder with two workers; return the exit code and the output."""
    workers = ["-p", "tests.harness.forks", "--forks", "2", "--rootdir", str(folder)]
    (folder / "pytest.ini").touch()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *workers, *options, str(folder)],
        cwd=ROOT,
        env={**os.environ, "COVERAGE_FILE": str(folder / ".coverage")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_results_of_all_workers_are_reported(tmp_path: Path) -> None:
    for name in ("test_one.py", "test_two.py"):
        (tmp_path / name).write_text(TESTS)
    code, output = run(tmp_path)
    assert code == 1
    assert "2 failed, 4 passed, 2 skipped, 2 xfailed, 2 errors" in output
    assert output.count("what it printed") == 2 + 2  # the source line, and what was captured
    assert output.count("E       ValueError: at the end") == 2  # CI gets it in the summary, too


def test_a_test_that_ends_its_worker_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_crash.py").write_text(CRASH)
    code, output = run(tmp_path)
    assert code == 2
    assert "exit code 3 during test_crash.py::test_ends_its_worker" in output
    assert "tests without a result" in output


def test_a_test_that_takes_too_long_fails_by_its_time_limit(tmp_path: Path) -> None:
    (tmp_path / "test_slow.py").write_text(SLOW)
    code, output = run(tmp_path)
    assert code == 1
    assert "Timeout (>1.0s)" in output
    assert "1 failed, 1 passed" in output


def test_a_test_may_run_again(tmp_path: Path) -> None:
    (tmp_path / "test_again.py").write_text(AGAIN)
    code, output = run(tmp_path)
    assert code == 0
    assert "1 passed, 1 rerun" in output


def test_the_first_failure_may_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(TESTS)
    code, output = run(tmp_path, "--exitfirst")
    assert code == 1
    assert "stopping after 1 failures" in output


def test_fixtures_end_when_a_failure_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "test_server.py").write_text(SERVER)
    code, _ = run(tmp_path, "--exitfirst")
    assert code == 1
    assert (tmp_path / "ended").exists()


def test_fixtures_end_when_the_process_that_collected_is_gone(tmp_path: Path) -> None:
    (tmp_path / "test_server.py").write_text(SERVER)
    code, _ = run(tmp_path, "-k", "left or after")
    assert code == -signal.SIGKILL
    assert (tmp_path / "ended").exists()
    assert not (tmp_path / "after").exists()


def test_each_worker_measures_what_its_tests_run(tmp_path: Path) -> None:
    (tmp_path / "measured.py").write_text(MEASURED)
    (tmp_path / "test_measured.py").write_text(MEASURING)
    report = tmp_path / "report.json"
    (tmp_path / "coveragerc").touch()
    options = (f"--cov={tmp_path}", f"--cov-config={tmp_path / 'coveragerc'}")
    code, _ = run(tmp_path, *options, f"--cov-report=json:{report}")
    assert code == 0
    files = json.loads(report.read_bytes())["files"]
    (measured,) = (files[name] for name in files if name.endswith("/measured.py"))
    executed = {name: bool(of["executed_lines"]) for name, of in measured["functions"].items()}
    assert executed == {"one": True, "two": True, "three": False, "": True}


def test_a_test_that_holds_the_interpreter_ends_its_worker(tmp_path: Path) -> None:
    (tmp_path / "test_held.py").write_text(HELD)
    limit = ("-o", "faulthandler_timeout=1", "-o", "faulthandler_exit_on_timeout=true")
    code, output = run(tmp_path, *limit)
    assert code != 0
    assert "worker ended with exit code 1 during test_held.py::test_holds_the_lock" in output
