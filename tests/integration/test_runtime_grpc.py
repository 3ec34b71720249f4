"""The gRPC server as a process: its calls, its refusals, its bounds."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import msgspec
import pytest

from mlship.domain.prediction import Prediction
from mlship.runtime import grpc_server
from mlship.runtime.dialects.grpc_messages import SERVICE, messages
from mlship.runtime.http import Request, Response
from tests.harness import asking, mixed, serving

ID = "6f1c3f0e-8a1b-4c1d-9e2f-0123456789ab"
ROWS = [dict(mixed.ROWS[0]), dict(mixed.ROWS[2])]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[serving.Process, Any]]:
    with running(tmp_path) as process_and_channel:
        yield process_and_channel


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The channel of a server for tests that leave it as it is."""
    with running(tmp_path_factory.mktemp("grpc")) as (_, channel):
        yield channel


@contextmanager
def running(folder: Path) -> Iterator[tuple[serving.Process, Any]]:
    """Start a server in a folder, with its log there; end it after the block."""
    mixed.mixed_bundle(folder / "customers")
    port, plain = free_port(), free_port()
    options = ["--bundle", str(folder / "customers"), "--release", "sha256:" + "ab" * 32]
    options += ["--slot", "r", "--port", str(plain), "--log", str(folder / "log")]
    options += ["--grpc-port", str(port)]
    process = serving.start(options)
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    try:
        _wait(process, f"http://127.0.0.1:{plain}/v2/health/ready")
        yield process, channel
    finally:
        channel.close()
        process.kill()
        process.wait(10)


def _wait(process: serving.Process, url: str) -> None:
    """Wait until the server answers: a channel that found none would wait longer to try again."""
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        try:
            asking.get(url, timeout=1)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return


def call(channel: Any, method_name: str, /, **fields: Any) -> Any:
    """Call a method with a message of these fields; return the response."""
    method = channel.unary_unary(
        f"/{SERVICE}/{method_name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=messages()[f"{method_name}Response"].FromString,
    )
    return method(messages()[f"{method_name}Request"](**fields), timeout=20)


def infer(channel: Any, body: bytes, **options: Any) -> Any:
    """Call ModelInfer with bytes; return the call with the response."""
    method = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    return method.with_call(body, timeout=60, **options)


def body_of(**changes: Any) -> bytes:
    fields: dict[str, Any] = {"model_name": "customers", "id": "mine", **changes}
    request = messages()["ModelInferRequest"](**fields)
    for name, datatype, field in (
        ("city", "BYTES", "bytes_contents"),
        ("age", "FP32", "fp32_contents"),
        ("visits", "INT64", "int64_contents"),
        ("member", "BOOL", "bool_contents"),
    ):
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[2])
        values = [row[name] for row in ROWS]
        getattr(tensor.contents, field).extend(
            str(value).encode() if datatype == "BYTES" else value for value in values
        )
    serialized: bytes = request.SerializeToString()
    return serialized


def test_predictions_are_those_of_the_model_and_logged(
    served: tuple[serving.Process, Any], tmp_path: Path
) -> None:
    process, channel = served
    body, told = infer(channel, body_of(), metadata=[("x-request-id", ID)])
    answer = messages()["ModelInferResponse"].FromString(body)
    found = {tensor.name: tensor.contents.fp64_contents for tensor in answer.outputs}
    expected = mixed.probabilities(ROWS)[:, 1].tolist()
    assert list(found["probability_returns"]) == pytest.approx(expected)
    assert answer.parameters["predictions"].string_param == f"{ID}.0,{ID}.1"
    assert dict(told.initial_metadata())["x-request-id"] == ID
    process.terminate()
    assert process.wait(20) == 0
    lines = b"".join(path.read_bytes() for path in (tmp_path / "log").glob("*.jsonl"))
    kept = [msgspec.json.decode(line, type=Prediction) for line in lines.splitlines()]
    assert [(line.id, line.inputs) for line in kept] == [
        (f"{ID}.{n}", row) for n, row in enumerate(ROWS)
    ]


