"""The server as a process: its signals, its log, its exit codes."""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from mlship.adapters.observations.removal import DirectoryRemovals
from mlship.domain.prediction import Prediction
from mlship.domain.removal import Selection
from tests.harness import asking, commands, serving, variables
from tests.harness.bundles import SETOSA, iris_bundle

RELEASE = "sha256:" + "ab" * 32
SLOW = "import time\ndef preprocess(rows):\n    time.sleep(0.8)\n    return rows"
LOUD = "print('imported')\ndef preprocess(rows):\n    print('called')\n    return rows"


class Served:
    """A serving process with the address and the log that it was given."""

    def __init__(
        self,
        folder: Path,
        bundle: Path,
        port: int,
        environment: Mapping[str, str] = os.environ,
        *more: str,
        stdout: int | None = None,
        is_cold: bool = False,
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "log"
        options = ["--bundle", str(bundle), "--release", RELEASE, "--slot", "rabab"]
        options += ["--name-of-release", "iris@abababababab", "--port", str(port)]
        options += ["--log", str(self.log), "--shutdown-seconds", "2", *more]
        self.errors = folder / f"stderr-{port}"
        with self.errors.open("wb") as errors:
            self.process: Any = serving.start(
                options, environment=environment, stdout=stdout, errors=errors, is_cold=is_cold
            )

    def wait(self) -> None:
        """Wait until the process answers at all, or is gone."""
        until = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < until:
            try:
                asking.get(f"{self.url}/v2/health/live", timeout=1)
            except httpx.TransportError:
                time.sleep(0.02)
            else:
                return

    def wait_for_request(self) -> None:
        """Wait until a worker computes one."""
        until = time.monotonic() + 20
        while "mlship_in_flight 1.0" not in asking.get(f"{self.url}/metrics").text:
            assert time.monotonic() < until, "no request arrived"
            time.sleep(0.02)

    def logged(self) -> list[str]:
        decoder = msgspec.json.Decoder(Prediction)
        return [
            decoder.decode(line).id
            for path in self.log.glob("*.jsonl")
            for line in path.read_bytes().splitlines(keepends=True)
            if line.endswith(b"\n")
        ]


Serve = Callable[..., Served]
ADDRESS = re.compile(r"iris@abababababab at http://127\.0\.0\.1:(\d+)/docs")


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def serve(request: pytest.FixtureRequest, tmp_path: Path, port: int) -> Iterator[Serve]:
    started: list[Served] = []
    is_cold = request.node.get_closest_marker("cold") is not None

    def serve(*more: str, **options: Any) -> Served:
        bundle = tmp_path / "iris"
        if not bundle.exists():
            iris_bundle(bundle, **options)
        served = Served(tmp_path, bundle, port, os.environ, *more, is_cold=is_cold)
        started.append(served)
        served.wait()
        return served

    yield serve
    for served in started:
        served.process.kill()
        served.process.wait(10)


@pytest.mark.cold
def test_it_serves_logs_and_ends_with_zero(serve: Serve) -> None:
    served = serve()
    ready = asking.get(f"{served.url}/v2/health/ready")
    assert ready.json()["release"] == RELEASE
    answer = asking.post(f"{served.url}/predict", json=[SETOSA, SETOSA])
    assert answer.headers["mlship-release"] == "iris@abababababab"
    assert served.logged() == [row["id"] for row in answer.json()["predictions"]]
    assert asking.get(f"{served.url}/", follow_redirects=True).url.path == "/docs"
    served.process.terminate()
    assert served.process.wait(10) == 0


def test_a_free_port_is_told_when_it_listens(tmp_path: Path) -> None:
    bundle = tmp_path / "iris"
    iris_bundle(bundle)
    served = Served(tmp_path, bundle, 0)
    try:
        until = time.monotonic() + 60
        while (found := ADDRESS.search(served.errors.read_text())) is None:
            assert time.monotonic() < until, "no address was told"
            time.sleep(0.02)
        assert found[1] != "0"
        assert asking.get(f"http://127.0.0.1:{found[1]}/v2/health/ready").status_code == 200
    finally:
        served.process.kill()
        served.process.wait(10)


def test_a_row_that_is_kept_has_the_same_outputs_and_an_id_of_its_own(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSHIP_CACHE_ROWS", "10")
    served = serve()
    answers = [asking.post(f"{served.url}/predict", json=SETOSA).json() for _ in range(3)]
    predictions = [answer["predictions"][0] for answer in answers]
    ids = {prediction.pop("id") for prediction in predictions}
    assert predictions == [predictions[0]] * 3
    assert sorted(served.logged()) == sorted(ids)
    assert len(ids) == 3
    assert "mlship_cached_rows_total 2.0" in asking.get(f"{served.url}/metrics").text


def test_a_request_that_runs_when_it_is_told_to_stop_is_answered(serve: Serve) -> None:
    served = serve(preprocess=SLOW)
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=served.url, timeout=10) as client:
        asked = pool.submit(httpx.post, f"{served.url}/predict", json=SETOSA, timeout=10)
        served.wait_for_request()
        served.process.terminate()
        time.sleep(0.1)
        probe = client.get("/v2/health/ready")  # a slow model does not keep probes waiting
        assert (probe.status_code, probe.json()["state"]) == (503, "draining")
        assert asked.result(10).status_code == 200
    assert served.process.wait(10) == 0
    assert len(served.logged()) == 1


@pytest.mark.cold
def test_what_a_hook_asked_for_at_exit_runs(serve: Serve, tmp_path: Path) -> None:
    left = tmp_path / "left"
    hook = f"import atexit, pathlib\natexit.register(pathlib.Path({str(left)!r}).touch)\n"
    served = serve(preprocess=f"{hook}def preprocess(rows):\n    return rows")
    assert not left.exists()
    served.process.terminate()
    assert served.process.wait(10) == 0
    assert left.exists()


def test_an_endless_request_is_cut_off_and_told(serve: Serve) -> None:
    served = serve(preprocess=SLOW.replace("0.8", "30 if len(rows) == 3 else 0.01"))
    threading.Thread(target=_ask, args=(served.url, [SETOSA] * 3), daemon=True).start()
    served.wait_for_request()
    served.process.terminate()
    assert served.process.wait(15) == 6
    assert "1 requests did not finish within 2 seconds" in served.errors.read_text()


def test_no_acknowledged_prediction_is_lost_by_a_kill(serve: Serve) -> None:
    served = serve()
    acknowledged: list[str] = []

    def load() -> None:
        with httpx.Client(base_url=served.url) as client:
            while True:
                try:
                    answer = client.post("/predict", json=SETOSA)
                except httpx.TransportError:
                    return
                acknowledged.append(answer.json()["predictions"][0]["id"])

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 30
    while len(acknowledged) <= 100 and time.monotonic() < until:
        time.sleep(0.02)
    served.process.send_signal(signal.SIGKILL)
    for thread in threads:
        thread.join(10)
    assert len(acknowledged) > 100
    assert set(acknowledged) <= set(served.logged())
    restarted = serve()
    assert asking.post(f"{restarted.url}/predict", json=SETOSA).status_code == 200
    assert len(list(served.log.iterdir())) == 2, "each process has a segment of its own"


def test_a_full_disk_refuses_until_there_is_room_again(serve: Serve) -> None:
    served = serve()
    assert asking.post(f"{served.url}/predict", json=SETOSA).status_code == 200
    size = sum(path.stat().st_size for path in served.log.iterdir())
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    limit = (size + 100, resource.RLIM_INFINITY)
    resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, limit)
    refused = asking.post(f"{served.url}/predict", json=SETOSA)
    assert refused.status_code == 503
    assert "File too large" in refused.json()["error"]["message"]
    assert len(served.logged()) == 1
    resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, unlimited)
    assert asking.post(f"{served.url}/predict", json=SETOSA).status_code == 200
    assert len(served.logged()) == 2


