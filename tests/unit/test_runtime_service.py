import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mlship.runtime.http import BODY_BYTES, Request
from mlship.runtime.jobs import Health
from mlship.runtime.model import Model
from mlship.runtime.service import Service
from tests.harness.bundles import CLASSES, COLUMNS, SETOSA, VIRGINICA, iris_bundle
from tests.harness.served import FRESH, NOON, RELEASE, Call, Memory, caller, error_of, service_of

GIVEN = "6f1c3f0e-8a1b-4c1d-9e2f-0123456789ab"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "iris"
    iris_bundle(folder)
    return folder


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def service(folder: Path, memory: Memory) -> Service:
    service = service_of(folder, memory)
    service.warm_up(folder)
    return service


@pytest.fixture
def call(service: Service) -> Call:
    return caller(service)


def test_a_row_is_predicted_logged_and_named(call: Call, memory: Memory) -> None:
    response = call("POST", "/predict", SETOSA)
    assert response.status == 200
    assert response.headers["mlship-release"] == "iris@abababababab"
    answer = json.loads(response.body)
    assert answer["release"] == "iris@abababababab"
    assert answer["predictions"][0]["species"] == "setosa"
    assert answer["predictions"][0]["probability_setosa"] == pytest.approx(0.98, abs=0.01)
    (kept,) = memory.kept
    assert kept.id == f"{FRESH}.0" == answer["predictions"][0]["id"]
    assert (kept.release, kept.slot, kept.time) == (RELEASE, "rabababababab", NOON)
    assert kept.inputs == SETOSA
    assert kept.outputs["species"] == "setosa"
    assert kept.latency_ms > 0
    assert not kept.shadow


@pytest.mark.parametrize("body", [[SETOSA, VIRGINICA], {"rows": [SETOSA, VIRGINICA]}])
def test_rows_are_answered_in_their_order(call: Call, body: Any) -> None:
    predictions = json.loads(call("POST", "/predict", body).body)["predictions"]
    assert [row["species"] for row in predictions] == ["setosa", "virginica"]
    assert [row["id"] for row in predictions] == [f"{FRESH}.0", f"{FRESH}.1"]


def test_the_routers_request_id_names_the_predictions(call: Call, memory: Memory) -> None:
    call("POST", "/predict", SETOSA, x_request_id=GIVEN)
    call("POST", "/predict", SETOSA, x_request_id="../../etc/passwd")
    assert [kept.id for kept in memory.kept] == [f"{GIVEN}.0", f"{FRESH}.0"]


