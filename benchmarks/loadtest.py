"""The load test against targets whose truth is known: one that freezes, and one of known capacity.

    python benchmarks/loadtest.py freeze
    python benchmarks/loadtest.py capacity [--runs 10]
    python benchmarks/loadtest.py bottleneck

The target is a server with one place: it answers requests in the order of their arrival, each a
fixed time after the one before. So its capacity is known, and so is the latency of each request.

`freeze` stops the target's process for 6 seconds (SIGSTOP, SIGCONT) and compares the percentiles
with those that are computed from the times of both signals. Beside it runs a closed loop, as many
tools are: each user sends the next request when the last one was answered, and measures from then.
`capacity` runs `mlship loadtest --find-rate` again and again. `bottleneck` asks for a rate that no
generator in Python has, and shows that there is no verdict.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

RATE, SECONDS, SERVICE = 5, 60, 0.1
FROZEN_AT, FROZEN = 10, 6.0
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9, 100.0)
CAPACITY_SERVICE = 0.005
PROJECT = """name: known
data: {train: train.csv, split: {fraction: 0.2, seed: 7}}
model: {train: "pipeline:train"}
"""


class Server(asyncio.Protocol):
    """Answers each request `service` seconds after the one before, or after its own arrival."""

    service = SERVICE
    free = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport: Any = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Plan the answer of a request that is complete."""
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = next(
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        if len(body) < length:
            return
        self._received = body[length:]
        loop = asyncio.get_running_loop()
        Server.free = max(Server.free, loop.time()) + Server.service
        loop.call_at(Server.free, self._answer)

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")


def serve(service: float) -> None:
    """Serve on a free port, which is printed, until this process is stopped."""
    from mlship.adapters.load.worker import Precise

    async def forever() -> None:
        Server.service = service
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Server, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Precise())) as runner:
        runner.run(forever())


@contextlib.contextmanager
def serving(service: float) -> Iterator[tuple[str, int]]:
    """Serve in a process of its own; give its address and its id."""
    command = [sys.executable, __file__, "serve", str(service)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}", server.pid  # type: ignore[union-attr]
        finally:
            server.kill()


def nothing(_: str) -> None:
    """Do nothing with a line."""


