"""What the end of a worker's link shows on this system: whether the last message was read."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
import uvloop

from mlship.domain.columns import Columns
from mlship.runtime import link
from mlship.runtime.link import Report
from mlship.runtime.processes import WorkerProcess
from mlship.runtime.spawned import Spawned

SMALL = [Columns.of([[1.0]])]
LARGE = [Columns.of([["x" * 1000]] * 5000)]
"""More than a link holds, so that it is sent in parts."""


class Heard:
    """Keeps what a link tells, and wakes whoever waits for its end."""

    def __init__(self) -> None:
        self.lost_with: list[bool] = []
        self.is_ended = asyncio.Event()

    def reported(self, report: Report) -> None:
        raise AssertionError(report)

    def lost(self, *, is_unread: bool) -> None:
        self.lost_with.append(is_unread)

    def ended(self, reason: str) -> None:
        raise AssertionError(reason)


class Unstarted:
    """A link without a process: the other end is the test's."""

    def __init__(self, ours: socket.socket, heard: Heard) -> None:
        self.socket = ours
        self.process = self
        self._heard = heard

    def poll(self) -> None:
        return None

    def kill(self) -> None:
        """Note that the link is lost: then the process is ended."""
        self._heard.is_ended.set()


Worker = Callable[[WorkerProcess, socket.socket], Awaitable[None]]


async def arrived(theirs: socket.socket) -> None:
    """Wait until there is something to read."""
    loop, is_there = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(theirs, is_there.set)
    await is_there.wait()
    loop.remove_reader(theirs)


async def unread(process: WorkerProcess, theirs: socket.socket) -> None:
    process.send(SMALL)
    await arrived(theirs)


async def half_read(process: WorkerProcess, theirs: socket.socket) -> None:
    process.send(SMALL)
    await arrived(theirs)
    assert len(theirs.recv(5)) == 5


async def half_sent(process: WorkerProcess, theirs: socket.socket) -> None:
    process.send(LARGE)
    await arrived(theirs)
    assert theirs.recv(5000)


async def sent_too_late(process: WorkerProcess, theirs: socket.socket) -> None:
    theirs.close()
    process.send(SMALL)


async def read(process: WorkerProcess, theirs: socket.socket) -> None:
    process.send(SMALL)
    left = len(link.of_jobs(SMALL))
    while left:
        await arrived(theirs)
        left -= len(theirs.recv(left))


async def sent_nothing(_process: WorkerProcess, _theirs: socket.socket) -> None:
    return


async def lost_with(worker: Worker) -> list[bool]:
    """Return what is told when a worker has done what the test says, and closed its end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    heard = Heard()
    process = WorkerProcess(cast("Spawned", Unstarted(ours, heard)), heard)
    await process.connect()
    with theirs:
        await worker(process, theirs)
    await asyncio.wait_for(heard.is_ended.wait(), 60)
    return heard.lost_with


@pytest.mark.parametrize("loop", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
@pytest.mark.parametrize(
    ("worker", "is_unread"),
    [
        (unread, True),
        (half_read, True),
        (half_sent, True),
        (sent_too_late, True),
        (read, False),
        (sent_nothing, False),
    ],
)
def test_the_end_of_a_link_tells_whether_the_message_was_read(
    worker: Worker, loop: Callable[[], asyncio.AbstractEventLoop], *, is_unread: bool
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        told = runner.run(lost_with(worker))
    assert told
    assert any(told) == is_unread
