"""The server with its workers as processes: what ends or hangs in one, and slow clients."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from mlship.adapters.targets.local import probe
from mlship.adapters.targets.local.observation import restarts_of
from tests.harness import asking
from tests.harness.bundles import SETOSA
from tests.integration import test_runtime_serve
from tests.integration.test_runtime_serve import Serve, Served

port = test_runtime_serve.port
serve = test_runtime_serve.serve

POISON = """
import os, time
def preprocess(rows):
    if (rows.sepal_length == 66.0).any():
        os.abort()
    if (rows.sepal_length == 77.0).any():
        time.sleep(60)
    return rows
"""


def row(length: float) -> dict[str, object]:
    return {**SETOSA, "sepal_length": length}


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.02)


def is_ready(served: Served) -> bool:
    return asking.get(f"{served.url}/v2/health/ready").status_code == 200


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def test_a_request_that_ends_the_worker_costs_itself_alone(serve: Serve) -> None:
    served = serve(preprocess=POISON)
    with httpx.Client(base_url=served.url, timeout=30) as client:
        for count in (1, 2):
            poison = client.post(
                "/predict",
                json=row(66.0),
                headers={"x-request-id": "6f1c3f0e-8a1b-4c1d-9e2f-01234567890" + str(count)},
            )
            assert poison.status_code == 500
            message = poison.json()["error"]["message"]
            assert "ended by signal SIGABRT while it computed this request" in message
            assert client.get("/v2/health/live").status_code == 200
            after = client.post("/predict", json=SETOSA)
            assert after.status_code == 200, "it waits for the new worker"
        ready = client.get("/v2/health/ready").json()
        assert (ready["restarts"], ready["hung"], ready["state"]) == (2, 0, "ready")
        assert ready["last_restart"] == "ended by signal SIGABRT"
        metrics = client.get("/metrics").text
    answer = probe.ask(int(served.url.rpartition(":")[2]), seconds=5)
    assert answer is not None
    restarts = restarts_of({1: answer})
    assert restarts is not None
    assert (restarts.workers, restarts.hung) == (2, 0), "what status shows of a local target"
    assert restarts.reasons == ("a worker of replica 1 ended by signal SIGABRT",)
    assert "mlship_worker_restarts_total 2.0" in metrics
    # The server counts, so that no count is lost with a worker.
    assert 'mlship_requests_total{route="/predict",status="200"} 2.0' in metrics
    assert 'mlship_requests_total{route="/predict",status="500"} 2.0' in metrics
    assert 'mlship_refused_total{reason="crashed"} 2.0' in metrics
    assert 'class="setosa",output="species"' in metrics
    assert "mlship_queue_seconds_count 2.0" in metrics
    assert "mlship_open_requests 1.0" in metrics, "the one that reads the metrics"
    assert "while it computed 6f1c3f0e-8a1b-4c1d-9e2f-012345678901; " in served.errors.read_text()
    assert len(served.logged()) == 2, "what was not answered is not logged"


SPOILED = """
state = []
def preprocess(rows):
    if (rows.sepal_length == 66.0).any():
        state.append(1)
    if state:
        raise RuntimeError("device-side assert triggered")
    return rows
"""


def test_a_worker_that_cannot_compute_any_more_is_replaced(serve: Serve) -> None:
    served = serve(preprocess=SPOILED)
    with httpx.Client(base_url=served.url, timeout=30) as client:
        for count in (1, 2):
            assert client.post("/predict", json=row(66.0)).status_code == 500
            assert client.post("/predict", json=SETOSA).status_code == 200, "of the new worker"
            ready = client.get("/v2/health/ready").json()
            assert ready["restarts"] == count
        assert ready["last_restart"].startswith("failed its check: golden example 0: the hook")


KILLED = """
import os, signal, time
def preprocess(rows):
    if len(rows) == 95_000:
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
    return rows
