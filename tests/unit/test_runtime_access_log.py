"""The access log: what is in a line, and lines that nobody reads."""

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlship.runtime import access_log
from mlship.runtime.access_log import MOST_BYTES, WRITE_BYTES, AccessLog, Line, LineWriter
from mlship.runtime.observers import Observers
from mlship.runtime.options import Identity
from mlship.runtime.service import Service
from tests.harness.bundles import SETOSA, VIRGINICA, iris_bundle
from tests.harness.served import FRESH, NOON, RELEASE, Memory, caller, service_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
IDENTITY = Identity(release=RELEASE, name="iris@abababababab", slot="rabababababab")


class Output:
    """What lines are written to; it can be full, or closed."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.is_closed = False
        self.room = threading.Event()
        self.room.set()
        self.is_waiting = threading.Event()

    def write(self, data: bytes) -> None:
        self.is_waiting.set()
        self.room.wait()
        if self.is_closed:
            raise BrokenPipeError
        self.parts.append(data)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in b"".join(self.parts).splitlines()]


def key_of(headers: Mapping[str, str]) -> str:
    """Name the key in the header x-api-key."""
    return {"secret": "web"}.get(headers.get("x-api-key", ""), "")


class Timers:
    """Functions that an event loop would call later."""

    def __init__(self) -> None:
        self.functions: list[Callable[[], None]] = []

    def later(self, _seconds: float, function: Callable[[], None]) -> None:
        self.functions.append(function)


class Watched:
    """A service whose responses are logged."""

    def __init__(self, folder: Path) -> None:
        self.memory, self.output, self.timers = Memory(), Output(), Timers()
        self.service: Service = service_of(folder, self.memory)
        self.service.warm_up(folder)
        self.log = AccessLog(LineWriter(self.output.write), self.timers.later)
        self.observers = Observers(IDENTITY, self.service.metrics, self.log, None, key_of)
        self.service.observe(self.observers.answered)
        self.call = caller(self.service)

    def lines(self) -> list[dict[str, Any]]:
        """Return all lines, after the end of the log."""
        self.observers.close()
        return self.output.lines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "iris"
    iris_bundle(folder)
    return folder


@pytest.fixture
def watched(folder: Path) -> Watched:
    return Watched(folder)


def test_a_line_has_the_name_of_the_api_key_and_not_the_key(watched: Watched) -> None:
    for key in ("secret", "wrong"):
        watched.call("POST", "/predict", SETOSA, x_api_key=key)
    known, other = watched.lines()
    assert known["key"] == "web"
    assert "key" not in other
    assert b"secret" not in b"".join(watched.output.parts)


def test_a_request_is_a_line_without_values_and_without_headers(watched: Watched) -> None:
    watched.call(
        "POST",
        "/predict",
        [SETOSA, VIRGINICA],
        traceparent=PARENT,
        authorization="Bearer hidden",
        cookie="hidden",
    )
    (line,) = watched.lines()
    assert line.pop("ms") >= 0
    assert line.pop("time").endswith("Z")
    assert line == {
        "method": "POST",
        "path": "/predict",
        "status": 200,
        "queue_ms": 0.0,
        "rows": 2,
        "id": FRESH,
        "release": "iris@abababababab",
        "slot": "rabababababab",
        "trace": TRACE,
    }


def test_a_refusal_has_its_reason_and_not_its_message(watched: Watched) -> None:
    watched.call("POST", "/predict", SETOSA | {"petal_width": "hidden"})
    watched.call("GET", "/nothing")
    watched.memory.is_full = True
    watched.call("POST", "/predict", SETOSA)
    lines = watched.lines()
    assert [(line["status"], line["reason"]) for line in lines] == [
        (400, "invalid"),
        (404, "not_found"),
        (503, "log"),
    ]
    assert b"hidden" not in b"".join(watched.output.parts)


@pytest.mark.parametrize(
    "path",
    [
        '/a"}\n{"status": 200, "path": "/forged',
        "/\x00\x1b[31m\u2028\r\n",
        "/" + "\x01" * 5_000,
        "/" + "\U0001f600" * 5_000,
        "/\ufffd",
    ],
)
def test_a_hostile_path_stays_one_line_of_json(watched: Watched, path: str) -> None:
    watched.call("G" * 5_000, path)
    (line,) = watched.lines()
    assert line["path"] == path[:500]
    assert line["method"] == "G" * 20
    (written,) = b"".join(watched.output.parts).split(b"\n")[:-1]
    assert len(written) < WRITE_BYTES


def test_what_is_no_request_has_a_line_and_is_counted(watched: Watched) -> None:
    watched.observers.refused(b"/pre%0Adict?key=hidden", 408)
    watched.observers.refused(b"", 400)
    lines = watched.lines()
    assert [(line.get("path"), line["status"], line["reason"]) for line in lines] == [
        ("/pre\ndict", 408, "slow"),
        (None, 400, "invalid"),
    ]
    text = watched.service.metrics.text().decode()
    assert 'mlship_refused_total{reason="slow"} 1.0' in text


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (PARENT, TRACE),
        (PARENT + "-more", TRACE),
        ("ff" + PARENT[2:], ""),
        (PARENT.replace(TRACE, "0" * 32), ""),
        (PARENT.replace("00f067aa0ba902b7", "0" * 16), ""),
        (PARENT.upper(), ""),
        ('"}', ""),
        ("", ""),
    ],
)
def test_a_trace_id_is_that_of_a_valid_traceparent(header: str, trace: str) -> None:
    assert access_log.trace_of(header) == trace


def test_lines_of_a_tenth_of_a_second_are_handed_over_together(watched: Watched) -> None:
    for _ in range(3):
        watched.call("GET", "/v2/health/live")
    assert len(watched.timers.functions) == 1
    watched.timers.functions[0]()
    watched.call("GET", "/v2/health/live")
    assert len(watched.timers.functions) == 2
    assert len(watched.lines()) == 4


def line_of(path: str) -> bytes:
    return access_log.encoded(
        Line(time=NOON, method="GET", path=path, status=200, release="r", slot="s")
    )


def test_lines_that_nobody_reads_are_dropped_and_counted_and_block_nobody() -> None:
    output = Output()
    output.room.clear()
    writer = LineWriter(output.write)
    writer.put([line_of("/first")])
    assert output.is_waiting.wait(10), "the thread writes, and the output is full"
    line = line_of("/next")
    room = (MOST_BYTES - len(line_of("/first"))) // len(line)
    for _ in range(room + 7):
        writer.put([line])
    assert writer.dropped == 7
    output.room.set()
    writer.close(10)
    assert len(output.lines()) == 1 + room
    assert {line["path"] for line in output.lines()} == {"/first", "/next"}
    assert all(len(part) <= WRITE_BYTES and part.endswith(b"\n") for part in output.parts)


def test_a_replica_ends_although_its_output_is_full() -> None:
    output = Output()
    output.room.clear()
    writer = LineWriter(output.write)
    writer.put([line_of("/")])
    assert output.is_waiting.wait(10)
    writer.close(0.01)
    assert output.parts == []
    output.room.set()
    writer.close(10)


def test_lines_for_a_closed_output_are_counted(watched: Watched) -> None:
    watched.output.is_closed = True
    watched.call("GET", "/v2/health/live")
    watched.observers.close()
    (family,) = (
        family
        for family in text_string_to_metric_families(watched.service.metrics.text().decode())
        if family.name == "mlship_access_log_dropped"
    )
    assert [sample.value for sample in family.samples] == [1.0]
