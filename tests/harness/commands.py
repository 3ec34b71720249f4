"""Commands of mlship, run to their end: in a fork of a warm process, or in one of their own."""

import atexit
import contextlib
import functools
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mlship.domain.environment import WAITING
from tests.harness import warm

AT_IMPORT = ("PYTHON", "LC_", "LANG", "OMP_", "GOMP_", "OPENBLAS_", "MKL_")
"""What begins so is read when Python starts or a library is imported."""
PASSED = (
    *("PYTHONPATH", "PYTHONIOENCODING", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"),
    *WAITING,
)
"""The first two of them a fork obeys, the others change nothing that a test sees."""
UTF_8 = ("UTF-8", "utf8")


def run(
    *arguments: str,
    folder: Path,
    environment: Mapping[str, str],
    seconds: float = 120,
    is_cold: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, without input; its output is in UTF-8. See `output`."""
    done = output(
        *arguments, folder=folder, environment=environment, seconds=seconds, is_cold=is_cold
    )
    texts = (stream.decode() for stream in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, *texts)


def output(
    *arguments: str,
    folder: Path,
    environment: Mapping[str, str],
    seconds: float = 120,
    is_cold: bool = False,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, without input.

    Args:
        arguments: those of mlship.
        folder: the current folder.
        environment: all variables.
        seconds: kill it after them.
        is_cold: as a process of its own, from the start of Python on.

    Raises:
        subprocess.TimeoutExpired: it was killed.
    """
    if is_cold or at_import(environment) != at_import(os.environ):
        return subprocess.run(
            [sys.executable, "-m", "mlship", *arguments],
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
            started = process().start("mlship", arguments, folder, environment, descriptors)
        try:
            code = started.wait(timeout=seconds)
        finally:
            started.kill()
        texts = []
        for file in (out, errors):
            file.seek(0)
            texts.append(file.read())
    return subprocess.CompletedProcess(arguments, code, *texts)


def at_import(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that must be those of the warm process, for a command to be a fork.

    Any locale in UTF-8 is as good as none, for which Python takes UTF-8 as well.
    """
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(AT_IMPORT) and name not in PASSED and not value.endswith(UTF_8)
    }


@functools.cache
def process() -> warm.Warm:
    """Return the warm processes of this worker; they are started when one is first needed."""
    name = f"mlship-tests-{os.getpid()}"
    for kind, seed in warm.SEEDS.items():
        _start(name, kind, seed)
    return warm.Warm(name)


def _start(name: str, kind: warm.Kind, seed: str) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(warm.address(name, kind))
    listener.listen(64)
    with listener:
        started = subprocess.Popen(
            [sys.executable, "-m", "tests.harness.warm", name, str(listener.fileno()), kind],
            cwd=warm.ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
        )
    atexit.register(_end, started)


def _end(started: "subprocess.Popen[bytes]") -> None:
    if started.stdin:
        with contextlib.suppress(OSError):
            started.stdin.close()
    started.wait()