@pytest.mark.parametrize("host", ["localhost-shadow", "localhost-shadow:8080", "[::1]:80-shadow"])
def test_a_mirrored_request_is_logged_as_a_shadow(call: Call, memory: Memory, host: str) -> None:
    call("POST", "/predict", SETOSA, host=host)
    call("POST", "/predict", SETOSA, host="shadow:8080")
    assert [kept.shadow for kept in memory.kept] == [True, False]


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (b"{", "", "the body is not JSON"),
        (b"\xff\xfe", "", "the body is not JSON"),
        (b"[" * 100_000, "", "the body is not JSON"),
        (b"[]", "rows", "the request has no rows"),
        (b"3", "rows[0]", "a row must be an object, not 3"),
        ([SETOSA, SETOSA | {"petal_width": "wide"}], "rows[1].petal_width", "petal_width must be"),
        ({"sepal_length": 5.1}, "rows[0].sepal_width", "missing column sepal_width"),
        (SETOSA | {"colour": "red"}, "rows[0].colour", "unknown column colour"),
    ],
)
def test_a_bad_request_names_the_field(
    call: Call, memory: Memory, body: Any, field: str, message: str
) -> None:
    response = call("POST", "/predict", body)
    assert response.status == 400
    error = error_of(response)
    assert error["message"].startswith(message)
    assert error.get("field", "") == field
    assert error["hint"]
    assert memory.kept == []


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/nothing", b"", {}, 404),
        ("GET", "/v2/models/other", b"", {}, 404),
        ("POST", "/v2/models/iris/versions/000000000000/infer", b"{}", {}, 404),
        ("GET", "/predict", b"", {}, 405),
        ("DELETE", "/docs", b"", {}, 405),
        ("POST", "/predict", b" " * (BODY_BYTES + 1), {}, 413),
        ("POST", "/predict", b"a=1", {"content_type": "application/x-www-form-urlencoded"}, 415),
        ("POST", "/predict", b"{}", {"content_type": "application/octet-stream"}, 415),
        ("POST", "/predict", b"{}", {"content_type": "text/csv; charset=latin-1"}, 415),
        ("POST", "/predict", b"{}", {"content_type": 'application/json; q=1; charset="x"'}, 415),
    ],
)
def test_what_is_not_served_is_refused_in_json(
    call: Call, method: str, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    response = call(method, path, body, **headers)
    assert response.status == status
    assert error_of(response)["message"]
    assert error_of(response)["hint"]
    if status == 405:
        assert response.headers["allow"]


def test_an_answer_whose_log_fails_is_no_answer(call: Call, memory: Memory) -> None:
    memory.is_full = True
    response = call("POST", "/predict", SETOSA)
    assert response.status == 503
    assert error_of(response)["message"] == "the prediction log cannot be written"
    memory.is_full = False
    assert call("POST", "/predict", SETOSA).status == 200


def infer_body(**changes: Any) -> dict[str, Any]:
    inputs = [
        {"name": name, "shape": [2], "datatype": "FP64", "data": [SETOSA[name], VIRGINICA[name]]}
        for name in COLUMNS
    ]
    return {"inputs": inputs, **changes}


def test_v2_answers_one_tensor_for_each_output(call: Call) -> None:
    response = call("POST", "/v2/models/iris/infer", infer_body(id="mine"))
    assert response.status == 200, response.body
    answer = json.loads(response.body)
    assert (answer["model_name"], answer["model_version"]) == ("iris", "abababababab")
    assert answer["id"] == "mine"
    assert answer["parameters"]["predictions"] == [f"{FRESH}.0", f"{FRESH}.1"]
    outputs = {tensor["name"]: tensor for tensor in answer["outputs"]}
    assert outputs["species"] == {
        "name": "species",
        "shape": [2],
        "datatype": "BYTES",
        "data": ["setosa", "virginica"],
    }
    assert list(outputs) == ["species", *(f"probability_{label}" for label in CLASSES)]
    assert outputs["probability_setosa"]["datatype"] == "FP64"


def test_v2_takes_columns_of_two_dimensions_and_a_version(call: Call) -> None:
    body = infer_body(outputs=[{"name": "species"}])
    for tensor in body["inputs"]:
        tensor["shape"] = [2, 1]
        tensor["data"] = [[value] for value in tensor["data"]]
    response = call("POST", "/v2/models/iris/versions/abababababab/infer", body)
    answer = json.loads(response.body)
    assert [tensor["name"] for tensor in answer["outputs"]] == ["species"]
    assert answer["id"] == FRESH


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "colour"}, "inputs[0].name"),
        ({"name": "sepal_width"}, "inputs[1].name"),
        ({"datatype": "BYTES"}, "inputs[0].datatype"),
        ({"shape": [3]}, "inputs[0].shape"),
        ({"shape": [1, 2]}, "inputs[0].shape"),
        ({"shape": "two"}, "inputs[0].shape"),
        ({"shape": [1], "data": [1.0]}, "inputs"),
        ({"data": None}, "inputs[0]"),
        ({"data": [1.0, "x"]}, "rows[1].sepal_length"),
        ({"parameters": {"binary_data_size": 16}}, "inputs[0].parameters.binary_data_size"),
    ],
)
def test_v2_refuses_a_tensor_that_does_not_fit(
    call: Call, change: dict[str, Any], field: str
) -> None:
    body = infer_body()
    body["inputs"][0] |= change
    response = call("POST", "/v2/models/iris/infer", body)
    assert response.status == 400
    assert error_of(response)["field"] == field


def test_v2_refuses_an_unknown_output(call: Call) -> None:
    response = call("POST", "/v2/models/iris/infer", infer_body(outputs=[{"name": "colour"}]))
    assert error_of(response)["field"] == "outputs[0].name"


def test_v2_describes_the_model(call: Call) -> None:
    metadata = json.loads(call("GET", "/v2/models/iris").body)
    assert metadata["versions"] == ["abababababab"]
    assert metadata["inputs"][0] == {"name": "sepal_length", "datatype": "FP64", "shape": [-1]}
    assert metadata["parameters"]["id"] == RELEASE
    assert json.loads(call("GET", "/v2").body)["name"] == "mlship"
    assert json.loads(call("GET", "/v2/health/live").body) == {"live": True}


