"""One replica under load that it cannot bear, and beside requests and clients that do harm.

    python benchmarks/protection.py overload [SECONDS]
    python benchmarks/protection.py poison [COUNT]
    python benchmarks/protection.py hung [COUNT]
    python benchmarks/protection.py large [COUNT]
    python benchmarks/protection.py idle [COUNT]

Each has a control in the same run in which the protection is off:

- `overload`: requests at four times the rate that the model bears, with a deadline of a second;
  before and after it, requests at that rate. The control has no deadline and a queue of any length.
- `poison`: requests that end the process of the model, one a second among 100 others a second.
  The control is a server in one process, as FastAPI or Flask with the model in it.
- `hung`: requests that the model never answers, one in five seconds among 100 others a second.
  In the control, only the deadline ends them.
- `large`: bodies of 100 MB and endless ones at once. In the control, a body may have 200 MB.
- `idle`: connections that are used again just before the server closes them, as the load balancers
  of clouds do. The control closes them at the time of their reuse.
"""

import argparse
import asyncio
import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import serving_usage as usage

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.harness.bundles import SETOSA, iris_bundle  # noqa: E402 (the root must be on the path)

SLEEP = 0.02
HOOK = f"""
import os, time
def preprocess(rows):
    for row in rows.to_dict("records"):
        if row["sepal_length"] == 66.0:
            os.abort()
        if row["sepal_length"] == 77.0:
            time.sleep(3600)
    time.sleep({SLEEP} * len(rows))
    return rows
"""
RATE = 100.0
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
IDLE_SECONDS = 6.2
REUSED_SECONDS = 6.0
"""As 600 s of a load balancer to the 620 s of the server."""


class Answer(NamedTuple):
    """What became of a request: when it was due, how long it took, and its status or fault."""

    due: float
    seconds: float
    status: str
    retry_after: str


@contextlib.contextmanager
def serving(*options: str, hook: str = "", patch: str = "") -> Iterator[tuple[str, int]]:
    """Serve iris; give the address and the process. The patch is code that runs before."""
    with tempfile.TemporaryDirectory() as name, socket.socket() as probe:
        folder = Path(name)
        iris_bundle(folder / "iris", preprocess=hook)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        arguments = ["serve", "--bundle", str(folder / "iris"), "--release", "sha256:" + "ab" * 32]
        arguments += ["--slot", "r", "--port", str(port), "--log", str(folder / "log"), *options]
        code = f"import os, sys\n{patch}\nfrom mlship.runtime.__main__ import main\n"
        code += f"sys.exit(main({arguments!r}, os.environ))"
        process = subprocess.Popen([sys.executable, "-P", "-c", code], cwd=ROOT)
        try:
            wait(process, f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            usage.end(process)


def wait(process: subprocess.Popen[bytes], url: str) -> None:
    """Wait until a server is ready."""
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/v2/health/ready", timeout=2).status_code == 200:
                return
        time.sleep(0.02)
    sys.exit("the server is not ready")


class Load:
    """Sends requests when they are due, whether others were answered or not."""

    def __init__(self, url: str) -> None:
        self.answers: list[Answer] = []
        self.harmful: list[Answer] = []
        self._url = url
        self._open: set[asyncio.Task[None]] = set()
        self._free: list[Connection] = []

    async def run(self, rate: float, seconds: float, every: float = 0, first: float = 0) -> None:
        """Send requests at a rate.

        Args:
            rate: requests a second.
            seconds: for how long.
            every: the seconds between two harmful requests; 0 sends none.
            first: the first column of a harmful request.
        """
        start = due = time.monotonic()
        harm = start + every
        while due < start + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._send(SETOSA, due, self.answers)
            if every and due >= harm:
                harm += every
                self._send({**SETOSA, "sepal_length": first}, due, self.harmful)
            due += 1 / rate

    async def end(self) -> None:
        """Wait for what is open."""
        await asyncio.gather(*self._open)
        for _, writer in self._free:
            writer.close()

    def _send(self, row: dict[str, Any], due: float, answers: list[Answer]) -> None:
        task = asyncio.create_task(self._sent(row, due, answers))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _sent(self, row: dict[str, Any], due: float, answers: list[Answer]) -> None:
        try:
            connection = self._free.pop() if self._free else await opened(self._url)
        except OSError as error:
            answers.append(Answer(due, time.monotonic() - due, type(error).__name__, ""))
            return
        status, retry_after = await answered(connection, request_of(row))
        if status.isdecimal():
            self._free.append(connection)
        else:
            connection[1].close()
        answers.append(Answer(due, time.monotonic() - due, status, retry_after))


async def opened(url: str) -> Connection:
    """Connect to a server."""
    host, port = url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


def request_of(row: dict[str, Any]) -> bytes:
    """Return the bytes of a request for a prediction."""
    body = json.dumps(row).encode()
    head = b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    return head + b"content-length: %d\r\n\r\n%s" % (len(body), body)


async def answered(connection: Connection, request: bytes) -> tuple[str, str]:
    """Send a request; return the status of its answer, or a fault, and `retry-after`."""
    reader, writer = connection
    try:
        writer.write(request)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).lower()
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        await reader.readexactly(int(fields[b"content-length"]))
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
        return type(error).__name__, ""
    return head.split()[1].decode(), fields.get(b"retry-after", b"").decode()


