"""What a request keeps of the memory while it is computed, and what is looked at before that."""

import gc
import gzip
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import pytest

from mlship.domain import bundle as bundles
from mlship.domain.digests import Digest
from mlship.runtime.dialects.grpc_messages import messages
from mlship.runtime.dialects.v2_grpc import MEDIA, ROUTE
from mlship.runtime.exchange import Exchange
from mlship.runtime.http import Request
from mlship.runtime.jobs import Health, Job
from mlship.runtime.options import Identity
from mlship.runtime.service import Service
from tests.harness.bundles import COLUMNS, SETOSA, iris_bundle
from tests.harness.served import FRESH, NOON, RELEASE, VERSION

ROWS = 1_000
JSON = {"content-type": "application/json"}
INFER = "/v2/models/iris/infer"


class Keeping:
    """A computer that never answers."""

    def __init__(self, folder: Path) -> None:
        self.bundle = bundles.manifest(folder)
        self.digest = Digest("sha256:" + "cd" * 32)
        self.jobs: list[Job] = []
        self.sizes: list[int] = []

    def admit(self, size: int) -> None:
        self.sizes.append(size)

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def cancel(self, job: Job) -> None:
        raise AssertionError

    def health(self) -> Health:
        return Health()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept") / "iris"
    iris_bundle(folder)
    return folder


@pytest.fixture
def computer(folder: Path) -> Keeping:
    return Keeping(folder)


@pytest.fixture
def service(computer: Keeping) -> Service:
    identity = Identity(release=RELEASE, name=f"iris@{VERSION}", slot="r0")
    service = Service(computer, identity, None, clock=lambda: NOON, new_id=lambda: FRESH)
    service.enable_grpc()
    service.settle("")
    return service


def _tensors(**parameters: int) -> list[dict[str, Any]]:
    described: dict[str, Any] = {"shape": [ROWS], "datatype": "FP64"}
    if parameters:
        described["parameters"] = parameters
    return [{"name": name, **described} for name in COLUMNS]


def _binary() -> tuple[bytes, dict[str, str]]:
    head = json.dumps({"inputs": _tensors(binary_data_size=8 * ROWS)}).encode()
    values = b"".join(struct.pack(f"<{ROWS}d", *[SETOSA[name]] * ROWS) for name in COLUMNS)
    return head + values, {"inference-header-content-length": str(len(head))}


def _grpc(*, is_raw: bool) -> bytes:
    message = messages()["ModelInferRequest"](model_name="iris", id="mine")
    for name in COLUMNS:
        tensor = message.inputs.add(name=name, datatype="FP64", shape=[ROWS])
        if is_raw:
            message.raw_input_contents.append(struct.pack(f"<{ROWS}d", *[SETOSA[name]] * ROWS))
        else:
            tensor.contents.fp64_contents.extend([SETOSA[name]] * ROWS)
    body: bytes = message.SerializeToString()
    return body


def _requests() -> Iterator[Any]:
    def of(name: str, path: str, value: Any) -> Any:
        return pytest.param(path, json.dumps(value).encode(), JSON, id=name)

    values = list(SETOSA.values())
    split = {"columns": list(SETOSA), "data": [values] * ROWS}
    columns = {name: [value] * ROWS for name, value in SETOSA.items()}
    yield of("own", "/predict", [SETOSA] * ROWS)
    yield of("own by hand", "/predict", {"rows": [dict(reversed(SETOSA.items()))] * ROWS})
    yield of("records", "/invocations", {"dataframe_records": [SETOSA] * ROWS})
    yield of("split", "/invocations", {"dataframe_split": split})
    yield of("inputs", "/invocations", {"inputs": columns})
    yield of("v1", "/v1/models/iris:predict", {"instances": [values] * ROWS})
    tensors = [{**t, "data": columns[t["name"]]} for t in _tensors()]
    yield of("v2", INFER, {"inputs": tensors, "id": "mine"})
    body, headers = _binary()
    yield pytest.param(INFER, body, headers, id="v2 binary")
    lines = [",".join(SETOSA), *[",".join(map(str, values))] * ROWS]
    csv = {"content-type": "text/csv"}
    yield pytest.param("/predict", "\n".join(lines).encode(), csv, id="csv")
    for is_raw in (False, True):
        name = "grpc raw" if is_raw else "grpc"
        yield pytest.param(ROUTE, _grpc(is_raw=is_raw), {"content-type": MEDIA}, id=name)


def _kept(root: object, beside: set[int]) -> Iterator[object]:
    """Return what an object leads to, without what is not of its request."""
    seen, waiting = set(beside), [root]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type | ModuleType):
            continue
        seen.add(id(item))
        yield item
        if isinstance(item, FunctionType):
            waiting += item.__closure__ or ()
        elif isinstance(item, MethodType):
            waiting.append(item.__self__)
        else:
            waiting += gc.get_referents(item)


@pytest.mark.parametrize(("path", "body", "headers"), list(_requests()))
def test_a_request_keeps_nothing_as_large_as_its_rows_beside_them(
    service: Service, computer: Keeping, path: str, body: bytes, headers: dict[str, str]
) -> None:
    request = Request(method="POST", path=path, headers=headers, body=body)
    exchange = service.begin(request, lambda _: None)
    assert isinstance(exchange, Exchange), "it is computed"
    [job] = computer.jobs
    assert job.rows.size == ROWS
    beside = {id(service), id(computer), id(request), *map(id, job.rows.values)}
    kept = list(_kept(exchange, beside))
    assert job in kept, "what it leads to is looked at"
    sizes = [len(item) for item in kept if isinstance(item, list | tuple | dict | bytes)]
    assert max(sizes) < ROWS
    assert not [item for item in kept if isinstance(item, messages()["ModelInferRequest"])]


def test_a_compressed_body_is_admitted_by_what_it_becomes(
    service: Service, computer: Keeping
) -> None:
    body = json.dumps([SETOSA] * ROWS).encode()
    headers = {**JSON, "content-encoding": "gzip"}
    packed = gzip.compress(body)
    assert len(packed) < 2_000
    service.begin(
        Request(method="POST", path="/predict", headers=headers, body=packed), lambda _: None
    )
    assert computer.sizes == [len(body)]
    service.begin(Request(method="POST", path="/predict", headers=JSON, body=body), lambda _: None)
    assert computer.sizes == [len(body)] * 2, "once"
