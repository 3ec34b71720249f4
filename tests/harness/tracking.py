"""A real MLflow tracking server on a loopback port, with a database and artifacts of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from tests.harness import asking, commands

_SECONDS = 180


class _Process(Protocol):
    """What is asked of a server's process."""

    pid: int

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...


@contextmanager
def server(folder: Path, *, is_cold: bool = True) -> Iterator[str]:
    """Give the address of a `mlflow server` that keeps everything in a folder.

    Args:
        folder: for its database, its artifacts and its log.
        is_cold: as processes of their own, from the start of Python on, or as a fork of the warm
            process, which takes a tenth of their time.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [
        *("server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    # Its jobs are four processes that no test needs.
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment = {**os.environ, **quiet}
    start = _cold if is_cold else _warm
    process = start(arguments, folder, environment)
    try:
        _await(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _cold(arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> _Process:
    argv = [sys.executable, "-m", "mlflow", *arguments]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            argv, stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True
        )


def _warm(arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> _Process:
    with (folder / "log").open("wb") as log, Path(os.devnull).open("rb") as nothing:
        descriptors = {0: nothing.fileno(), 1: log.fileno(), 2: log.fileno()}
        return commands.process().start("mlflow", arguments, folder, environment, descriptors)


def serve(arguments: Sequence[str]) -> None:
    """Be `mlflow server` in this process, with the server that it starts as another one."""
    os.setsid()
    from mlflow import cli
    from mlflow import server as starts
    from uvicorn.main import main

    def become(command: Sequence[str], *, extra_env: Mapping[str, str], **_: Any) -> None:
        python = [sys.executable, "-m", "uvicorn"]
        assert list(command[: len(python)]) == python, command
        os.environ.update(extra_env)
        main([*command[len(python) :]])

    starts._exec_cmd = become
    cli.cli([*arguments])


def _await(url: str, process: _Process) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if asking.get(url, timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail(f"mlflow server did not start; exit code {process.poll()}")