def test_ready_names_the_release_and_the_bundle(call: Call, service: Service, folder: Path) -> None:
    for path in ("/v2/health/ready", "/v2/models/iris/ready"):
        response = call("GET", path)
        assert response.status == 200
        body = json.loads(response.body)
        assert body["release"] == RELEASE
        assert body["bundle"] == Model.load(folder, None).digest
    service.drain()
    assert call("GET", "/v2/health/ready").status == 503
    answer = call("POST", "/predict", SETOSA)
    assert answer.status == 200, "a request that comes while draining is answered"
    assert answer.headers["connection"] == "close"


def test_a_model_that_gives_other_outputs_than_when_made_does_not_become_ready(
    tmp_path: Path, memory: Memory
) -> None:
    iris_bundle(tmp_path / "iris", golden_error=0.01)
    service = service_of(tmp_path / "iris", memory)
    ready = Request(method="GET", path="/v2/health/ready", headers={})
    assert json.loads(service.handle(ready).body)["state"] == "starting"
    service.warm_up(tmp_path / "iris")
    response = service.handle(ready)
    assert response.status == 503
    assert error_of(response)["message"].startswith("golden example 0: probability_setosa is 0.98")
    asked = Request(method="POST", path="/predict", headers={}, body=json.dumps(SETOSA).encode())
    assert service.handle(asked).status == 503
    assert memory.kept == []


def test_readiness_says_why_no_worker_computes(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = "failed its check: golden example 0: species is 'setosa'"
    health = Health(is_ready=False, restarts=1, last_restart=fault)
    monkeypatch.setattr(service._model, "health", lambda: health)
    response = service.handle(Request(method="GET", path="/v2/health/ready", headers={}))
    body = json.loads(response.body)
    assert (response.status, body["state"], body["last_restart"]) == (503, "restarting", fault)
    assert body["error"] == f"the model is restarting: a worker {fault}; retry later"


def test_metrics_count_requests_and_predictions(call: Call) -> None:
    call("POST", "/predict", [SETOSA, SETOSA])
    call("POST", "/predict", SETOSA, host="localhost-shadow")
    call("POST", "/predict", b"{")
    call("GET", "/nothing/" + "x" * 50)
    text = call("GET", "/metrics").body.decode()
    assert 'mlship_requests_total{route="/predict",status="200"} 2.0' in text
    assert 'mlship_requests_total{route="/predict",status="400"} 1.0' in text
    assert 'mlship_requests_total{route="other",status="404"} 1.0' in text
    assert re.search(r'mlship_predictions_total\{.*shadow="false".*\} 2.0', text)
    assert re.search(r'mlship_predictions_total\{.*shadow="true".*\} 1.0', text)
    assert 'mlship_request_seconds_bucket{le="0.5",route="/predict"} 3.0' in text
    assert 'release="iris@abababababab"' in text


def test_openapi_describes_what_is_answered(call: Call) -> None:
    document = json.loads(call("GET", "/openapi.json").body)
    assert document["openapi"] == "3.1.0"
    schemas = document["components"]["schemas"]

    def validate(value: Any, name: str) -> None:
        jsonschema.validate(
            value, {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
        )

    operation = document["paths"]["/predict"]["post"]
    for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
        validate(example["value"], "Rows")
        validate(json.loads(call("POST", "/predict", example["value"]).body), "Predictions")
    validate(json.loads(call("POST", "/predict", b"{}").body), "Error")
    with pytest.raises(jsonschema.ValidationError):
        validate({"sepal_length": "long"}, "Rows")
    for path, operations in document["paths"].items():
        for method, described in operations.items():
            body = described.get("requestBody", {}).get("content", {}).get("application/json", {})
            example = body.get("example", SETOSA)
            assert call(method.upper(), path, example).status == 200, path


def test_the_docs_page_needs_no_other_host(call: Call) -> None:
    assert call("GET", "/").headers["location"] == "docs"
    response = call("GET", "/docs")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    text = response.body.decode()
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", text)
    assert "@import" not in text
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert data["release"] == "iris@abababababab"
    assert [field["name"] for field in data["inputs"]] == list(COLUMNS)


def test_head_is_get_without_a_body(call: Call) -> None:
    response = call("HEAD", "/docs")
    assert (response.status, response.body) == (200, b"")
