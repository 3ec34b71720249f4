"""Commands of mlship, run to their end: in a fork of a warm process, or in one of their own."""

import atexit
import contextlib
import errno
import functools
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.harness import forks, servers, variables, warm

_PAUSE = 0.05


def run(
    *arguments: str,
    folder: Path,
    environment: Mapping[str, str],
    seconds: float = 120,
    is_cold: bool = False,
    program: warm.Command = "mlship",
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, without input; its output is in UTF-8. See `output`."""
    done = output(
        *arguments,
        folder=folder,
        environment=environment,
        seconds=seconds,
        is_cold=is_cold,
        program=program,
    )
    texts = (stream.decode() for stream in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, *texts)


def output(
    *arguments: str,
    folder: Path,
    environment: Mapping[str, str],
    seconds: float = 120,
    is_cold: bool = False,
    program: warm.Command = "mlship",
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, without input.

    Args:
        arguments: those of mlship.
        folder: the current folder.
        environment: all variables.
        seconds: kill it after them.
        is_cold: as a process of its own, from the start of Python on.
        program: the command line itself, or with its calls watched.

    Raises:
        subprocess.TimeoutExpired: it was killed.
    """
    if is_cold or variables.at_import(environment) != variables.at_import(os.environ):
        return subprocess.run(
            [sys.executable, "-m", program, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 (a file descriptor is wanted)
            descriptors = {0: nothing.fileno(), 1: out.fileno(), 2: errors.fileno()}
            started = process().start(program, arguments, folder, environment, descriptors)
        try:
            code = started.wait(timeout=seconds)
        finally:
            started.kill()
        texts = []
        for file in (out, errors):
            file.seek(0)
            texts.append(file.read())
    return subprocess.CompletedProcess(arguments, code, *texts)


@functools.cache
def process() -> warm.Warm:
    """Return the warm processes of this run of tests; the first worker that asks starts them."""
    run = os.environ.get(forks.RUN) or os.environ.get("PYTEST_XDIST_TESTRUNUID") or os.getpid()
    name = f"mlship-tests-{run}"
    for kind, seed in warm.SEEDS.items():
        # Between the two, another worker may have begun to start it, or it may have ended.
        while not _start(name, kind, seed) and not _join(name, kind):
            time.sleep(_PAUSE)
    made = warm.Warm(name)
    made.prepare()
    return made


def _start(name: str, kind: warm.Kind, seed: str) -> bool:
    """Start a process; return whether it was not there already."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with listener:
        try:
            listener.bind(warm.address(name, kind))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        listener.listen(64)
        started = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.harness.warm",
                name,
                str(listener.fileno()),
                kind,
                servers.TITLE,
            ],
            cwd=warm.ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
        )
    atexit.register(_end, started)
    return True


def _join(name: str, kind: warm.Kind) -> bool:
    """Let a process stay until this one ends; return whether it is there."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(warm.address(name, kind))
        connection.send(warm.GUEST)
    except ConnectionError:
        connection.close()
        return False
    atexit.register(connection.close)
    return True


def _end(started: "subprocess.Popen[bytes]") -> None:
    """Let a process end; it goes on while another worker needs it."""
    if started.stdin:
        with contextlib.suppress(OSError):
            started.stdin.close()
