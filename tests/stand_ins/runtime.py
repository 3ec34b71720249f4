"""A stand-in for `mlship.runtime serve`: the same command line and answers, without a model.

The bundle's folder may hold `stand-in.json`: {"fail": "words", "exit_code": 7, "refuses": "words",
"never_ready": true, "abrupt": true, "drains": true, "start_seconds": 0.5, "answer_seconds": 0.05,
"check_seconds": 0.5, "failing_of_ten": 3}. The check is the one of Envoy.
A POST with the header `poison` ends the process, and one with `allocate` takes so many bytes for a
moment. Every other one is answered with what arrived,
which is also written to a file of the process in the folder of the log. Told to end, one that
drains closes connections with its answers, as the runtime does, and ends when no request has come
for a while.
"""

import json
import mmap
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_QUIET_SECONDS = 0.3


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, options: dict[str, str], behaviour: dict[str, Any]) -> None:
        self.options = options
        self.behaviour = behaviour
        self.active = 0
        self.asked = 0
        self.last = 0.0
        self.is_draining = False
        self.lock = threading.Lock()
        self.ready_at = time.monotonic() + behaviour.get("start_seconds", 0)
        super().__init__((options["host"], int(options["port"])), Handler)

    def is_ready(self) -> bool:
        return not self.behaviour.get("never_ready") and time.monotonic() >= self.ready_at

    def describe(self) -> dict[str, Any]:
        is_ready = self.is_ready()
        body: dict[str, Any] = {
            "ready": is_ready,
            "state": "ready" if is_ready else "starting",
            "release": self.options["release"],
            "bundle": self.options["digest"],
        }
        if "refuses" in self.behaviour:
            error = {"message": self.behaviour["refuses"]}
            body |= {"ready": False, "state": "failed", "error": error}
        return body

    def drain(self, seconds: float) -> None:
        """Answer until no request comes any more, and have connections closed."""
        self.is_draining = True
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            if time.monotonic() - max(self.last, started) >= _QUIET_SECONDS:
                return
            time.sleep(0.02)

    def write(self, line: dict[str, Any]) -> None:
        path = Path(self.options["log"]) / f"{self.options['slot']}-{os.getpid()}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.lock, path.open("a") as file:
            file.write(json.dumps(line) + "\n")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        if self.headers.get("user-agent", "").startswith("Envoy/"):
            time.sleep(self.server.behaviour.get("check_seconds", 0))
        body = self.server.describe()
        self._answer(200 if body["ready"] else 503, body | {"asked": self.server.asked})

    def do_POST(self) -> None:
        with self.server.lock:
            self.server.active += 1
            self.server.asked += 1
            self.server.last = time.monotonic()
        try:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            if "poison" in self.headers:
                os._exit(1)
            if "allocate" in self.headers:
                # Not a bytearray: to fill it takes seconds on a busy machine, in which no check is
                # answered. The kernel counts a private mapping before it is filled.
                private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
                mmap.mmap(-1, int(self.headers["allocate"]), flags=private).close()
            time.sleep(self.server.behaviour.get("answer_seconds", 0))
            line = {
                "slot": self.server.options["slot"],
                "pid": os.getpid(),
                "workers": self.server.options.get("workers"),
                "timeout": self.server.options.get("timeout"),
                "host": self.headers["host"],
                "id": self.headers.get("x-request-id"),
                "headers": dict(self.headers.items()),
            }
            self.server.write(line)
            is_failing = self.server.asked % 10 < self.server.behaviour.get("failing_of_ten", 0)
            status = 500 if is_failing else 200
            self._answer(status if self.server.is_ready() else 503, line)
        finally:
            with self.server.lock:
                self.server.active -= 1

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("mlship-release", self.server.options["name-of-release"])
        if self.server.is_draining:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        return


def main(arguments: list[str]) -> int:
    if arguments[0] != "serve":
        return 2
    pairs = zip(arguments[1::2], arguments[2::2], strict=True)
    options = {name.removeprefix("--"): value for name, value in pairs}
    file = Path(options["bundle"]) / "stand-in.json"
    behaviour = json.loads(file.read_text()) if file.exists() else {}
    if "fail" in behaviour:
        sys.stderr.write(behaviour["fail"] + "\n")
        return int(behaviour.get("exit_code", 1))
    server = Server(options, behaviour)
    ended = threading.Event()
    is_abrupt = behaviour.get("abrupt", False)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(1) if is_abrupt else ended.set())
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    ended.wait()
    if behaviour.get("drains"):
        server.drain(float(options["shutdown-seconds"]))
    server.shutdown()
    deadline = time.monotonic() + float(options["shutdown-seconds"])
    while server.active and time.monotonic() < deadline:
        time.sleep(0.01)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
