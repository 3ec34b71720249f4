"""The Open Inference Protocol over HTTP: tensors as JSON and as bytes, as tritonclient has them."""

import gzip
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlship.runtime.http import BODY_BYTES, MAX_ROWS, Response
from tests.harness import mixed
from tests.harness.bundles import CLASSES, COLUMNS, SETOSA, VIRGINICA, iris_bundle
from tests.harness.served import FRESH, VERSION, Call, Memory, caller, error_of, service_of

IRIS = "/v2/models/iris/infer"
CUSTOMERS = "/v2/models/customers/infer"
LENGTH = "inference-header-content-length"
TRITON = (
    b'{"id":"mine","inputs":[{"name":"city","shape":[2],"datatype":"BYTES","parameters":'
    b'{"binary_data_size":18}},{"name":"age","shape":[2],"datatype":"FP64","parameters":'
    b'{"binary_data_size":16}},{"name":"visits","shape":[2],"datatype":"INT32","parameters":'
    b'{"binary_data_size":8}},{"name":"member","shape":[2],"datatype":"BOOL","parameters":'
    b'{"binary_data_size":2}}],"outputs":[{"name":"future","parameters":{"classification":2,'
    b'"binary_data":true}},{"name":"probability_returns","parameters":{"binary_data":false}}]}'
    b"\x04\x00\x00\x00Linz\x06\x00\x00\x00W\xc3\xb6rgl"
    b"\x00\x00\x00\x00\x00\xc0D@\x00\x00\x00\x00\x00\x00\xf8\x7f"
    b"\x03\x00\x00\x00\x0c\x00\x00\x00\x01\x01"
)
"""What tritonclient 2.73 sends for two rows; the second has no age (NaN)."""
TRITON_ROWS: list[Any] = [
    {"city": "Linz", "age": 41.5, "visits": 3, "member": True},
    {"city": "Wörgl", "age": None, "visits": 12, "member": True},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    iris_bundle(folder / "iris")
    mixed.mixed_bundle(folder / "customers")
    return folder


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def iris(folder: Path, memory: Memory) -> Call:
    return _ready(folder / "iris", memory)


@pytest.fixture
def customers(folder: Path, memory: Memory) -> Call:
    return _ready(folder / "customers", memory)


def _ready(bundle: Path, memory: Memory) -> Call:
    service = service_of(bundle, memory)
    service.warm_up(bundle)
    return caller(service)


def columns(datatype: str = "FP64", *, is_nested: bool = False) -> list[dict[str, Any]]:
    """Return a tensor for each column of two rows of iris."""
    rows = [[SETOSA[name], VIRGINICA[name]] for name in COLUMNS]
    return [
        {
            "name": name,
            "shape": [2, 1] if is_nested else [2],
            "datatype": datatype,
            "data": [[value] for value in values] if is_nested else values,
        }
        for name, values in zip(COLUMNS, rows, strict=True)
    ]


def table(**changes: Any) -> dict[str, Any]:
    """Return one tensor with all columns of two rows of iris."""
    values = [[row[name] for name in COLUMNS] for row in (SETOSA, VIRGINICA)]
    return {"name": "input-0", "shape": [2, 4], "datatype": "FP64", "data": values, **changes}


def binary(*tensors: tuple[dict[str, Any], bytes], **more: Any) -> tuple[bytes, dict[str, str]]:
    """Return a body with binary tensors, and its header."""
    described = [
        {**tensor, "parameters": {"binary_data_size": len(data)}} for tensor, data in tensors
    ]
    header = json.dumps({"inputs": described, **more}).encode()
    return header + b"".join(data for _, data in tensors), {
        LENGTH.replace("-", "_"): str(len(header))
    }


def values_of(response: Response) -> dict[str, Any]:
    """Return the values of each output, decoded independently of the server's code."""
    assert response.status == 200, response.body
    length = int(response.headers.get(LENGTH, len(response.body)))
    header, rest = json.loads(response.body[:length]), response.body[length:]
    found = {}
    for tensor in header["outputs"]:
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[tensor["name"]] = tensor["data"]
            continue
        data, rest = rest[:size], rest[size:]
        if tensor["datatype"] == "BYTES":
            texts = []
            while data:
                (count,) = struct.unpack("<I", data[:4])
                texts.append(data[4 : 4 + count].decode())
                data = data[4 + count :]
            found[tensor["name"]] = texts
        else:
            found[tensor["name"]] = np.frombuffer(data, "<f8").tolist()
    assert rest == b""
    return found


def check_iris(response: Response) -> None:
    found = values_of(response)
    assert found["species"] == ["setosa", "virginica"]
    assert found["probability_setosa"][0] == pytest.approx(0.98, abs=0.01)
    assert list(found) == ["species", *(f"probability_{label}" for label in CLASSES)]


@pytest.mark.parametrize(
    "inputs",
    [
        columns(),
        columns("FP32"),
        columns(is_nested=True),
        [table()],
        [table(data=[value for row in table()["data"] for value in row])],
        [table(name="sepal_length")],
        [table(datatype="FP32")],
    ],
)
def test_tensors_in_json_may_be_columns_or_a_table_flat_or_nested(
    iris: Call, inputs: list[dict[str, Any]]
) -> None:
    check_iris(iris("POST", IRIS, {"inputs": inputs}))


@pytest.mark.parametrize("datatype", ["<f8", "<f4"])
def test_binary_tensors_are_read(iris: Call, datatype: str) -> None:
    name = "FP64" if datatype == "<f8" else "FP32"
    tensor = table(datatype=name, data=None)
    data = np.array(table()["data"], datatype).tobytes()
    del tensor["data"]
    body, headers = binary((tensor, data))
    check_iris(iris("POST", IRIS, body, **headers, content_type="application/octet-stream"))


def test_what_tritonclient_sends_is_answered_by_the_original_model(
    customers: Call, memory: Memory
) -> None:
    response = customers("POST", CUSTOMERS, TRITON, inference_header_content_length="508")
    found = values_of(response)
    shares = mixed.probabilities(TRITON_ROWS)
    assert found["probability_returns"] == pytest.approx(shares[:, 1].tolist())
    ranked = [text.split(":") for text in found["future"]]
    assert [(place, label) for _, place, label in ranked] == [
        *(("0", "leaves"), ("1", "returns")),
        *(("1", "returns"), ("0", "leaves")),
    ]
    expected = [*sorted(shares[0], reverse=True), *sorted(shares[1], reverse=True)]
    assert [float(value) for value, _, _ in ranked] == pytest.approx(expected)
    assert response.headers["content-type"] == "application/octet-stream"
    header = json.loads(response.body[: int(response.headers[LENGTH])])
    assert header["id"] == "mine"
    assert header["parameters"]["predictions"] == [f"{FRESH}.0", f"{FRESH}.1"]
    assert header["outputs"][0]["shape"] == [2, 2]
    assert [kept.inputs for kept in memory.kept] == TRITON_ROWS


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [
        *((f"INT{bits}", f"<i{bits // 8}") for bits in (8, 16, 32, 64)),
        *((f"UINT{bits}", f"<u{bits // 8}") for bits in (8, 16, 32, 64)),
        *((f"FP{bits}", f"<f{bits // 8}") for bits in (16, 32, 64)),
    ],
)
@pytest.mark.parametrize("is_binary", [False, True])
def test_numbers_of_each_datatype_reach_a_column_of_whole_numbers(
    customers: Call, memory: Memory, datatype: str, dtype: str, is_binary: bool
) -> None:
    inputs = [
        {"name": "city", "shape": [1], "datatype": "BYTES", "data": ["Linz"]},
        {"name": "age", "shape": [1], "datatype": "FP64", "data": [41.5]},
        {"name": "member", "shape": [1], "datatype": "BOOL", "data": [True]},
    ]
    visits: dict[str, Any] = {"name": "visits", "shape": [1], "datatype": datatype}
    body, headers = binary((visits, np.array([12], dtype).tobytes()))
    if is_binary:
        length = int(headers["inference_header_content_length"])
        header = json.loads(body[:length])
        header["inputs"] += inputs
        start = json.dumps(header).encode()
        body = start + body[length:]
        headers = {"inference_header_content_length": str(len(start))}
    else:
        body, headers = json.dumps({"inputs": [*inputs, {**visits, "data": [12]}]}).encode(), {}
    assert customers("POST", CUSTOMERS, body, **headers).status == 200
    assert memory.kept[0].inputs["visits"] == 12
    assert type(memory.kept[0].inputs["visits"]) is int


