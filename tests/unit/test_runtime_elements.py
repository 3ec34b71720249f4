"""Bodies of few bytes that would become many objects."""

import tracemalloc
from collections.abc import Iterator, Sequence

import pytest
from _pytest.mark import ParameterSet

from mlship.runtime import elements
from mlship.runtime.dialects import grpc_elements
from mlship.runtime.dialects.grpc_messages import messages
from mlship.runtime.dialects.v2_grpc import MEDIA, ROUTE
from mlship.runtime.faults import RefusedRequest
from mlship.runtime.http import BODY_BYTES
from tests.harness import mixed
from tests.harness.served import Call, Memory, caller, error_of, service_of

COLUMNS = len(mixed.FIELDS)
JSON = "application/json"
Parts = tuple[bytes, bytes, bytes]
INVOCATIONS, V1 = "/invocations", "/v1/models/customers:predict"
V2 = "/v2/models/customers/infer"


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Call:
    folder = tmp_path_factory.mktemp("bundles") / "customers"
    mixed.mixed_bundle(folder)
    service = service_of(folder, Memory())
    service.enable_grpc()
    service.warm_up(folder)
    return caller(service)


def of_json(before: bytes, item: bytes, after: bytes, size: int) -> bytes:
    """Return a body of at most this size, with an item again and again."""
    room = size - len(before) - len(after)
    return before + (item * (room // len(item)))[:-1] + after


def of_sizes(path: str, media: str, parts: Parts, *, name: str) -> Iterator[ParameterSet]:
    """Yield a third of a body and the largest one, whose memory takes seconds to follow."""
    yield pytest.param(path, media, parts, BODY_BYTES // 3, id=name)
    yield pytest.param(path, media, parts, BODY_BYTES, id=f"largest {name}", marks=pytest.mark.slow)


def sized(key: int, data: bytes) -> bytes:
    """Return a field of a message of 2 to 256 MB."""
    size = len(data)
    length = [size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21]
    return bytes([key, *length]) + data


@pytest.mark.parametrize(
    ("path", "media", "parts", "size"),
    [
        pytest.param("/predict", JSON, (b"[", b"{},", b"]"), BODY_BYTES, id="row"),
        *of_sizes("/predict", JSON, (b'{"rows":[', b'{"a":[]},', b"]}"), name="rows"),
        pytest.param("/predict", JSON, (b"[", b'"ab",', b"]"), BODY_BYTES, id="text"),
        pytest.param("/predict", "text/csv", (b"", b"ab,", b""), BODY_BYTES, id="csv"),
        pytest.param(V1, JSON, (b'{"instances":[[', b"[],", b"]]}"), BODY_BYTES, id="v1"),
        pytest.param(INVOCATIONS, JSON, (b'{"inputs":[NaN,', b"{},", b"]}"), BODY_BYTES, id="nan"),
        pytest.param(
            INVOCATIONS, JSON, (b'{"inputs":{"age":[', b"0.1,", b"]}}"), BODY_BYTES, id="columns"
        ),
        pytest.param(
            INVOCATIONS, "text/csv", (b"age,visits\n", b"ab,cd\n", b""), BODY_BYTES, id="cells"
        ),
        pytest.param(
            V2, JSON, (b'{"inputs":[],"parameters":{"a":[', b"{},", b"]}}"), BODY_BYTES, id="v2"
        ),
        *of_sizes(V2, JSON, (b'{"inputs":[],"outputs":[', b'{"name":""},', b"]}"), name="outputs"),
    ],
)
def test_a_body_of_too_many_objects_is_refused_before_they_are_made(
    call: Call, path: str, media: str, parts: Parts, size: int
) -> None:
    """Those of the largest body would take 90 to 290 MB."""
    body = of_json(*parts, size)
    tracemalloc.start()
    try:
        response = call("POST", path, body, content_type=media)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert response.status == 413
    assert "than 100,000 rows need" in error_of(response)["message"]
    assert peak < 2_000_000


@pytest.mark.parametrize(
    ("before", "item", "outer"),
    [
        (b"", b"\x2a\x00", ()),
        (b"", b"\x3a\x00", ()),
        (b"", b"\x22\x00", ()),
        (b"\xfb\x07", b"\x2a\x00", ()),
        (b"", b"\x42\x00", (0x2A, 0x2A)),
        (b"", b"\x00\x00", (0x1A, 0x2A)),
    ],
    ids=["tensors", "raw", "parameters", "group", "texts", "shape"],
)
def test_a_message_of_too_many_values_is_refused_before_it_is_decoded(
    call: Call, before: bytes, item: bytes, outer: Sequence[int]
) -> None:
    body = before + item * 4_000_000
    for key in outer:
        body = sized(key, body)
    response = call("POST", ROUTE, body, content_type=MEDIA)
    assert response.status == 413
    assert "more values than 100,000 rows need" in error_of(response)["message"]


def test_the_values_of_a_message_are_counted_and_what_is_none_is_left_to_the_decoder() -> None:
    request = messages()["ModelInferRequest"](model_name="m" * 300, id="x")
    request.parameters["a"].int64_param = 3
    tensor = request.inputs.add(name="age", datatype="FP64", shape=[300, 1])
    tensor.contents.fp64_contents.extend([1.5] * 300)
    request.inputs.add(name="city").contents.bytes_contents.extend([b"Linz"] * 300)
    request.inputs.add(name="visits").contents.int64_contents.extend([-1, 2**40] * 150)
    body = request.SerializeToString()
    # Texts and packed integers one by one; eight bytes take eight.
    assert 600 < grpc_elements.count(body, 100_000) < 800
    assert grpc_elements.count(body, 50) > 50
    for end in range(0, len(body), 97):
        assert grpc_elements.count(body[:end], 100_000) < 800


def test_the_largest_body_of_each_form_is_not_refused() -> None:
    """Of 100,000 rows, in as many bytes as may be; and what is in texts is not counted."""
    row = b'{"city":"%s","age":1,"visits":2,"member":true}'
    text = rb"{[,\"{[,\\" * 4
    elements.check_json(b"[" + b",".join([row % text] * 100_000) + b"]", COLUMNS)
    elements.check_json(b'[{"city":"%s"}]' % (b"{[,," * 2_000_000), COLUMNS)
    elements.check_json(b'[{"city":"%s"}]' % (rb"\"{[,," * 1_000_000), COLUMNS)
    elements.check_csv(b'city\n"%s"\n' % (b',,"",,' * 1_500_000), COLUMNS)
    with pytest.raises(RefusedRequest, match="objects and lists"):
        elements.check_json(b'["\\\\",%s]' % (b"[]," * 200_001), COLUMNS)
    with pytest.raises(RefusedRequest, match="values"):
        elements.check_csv(b'city\n"%s",%s\n' % (b',"",' * 300_000, b"," * 1_000_001), COLUMNS)


def test_a_text_tensor_of_more_texts_than_its_shape_says_is_refused(call: Call) -> None:
    texts = b"\x02\x00\x00\x00ab" * 5
    header = b'{"inputs":[{"name":"city","shape":[2],"datatype":"BYTES","parameters":'
    header += b'{"binary_data_size":%d}}]}' % len(texts)
    headers = {"inference_header_content_length": str(len(header))}
    response = call("POST", V2, header + texts, content_type="application/json", **headers)
    assert response.status == 400
    assert "has shape [2] and 5 values" in error_of(response)["message"]