def test_the_model_is_described(served: tuple[serving.Process, Any]) -> None:
    _, channel = served
    assert call(channel, "ServerLive").live
    assert call(channel, "ServerReady").ready
    assert call(channel, "ModelReady", name="customers").ready
    assert call(channel, "ServerMetadata").name == "mlship"
    metadata = call(channel, "ModelMetadata", name="customers", version="abababababab")
    assert [(tensor.name, tensor.datatype) for tensor in metadata.inputs] == [
        *(("city", "BYTES"), ("age", "FP64"), ("visits", "INT64"), ("member", "BOOL"))
    ]
    assert call(channel, "ModelConfig", name="customers").config.output[0].name == "future"
    (model,) = call(channel, "RepositoryIndex").models
    assert (model.name, model.state) == ("customers", "READY")
    infer(channel, body_of())
    (model,) = call(channel, "ModelStatistics").model_stats
    assert (model.inference_count, model.inference_stats.success.count) == (2, 1)


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (body_of(model_name="other"), "NOT_FOUND", "model other"),
        (body_of(raw_input_contents=[b""]), "INVALID_ARGUMENT", "4 inputs and 1 raw"),
        (b"\xff", "INVALID_ARGUMENT", "is not a ModelInferRequest"),
        (bytes(10_000_001), "RESOURCE_EXHAUSTED", "larger than max"),
    ],
    ids=["model", "contents", "bytes", "size"],
)
def test_what_does_not_fit_has_a_status_and_a_text(
    shared: Any, body: bytes, code: str, text: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        infer(shared, body)
    assert caught.value.code() is getattr(grpc.StatusCode, code)
    assert text in caught.value.details()
    assert call(shared, "ServerReady").ready


def test_a_compressed_message_is_bounded_by_its_size(
    served: tuple[serving.Process, Any],
) -> None:
    process, channel = served
    infer(channel, body_of(), compression=grpc.Compression.Gzip)
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, bytes(300_000_000), compression=grpc.Compression.Gzip)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    peak = _peak_kb(process.pid)
    assert peak < 500_000, f"{peak} KB: the message was decompressed as a whole"


def test_calls_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server, "CALLS", 8)
    assert asyncio.run(_codes_of_calls(20)) == {"OK": 8, "RESOURCE_EXHAUSTED": 12}


def test_calls_that_send_no_message_do_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server, "CALLS", 4)
    monkeypatch.setattr(grpc_server, "MESSAGE_SECONDS", 2.0)
    asyncio.run(_wait_for_silent_calls(4))


async def _wait_for_silent_calls(count: int) -> None:
    async def answer(_: Request) -> Response:
        return Response(status=200, headers={}, body=b'{"live": true}')

    port = free_port()
    server = await grpc_server.start(answer, lambda *_: True, "127.0.0.1", port)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        path = f"/{SERVICE}/ServerLive"
        silent = [channel.stream_unary(path)() for _ in range(count)]
        for each in silent:
            await each.wait_for_connection()
        live = channel.unary_unary(path)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await live(b"", timeout=20)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        for each in silent:
            assert await each.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert await live(b"", timeout=20)
    await server.stop(0)


async def _codes_of_calls(count: int) -> Counter[str]:
    """Return how many of the calls at once had each code.

    None is answered before all that are more than the server takes are refused.
    """
    port = free_port()
    ended = asyncio.Event()
    refused: list[str] = []

    async def answer(_: Request) -> Response:
        await ended.wait()
        return Response(status=200, headers={}, body=b'{"live": true}')

    async def code(method: Any) -> str:
        try:
            await method(b"", wait_for_ready=True, timeout=60)
        except grpc.aio.AioRpcError as error:
            refused.append(str(error.code().name))
            if len(refused) == count - grpc_server.CALLS:
                ended.set()
            return refused[-1]
        return "OK"

    server = await grpc_server.start(answer, lambda _path, _headers: True, "127.0.0.1", port)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.unary_unary(f"/{SERVICE}/ServerLive")
        codes = await asyncio.gather(*(code(method) for _ in range(count)))
    await server.stop(0)
    return Counter(codes)


def _peak_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])
