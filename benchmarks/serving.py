"""The cost of serving: mlship's server, its peers from PyPI, and a bare HTTP server.

    python benchmarks/serving.py [--seconds 5] [--rounds 3] [--cache FOLDER] [--json FILE]

The same classifiers of iris, asked for one row and for 32 rows a request, keep-alive connections,
the next request after the response. wrk (the Debian package) asks. In each round each server is
started anew and measured in turn, so that all meet the same load of the machine; the medians of the
rounds are printed. On a machine that does other things too, only the last figure is to be trusted:

- requests/s, the median and the 99th percentile of the latency
- processor time a request: of all processes of the server, while wrk asks

Then what can be reached at all: onnxruntime alone, and a durable log alone; what a second worker
gains; and what outputs that are kept in memory save. It fails if a response is not 200, or an
acknowledged prediction is not in the log.

The peers are installed into environments of their own below --cache, once, and are kept there.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import numpy as np
import onnxruntime
import serving_usage as usage
from serving_models import FOREST, LOGISTIC, SLOW, Served, write
from serving_peers import BARE, MLSHIP, PEERS, ROOT, ROW, Place, Server, interpreter

_READY_SECONDS: Final = 300.0
_WARM_SECONDS: Final = 1.0
_LINES: Final = 500
_SCRIPT: Final = r"""
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = io.open(os.getenv("WRK_BODY")):read("*a")
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format('\nRESULT {"requests": %d, "seconds": %f, "p50": %f, "p99": %f, ' ..
    '"failed": %d}\n', summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""


class Window(NamedTuple):
    """What was measured while requests were sent.

    Attributes:
        rate: requests/s.
        p50: the median of the latency in ms.
        p99: its 99th percentile.
        processor: microseconds of the server's processes a request.
    """

    rate: float
    p50: float
    p99: float
    processor: float


class Start(NamedTuple):
    """Seconds from the start to the first response, and megabytes after it."""

    seconds: float
    memory: float


Case = tuple[str, str]
"""The name of a server, and a workload."""


class Running(NamedTuple):
    """A server that answers, its process, and the folder of its predictions if it is mlship's."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    start: Start


def main() -> None:
    """Measure all servers and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each window")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mlship", "peers")
    parser.add_argument("--cache", type=Path, default=cache, help="where the peers are installed")
    parser.add_argument("--json", type=Path, help="file that takes the figures")
    parser.add_argument(
        "--only", action="append", choices=[server.name for server in PEERS], help="peer"
    )
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: run `apt-get install wrk`, or the like of your system")
    peers = [server for server in PEERS if options.only is None or server.name in options.only]
    servers = {server: interpreter(server, options.cache) for server in (BARE, MLSHIP, *peers)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for served in (LOGISTIC, FOREST, SLOW):
            (folder / served.key).mkdir()
            write(served, folder / served.key)
        bench = Bench(folder, servers, options.seconds, options.connections)
        windows, starts = _rounds(bench, options.rounds)
        report = {
            "workloads": _table(windows),
            "starts": _starts(starts),
            "floors": _floors(folder),
            "workers": _workers(bench, options.rounds),
            "kept": _kept(bench, options.rounds),
        }
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


class Bench(NamedTuple):
    """The models, the servers with their interpreters, and how they are asked."""

    folder: Path
    servers: Mapping[Server, Path]
    seconds: float
    connections: int


def _rounds(bench: Bench, rounds: int) -> tuple[dict[Case, list[Window]], dict[str, list[Start]]]:
    windows: dict[Case, list[Window]] = {}
    starts: dict[str, list[Start]] = {}
    for number in range(rounds):
        for served, counts in ((LOGISTIC, (1, 32)), (FOREST, (1,))):
            for server in bench.servers:
                if server is BARE and served is not LOGISTIC:
                    continue
                with running(bench, server, served) as target:
                    if served is LOGISTIC:
                        starts.setdefault(server.name, []).append(target.start)
                    for count in counts:
                        case = server.name, f"{served.name}, {count} row{'s' * (count > 1)}"
                        window = measure(bench, server, [target], count)
                        windows.setdefault(case, []).append(window)
                        said = f"{window.rate:,.0f}/s, {window.processor:,.0f} us a request"
                        print(f"round {number + 1}: {', '.join(case)}: {said}", flush=True)
    return windows, starts


@contextmanager
def running(bench: Bench, server: Server, served: Served) -> Iterator[Running]:
    """Run a server with a model."""
    own = Path(tempfile.mkdtemp(dir=bench.folder))
    shutil.copy(bench.folder / served.key / "model.joblib", own)
    for name, text in server.files.items():
        (own / name).write_text(text)
    place = Place(
        python=bench.servers[server],
        folder=own,
        bundle=bench.folder / served.key / "bundle",
        log=own / "log",
        ports=free_ports(3),
    )
    variables = os.environ | server.variables(place)
    cwd = own if server.requirements else ROOT
    with (own / "output").open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            server.command(place), cwd=cwd, env=variables, stdout=output, stderr=output
        )
        try:
            _wait(server, process, place.ports[0], own / "output")
            seconds = time.perf_counter() - started
            yield Running(
                process, place.ports[0], place.log, Start(seconds, usage.memory(process.pid))
            )
        finally:
            usage.end(process)
            shutil.rmtree(own)


