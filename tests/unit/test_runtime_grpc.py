"""The Open Inference Protocol over gRPC: its messages, without a connection."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from mlship.runtime import grpc_server
from mlship.runtime.dialects.grpc_messages import messages
from mlship.runtime.dialects.v2_grpc import MEDIA, ROUTE
from mlship.runtime.http import Response
from tests.harness import mixed
from tests.harness.served import FRESH, VERSION, Call, Memory, caller, error_of, service_of

TRITON = (
    b"\n\tcustomers\x1a\x04mine*\x10\n\x04city\x12\x05BYTES\x1a\x01\x02*\x0e\n\x03age\x12\x04FP64"
    b"\x1a\x01\x02*\x12\n\x06visits\x12\x05INT32\x1a\x01\x02*\x11\n\x06member\x12\x04BOOL\x1a\x01"
    b"\x022\x1e\n\x06future\x12\x14\n\x0eclassification\x12\x02\x10\x022\x15\n\x13"
    b"probability_returns:\x12\x04\x00\x00\x00Linz\x06\x00\x00\x00W\xc3\xb6rgl:\x10\x00\x00\x00\x00"
    b"\x00\xc0D@\x00\x00\x00\x00\x00\x00\xf8\x7f:\x08\x03\x00\x00\x00\x0c\x00\x00\x00:\x02\x01\x01"
)
"""What tritonclient 2.73 sends for two rows; the second has no age (NaN)."""
TRITON_ROWS: list[Any] = [
    {"city": "Linz", "age": 41.5, "visits": 3, "member": True},
    {"city": "Wörgl", "age": None, "visits": 12, "member": True},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "customers"
    mixed.mixed_bundle(folder)
    return folder


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def call(folder: Path, memory: Memory) -> Call:
    service = service_of(folder, memory)
    service.enable_grpc()
    service.warm_up(folder)
    return caller(service)


def infer(call: Call, request: Any) -> Response:
    body = request if isinstance(request, bytes) else request.SerializeToString()
    return call("POST", ROUTE, body, content_type=MEDIA)


def request_of(**changes: Any) -> Any:
    """Return a request with typed contents for the rows."""
    request = messages()["ModelInferRequest"](model_name="customers", **changes)
    rows = [row for row in mixed.ROWS if row["age"] is not None]
    for name, datatype, field in (
        ("city", "BYTES", "bytes_contents"),
        ("age", "FP64", "fp64_contents"),
        ("visits", "UINT16", "uint_contents"),
        ("member", "BOOL", "bool_contents"),
    ):
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[len(rows)])
        values = [row[name] for row in rows]
        getattr(tensor.contents, field).extend(
            str(value).encode() if datatype == "BYTES" else value for value in values
        )
    return request


def test_what_tritonclient_sends_is_answered_by_the_original_model(
    call: Call, memory: Memory
) -> None:
    response = infer(call, TRITON)
    assert response.status == 200, response.body
    answer = messages()["ModelInferResponse"].FromString(response.body)
    assert (answer.model_name, answer.model_version, answer.id) == ("customers", VERSION, "mine")
    assert answer.parameters["predictions"].string_param == f"{FRESH}.0,{FRESH}.1"
    assert answer.parameters["release"].string_param == f"customers@{VERSION}"
    assert [list(tensor.shape) for tensor in answer.outputs] == [[2, 2], [2]]
    assert b":0:leaves" in answer.raw_output_contents[0]
    shares = mixed.probabilities(TRITON_ROWS)
    assert memoryview(answer.raw_output_contents[1]).cast("d").tolist() == pytest.approx(
        shares[:, 1].tolist()
    )
    assert [kept.inputs for kept in memory.kept] == TRITON_ROWS


def test_typed_contents_are_answered_by_typed_contents(call: Call) -> None:
    answer = messages()["ModelInferResponse"].FromString(infer(call, request_of()).body)
    rows = [row for row in mixed.ROWS if row["age"] is not None]
    shares = mixed.probabilities(rows)
    found = {tensor.name: tensor for tensor in answer.outputs}
    assert list(found["future"].contents.bytes_contents) == [b"leaves", b"returns"]
    for place, label in enumerate(mixed.CLASSES):
        contents = found[f"probability_{label}"].contents.fp64_contents
        assert list(contents) == pytest.approx(shares[:, place].tolist())
    assert answer.id == FRESH
    assert not answer.raw_output_contents


def _one_raw(request: Any) -> None:
    request.raw_input_contents.append(b"")


def _both(request: Any) -> None:
    request.raw_input_contents.extend([b""] * 4)


def _half(request: Any) -> None:
    request.inputs[1].datatype = "FP16"


def _negative(request: Any) -> None:
    request.inputs[0].shape[0] = -2


def _short(request: Any) -> None:
    request.inputs[0].shape[0] = 1 << 60


def _twice(request: Any) -> None:
    request.inputs.add().CopyFrom(request.inputs[0])


def _latin(request: Any) -> None:
    request.inputs[0].contents.bytes_contents[0] = b"W\xf6rgl"


def _missing(request: Any) -> None:
    request.inputs[0].contents.Clear()


def _nan(request: Any) -> None:
    request.inputs[1].contents.fp64_contents[0] = float("inf")


def _shared(request: Any) -> None:
    request.inputs[0].parameters["shared_memory_region"].string_param = "r"


def _other(request: Any) -> None:
    request.outputs.add(name="colour")


@pytest.mark.parametrize(
    "change",
    [_one_raw, _both, _half, _negative, _short, _twice, _latin, _missing, _nan, _shared, _other],
)
def test_a_request_that_does_not_fit_is_refused(call: Call, memory: Memory, change: Any) -> None:
    request = request_of()
    change(request)
    response = infer(call, request)
    assert response.status == 400
    assert isinstance(json.loads(response.body)["error"], str)
    assert error_of(response)["field"]
    assert memory.kept == []


def test_another_model_or_version_is_not_found(call: Call) -> None:
    for changes in ({"model_version": "7"}, {"model_version": VERSION, "id": "x"}):
        status = infer(call, request_of(**changes)).status
        assert status == (404 if changes["model_version"] == "7" else 200)
    other = messages()["ModelInferRequest"](model_name="iris")
    assert infer(call, other).status == 404
    assert infer(call, b"\xff").status == 400


def test_nothing_is_answered_over_http_unless_grpc_is_on(folder: Path, memory: Memory) -> None:
    service = service_of(folder, memory)
    service.warm_up(folder)
    assert infer(caller(service), TRITON).status == 404
    service.enable_grpc()
    assert caller(service)("POST", ROUTE, b"{}", content_type="application/json").status == 415


class Arriving:
    """The context of a call whose message arrives when the test says so."""

    def __init__(self, begun: list["Arriving"]) -> None:
        self.begun = begun
        self.is_there = asyncio.Event()
        self.code = ""

    async def read(self) -> bytes:
        self.begun.append(self)
        await self.is_there.wait()
        return b"message"

    async def abort(self, code: Any, _: str) -> None:
        self.code = code.name
        raise RuntimeError(self.code)


async def echo(message: bytes, _: Any) -> bytes:
    return message


async def _read_at_once(count: int) -> tuple[int, set[bytes]]:
    """Return how many messages of so many calls arrived at once at most, and all answers."""
    called = grpc_server.Reading().before(echo)
    begun: list[Arriving] = []
    calls = [asyncio.ensure_future(called(None, Arriving(begun))) for _ in range(count)]
    most = 0
    while not all(call.done() for call in calls):
        for _ in range(count):
            await asyncio.sleep(0)
        arriving = [each for each in begun if not each.is_there.is_set()]
        most = max(most, len(arriving))
        for each in arriving[:1]:
            each.is_there.set()
    return most, set(await asyncio.gather(*calls))


def test_the_messages_that_arrive_at_once_are_bounded() -> None:
    most, answers = asyncio.run(_read_at_once(5 * grpc_server.READS))
    assert (most, answers) == (grpc_server.READS, {b"message"})


async def _silent(count: int) -> tuple[list[str], bytes]:
    called = grpc_server.Reading().before(echo)
    silent = [Arriving([]) for _ in range(count)]
    calls = [asyncio.ensure_future(called(None, each)) for each in silent]
    good = Arriving([])
    good.is_there.set()
    answer = await called(None, good)
    await asyncio.gather(*calls, return_exceptions=True)
    return [each.code for each in silent], answer


def test_calls_that_send_no_message_give_their_places_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grpc_server, "MESSAGE_SECONDS", 1.0)
    monkeypatch.setattr(grpc_server, "BUSY_SECONDS", 0.01)
    codes, answer = asyncio.run(_silent(2 * grpc_server.READS))
    assert answer == b"message"
    assert codes == ["DEADLINE_EXCEEDED"] * len(codes)