def test_a_port_that_is_taken_is_a_clear_line_and_code_4(serve: Serve) -> None:
    first = serve()
    second = serve()
    assert second.process.wait(10) == 4
    error, hint = first.errors.read_text().splitlines()[-2:]
    assert error.startswith("error: ")
    assert hint.startswith(" next: ")
    assert "the port is in use by another process" in error


def test_a_model_that_changed_its_mind_says_so_and_is_not_ready(serve: Serve) -> None:
    served = serve(golden_error=0.2)
    ready = asking.get(f"{served.url}/v2/health/ready")
    assert (ready.status_code, ready.json()["state"]) == (503, "failed")
    assert "golden example 0" in served.errors.read_text()


def test_a_body_that_is_too_large_is_refused(serve: Serve) -> None:
    served = serve()
    answer = asking.post(
        f"{served.url}/predict",
        content=b" " * 10_000_001,
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 413


def _ask(url: str, body: Any) -> None:
    with contextlib.suppress(httpx.TransportError):
        asking.post(f"{url}/predict", json=body, timeout=60)


def predict(bundle: Path, rows: Any, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "mlship.runtime", "predict", str(bundle), *more],
        input=json.dumps(rows),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_offline_predictions_are_alone_on_stdout(tmp_path: Path) -> None:
    digest = iris_bundle(tmp_path / "iris", preprocess=LOUD)
    done = predict(tmp_path / "iris", [SETOSA], "--digest", digest)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["species"] == "setosa"
    assert done.stderr.split() == ["imported", "called"]


def test_an_error_offline_is_one_line_of_json(tmp_path: Path) -> None:
    iris_bundle(tmp_path / "iris")
    done = predict(tmp_path / "iris", [{"sepal_length": 1}])
    error = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, done.stdout, error["error"]) == (2, "", "RowError")
    (tmp_path / "iris" / "more").write_text("")
    done = predict(tmp_path / "iris", [SETOSA])
    error = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, error["error"]) == (7, "IntegrityError")