def loadtest(
    endpoint: str, *options: str, listen: Callable[[str], None] = nothing
) -> tuple[int, dict[str, Any], str]:
    """Run `mlship loadtest`; return its exit code, its JSON and what it says on stderr.

    Each line on stderr is also given to `listen` as it comes.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "mlship.yaml").write_text(PROJECT)
        Path(folder, "requests.jsonl").write_text('{"request": {"x": 1.0}}\n')
        command = [sys.executable, "-m", "mlship", "loadtest", "--json", "--endpoint", endpoint]
        command += ["--requests", "requests.jsonl", *options]
        said = ""
        with (
            Path(folder, "stdout").open("w") as stdout,
            subprocess.Popen(
                command, cwd=folder, stdout=stdout, stderr=subprocess.PIPE, text=True
            ) as process,
        ):
            for line in process.stderr or ():
                listen(line)
                said += line
        return process.returncode, json.loads(Path(folder, "stdout").read_text()), said


def last(said: str) -> str:
    """Return the error and the hint of a command."""
    return " ".join(said.splitlines()[-2:])


def truth(stopped: float, resumed: float, first: float) -> list[float]:
    """Return the latency of each request, computed from the times of the freeze."""
    free, latencies = 0.0, []
    for number in range(RATE * SECONDS):
        due = first + number / RATE
        begun = max(free, due)
        # What would begin or end in the freeze does so after it.
        if stopped <= begun < resumed:
            begun = resumed
        free = begun + SERVICE
        if stopped <= free < resumed:
            free = resumed
        latencies.append(free - due)
    return latencies


def closed_loop(address: str, until: float, latencies: list[float]) -> None:
    """Send as many tools do: the next request is due when the last one was answered."""
    host, _, port = address.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    pause = 5 / RATE
    while time.monotonic() < until:
        sent = time.monotonic()
        connection.request("POST", "/predict", b'{"x": 1.0}')
        connection.getresponse().read()
        latencies.append(time.monotonic() - sent)
        time.sleep(max(0.0, pause - (time.monotonic() - sent)))


def ranked(latencies: list[float], percent: float) -> float:
    """Return a percentile by nearest rank."""
    ordered = sorted(latencies)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100 - 1e-9) - 1)]


def stop(process: int, times: list[float]) -> None:
    """Stop a process for a while, and note when."""
    os.kill(process, signal.SIGSTOP)
    times.append(time.time())
    time.sleep(FROZEN)
    times.append(time.time())
    os.kill(process, signal.SIGCONT)


def open_loop() -> tuple[dict[str, Any], list[float]]:
    """Run the load test, with a freeze once it has gone on; return its report and the times."""
    times: list[float] = []
    with serving(SERVICE) as (address, process):
        stopping = threading.Thread(target=stop, args=(process, times))

        def listen(line: str) -> None:
            if line.strip().startswith(f"second {FROZEN_AT}:"):
                stopping.start()

        options = ("--rate", str(RATE), "--seconds", str(SECONDS), "--users", "100")
        code, report, said = loadtest(address, *options, "--p99", "60s", listen=listen)
        if code:
            raise SystemExit(last(said))
        stopping.join()
    return report, times


def closed_loops() -> list[float]:
    """Run users who wait, with the same freeze; return the latencies that they measure."""
    latencies: list[float] = []
    with serving(SERVICE) as (address, process):
        until = time.monotonic() + SECONDS
        threads = [
            threading.Thread(target=closed_loop, args=(address, until, latencies)) for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        time.sleep(FROZEN_AT)
        stop(process, [])
        for thread in threads:
            thread.join()
    return latencies


def freeze() -> bool:
    """Compare percentiles of a run with a freeze; return whether they are within 5 %."""
    report, times = open_loop()
    computed = truth(times[0], times[1], report["result"]["started"])
    control = closed_loops()
    print(f"{RATE} requests/s for {SECONDS} s; frozen for {times[1] - times[0]:.2f} s")
    print("percentile   truth ms  loadtest ms   off    closed loop ms")
    holds = True
    for percent in PERCENTILES:
        expected = 1000 * ranked(computed, percent)
        measured = report["result"]["total"]["latency_ms"][f"p{percent:g}"]
        off = measured / expected - 1
        holds &= abs(off) <= 0.05
        naive = 1000 * ranked(control, percent)
        print(f"p{percent:<8g} {expected:11.1f} {measured:12.1f} {off:+6.1%} {naive:16.1f}")
    return holds


def capacity(runs: int) -> bool:
    """Find the rate of a server of known capacity; return whether all runs are within 5 %."""
    known, good = 1 / CAPACITY_SERVICE, 0
    for number in range(1, runs + 1):
        begin = time.monotonic()
        with serving(CAPACITY_SERVICE) as (address, _):
            options = ("--find-rate", "--p99", "50ms", "--rate", "50", "--seconds", "3")
            code, report, said = loadtest(address, *options)
        if code:
            print(f"run {number}: exit code {code}, {last(said)}", flush=True)
            continue
        found, spent = report["capacity"], time.monotonic() - begin
        off = found / known - 1
        good += abs(off) <= 0.05
        trials = len(report["trials"])
        print(
            f"run {number}: {found:.1f} of {known:.0f} requests/s ({off:+.1%}), {trials} trials, "
            f"{spent:.0f} s",
            flush=True,
        )
    print(f"{good} of {runs} within 5 %")
    return good == runs


def bottleneck() -> bool:
    """Ask for more than the generator has; return whether it refuses a verdict."""
    with serving(0.0) as (address, _):
        code, report, said = loadtest(
            address, "--rate", "50000", "--seconds", "3", "--p99", "10s", "--users", "20"
        )
    print(f"exit code {code}, {last(said)}")
    return code == 6 and "message" in report


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=["freeze", "capacity", "bottleneck", "serve"])
    parser.add_argument("service", nargs="?", type=float, default=SERVICE)
    parser.add_argument("--runs", type=int, default=10)
    given = parser.parse_args()
    if given.what == "serve":
        serve(given.service)
        return
    if given.what == "capacity":
        holds = capacity(given.runs)
    else:
        holds = freeze() if given.what == "freeze" else bottleneck()
    sys.exit(not holds)


if __name__ == "__main__":
    main()
