"""A fork of a warm process, as whoever asked for it sees it."""

import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

_LONGEST = 100


class Started:
    """A fork, with what the callers of `subprocess.Popen` use of it."""

    def __init__(self, connection: socket.socket, command: Sequence[str]) -> None:
        self._connection, self._command = connection, command
        self._lock = threading.Lock()
        self.pid = int(connection.recv(_LONGEST))
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None

    def poll(self) -> int | None:
        """Return the exit code of a process that has ended."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(timeout=0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        # Another thread may wait, too.
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            raise subprocess.TimeoutExpired(self._command, timeout or 0)
        try:
            if self.returncode is None:
                if not select.select([self._connection], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(self._command, timeout or 0)
                self.returncode = int(self._connection.recv(_LONGEST) or -signal.SIGKILL)
                self._connection.close()
        finally:
            self._lock.release()
        return self.returncode

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)