"""


def test_a_worker_that_is_killed_in_a_large_computation_costs_that_request_alone(
    serve: Serve,
) -> None:
    """Four of these would not fit into the memory if that of the first three stayed taken."""
    served = serve(preprocess=KILLED)
    rows = b"[" + b",".join([json.dumps(SETOSA).encode()] * 95_000) + b"]"
    usual = b"[" + b",".join([json.dumps(SETOSA).encode()] * 30_000) + b"]"
    with httpx.Client(base_url=served.url, timeout=30) as client, ThreadPoolExecutor(1) as pool:
        # From now on it is known how long such a request takes, so that nobody is refused for it.
        assert client.post("/predict", content=usual).status_code == 200
        for _ in range(4):
            large = pool.submit(httpx.post, f"{served.url}/predict", content=rows, timeout=30)
            until(lambda: "mlship_open_requests 2.0" in client.get("/metrics").text)
            assert client.post("/predict", json=SETOSA).status_code == 200, "it waits"
            assert large.result().status_code == 500
            assert "SIGKILL while it computed this request" in large.result().text
    assert len(served.logged()) == 30_004


FORKING = """
import os
def preprocess(rows):
    if (rows.sepal_length == 88.0).any():
        os.fork()
    return rows
"""


def test_a_fork_that_comes_back_from_a_hook_answers_nobody(serve: Serve) -> None:
    served = serve(preprocess=FORKING)
    with httpx.Client(base_url=served.url, timeout=30) as client:

        def answer(length: float) -> object:
            [prediction] = client.post("/predict", json=row(length)).json()["predictions"]
            return {name: prediction[name] for name in prediction if name != "id"}

        expected = {length: answer(length) for length in (4.0, 7.0, 88.0)}
        lengths = ([4.0, 7.0] * 4 + [88.0]) * 10
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(answer, lengths))
        assert answers == [expected[length] for length in lengths]
        assert client.get("/v2/health/ready").json()["restarts"] == 0
    [worker] = children(served.process.pid)
    until(lambda: all(map(is_over, children(worker))))


def is_over(pid: int) -> bool:
    """Return whether a process has ended, and nobody has asked for its exit code yet."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_readiness_is_false_while_no_worker_is_ready(serve: Serve) -> None:
    served = serve(preprocess=POISON)
    [worker] = children(served.process.pid)
    os.kill(worker, signal.SIGSTOP)
    os.kill(worker, signal.SIGKILL)
    until(lambda: not is_ready(served))
    ready = asking.get(f"{served.url}/v2/health/ready").json()
    assert ready["state"] == "restarting"
    until(lambda: is_ready(served))
    assert children(served.process.pid) != [worker]