def test_outputs_are_selected_as_json_or_binary(iris: Call) -> None:
    whole = values_of(iris("POST", IRIS, {"inputs": columns()}))
    binary_all = iris(
        "POST", IRIS, {"inputs": columns(), "parameters": {"binary_data_output": True}}
    )
    assert values_of(binary_all) == whole
    assert LENGTH in binary_all.headers
    selected = {
        "inputs": columns(),
        "parameters": {"binary_data_output": True},
        "outputs": [
            {"name": "probability_setosa"},
            {"name": "species", "parameters": {"binary_data": False}},
        ],
    }
    found = values_of(iris("POST", IRIS, selected))
    assert found == {name: whole[name] for name in ("probability_setosa", "species")}
    as_json = iris("POST", IRIS, {"inputs": columns(), "parameters": {"binary_data_output": False}})
    assert LENGTH not in as_json.headers


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ([], "inputs"),
        ([table(shape=[0, 4], data=[])], "inputs"),
        ([table(shape=[4, 2])], "inputs[0].name"),
        ([table(shape=[2, 3])], "inputs[0].name"),
        ([table(shape=[3, 4])], "inputs[0].shape"),
        ([table(shape=[-2, -4])], "inputs[0].shape"),
        ([table(shape=[2**62, 4])], "inputs[0].shape"),
        ([table(shape=[2, 4, 1])], "inputs[0].shape"),
        ([table(shape=[])], "inputs[0].shape"),
        ([table(shape=[1] * 100_000)], "inputs[0].shape"),
        ([table(datatype="BYTES")], "inputs[0].datatype"),
        ([table(datatype="FP65")], "inputs[0].datatype"),
        ([table(datatype="INT8")], "inputs[0].data[0]"),
        ([table(datatype="INT8", data=[300] * 8)], "inputs[0].data[0]"),
        ([table(datatype="UINT8", data=[-1] * 8)], "inputs[0].data[0]"),
        ([table(datatype="INT64", data=[True] * 8)], "inputs[0].data[0]"),
        ([table(data=[[1, 2, 3, 4], [1, 2, 3]])], "inputs[0].shape"),
        ([table(data=[[1, 2, 3, 4], 5])], "inputs[0].shape"),
        ([table(data=[[[1, 2, 3, 4]], [[1, 2, 3, 4]]])], "inputs[0].shape"),
        ([table(data=[[1, 2, 3, [4]], [1, 2, 3, [4]]])], "rows[0].petal_width"),
        ([table(data=[None] * 8)], "rows[0].sepal_length"),
        ([table(parameters={"shared_memory_region": "r"})], "inputs[0].parameters"),
        ([*columns(), columns()[0]], "inputs[4].name"),
        (columns()[:3], "inputs"),
        ([{**columns()[0], "shape": [2, 2]}, *columns()[1:]], "inputs[0].shape"),
    ],
)
def test_a_tensor_that_does_not_fit_names_the_field(
    iris: Call, memory: Memory, inputs: list[dict[str, Any]], field: str
) -> None:
    response = iris("POST", IRIS, {"inputs": inputs})
    assert response.status == 400
    assert error_of(response)["field"] == field
    assert isinstance(json.loads(response.body)["error"], str)
    assert memory.kept == []


