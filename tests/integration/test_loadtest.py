"""The load generator with real processes and connections, against servers on this machine."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlship.adapters.load import plot
from mlship.adapters.load.generator import ProcessGenerator
from mlship.domain.load import LoadPlan, LoadResult

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
PROJECT = """name: known
data: {train: train.csv, split: {fraction: 0.2, seed: 7}}
model: {train: "pipeline:train"}
"""


class Server:
    """Answers each request after a while, and keeps the bodies."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.bodies: list[bytes] = []
        self.address = ""
        self._connections: set[asyncio.Task[Any]] = set()

    async def serve(self, ready: threading.Event, ended: asyncio.Event) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=512)
        self.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            ready.set()
            await ended.wait()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
                self.bodies.append(await reader.readexactly(int(length)))
                await asyncio.sleep(self._seconds)
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@contextmanager
def serving(seconds: float = 0.0) -> Iterator[Server]:
    """Serve in a thread of this process."""
    server, ready, ended = Server(seconds), threading.Event(), asyncio.Event()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        thread = threading.Thread(target=runner.run, args=(server.serve(ready, ended),))
        thread.start()
        assert ready.wait(30)
        try:
            yield server
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join(30)


def plan_for(address: str, processes: int = 1) -> LoadPlan:
    return LoadPlan(
        url=f"{address}/predict",
        bodies=('{"x":1}', '{"x":2}'),
        rate=40,
        seconds=2,
        users=10,
        processes=processes,
    )


@pytest.mark.parametrize("processes", [1, 2])
def test_every_request_is_sent_once_and_measured(processes: int) -> None:
    seen: list[LoadResult] = []
    with serving(0.02) as server:
        result = ProcessGenerator().run(plan_for(server.address, processes), seen.append)
    assert result.errors == {}
    assert result.answered == 80
    assert sorted(server.bodies) == [b'{"x":1}'] * 40 + [b'{"x":2}'] * 40
    assert result.total.latency_ms["p50"] >= 20
    assert [each.requests for each in result.series] == [40, 40]
    assert seen[-1].answered == 80


def test_a_server_that_is_not_there_fails_each_request_with_a_reason() -> None:
    with serving() as server:
        address = server.address
    result = ProcessGenerator().run(plan_for(address), lambda _: None)
    assert result.errors == {"no connection: Connection refused": 80}


def test_no_process_stays_when_the_command_is_killed(tmp_path: Path) -> None:
    with serving() as server:
        plan = repr(plan_for(server.address)).replace("seconds=2", "seconds=600")
        program = "from mlship.domain.load import LoadPlan\n"
        program += "from mlship.adapters.load.generator import ProcessGenerator\n"
        program += (
            f"ProcessGenerator().run({plan}, lambda result: print(result.answered, flush=True))"
        )
        command = [sys.executable, "-c", program]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
            assert parent.stdout is not None
            parent.stdout.readline()
            children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
            parent.kill()
    assert children
    deadline = time.monotonic() + 30
    while any(_runs(child) for child in children):
        assert time.monotonic() < deadline, "a process of the generator still runs"
        time.sleep(0.1)


def _runs(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"


def test_the_command_writes_a_report_with_a_picture(tmp_path: Path) -> None:
    (tmp_path / "mlship.yaml").write_text(PROJECT)
    (tmp_path / "requests.jsonl").write_text('{"request": {"x": 1.0}}\n')
    with serving() as server:
        command = [sys.executable, "-m", "mlship", "--json", "loadtest"]
        command += ["--endpoint", server.address, "--requests", "requests.jsonl", "--rate", "20"]
        command += ["--seconds", "2", "--p99", "9s", "--out", "report"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["result"]["total"]["requests"] == 40
    assert shown == json.loads((tmp_path / "report" / "report.json").read_text())
    assert "the bound was held" in (tmp_path / "report" / "report.md").read_text()
    assert (tmp_path / "report" / "latency.png").read_bytes().startswith(b"\x89PNG")
    assert "sending 20 requests/s" in done.stderr


def test_failures_are_in_the_picture(tmp_path: Path) -> None:
    with serving() as server:
        address = server.address
    result = ProcessGenerator().run(plan_for(address), lambda _: None)
    plot.draw(result, "nothing listens", tmp_path / "failed.png")
    assert (tmp_path / "failed.png").stat().st_size > 10_000