def test_a_request_that_a_worker_has_not_read_when_it_ends_is_answered(serve: Serve) -> None:
    served = serve(preprocess=POISON)
    [worker] = children(served.process.pid)
    os.kill(worker, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(httpx.post, f"{served.url}/predict", json=SETOSA, timeout=60)
        in_flight = "mlship_in_flight 1.0"
        until(lambda: in_flight in asking.get(f"{served.url}/metrics").text)
        os.kill(worker, signal.SIGKILL)
        assert sent.result().status_code == 200
    ready = asking.get(f"{served.url}/v2/health/ready").json()
    assert (ready["restarts"], ready["last_restart"]) == (1, "ended by signal SIGKILL")
    assert len(served.logged()) == 1


def test_a_hung_request_gets_504_and_its_worker_is_replaced(serve: Serve) -> None:
    served = serve(preprocess=POISON)
    with httpx.Client(base_url=served.url, timeout=30) as client, ThreadPoolExecutor(1) as pool:
        hung = pool.submit(
            httpx.post,
            f"{served.url}/predict",
            json=row(77.0),
            headers={"mlship-timeout": "3"},
            timeout=30,
        )
        until(lambda: "mlship_in_flight 1.0" in client.get("/metrics").text)
        assert client.get("/v2/health/live").status_code == 200, "probes do not wait"
        assert client.post("/predict", json=SETOSA).status_code == 200, "by the next worker"
        assert hung.result().status_code == 504
        ready = client.get("/v2/health/ready").json()
        assert (ready["restarts"], ready["hung"]) == (1, 1)
    assert "did not answer" in served.errors.read_text()


def test_a_busy_model_refuses_with_429_and_when_to_retry(serve: Serve) -> None:
    served = serve(
        preprocess="import time\ndef preprocess(rows):\n    time.sleep(0.3)\n    return rows"
    )

    def ask(_: int) -> httpx.Response:
        return asking.post(
            f"{served.url}/predict", json=SETOSA, headers={"mlship-timeout": "2"}, timeout=30
        )

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {200, 429, 504}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert statuses.count(200) >= 3
    assert refused
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    bad = asking.post(f"{served.url}/predict", json=SETOSA, headers={"mlship-timeout": "-1"})
    assert bad.status_code == 400


@pytest.mark.cold
def test_a_worker_does_not_see_the_password_of_the_log(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "secret")
    served = serve(preprocess=POISON)
    [worker] = children(served.process.pid)
    assert b"secret" not in Path(f"/proc/{worker}/environ").read_bytes()
    assert b"secret" in Path(f"/proc/{served.process.pid}/environ").read_bytes()


@pytest.mark.cold
def test_workers_end_with_a_server_that_is_killed(serve: Serve) -> None:
    served = serve(preprocess=POISON)
    [worker] = children(served.process.pid)
    served.process.kill()
    served.process.wait(10)
    until(
        lambda: (
            not Path(f"/proc/{worker}/cmdline").exists()
            or not Path(f"/proc/{worker}/cmdline").read_bytes()
        )
    )


@pytest.mark.cold
def test_the_server_loads_neither_the_model_nor_its_libraries(serve: Serve) -> None:
    served = serve(preprocess=POISON)
    maps = Path(f"/proc/{served.process.pid}/maps").read_text()
    assert "numpy" not in maps
    assert "onnxruntime" not in maps
    [worker] = children(served.process.pid)
    assert "onnxruntime" in Path(f"/proc/{worker}/maps").read_text()


def test_a_large_body_gets_413_however_it_is_sent_and_no_reset(serve: Serve) -> None:
    served = serve()
    host = served.url.removeprefix("http://").split(":")
    for head in (b"content-length: 100000000", b"transfer-encoding: chunked"):
        with socket.create_connection((host[0], int(host[1])), 20) as client:
            client.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n\r\n")
            part = b" " * 1_000_000
            if b"chunked" in head:
                part = b"f4240\r\n" + part + b"\r\n"
            for _ in range(100):
                client.sendall(part)
            answer = b""
            while data := client.recv(65536):
                answer += data
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer
    assert asking.post(f"{served.url}/predict", json=SETOSA).status_code == 200


def test_slow_clients_are_cut_off_and_others_do_not_notice(serve: Serve) -> None:
    served = serve()
    host = served.url.removeprefix("http://").split(":")
    address = host[0], int(host[1])
    slow = [socket.create_connection(address, 20) for _ in range(200)]
    try:
        for client in slow:
            client.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\n")
        for _ in range(20):
            assert asking.post(f"{served.url}/predict", json=SETOSA).status_code == 200
        for client in slow:
            assert client.recv(65536).startswith(b"HTTP/1.1 408 ")
    finally:
        for client in slow:
            client.close()


def test_a_connection_is_kept_for_many_requests(serve: Serve) -> None:
    served = serve()
    host = served.url.removeprefix("http://").split(":")
    body = json.dumps(SETOSA).encode()
    request = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )
    with socket.create_connection((host[0], int(host[1])), 20) as client:
        client.sendall(request * 50)
        answer = b""
        while answer.count(b"HTTP/1.1 200 OK") < 50:
            data = client.recv(65536)
            assert data
            answer += data
    assert len(served.logged()) == 50


def test_two_workers_serve_and_end(serve: Serve) -> None:
    served = serve("--workers", "2")
    until(lambda: len(children(served.process.pid)) == 2)
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda _: asking.post(f"{served.url}/predict", json=SETOSA), range(40))
        assert [answer.status_code for answer in answers] == [200] * 40
    served.process.terminate()
    assert served.process.wait(20) == 0