@pytest.mark.parametrize(
    "number",
    ["1" + "0" * 5000, "-1" + "0" * 5000, "9223372036854775808", "1.5", "true", '"4"', "[4]"],
    ids=["huge", "-huge", "64 bits", "fraction", "boolean", "text", "list"],
)
def test_a_number_that_is_none_or_huge_is_refused(iris: Call, number: str) -> None:
    def send(body: dict[str, Any]) -> Response:
        return iris("POST", IRIS, json.dumps(body).replace('"number"', number).encode())

    sized = table(data=None, parameters={"binary_data_size": "number"})
    for tensor in (sized, table(shape=["number", 4]), table(shape=[2, "number"])):
        response = send({"inputs": [tensor]})
        assert response.status == 400
        assert error_of(response)["hint"]
    output = {"name": "species", "parameters": {"classification": "number"}}
    response = send({"inputs": [table()], "outputs": [output]})
    assert response.status == (200 if number == "9223372036854775808" else 400)


@pytest.mark.parametrize(
    ("size", "length", "field"),
    [
        (64, "7", ""),
        (64, "100000", LENGTH),
        (64, "-1", LENGTH),
        (64, "\u0661", LENGTH),
        (64, "9" * 5000, LENGTH),
        (64, "", LENGTH),
        (63, None, "inputs[0].shape"),
        (65, None, "inputs[0].parameters.binary_data_size"),
        (2**70, None, "inputs[0].parameters.binary_data_size"),
        (-1, None, "inputs[0].parameters.binary_data_size"),
        (0, None, "inputs"),
    ],
)
def test_lengths_beyond_the_body_are_refused(
    iris: Call, size: int, length: str | None, field: str
) -> None:
    tensor = {"name": "t", "shape": [2, 4], "datatype": "FP64"}
    header = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]}).encode()
    data = np.array(table()["data"]).tobytes()
    if size == 63:
        data = data[:63]
    told = str(len(header)) if length is None else length
    response = iris("POST", IRIS, header + data, inference_header_content_length=told)
    assert response.status == 400
    assert error_of(response).get("field", "") == field


