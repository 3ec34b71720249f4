"""The cost of serving: the runtime with its durable log, compared with a bare ASGI echo.

    python benchmarks/serving.py [--seconds 5] [--connections 16]

Both run under granian in a separate process, one after the other, with the same requests from the
same client: one row of iris, keep-alive connections, the next request after the response. It prints
requests/s, the median and the 99th percentile of the latency, the runtime's time from start to
ready, and the ratio. It fails if an acknowledged prediction is missing in the log.
"""

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.harness.bundles import SETOSA, iris_bundle  # noqa: E402 (the root must be on the path first)

BODY = json.dumps(SETOSA).encode()
ECHO = """
import asyncio, sys
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

async def app(scope, receive, send):
    body = (await receive()).get("body", b"")
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

asyncio.run(Server(app, port=int(sys.argv[1]), interface=Interfaces.ASGINL, http=HTTPModes.http1,
                   websockets=False, log_enabled=False).serve())
"""


class Connection(asyncio.Protocol):
    """Sends a request, records the latency, and sends the next."""

    def __init__(self, request: bytes, until: float) -> None:
        self.latencies: list[float] = []
        self.failed = 0
        self.done = asyncio.get_running_loop().create_future()
        self._request = request
        self._until = until
        self._buffer = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Receive a part of a response."""
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        now = time.perf_counter()
        self.latencies.append(now - self._sent)
        self.failed += not head.startswith(b"HTTP/1.1 200")
        self._buffer = b""
        if now < self._until:
            self._send()
        else:
            self._transport.close()
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail if the server closed the connection."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def _send(self) -> None:
        self._sent = time.perf_counter()
        assert isinstance(self._transport, asyncio.WriteTransport)
        self._transport.write(self._request)


async def load(port: int, connections: int, seconds: float) -> tuple[list[float], int]:
    """Return the latencies in seconds, and the number of responses other than 200."""
    request = (
        b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(BODY), BODY)
    )
    until = time.perf_counter() + seconds
    loop = asyncio.get_running_loop()
    made = []
    for _ in range(connections):
        _, connection = await loop.create_connection(
            lambda: Connection(request, until), "127.0.0.1", port
        )
        made.append(connection)
    await asyncio.gather(*(connection.done for connection in made))
    return (
        [latency for connection in made for latency in connection.latencies],
        sum(connection.failed for connection in made),
    )


@contextmanager
def running(arguments: list[str], port: int) -> Iterator[float]:
    """Run a server; yield the seconds until it was ready."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT)
    try:
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
            except OSError:
                assert process.poll() is None, "the server died"
                time.sleep(0.005)
        with httpx.Client() as client:
            client.post(f"http://127.0.0.1:{port}/predict", json=SETOSA).raise_for_status()
        yield time.perf_counter() - started
    finally:
        process.terminate()
        process.wait(timeout=15)


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measure(name: str, port: int, connections: int, seconds: float) -> tuple[float, int]:
    """Print a line of figures; return requests/s and the number of responses."""
    asyncio.run(load(port, connections, 1.0))
    latencies, failed = asyncio.run(load(port, connections, seconds))
    assert not failed, f"{failed} responses were not 200"
    cuts = statistics.quantiles(latencies, n=100)
    rate = len(latencies) / seconds
    print(
        f"{name:<28}{rate:9,.0f} requests/s   p50 {cuts[49] * 1e3:.2f} ms   "
        f"p99 {cuts[98] * 1e3:.2f} ms"
    )
    return rate, len(latencies)


def main() -> None:
    """Measure both sides and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        iris_bundle(folder / "bundle")
        port = free_port()
        with running(["-c", ECHO, str(port)], port):
            bare, _ = measure("bare ASGI echo", port, options.connections, options.seconds)
        port = free_port()
        arguments = ["-m", "mlship.runtime", "serve", "--bundle", str(folder / "bundle")]
        arguments += ["--release", "sha256:" + "0" * 64, "--slot", "r0", "--port", str(port)]
        arguments += ["--log", str(folder / "log")]
        with running(arguments, port) as ready:
            rate, answers = measure(
                "mlship, each row logged", port, options.connections, options.seconds
            )
        logged = sum(path.read_bytes().count(b"\n") for path in (folder / "log").iterdir())
    assert logged >= answers, f"{answers} responses, {logged} lines in the log"
    print(f"ratio {rate / bare:.2f}; first response after {ready:.2f} s")


if __name__ == "__main__":
    main()
