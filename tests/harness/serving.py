"""Servers that tests start themselves, as `mlship.runtime serve` with its options."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from tests.harness import commands, variables
from tests.harness.started import Started

Process = Started | subprocess.Popen[bytes]


def start(
    options: Sequence[str],
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    stdout: int | None = None,
    errors: BinaryIO | None = None,
    is_cold: bool = False,
) -> Process:
    """Start a server as a fork of the warm process, or one of its own.

    Args:
        options: those of `serve`.
        folder: the current folder.
        environment: all variables.
        stdout: `subprocess.PIPE`, for which it is a process of its own.
        errors: the file of its stderr.
        is_cold: as a process of its own, from the start of Python on.
    """
    folder, environment = folder or Path.cwd(), environment or os.environ
    is_cold = is_cold or stdout is not None
    if is_cold or variables.at_import(environment) != variables.at_import(os.environ):
        command = [sys.executable, "-P", "-m", "mlship.runtime", "serve", *options]
        environment = dict(environment)
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=stdout, stderr=errors)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 (a file descriptor is wanted)
        streams = {0: nothing.fileno(), 1: 1, 2: 2 if errors is None else errors.fileno()}
        return commands.process().start(
            "mlship.runtime", ["serve", *options], folder, environment, streams
        )
