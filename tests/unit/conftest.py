"""Unit tests cannot touch the machine: no process, no connection, no file of the user's home."""

import socket
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import joblib
import pytest

# Counted once, by a program that joblib starts: later calls find the number in its memory.
joblib.cpu_count(only_physical_cores=True)


@pytest.fixture(autouse=True)
def _no_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*what: Any, **_: Any) -> NoReturn:
        raise AssertionError(f"a unit test touches the machine: {what[1:] or what}")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
