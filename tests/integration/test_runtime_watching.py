"""The access log of a server as a process."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

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
        served = Served(
            tmp_path, tmp_path / "iris", port, {**os.environ, **variables}, subprocess.PIPE
        )
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
    assert httpx.get(f"{served.url}/v2/health/live").status_code == 200
    assert "access_log" not in httpx.get(f"{served.url}/metrics").text
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