def percentile(seconds: list[float], share: float) -> float:
    """Return a percentile in milliseconds; 0 of nothing."""
    ranked = sorted(seconds)
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))] * 1000 if ranked else 0.0


def counts(answers: list[Answer]) -> str:
    """Return how many failed, and how."""
    faults = Counter(answer.status for answer in answers if answer.status != "200")
    return f"{sum(faults.values())} of {len(answers)} failed {dict(faults) or ''}".rstrip()


def overload(seconds: float, *, is_protected: bool) -> str:
    """Send four times what the model bears."""
    deadline = "1" if is_protected else "86400"
    off = "from mlship.runtime.pressure import Pressure\nPressure.refuses = lambda *_: False\n"
    patch = "" if is_protected else off
    with serving("--timeout", deadline, hook=HOOK, patch=patch) as (url, pid):
        return asyncio.run(_overload(url, pid, seconds))


async def _overload(url: str, pid: int, seconds: float) -> str:
    load = Load(url)
    began = time.monotonic()
    await load.run(1 / SLEEP, 10)
    capacity = sum(a.status == "200" for a in load.answers) / (time.monotonic() - began)
    await asyncio.sleep(3)
    began = time.monotonic()
    await load.run(0.9 * capacity, 10)
    before = usage.memory(pid)
    started = time.monotonic()
    await load.run(4 * capacity, seconds)
    memory = usage.memory(pid)
    ended = time.monotonic()
    await load.run(capacity / 2, 10)
    await load.end()
    calm = [a for a in load.answers if began <= a.due < started]
    hard = [a for a in load.answers if started <= a.due < ended]
    after = [a for a in load.answers if a.due >= ended]
    good = [a for a in hard if a.status == "200"]
    refused = [a for a in hard if a.status in ("429", "503")]
    kept = sum(1 for a in good if a.due + a.seconds < ended) / (ended - started)
    usual = [a.seconds for a in calm if a.status == "200"]
    slow = [a.due - ended for a in after if a.status != "200" or a.seconds > 10 * SLEEP]
    return (
        f"{kept:.1f} answered a second, of {capacity:.1f} that it can; {counts(hard)}; "
        f"p99 {percentile([a.seconds for a in good], 0.99):.0f} ms, at 0.9 of what it can "
        f"{percentile(usual, 0.99):.0f} ms; refusals p99 "
        f"{percentile([a.seconds for a in refused], 0.99):.0f} ms, "
        f"{sum(bool(a.retry_after) for a in refused)} of {len(refused)} with retry-after; "
        f"memory {before:.0f} -> {memory:.0f} MB; "
        f"as usual again after {max(slow, default=0.0):.1f} s"
    )


def poison(count: int, *, is_protected: bool) -> str:
    """Send requests that end the process of the model."""
    with serving(hook=HOOK.replace("0.02", "0")) if is_protected else alone() as (url, _):
        return asyncio.run(_harm(url, count, every=1.0, first=66.0))


def hung(count: int, *, is_protected: bool) -> str:
    """Send requests that are never answered."""
    off = "from mlship.runtime import pool; pool.SILENT_SECONDS = 1e9"
    patch = "" if is_protected else off
    with serving(hook=HOOK.replace("0.02", "0"), patch=patch) as (url, _):
        return asyncio.run(_harm(url, count, every=5.0, first=77.0))


async def _harm(url: str, count: int, *, every: float, first: float) -> str:
    load = Load(url)
    await load.run(RATE, every * (count + 0.5), every, first)
    await load.end()
    text = f"{counts(load.answers)}, p99 "
    text += f"{percentile([answer.seconds for answer in load.answers], 0.99):.0f} ms; of the "
    return f"{text}harmful {dict(Counter(answer.status for answer in load.harmful))}"


