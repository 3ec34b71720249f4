"""A real MLflow tracking server on a loopback port, with a database and artifacts of its own.

It is a fork of the warm process: two imports of MLflow are ten seconds of a processor.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
import uvicorn

from tests.harness import asking, commands
from tests.harness.started import Started

_SECONDS = 180


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Give the address of a `mlflow server` that keeps everything in a folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [
        *("server", "--workers", "1"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    # Its jobs are four processes that no test needs.
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environ = {**os.environ, **quiet}
    with (folder / "log").open("wb") as log, Path(os.devnull).open("rb") as nothing:
        descriptors = {0: nothing.fileno(), 1: log.fileno(), 2: log.fileno()}
        process = commands.process().start("mlflow", arguments, folder, environ, descriptors)
    try:
        _await(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def program() -> NoReturn:
    """Run the command line of MLflow; its server is this process, and no other that it starts.

    MLflow starts another program for the server, which imports all of MLflow again.
    """
    from mlflow import cli, server

    def served(command: Sequence[str], *, extra_env: Mapping[str, str], **_: Any) -> NoReturn:
        start = [sys.executable, "-m", "uvicorn"]
        assert list(command[: len(start)]) == start, command
        os.environ.update(extra_env)
        sys.exit(uvicorn.main.main(command[len(start) :]))

    os.setsid()
    server.__dict__["_exec_cmd"] = served
    sys.exit(cli.cli.main())


def _await(url: str, process: Started) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if asking.get(url, timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail(f"mlflow server did not start; exit code {process.poll()}")
