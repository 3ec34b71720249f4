"""Starts the process of a worker, before the server has loaded its own libraries."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from mlship.domain import private
from mlship.domain.digests import Digest

_OF_THE_SERVER = (
    *(private.KEY, "MLSHIP_LOG", "PGPASSWORD", "PGPASSFILE"),
    *("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"),
)
"""What a worker, and with it the code of a project, does not get to see."""


class Spawned:
    """A worker process, which may still have to be connected to the event loop."""

    def __init__(
        self, bundle: Path, expected: Digest | None, environment: Mapping[str, str]
    ) -> None:
        self.socket, theirs = socket.socketpair()
        arguments = ["--bundle", str(bundle), "--digest", expected or ""]
        arguments += ["--link", str(theirs.fileno()), "--server", str(os.getpid())]
        with theirs:
            # -P: a file in the working directory must not shadow a module.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "mlship.runtime", "work", *arguments],
                pass_fds=(theirs.fileno(),),
                env={
                    name: value for name, value in environment.items() if name not in _OF_THE_SERVER
                },
            )