@contextlib.contextmanager
def alone() -> Iterator[tuple[str, int]]:
    """Serve from one process that a supervisor starts again; give the address and the process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ends = threading.Event()
    process: list[subprocess.Popen[bytes]] = []

    def supervise() -> None:
        while not ends.is_set():
            process[:] = [subprocess.Popen([sys.executable, __file__, "alone", str(port)])]
            process[0].wait()

    thread = threading.Thread(target=supervise)
    thread.start()
    try:
        while not process:
            time.sleep(0.01)
        wait(process[0], f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}", process[0].pid
    finally:
        ends.set()
        process[0].terminate()
        thread.join()


class Alone(http.server.BaseHTTPRequestHandler):
    """A server whose model is in its own process."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say that it is ready."""
        self._answer()

    def do_POST(self) -> None:
        """Predict."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body["sepal_length"] == 66.0:
            os.abort()
        self._answer()

    def _answer(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Be silent."""


def large(count: int, *, is_protected: bool) -> str:
    """Send half of the bodies with 100 MB, and half without an end."""
    off = "from mlship.runtime import http; http.BODY_BYTES = 200_000_000"
    with serving(patch="" if is_protected else off) as (url, pid):
        return asyncio.run(_large(url, pid, count))


async def _large(url: str, pid: int, count: int) -> str:
    host, port = url.removeprefix("http://").split(":")
    before = most = usage.memory(pid)
    answers = asyncio.gather(*(_body(host, int(port), number) for number in range(count)))
    while not answers.done():
        most = max(most, await asyncio.to_thread(usage.memory, pid))
        await asyncio.sleep(0.05)
    found = Counter(await answers)
    return f"{dict(found)}; memory {before:.0f} -> {most:.0f} MB"


async def _body(host: str, port: int, number: int) -> str:
    """Send a body; return the status, or what became of the connection."""
    reader, writer = await asyncio.open_connection(host, port)
    size, is_endless = 100_000_000, bool(number % 2)
    kind = b"transfer-encoding: chunked" if is_endless else b"content-length: %d" % size
    writer.write(b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n" + kind)
    writer.write(b"\r\n\r\n")
    part = b" " * 65_536
    part = b"%x\r\n%s\r\n" % (len(part), part) if is_endless else part
    sent = 0
    answer = asyncio.ensure_future(reader.readline())
    try:
        while sent < size and not answer.done():
            writer.write(part)
            await writer.drain()
            sent += len(part)
        line = await asyncio.wait_for(answer, 20)
        return line.split()[1].decode() if line else "closed without an answer"
    except (OSError, TimeoutError) as error:
        return type(error).__name__
    finally:
        answer.cancel()
        writer.close()


def idle(count: int, *, is_protected: bool) -> str:
    """Use connections again shortly before the server closes them."""
    seconds = IDLE_SECONDS if is_protected else REUSED_SECONDS - 0.05
    patch = f"from mlship.runtime import connection; connection.IDLE_SECONDS = {seconds}"
    with serving(patch=patch) as (url, _):
        return asyncio.run(_idle(url, count))


async def _idle(url: str, count: int) -> str:
    async def reused() -> str:
        connection = await opened(url)
        await answered(connection, request_of(SETOSA))
        await asyncio.sleep(REUSED_SECONDS)
        status, _ = await answered(connection, request_of(SETOSA))
        connection[1].close()
        return status

    found: Counter[str] = Counter()
    # 250 at once: their requests come over half of a second, so that none waits for the others.
    for begin in range(0, count, 250):
        open_ = []
        for _ in range(min(250, count - begin)):
            open_.append(asyncio.ensure_future(reused()))
            await asyncio.sleep(0.002)
        found.update(await asyncio.gather(*open_))
    return str(dict(found))


def main() -> None:
    """Print a line for each side."""
    if sys.argv[1:2] == ["alone"]:
        http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Alone).serve_forever()
    kinds: dict[str, tuple[Callable[..., str], int]] = {
        "overload": (overload, 60),
        "poison": (poison, 50),
        "hung": (hung, 20),
        "large": (large, 20),
        "idle": (idle, 2000),
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=list(kinds))
    parser.add_argument("amount", type=int, nargs="?", help="seconds, or how many")
    options = parser.parse_args()
    run, amount = kinds[options.kind]
    for is_protected in (True, False):
        text = run(options.amount or amount, is_protected=is_protected)
        print(f"{'protected' if is_protected else 'not':<11} {text}", flush=True)
    print("load of the machine", ", ".join(f"{load:.1f}" for load in os.getloadavg()))


if __name__ == "__main__":
    main()
