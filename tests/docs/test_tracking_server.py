"""The page on a tracking server works, with a real PostgreSQL and a stand-in for S3."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.docs.blocks import ROOT, Reader, blocks
from tests.harness import postgres

PAGE = ROOT / "docs" / "guide" / "tracking-server.md"
BUCKET = "iris-team-models"
KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}
PROMISED = (
    "OK",
    "deploy-production iris@",
    "test iris@",
    "difference",
    "403",
    "the supervisor",
)


@pytest.fixture
def database() -> Iterator[dict[str, str]]:
    """What an administrator's psql needs."""
    with postgres.server() as server:
        yield {
            "PGHOST": server.host,
            "PGPORT": str(server.port),
            "PGUSER": "mlship",
            "PGPASSWORD": server.password,
        }


@pytest.fixture
def bucket() -> Iterator[dict[str, str]]:
    """A bucket, and what a client of it needs."""
    store = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    store.start()
    try:
        host, port = store.get_host_and_port()
        url = f"http://{host}:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=url,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=BUCKET)
        yield {**KEYS, "AWS_ENDPOINT_URL_S3": url, "MLFLOW_S3_ENDPOINT_URL": url}
        files = client.list_objects_v2(Bucket=BUCKET)["Contents"]
        assert any(file["Key"].endswith("bundle.json") for file in files)
    finally:
        store.stop()


@pytest.fixture
def reader(tmp_path: Path, database: dict[str, str], bucket: dict[str, str]) -> Iterator[Reader]:
    reader = Reader(tmp_path, is_cold=False)
    reader.environment |= database | bucket
    yield reader
    with contextlib.suppress(OSError, ValueError):
        process = (tmp_path / "checkout" / "tracking-server" / "server.pid").read_text()
        os.kill(int(process), signal.SIGTERM)
    reader.leave()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.service("postgresql")
def test_every_block_of_the_page_works(reader: Reader) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    told = [reader.run(block.text.replace("5000", port)) for block in blocks(PAGE, "bash")]
    for said in PROMISED:
        assert said in "\n".join(told), said