def test_binary_values_that_are_none_are_refused(customers: Call) -> None:
    for wrong in (
        TRITON.replace(b"W\xc3\xb6rgl", b"W\xff\xfergl"),
        TRITON.replace(b"\x06\x00\x00\x00W", b"\xff\xff\xff\xffW"),
        TRITON.replace(b"\x04\x00\x00\x00Linz\x06", b"\x04\x00\x00\x00Linz\x05"),
        TRITON.replace(b"\x00\xf8\x7f", b"\x00\xf0\x7f"),
    ):
        response = customers("POST", CUSTOMERS, wrong, inference_header_content_length="508")
        assert response.status == 400
        assert error_of(response)["message"]


def test_more_rows_than_memory_is_for_are_refused(iris: Call) -> None:
    tensor = {"name": "t", "shape": [MAX_ROWS + 1, 4], "datatype": "INT8"}
    body, headers = binary((tensor, bytes(4 * (MAX_ROWS + 1))))
    assert iris("POST", IRIS, body, **headers).status == 413


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_bodies_are_compressed_both_ways(iris: Call, encoding: str) -> None:
    compress = gzip.compress if encoding == "gzip" else zlib.compress
    decompress = gzip.decompress if encoding == "gzip" else zlib.decompress
    rows = 200
    tensor = table(shape=[rows, 4], data=table()["data"] * (rows // 2))
    body = compress(json.dumps({"inputs": [tensor]}).encode())
    response = iris(
        "POST", IRIS, body, content_encoding=encoding, accept_encoding=f"br, {encoding};q=0.5"
    )
    assert response.status == 200
    assert response.headers["content-encoding"] == encoding
    assert len(json.loads(decompress(response.body))["outputs"][0]["data"]) == rows
    short = iris(
        "POST",
        IRIS,
        {"inputs": [table()], "outputs": [{"name": "species"}]},
        accept_encoding=encoding,
    )
    assert "content-encoding" not in short.headers
    refused = iris("GET", "/openapi.json", accept_encoding=f"{encoding};q=0, identity")
    assert "content-encoding" not in refused.headers


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzip.compress(bytes(BODY_BYTES + 1), mtime=0), "gzip", 413),
        (zlib.compress(bytes(BODY_BYTES + 1)), "deflate", 413),
        (gzip.compress(b"", mtime=0) * 5000, "gzip", 413),
        (gzip.compress(b"{}", mtime=0)[:-4], "gzip", 400),
        (b"{}", "gzip", 400),
        (b"{}", "deflate", 400),
        (gzip.compress(b"{}", mtime=0) + b"more", "gzip", 400),
        (b"{}", "br", 415),
        (gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), "gzip, gzip", 415),
    ],
)
def test_a_body_that_cannot_be_decompressed_is_refused(
    iris: Call, body: bytes, encoding: str, status: int
) -> None:
    response = iris("POST", IRIS, body, content_encoding=encoding)
    assert response.status == status
    assert error_of(response)["hint"]


def test_members_of_a_gzip_file_are_one_body(iris: Call) -> None:
    text = json.dumps({"inputs": [table()]}).encode()
    body = gzip.compress(text[:20], mtime=0) + gzip.compress(text[20:])
    check_iris(iris("POST", IRIS, body, content_encoding="gzip"))


def test_what_v2_says_beside_predictions(iris: Call) -> None:
    assert "binary_tensor_data" in json.loads(iris("GET", "/v2").body)["extensions"]
    config = json.loads(iris("GET", "/v2/models/iris/config").body)
    assert config["input"][0] == {"name": "sepal_length", "data_type": "TYPE_FP64", "dims": [-1]}
    assert config["output"][0]["data_type"] == "TYPE_STRING"
    expected = [{"name": "iris", "version": VERSION, "state": "READY", "reason": ""}]
    assert json.loads(iris("POST", "/v2/repository/index", b"").body) == expected
    assert iris("GET", "/v2/repository/index").status == 405
    assert json.loads(iris("GET", "/v2/systemsharedmemory/status").body)["error"]


def test_statistics_count_requests_and_rows(iris: Call) -> None:
    iris("POST", IRIS, {"inputs": [table()]})
    iris("POST", "/predict", SETOSA)
    iris("POST", IRIS, b"{")
    for path in (
        "/v2/models/stats",
        "/v2/models/iris/stats",
        f"/v2/models/iris/versions/{VERSION}/stats",
    ):
        (model,) = json.loads(iris("GET", path).body)["model_stats"]
        assert (model["name"], model["inference_count"], model["execution_count"]) == ("iris", 3, 2)
        statistics = model["inference_stats"]
        assert (statistics["success"]["count"], statistics["fail"]["count"]) == (2, 1)
        assert statistics["success"]["ns"] >= statistics["compute_infer"]["ns"] > 0
