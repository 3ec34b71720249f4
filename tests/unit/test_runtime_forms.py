"""The forms of rows and predictions: JSON as MLflow, SageMaker and V1 have it, and CSV."""

import csv
import gc
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from mlship.runtime import http
from mlship.runtime.http import MAX_ROWS
from tests.harness import mixed
from tests.harness.served import FRESH, Call, Memory, caller, error_of, service_of

NAMES = [field.name for field in mixed.FIELDS]
ROWS = [dict(row) for row in mixed.ROWS]
VALUES = [list(row.values()) for row in ROWS]
HEADER = "city,age,visits,member\r\n"
CSV = f"{HEADER}Linz,41.5,3,true\r\nGraz,,0,False\r\nWörgl,19.25,12,TRUE\r\n".encode()


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
    service.warm_up(folder)
    return caller(service)


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": NAMES, "data": VALUES}},
        {"dataframe_split": {"index": [7, 8, 9], "columns": NAMES, "data": VALUES}},
        {
            "dataframe_split": {
                "columns": NAMES[::-1],
                "data": [values[::-1] for values in VALUES],
            }
        },
        {"dataframe_records": ROWS, "params": {"threshold": 0.5}},
        {"instances": ROWS},
        {"instances": VALUES},
        {"inputs": ROWS},
        {"inputs": {name: [row[name] for row in ROWS] for name in NAMES}},
    ],
)
def test_invocations_take_each_form_of_mlflow(call: Call, memory: Memory, body: Any) -> None:
    response = call("POST", "/invocations", body)
    assert response.status == 200, response.body
    answer = json.loads(response.body)
    expected = mixed.probabilities(ROWS)
    for row, share in zip(answer["predictions"], expected, strict=True):
        assert row["probability_leaves"] == pytest.approx(share[0])
        assert row["future"] == mixed.CLASSES[share.argmax()]
    assert [row["id"] for row in answer["predictions"]] == [f"{FRESH}.{n}" for n in range(3)]
    assert [kept.inputs for kept in memory.kept] == ROWS


def test_a_missing_value_of_a_python_client_is_a_null(call: Call, memory: Memory) -> None:
    values = [[math.nan if value is None else value for value in row] for row in VALUES]
    body = json.dumps({"dataframe_split": {"columns": NAMES, "data": values}}).encode()
    assert b"NaN" in body
    response = call("POST", "/invocations", body)
    assert response.status == 200, response.body
    assert [kept.inputs for kept in memory.kept] == ROWS


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"instances": [["Linz", Infinity, 3, true]]}', "age must be a number, not inf"),
        (b'{"instances": [["Linz", 41.5, NaN, true]]}', "visits must be a whole number, not null"),
        (b'{"instances": [["Linz", NaN, 3, true]}', "the body is not JSON"),
        (b'{"instances": NaN}', "it is not a list"),
        (b"NaN", "the body is not JSON"),
        (b"[NaN]", "the body is not an object"),
        (b'{"instances": [["\\ud800", NaN, 3, true]]}', "the body is not JSON"),
        pytest.param(b"[" * 100_000 + b"NaN", "the body is not JSON", id="deep"),
        pytest.param(b"[NaN, " + b"9" * 5_000 + b"]", "the body is not JSON", id="long"),
    ],
)
def test_other_constants_of_a_python_client_are_refused(
    call: Call, memory: Memory, body: bytes, message: str
) -> None:
    response = call("POST", "/invocations", body)
    assert response.status == 400
    assert error_of(response)["message"].startswith(message)
    assert memory.kept == []


@pytest.mark.parametrize("path", ["/invocations", "/predict", "/v1/models/customers:predict"])
def test_csv_is_read_by_the_kinds_of_its_columns(call: Call, memory: Memory, path: str) -> None:
    response = call("POST", path, CSV, content_type="text/csv; charset=utf-8")
    assert response.status == 200, response.body
    assert [kept.inputs for kept in memory.kept] == ROWS
    assert [type(value) for value in memory.kept[0].inputs.values()] == [str, float, int, bool]
    with_mark = call("POST", path, b"\xef\xbb\xbf" + CSV, content_type="text/csv")
    assert with_mark.status == 200


@pytest.mark.parametrize("path", ["/predict", "/invocations"])
def test_json_may_begin_with_the_mark_of_utf_8(call: Call, path: str) -> None:
    body = json.dumps({"instances": ROWS} if path == "/invocations" else ROWS).encode()
    for media in ("application/json", 'Application/JSON; Charset="UTF-8"'):
        answer = call("POST", path, b"\xef\xbb\xbf" + body, content_type=media)
        assert answer.status == 200
    twice = call("POST", path, b"\xef\xbb\xbf" * 2 + body)
    assert twice.status == 400


