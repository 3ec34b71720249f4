"""Unit tests cannot touch the machine: no process, no connection, no file of the user's home.

Nor do they read the certificates of the system.
"""

import importlib
import itertools
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import joblib
import pytest

from tests.harness import certificates

# Counted once, by a program that joblib starts: later calls find the number in its memory.
joblib.cpu_count(only_physical_cores=True)


def pytest_configure(config: pytest.Config) -> None:
    """Import skops before what workers collect.

    Its import looks for hundreds of functions in all modules that are loaded: few now, thousands
    when the first test needs it.
    """
    if "PYTEST_XDIST_WORKER" in os.environ or config.getoption("forks", "0") != "0":
        importlib.import_module("skops.io")


@pytest.fixture(scope="session")
def _folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("unit")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture
def _folder(_folders: Iterator[Path]) -> Path:
    """Return the path of the test's own folder, which most tests do not need."""
    return next(_folders)


@pytest.fixture
def tmp_path(_folder: Path) -> Path:
    """Return a folder of the test's own; pytest's looks at those of all tests before it."""
    _folder.mkdir()
    return _folder


@pytest.fixture(scope="session")
def _authorities(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a file with one authority: to read all of the system takes 30 ms of a processor."""
    path = tmp_path_factory.mktemp("authorities") / "authorities.pem"
    certificates.Authority().write(path)
    return str(path)


@pytest.fixture(autouse=True)
def _no_machine(monkeypatch: pytest.MonkeyPatch, _folder: Path, _authorities: str) -> None:
    def refuse(*what: Any, **_: Any) -> NoReturn:
        raise AssertionError(f"a unit test touches the machine: {what[1:] or what}")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)
    monkeypatch.setenv("HOME", str(_folder / "home"))
    monkeypatch.setenv("SSL_CERT_FILE", _authorities)
