"""Worker processes as the server sees them: started, asked, ended."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from mlship.domain.columns import Columns
from mlship.runtime import link
from mlship.runtime.link import Frames, Report
from mlship.runtime.spawned import Spawned


class Events(Protocol):
    """Hears of a worker."""

    def reported(self, report: Report) -> None:
        """It has sent a message."""

    def lost(self, *, is_unread: bool) -> None:
        """It can be sent nothing more; whether it has surely not read all of the last message."""

    def ended(self, reason: str) -> None:
        """Its process has ended, such as `by signal SIGSEGV` or `with code 1`."""


class Worker(Protocol):
    """A worker that was started."""

    def send(self, jobs: Sequence[Columns]) -> None:
        """Send the rows of jobs. The next are sent after their answers."""

    def kill(self) -> None:
        """End it, whatever it does."""

    def close(self) -> None:
        """Let it end after what it computes."""

    def check(self) -> None:
        """Find out whether it has ended."""


class WorkerProcess(asyncio.Protocol):
    """The link to a worker process, as a `Worker`.

    Attributes:
        is_over: whether it is closed.
    """

    def __init__(self, spawned: Spawned, events: Events) -> None:
        self._process = spawned.process
        self._socket = spawned.socket
        self._events = events
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._is_gone = False
        self.is_over = False

    async def connect(self) -> None:
        """Watch the link."""
        loop = asyncio.get_running_loop()
        self._socket.setblocking(False)  # noqa: FBT003 (its only argument)
        await loop.create_unix_connection(lambda: self, sock=self._socket)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready to send."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop has a class of its own

    def data_received(self, data: bytes) -> None:
        """Pass on what the worker reports."""
        for report in self._frames.reports(data):
            self._events.reported(report)

    def eof_received(self) -> None:
        """Tell that the worker can be asked no more; asyncio closes the link in its next turn."""
        self._lose(is_unread=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """End a worker that has closed its link."""
        self._transport = None
        self._lose(is_unread=_is_unread(exc))
        self.kill()

    def send(self, jobs: Sequence[Columns]) -> None:
        """Send the rows of jobs."""
        if self._transport is not None:
            self._transport.write(link.of_jobs(jobs))

    def kill(self) -> None:
        """End the process."""
        if self._process.poll() is None and not self.is_over:
            self._process.kill()

    def close(self) -> None:
        """Close the link, upon which an idle worker ends."""
        self.is_over = True
        if self._transport is not None:
            self._transport.close()

    def check(self) -> None:
        """Tell once that the process has ended."""
        code = self._process.poll()
        if code is None or self.is_over:
            return
        if self._transport is not None and not self._is_gone:
            # The loop first reads what it has sent. A process that it left may keep the link open.
            self._is_gone = True
            self._lose(is_unread=False)
            return
        self.close()
        self._events.ended(_ending(code))

    def wait(self, seconds: float) -> None:
        """Wait until a closed worker has ended; end it after these seconds."""
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _lose(self, *, is_unread: bool) -> None:
        if not self.is_over:
            self._events.lost(is_unread=is_unread)


def _is_unread(error: Exception | None) -> bool:
    """Return whether the end of a link shows that its other side has not read all that was sent.

    The pipe is broken if a part could not be sent. Linux resets a connection of a socket pair if
    the other side has closed it with something left to read, unix(7).
    """
    is_reset = sys.platform == "linux" and isinstance(error, ConnectionResetError)
    return is_reset or isinstance(error, BrokenPipeError)


def _ending(code: int) -> str:
    if code >= 0:
        return f"with code {code}"
    try:
        return f"by signal {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