SANITY = """
def test_setosa(client):
    row = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
    assert client.predict(row)["species"] == "setosa"
"""


def sanity(folder: Path, code: str = SANITY, **environment: str) -> str:
    (folder / "test_sanity.py").write_text(code)
    arguments = ["-rs", "-p", "no:cacheprovider", "test_sanity.py"]
    # Beside these, it has only the variables that libraries read when they are imported.
    environment |= variables.at_import(os.environ)
    with (folder / "output").open("w+b") as output, Path(os.devnull).open("rb") as nothing:
        streams = {0: nothing.fileno(), 1: output.fileno(), 2: output.fileno()}
        process = commands.process().start("pytest", arguments, folder, environment, streams)
        try:
            process.wait(60)
        finally:
            process.kill()
        output.seek(0)
        return output.read().decode()


FRAMES = """
def test_the_served_model_predicts_from_a_frame(model, data):
    assert data.target == "species"
    assert len(data.test) == 2 and len(data.train) == 4
    answers = model.predict(data.test)
    assert answers.shape == (2,)
    assert list(answers) == list(data.test["species"])
    outputs = model.outputs(data.test.drop(columns="species"))
    assert list(outputs.index) == list(data.test.index)
    assert {"species", "probability_setosa"} <= set(outputs.columns)
    data.test["species"] = "changed"


def test_a_test_gets_data_of_its_own(data):
    assert "changed" not in set(data.test["species"])
"""
ROWS = "sepal_length,sepal_width,petal_length,petal_width,species\n"
ONE, OTHER = "5.1,3.5,1.4,0.2,setosa\n", "6.3,3.3,6.0,2.5,virginica\n"


