"""The access log and the traces of a server as a process."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.harness import asking
from tests.harness.bundles import SETOSA, iris_bundle
from tests.integration import test_runtime_serve
from tests.integration.test_runtime_serve import Served
from tests.integration.test_runtime_workers import children, is_ready, until

port = test_runtime_serve.port
Watch = Callable[..., Served]


@pytest.fixture
def watch(tmp_path: Path, port: int) -> Iterator[Watch]:
    """Return a function that starts a server whose stdout is a pipe."""
    started: list[Served] = []

    def watch(**variables: str) -> Served:
        iris_bundle(tmp_path / "iris")
        environment = {**os.environ, **variables}
        served = Served(tmp_path, tmp_path / "iris", port, environment, stdout=subprocess.PIPE)
        started.append(served)
        served.wait()
        return served

    yield watch
    for served in started:
        served.process.kill()
        served.process.communicate(timeout=10)


def lines_of(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_each_request_is_a_line_also_after_a_worker_was_killed(watch: Watch) -> None:
    served = watch(MLSHIP_ACCESS_LOG="json")
    with httpx.Client(base_url=served.url) as client:
        answer = client.post("/predict", json=[SETOSA, SETOSA])
        (worker,) = children(served.process.pid)
        os.kill(worker, signal.SIGKILL)
        until(lambda: "mlship_worker_restarts_total 1.0" in client.get("/metrics").text)
        until(lambda: is_ready(served))
        assert client.post("/predict", json=SETOSA).status_code == 200
        assert client.post("/predict", json={}).status_code == 400
    served.process.terminate()
    output, _ = served.process.communicate(timeout=10)
    assert served.process.returncode == 0
    lines = [line for line in lines_of(output) if line["path"] == "/predict"]
    assert [(line["status"], line.get("rows"), line.get("reason")) for line in lines] == [
        (200, 2, None),
        (200, 1, None),
        (400, None, "invalid"),
    ]
    assert answer.json()["predictions"][1]["id"] == f"{lines[0]['id']}.1"
    assert 0 <= lines[0]["queue_ms"] <= lines[0]["ms"]


def test_an_output_that_nobody_reads_blocks_no_request(watch: Watch) -> None:
    served = watch(MLSHIP_ACCESS_LOG="json")
    with httpx.Client(base_url=served.url) as client:
        for _ in range(700):
            assert client.get("/" + "%01" * 500).status_code == 404
        until(lambda: dropped(client.get("/metrics").text) > 0)
        assert client.post("/predict", json=SETOSA).status_code == 200
    served.process.terminate()
    assert served.process.wait(10) == 0, "it ends, too"


def test_without_the_setting_nothing_is_written(watch: Watch) -> None:
    served = watch(MLSHIP_ACCESS_LOG="")
    assert asking.get(f"{served.url}/v2/health/live").status_code == 200
    assert "access_log" not in asking.get(f"{served.url}/metrics").text
    served.process.terminate()
    output, _ = served.process.communicate(timeout=10)
    assert output == b""


def test_another_form_is_refused_at_the_start(watch: Watch) -> None:
    served = watch(MLSHIP_ACCESS_LOG="xml")
    assert served.process.wait(10) == 2
    assert "'xml' is neither json nor off" in served.errors.read_text()


def dropped(text: str) -> float:
    (value,) = re.findall(r"^mlship_access_log_dropped_total (.*)$", text, re.MULTILINE)
    return float(value)


class Collector:
    """What takes spans over HTTP, and keeps them."""

    def __init__(self) -> None:
        spans: list[Any] = []
        resources: list[dict[str, str]] = []
        headers: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers.append(self.headers.get("api-key", ""))
                for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                    attributes = group.resource.attributes
                    resources.append({each.key: each.value.string_value for each in attributes})
                    spans.extend(span for scope in group.scope_spans for span in scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *_: object) -> None:  # noqa: A002 (its name)
                pass

        self.spans, self.resources, self.headers = spans, resources, headers
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    yield collector
    collector.server.shutdown()
    thread.join()
    collector.server.server_close()


def test_spans_reach_a_collector_and_its_key_no_worker(watch: Watch, collector: Collector) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    served = watch(
        MLSHIP_ACCESS_LOG="json",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        OTEL_EXPORTER_OTLP_HEADERS="api-key=hidden",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
    )
    (worker,) = children(served.process.pid)
    assert b"api-key=hidden" not in Path(f"/proc/{worker}/environ").read_bytes()
    with httpx.Client(base_url=served.url) as client:
        client.post("/predict", json=SETOSA, headers={"traceparent": f"00-{trace}-{'1' * 16}-01"})
        client.post("/predict", json=SETOSA)
        client.get("/v2/health/ready")
    served.process.terminate()
    output, _ = served.process.communicate(timeout=10)
    assert served.process.returncode == 0
    spans = [(span.name, span.trace_id.hex()) for span in collector.spans]
    other = next(
        line["trace"] for line in lines_of(output) if line.get("trace") not in (None, trace)
    )
    assert sorted(spans) == sorted(
        (name, each) for name in ("POST /predict", "queue", "model") for each in (trace, other)
    ), "they are sent at the end, too"
    assert (
        collector.resources[0].items()
        >= {
            "service.name": "iris",
            "service.version": test_runtime_serve.RELEASE,
            "deployment.environment.name": "test",
        }.items()
    )
    assert collector.headers[0] == "hidden"


@pytest.mark.parametrize("listens", [False, True])
def test_a_collector_that_is_down_or_hangs_costs_spans_and_no_request(
    watch: Watch, *, listens: bool
) -> None:
    with socket.socket() as collector:
        collector.bind(("127.0.0.1", 0))
        if listens:
            collector.listen()
        endpoint = f"http://127.0.0.1:{collector.getsockname()[1]}"
        served = watch(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_BSP_MAX_QUEUE_SIZE="512")
        with httpx.Client(base_url=served.url) as client:
            for _ in range(300):
                assert client.post("/predict", json=SETOSA).status_code == 200
        served.process.terminate()
        assert served.process.wait(10) == 0, "nor the end of the replica"
    assert len(served.logged()) == 300


def test_a_replica_without_the_package_says_so_and_serves(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "absent").mkdir()
    source = "import sys\nsys.modules['opentelemetry.exporter.otlp'] = None\n"
    (tmp_path / "absent" / "sitecustomize.py").write_text(source)
    served = watch(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", PYTHONPATH=str(tmp_path / "absent")
    )
    assert asking.post(f"{served.url}/predict", json=SETOSA).status_code == 200
    assert "traces are not sent: OTEL_EXPORTER_OTLP_ENDPOINT is set" in served.errors.read_text()