@pytest.mark.parametrize(
    ("accept", "is_csv"),
    [
        ("text/csv", True),
        ("text/csv, */*;q=0.1", True),
        ("application/json;q=0.5, text/csv;q=0.6", True),
        ("application/json, text/csv", False),
        ("text/csv;q=0", False),
        ("text/csv;q=much", False),
        ("*/*", False),
        ("text/html", False),
    ],
)
def test_predictions_are_csv_where_the_client_prefers_it(
    call: Call, accept: str, is_csv: bool
) -> None:
    response = call("POST", "/predict", ROWS, accept=accept)
    if not is_csv:
        assert json.loads(response.body)["predictions"]
        return
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(response.body.decode())))
    assert list(rows[0]) == ["id", "future", "probability_leaves", "probability_returns"]
    assert [row["id"] for row in rows] == [f"{FRESH}.{number}" for number in range(3)]
    for row, share in zip(rows, mixed.probabilities(ROWS), strict=True):
        assert float(row["probability_returns"]) == pytest.approx(share[1])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the first line is not a header"),
        (b"Linz,41.5,3,true\n", "the first line is not a header"),
        (b"city,city,age,visits\nLinz,Linz,1,1\n", "the first line is not a header"),
        (HEADER.encode(), "the request has no rows"),
        (f"{HEADER}Linz,41.5,3\n".encode(), "the line has 3 cells, and the header 4"),
        (f"{HEADER}Linz,1_0,3,true\n".encode(), 'age must be a number, not "1_0"'),
        (f"{HEADER}Linz,nan,3,true\n".encode(), 'age must be a number, not "nan"'),
        (f"{HEADER}Linz,1e999,3,true\n".encode(), "age must be a number, not inf"),
        (f"{HEADER}Linz,1,3.5,true\n".encode(), "visits must be a whole number, not 3.5"),
        (f"{HEADER}Linz,1,3,yes\n".encode(), 'member must be true or false, not "yes"'),
        (f'{HEADER}"Linz,1,3,true\n'.encode(), "the body is not CSV"),
        (b"city,age,visits,member,\xff\n", "the body is not CSV"),
        (f"{HEADER}{'x' * 200_000},1,3,true\n".encode(), "the body is not CSV"),
    ],
)
def test_csv_that_does_not_fit_is_refused(
    call: Call, memory: Memory, body: bytes, message: str
) -> None:
    response = call("POST", "/invocations", body, content_type="text/csv")
    assert response.status == 400
    assert error_of(response)["message"].startswith(message)
    assert memory.kept == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, ""),
        ([1], ""),
        ({"rows": ROWS}, ""),
        ({"instances": ROWS, "inputs": ROWS}, ""),
        ({"dataframe_split": ROWS}, "dataframe_split"),
        ({"dataframe_split": {"columns": NAMES}}, "dataframe_split"),
        ({"dataframe_split": {"columns": NAMES, "data": VALUES, "x": 1}}, "dataframe_split"),
        ({"dataframe_split": {"columns": [1], "data": [[1]]}}, "dataframe_split.columns"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 1]]}}, "dataframe_split.columns"),
        ({"dataframe_split": {"columns": NAMES, "data": [[1]]}}, "dataframe_split.data[0]"),
        ({"dataframe_split": {"columns": NAMES, "data": []}}, "dataframe_split.data"),
        ({"dataframe_records": {"city": "Linz"}}, "dataframe_records"),
        ({"instances": [[1, 2]]}, "instances[0]"),
        ({"instances": [3]}, "rows[0]"),
        ({"inputs": {"city": ["Linz"], "age": [1, 2]}}, "inputs"),
        ({"inputs": {"city": "Linz"}}, "inputs.city"),
        ({"inputs": {}}, "inputs"),
        ({"inputs": {"city": ["Linz"]}}, "rows[0].age"),
    ],
)
def test_a_form_that_does_not_fit_names_the_field(call: Call, body: Any, field: str) -> None:
    response = call("POST", "/invocations", body)
    assert response.status == 400
    assert error_of(response).get("field", "") == field
    assert error_of(response)["hint"]


def test_v1_takes_instances_and_its_errors_are_texts(call: Call) -> None:
    answer = json.loads(call("POST", "/v1/models/customers:predict", {"instances": ROWS}).body)
    assert [row["future"] for row in answer["predictions"]] == ["leaves", "leaves", "returns"]
    refused = call("POST", "/v1/models/customers:predict", {"inputs": ROWS})
    assert refused.status == 400
    assert isinstance(json.loads(refused.body)["error"], str)
    assert json.loads(call("GET", "/v1/models").body) == {"models": ["customers"]}
    assert json.loads(call("GET", "/v1/models/customers").body)["ready"] is True


def test_more_rows_than_memory_is_for_are_refused(call: Call) -> None:
    lines = HEADER.encode() + b"L,1,3,true\n" * (MAX_ROWS + 1)
    for response in (
        call("POST", "/invocations", {"inputs": {"city": [0] * (MAX_ROWS + 1)}}),
        call("POST", "/invocations", lines, content_type="text/csv"),
    ):
        assert response.status == 413
        assert "more than 100,000" in error_of(response)["message"]


def test_pings_say_whether_the_model_is_ready(folder: Path, memory: Memory) -> None:
    service = service_of(folder, memory)
    call = caller(service)
    assert [call("GET", path).status for path in ("/ping", "/health")] == [503, 503]
    refused = call("POST", "/invocations", {"instances": ROWS})
    assert refused.status == 503
    assert error_of(refused)["message"] == "the model is starting"
    service.warm_up(folder)
    assert [call("GET", path).status for path in ("/ping", "/health")] == [200, 200]


def test_there_is_no_search_for_garbage_while_a_body_is_decoded() -> None:
    """Millions of lists would be searched again and again while they are made, for seconds."""
    assert gc.isenabled()
    assert http.decoded(lambda body: (gc.isenabled(), body), b"x") == (False, b"x")
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        http.decoded(lambda _: 1 // 0, b"")
    assert gc.isenabled()
