"""What bursts of large requests take of the memory.

    python benchmarks/bursts.py [--former FOLDER] [--bursts 1,2,32,256] [--json FILE]

A burst is so many requests of 95,000 rows (9.8 MB) at once, each on a connection of its own. Of
each server, started anew for each burst, the peak is what all of its processes take together (PSS:
what they share is counted once). The responses are counted by status: each is 200, or a refusal
with Retry-After.

--former is a checkout of another version, measured in the same run: the ratio is what the change
brings. It fails if this version gives a response that is neither 200 nor has Retry-After, or ends.
"""

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import serving_usage as usage
from serving_models import LOGISTIC, write
from serving_peers import COLUMNS, ROOT

ROWS: Final = 95_000
_WAIT_SECONDS: Final = 60.0
_SAMPLE_SECONDS: Final = 0.02
_PIECE: Final = 1 << 16


class Burst(NamedTuple):
    """What a burst took.

    Attributes:
        idle: megabytes before it.
        peak: the most megabytes meanwhile.
        statuses: the number of responses of each status.
    """

    idle: float
    peak: float
    statuses: dict[str, int]


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--former", type=Path, help="checkout of the version to compare with")
    parser.add_argument("--bursts", default="1,2,32,256")
    parser.add_argument("--json", type=Path, help="file that takes the figures")
    options = parser.parse_args()
    sides = {"this": ROOT} | ({"former": options.former} if options.former else {})
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(LOGISTIC, folder)
        body = _body(ROWS)
        for size in map(int, options.bursts.split(",")):
            for side, root in sides.items():
                with running(root, folder) as (process, port):
                    burst = measured(process.pid, port, body, size)
                if side == "this" and any("without" in status for status in burst.statuses):
                    sys.exit(f"responses that are no refusals with retry-after: {burst.statuses}")
                report[f"{side}, {size}"] = burst._asdict()
                text = f"{burst.idle:.0f} MB idle, peak {burst.peak:.0f} MB, {burst.statuses}"
                print(f"{size} requests of {ROWS:,} rows, {side}: {text}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def _body(rows: int) -> bytes:
    source = np.random.default_rng(12)
    values = source.uniform(0.1, 7.9, (rows, len(COLUMNS))).round(4)
    return json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in values.tolist()]).encode()


@contextmanager
def running(root: Path, folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """Run the server of a checkout with the model in a folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "mlship.runtime", "serve", "--bundle", str(folder / "bundle")]
    command += ["--release", "sha256:" + "0" * 64, "--slot", "r0", "--port", str(port)]
    with tempfile.TemporaryDirectory(dir=folder) as log:
        process = subprocess.Popen(
            [*command, "--log", log], cwd=root, env=os.environ | {"PYTHONPATH": str(root)}
        )
        try:
            _wait(process, port)
            yield process, port
            if process.poll() is not None:
                sys.exit(f"the server ended with code {process.returncode}")
        finally:
            usage.end(process)


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    sys.exit("the server did not become ready")


def measured(pid: int, port: int, body: bytes, size: int) -> Burst:
    """Send a burst, and look at the memory meanwhile."""
    statuses: Counter[str] = Counter()
    clients = [threading.Thread(target=_ask, args=(port, body, statuses)) for _ in range(size)]
    idle = peak = usage.memory(pid)
    for client in clients:
        client.start()
    while any(client.is_alive() for client in clients):
        peak = max(peak, usage.memory(pid))
        time.sleep(_SAMPLE_SECONDS)
    return Burst(idle, peak, dict(statuses))


def _ask(port: int, body: bytes, statuses: Counter[str]) -> None:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("POST", "/predict", body, {"content-type": "application/json"})
        response = connection.getresponse()
        while response.read(_PIECE):
            pass
        is_told = response.status == 200 or response.getheader("retry-after")
        statuses[f"{response.status}{'' if is_told else ' without retry-after'}"] += 1
        connection.close()
    except OSError as error:
        statuses[type(error).__name__] += 1


if __name__ == "__main__":
    main()