def free_ports(count: int) -> tuple[int, ...]:
    """Return free ports."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return tuple(int(probe.getsockname()[1]) for probe in probes)


def _wait(server: Server, process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    """Wait for the first response with status 200."""
    url, body = f"http://127.0.0.1:{port}{server.path}", server.body(1)
    until, reason = time.monotonic() + _READY_SECONDS, ""
    while process.poll() is None and time.monotonic() < until:
        try:
            response = httpx.post(url, json=body, timeout=5)
            if response.status_code == httpx.codes.OK:
                return
            reason = f"status {response.status_code}: {response.text[:500]}"
        except httpx.HTTPError as error:
            reason = str(error)
        time.sleep(0.01)
    text = output.read_text(errors="replace")[-2_000:]
    sys.exit(f"{server.name} does not answer: {reason}\n{text}")


def measure(bench: Bench, server: Server, targets: Sequence[Running], count: int) -> Window:
    """Ask a server, on all its ports at once, for so many rows a request.

    Raises:
        AssertionError: a request failed, or a response that was received is not in mlship's log.
    """
    body = bench.folder / "body.json"
    body.write_text(json.dumps(server.body(count)))
    script = bench.folder / "script.lua"
    script.write_text(_SCRIPT)
    each = bench.connections // len(targets)

    def ask(seconds: float) -> list[dict[str, float]]:
        urls = [f"http://127.0.0.1:{target.port}{server.path}" for target in targets]
        wrk = ["wrk", "-t1", "--timeout", "60s", f"-c{each}", f"-d{seconds:g}s", "-s", str(script)]
        asking = [
            subprocess.Popen(
                [*wrk, url], env=os.environ | {"WRK_BODY": str(body)}, stdout=subprocess.PIPE
            )
            for url in urls
        ]
        outputs = [process.communicate()[0].decode() for process in asking]
        return [json.loads(text.partition("RESULT ")[2]) for text in outputs]

    ask(_WARM_SECONDS)
    before, lines = _processor(targets), _lines(targets)
    results = ask(bench.seconds)
    used = _processor(targets) - before
    failed = sum(result["failed"] for result in results)
    assert not failed, f"{failed:.0f} requests to {server.name} failed"
    requests = sum(result["requests"] for result in results)
    logged = _lines(targets) - lines
    assert server is not MLSHIP or logged >= requests * count, f"{requests} answers, {logged} lines"
    return Window(
        rate=sum(result["requests"] / result["seconds"] for result in results),
        p50=statistics.mean(result["p50"] for result in results),
        p99=max(result["p99"] for result in results),
        processor=used / requests * 1e6,
    )


def _processor(targets: Sequence[Running]) -> float:
    return sum(usage.processor(target.process.pid) for target in targets)


def _lines(targets: Sequence[Running]) -> int:
    """Return how many lines are in the logs; only mlship writes one."""
    files = (path for target in targets if target.log.is_dir() for path in target.log.iterdir())
    return sum(path.read_bytes().count(b"\n") for path in files)


def _medians(windows: Sequence[Window]) -> Window:
    return Window(*(statistics.median(values) for values in zip(*windows, strict=True)))


def _table(windows: Mapping[Case, Sequence[Window]]) -> list[dict[str, object]]:
    """Print a table of each workload, with what the others take beside mlship; return it."""
    rows: list[dict[str, object]] = []
    for workload in dict.fromkeys(workload for _, workload in windows):
        found = {name: _medians(each) for (name, of), each in windows.items() if of == workload}
        mine = found[MLSHIP.name]
        print(f"\n{workload}\n{'':24}requests/s    p50 ms    p99 ms  processor us   x mlship's")
        for name, own in found.items():
            ratio = own.processor / mine.processor
            print(
                f"{name:24}{own.rate:10,.0f}{own.p50:10.2f}{own.p99:10.2f}"
                f"{own.processor:14,.0f}{ratio:13.2f}"
            )
            rows.append({"workload": workload, "server": name, **own._asdict(), "ratio": ratio})
    return rows


def _starts(starts: Mapping[str, Sequence[Start]]) -> dict[str, dict[str, float]]:
    print("\nfrom start to first response, and memory (PSS) after it")
    found = {}
    for name, each in starts.items():
        start = Start(*(statistics.median(values) for values in zip(*each, strict=True)))
        print(f"{name:24}{start.seconds:8.2f} s{start.memory:10.0f} MB")
        found[name] = start._asdict()
    return found


def _floors(folder: Path) -> dict[str, float]:
    """Print and return microseconds of what no server can save: the model, and a durable log."""
    floors = {}
    for served, count in ((LOGISTIC, 1), (LOGISTIC, 32), (FOREST, 1)):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = folder / served.key / "bundle" / "model" / "model.onnx"
        session = onnxruntime.InferenceSession(path, options)
        inputs = {session.get_inputs()[0].name: np.array([ROW] * count, dtype=served.dtype)}
        name = f"onnxruntime, {served.name}, {count} row{'s' * (count > 1)}"
        floors[name] = _taken(lambda session=session, inputs=inputs: session.run(None, inputs))  # type: ignore[misc]
    line = json.dumps({"id": "0" * 32, "release": "0" * 71, "inputs": ROW, "outputs": ROW}).encode()
    with (folder / "bare.log").open("ab", buffering=0) as log:
        for count in (1, 16):

            def append(count: int = count) -> None:
                log.write((line + b"\n") * count)
                os.fdatasync(log.fileno())

            floors[f"a log, {count} line{'s' * (count > 1)} a sync"] = _taken(append)
    print("\nprocessor time of what each request needs")
    for name, taken in floors.items():
        print(f"{name:48}{taken:10,.0f} us")
    return floors


def _taken(call: Callable[[], object]) -> float:
    """Return the median microseconds of the processor that a call takes."""
    parts = []
    for _ in range(10):
        before = time.process_time()
        for _ in range(_LINES // 10):
            call()
        parts.append((time.process_time() - before) / (_LINES // 10) * 1e6)
    return statistics.median(parts)


def _workers(bench: Bench, rounds: int) -> dict[str, float]:
    """Print and return requests/s of one worker, of two, and their ratio; a model of some ms."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for count, measured in rates.items():
            with ExitStack() as stack:
                targets = [stack.enter_context(running(bench, MLSHIP, SLOW)) for _ in range(count)]
                measured.append(measure(bench, MLSHIP, targets, 32).rate)
    one, two = (statistics.median(each) for each in rates.values())
    print(
        f"\n{SLOW.name}, 32 rows: one worker {one:,.0f}/s, two {two:,.0f}/s, {two / one:.2f} times"
    )
    return {"one": one, "two": two, "ratio": two / one}


def _kept(bench: Bench, rounds: int) -> dict[str, float]:
    """Print and return microseconds of the processor a request, without and with kept outputs."""
    keeping = replace(MLSHIP, variables=lambda _: {"MLSHIP_CACHE_ROWS": "1000"})
    bench = bench._replace(servers={**bench.servers, keeping: bench.servers[MLSHIP]})
    used: dict[Server, list[float]] = {MLSHIP: [], keeping: []}
    for _ in range(rounds):
        for server, measured in used.items():
            with running(bench, server, SLOW) as target:
                measured.append(measure(bench, server, [target], 1).processor)
    computed, kept = (statistics.median(each) for each in used.values())
    print(
        f"\n{SLOW.name}, the same row: computed {computed:,.0f} us a request, kept {kept:,.0f} us, "
        f"{computed / kept:.1f} times"
    )
    return {"computed": computed, "kept": kept, "ratio": computed / kept}


if __name__ == "__main__":
    main()