def test_tests_get_the_model_and_the_data_as_frames(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    (tmp_path / "train.csv").write_text(ROWS + 2 * (ONE + OTHER))
    (tmp_path / "test.csv").write_text(ROWS + ONE + OTHER)
    settings = '{"train": "train.csv", "test": "test.csv", "target": "species"}'
    assert "run `mlship test`, which sets MLSHIP_SANITY_DATA" in sanity(
        tmp_path, FRAMES, MLSHIP_SANITY_BUNDLE=str(tmp_path / "iris")
    )
    for place in (
        {"MLSHIP_SANITY_BUNDLE": str(tmp_path / "iris")},
        {"MLSHIP_SANITY_ENDPOINT": served.url},
    ):
        assert "2 passed" in sanity(tmp_path, FRAMES, MLSHIP_SANITY_DATA=settings, **place)


def test_sanity_tests_get_a_client_from_the_plugin(tmp_path: Path, serve: Serve) -> None:
    assert "run `mlship test`, which sets MLSHIP_SANITY_BUNDLE" in sanity(tmp_path)
    served = serve()
    assert "1 passed" in sanity(tmp_path, MLSHIP_SANITY_BUNDLE=str(tmp_path / "iris"))
    assert served.logged() == [], "nothing is logged in process"
    assert "1 passed" in sanity(tmp_path, MLSHIP_SANITY_ENDPOINT=served.url)
    assert len(served.logged()) == 1


def test_predictions_are_erased_while_it_answers_and_is_killed_and_no_other_is_lost(
    serve: Serve, tmp_path: Path
) -> None:
    served = serve()
    removals = DirectoryRemovals(served.log, tmp_path / "outcomes")
    kept: list[str] = []
    erased: set[str] = set()
    is_done = threading.Event()

    def ask(client: httpx.Client) -> None:
        with contextlib.suppress(httpx.TransportError):
            answer = client.post(f"{served.url}/predict", json=[SETOSA, SETOSA])
            if answer.status_code == 200:
                first, second = (row["id"] for row in answer.json()["predictions"])
                kept.append(first)
                erased.add(second)

    def ask_often() -> None:
        with httpx.Client(timeout=5) as client:
            while not is_done.is_set():
                ask(client)

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask_often) for _ in range(4)]
        for turn in range(12):
            time.sleep(0.1)
            removals.remove(Selection(ids=frozenset(erased)), set())
            if turn in (3, 7):
                served.process.kill()
                served.process.wait(10)
                served = serve()
        is_done.set()
        for each in asking:
            each.result(10)
    removals.remove(Selection(ids=frozenset(erased)), set())
    left = served.logged()
    assert len(kept) > 50
    assert set(kept) <= set(left)
    assert not erased & set(left)
    everything = b"".join(path.read_bytes() for path in served.log.iterdir())
    assert not [name for name in erased if f'"{name}"'.encode() in everything]


def test_a_column_that_is_not_to_be_logged_is_in_no_byte_of_the_log(
    tmp_path: Path, port: int
) -> None:
    bundle = tmp_path / "iris"
    iris_bundle(bundle)
    column, *_ = SETOSA
    rules = json.dumps({column: "never", [*SETOSA][1]: "hash"})
    environment = {**os.environ, "MLSHIP_LOG_COLUMNS": rules, "MLSHIP_HASH_KEY": "k" * 32}
    served = Served(tmp_path, bundle, port, environment)
    try:
        served.wait()
        answer = asking.post(f"{served.url}/predict", json=SETOSA)
        assert answer.status_code == 200
        (line,) = (path.read_bytes() for path in served.log.glob("*.jsonl"))
    finally:
        served.process.kill()
        served.process.wait(10)
    logged = msgspec.json.decode(line, type=Prediction).inputs
    hashed = str(logged[[*SETOSA][1]])
    assert column.encode() not in line
    assert hashed.startswith("hmac-sha256:")
    assert [*logged] == [*SETOSA][1:]
