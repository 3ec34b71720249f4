"""The requests of the page on clients are answered by a served model as the page says."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.docs.blocks import ROOT, blocks
from tests.harness import serving
from tests.harness.bundles import iris_bundle

PAGE = ROOT / "docs" / "guide" / "clients.md"


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    iris_bundle(tmp_path / "iris")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--bundle", str(tmp_path / "iris"), "--release", "sha256:" + "ab" * 32]
    options += ["--slot", "r", "--port", str(port), "--log", str(tmp_path / "log")]
    process = serving.start(options)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            try:
                httpx.get(f"{url}/v2/health/ready", timeout=1)
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                break
        yield url
    finally:
        process.kill()
        process.wait(10)


def test_every_request_of_the_page_is_answered(endpoint: str, tmp_path: Path) -> None:
    answers = []
    for block in blocks(PAGE, "bash"):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=tmp_path,
            env={**os.environ, "ENDPOINT": endpoint},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{PAGE.name}:{block.line}\n{done.stdout}{done.stderr}"
        answers.append(done.stdout)
    row, forms, table, infer, described = answers
    (prediction,) = json.loads(row)["predictions"]
    assert prediction["species"] == "setosa"
    labels = [prediction["species"] for prediction in _documents(forms)[0]["predictions"]]
    assert labels == ["setosa", "virginica"]
    assert [line.split(",")[1] for line in table.splitlines()] == ["species", "setosa", "virginica"]
    (output,) = json.loads(infer)["outputs"]
    assert [text.split(":")[1:] for text in output["data"]] == [
        ["0", "setosa"],
        ["1", "versicolor"],
    ]
    _, statistics = _documents(described)
    assert statistics["model_stats"][0]["inference_count"] == 7


def _documents(text: str) -> list[dict[str, list[dict[str, int | str]]]]:
    """Return JSON documents that follow each other without a line break."""
    decoder = json.JSONDecoder()
    documents = []
    while text:
        document, end = decoder.raw_decode(text)
        documents.append(document)
        text = text[end:]
    return documents
