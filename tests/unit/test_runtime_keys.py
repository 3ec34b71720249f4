"""API keys at the server: who is answered, what strangers are told, and rotation."""

import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from mlship.domain import api_keys
from mlship.domain.api_keys import ApiKeys, new_token
from mlship.errors import ConfigError
from mlship.runtime.dialects.v2_grpc import MEDIA, ROUTE
from mlship.runtime.http import Request, Response
from mlship.runtime.jobs import Health
from mlship.runtime.keys import KeyFile
from mlship.runtime.metrics_page import MetricsPage
from mlship.runtime.service import Service
from tests.harness.bundles import SETOSA, iris_bundle
from tests.harness.served import VERSION, Call, Memory, caller, error_of, service_of

DAY = datetime(2026, 11, 27, tzinfo=UTC)
WEB, BATCH = new_token(), new_token()
PROBES = (
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/health/ready/",
    "/ping",
    "/health",
    "/v1/models/iris",
    "/v2/models/iris/ready",
    f"/v2/models/iris/versions/{VERSION}/ready",
)
CLOSED = (
    ("POST", "/predict"),
    ("POST", "/predict/"),
    ("GET", "/predict"),
    ("POST", "/invocations"),
    ("POST", "/v1/models/iris:predict"),
    ("POST", "/v2/models/iris/infer"),
    ("POST", f"/v2/models/iris/versions/{VERSION}/infer"),
    ("POST", ROUTE),
    ("GET", "/"),
    ("GET", ""),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/metrics"),
    ("GET", "/v2"),
    ("GET", "/v1/models"),
    ("GET", "/v2/models/iris"),
    ("GET", "/v2/models/stats"),
    ("POST", "/v2/repository/index"),
    ("GET", "/nothing"),
    ("GET", "//health"),
    ("GET", "/v2/health"),
    ("GET", "/v2/health/ready/../../predict"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "iris"
    iris_bundle(folder)
    return folder


class Notes(list[str]):
    """Lines for the operator."""

    def __call__(self, text: str) -> None:
        self.append(text)


def put(path: Path, **tokens: str) -> None:
    """Write a file of keys in place of the former one."""
    keys = ApiKeys(keys=())
    for name, token in tokens.items():
        keys = keys.with_key(name, token, DAY)
    other = path.with_suffix(".new")
    other.write_bytes(keys.encoded())
    other.replace(path)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "api-keys.json"
    put(path, web=WEB, batch=BATCH)
    return path


@pytest.fixture
def keys(path: Path, notes: Notes) -> KeyFile:
    return KeyFile(path, notes)


@pytest.fixture
def service(folder: Path, keys: KeyFile) -> Service:
    service = service_of(folder, Memory())
    service.enable_grpc()
    service.require_keys(keys)
    service.warm_up(folder)
    return service


@pytest.fixture
def call(service: Service) -> Call:
    return caller(service)


def metric(service: Service, name: str, label: str) -> float:
    """Return the value of a counter with one label."""
    line = f"{name}_total{{{label}}} "
    texts = service.metrics.text().decode().splitlines()
    return next((float(text.removeprefix(line)) for text in texts if text.startswith(line)), 0.0)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {WEB}"},
        {"authorization": f"bearer  {WEB} "},
        {"x_api_key": WEB},
        {"authorization": "Basic YTpi", "x_api_key": WEB},
        {"authorization": "Bearer of-another-proxy", "x_api_key": WEB},
    ],
)
def test_each_key_is_accepted_in_both_headers(
    call: Call, service: Service, headers: dict[str, str]
) -> None:
    assert call("POST", "/predict", SETOSA, **headers).status == 200
    assert metric(service, "mlship_api_key_requests", 'key="web"') == 1
    assert call("POST", "/predict", SETOSA, x_api_key=BATCH).status == 200
    assert metric(service, "mlship_api_key_requests", 'key="batch"') == 1


@pytest.mark.parametrize(("method", "route"), CLOSED)
def test_no_path_but_probes_is_answered_without_a_key(
    call: Call, service: Service, method: str, route: str
) -> None:
    response = call(method, route, SETOSA)
    assert response.status == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="mlship"'
    assert error_of(response)["message"].startswith("the request has no API key")
    assert "authorization: Bearer" in json.dumps(error_of(response))
    assert metric(service, "mlship_unauthorized", 'reason="missing"') == 1


@pytest.mark.parametrize("route", PROBES)
def test_probes_need_no_key(call: Call, route: str) -> None:
    assert call("GET", route).status == 200


@pytest.mark.parametrize("route", [route for route in PROBES if route != "/v2/health/live"])
def test_probes_tell_no_text_of_the_model_without_a_key(
    call: Call, service: Service, route: str
) -> None:
    health = Health(is_ready=True, restarts=2, hung=1, last_restart="was ended by a request")
    with mock.patch.object(service._model, "health", return_value=health):
        for headers in ({}, {"x_api_key": "wrong"}):
            body = json.loads(call("GET", route, **headers).body)
            assert (body["ready"], body["restarts"], body["last_restart"]) == (True, 2, "")
        body = json.loads(call("GET", route, x_api_key=WEB).body)
        assert body["last_restart"] == "was ended by a request"
    service.settle("golden example 3: price is 250000.0")
    response = call("GET", route)
    assert response.status == 503
    assert b"250000" not in response.body
    assert b"the log of the replica has the reason" in response.body
    assert b"250000" in call("GET", route, x_api_key=WEB).body


def test_every_path_of_the_service_is_open_or_closed_in_a_test(call: Call) -> None:
    document = json.loads(call("GET", "/openapi.json", x_api_key=WEB).body)
    known = {*PROBES, *(path for _, path in CLOSED)}
    paths = {path.replace(f"/versions/{VERSION}", "") for path in document["paths"]}
    assert {path for path in paths if path not in known} == {
        "/v2/models/iris/config",
        "/v2/models/iris/stats",
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            is_open = operation.get("security") == []
            assert is_open == ("401" not in operation["responses"]), path
            assert (call(method.upper(), path).status == 401) != is_open, path


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {WEB}x"},
        {"authorization": f"Bearer {WEB[:-1]}"},
        {"authorization": f"Bearer {WEB}, Bearer {BATCH}"},
        {"authorization": f"Bearer {WEB} {WEB}"},
        {"authorization": f"Basic {WEB}", "x_api_key": "wrong"},
        {"x_api_key": WEB.upper()},
        {"x_api_key": api_keys.hash_of(WEB)},
        {"x_api_key": f"{WEB},{BATCH}"},
        {"x_api_key": "ÿþ" * 10_000},
        {"x_api_key": "\udcff\x00"},
    ],
)
def test_a_wrong_key_is_refused(call: Call, service: Service, headers: dict[str, str]) -> None:
    response = call("POST", "/predict", SETOSA, **headers)
    assert response.status == 401
    assert error_of(response)["message"] == "the API key is not valid"
    assert "mlship api-keys add" in error_of(response)["hint"]
    assert metric(service, "mlship_unauthorized", 'reason="wrong"') == 1
    assert metric(service, "mlship_api_key_requests", 'key="web"') == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": WEB},
        {"authorization": f"Basic {WEB}"},
        {"authorization": f"Bearer{WEB}"},
        {"x_api_key": " "},
    ],
)
def test_what_is_no_key_counts_as_none(call: Call, headers: dict[str, str]) -> None:
    response = call("POST", "/predict", SETOSA, **headers)
    assert response.status == 401
    assert error_of(response)["message"] == "the request has no API key"


def test_errors_have_the_form_of_their_protocol(call: Call) -> None:
    bodies: dict[str, Any] = {
        path: json.loads(call("POST", path, SETOSA).body)
        for path in ("/predict", "/v1/models/iris:predict", "/v2/models/iris/infer", ROUTE)
    }
    assert bodies.pop("/predict")["error"]["message"] == "the request has no API key"
    for body in bodies.values():
        assert body["error"].startswith("the request has no API key; send it in the header")


def test_neither_a_response_nor_metrics_nor_notes_have_a_key(
    call: Call, service: Service, notes: Notes, path: Path
) -> None:
    wrong = new_token()
    bodies = [
        call("POST", "/predict", SETOSA, x_api_key=token).body for token in (WEB, wrong, BATCH)
    ]
    texts = [*(body.decode() for body in bodies), service.metrics.text().decode(), *notes]
    texts.append(path.read_text())
    for token in (WEB, BATCH, wrong):
        assert not any(token in text for text in texts)
    assert not any(api_keys.hash_of(WEB) in text for text in texts[:-1])


def test_each_hash_is_compared_whatever_the_token(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []
    original: Callable[[str, str], bool] = hmac.compare_digest

    def compare(known: str, sent: str) -> bool:
        compared.append(known)
        return original(known, sent)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    hashes = [api_keys.hash_of(WEB), api_keys.hash_of(BATCH)]
    for token in (WEB, BATCH, "wrong"):
        compared.clear()
        call("POST", "/predict", SETOSA, x_api_key=token)
        assert compared == hashes


def status(call: Call, token: str) -> int:
    return int(call("POST", "/predict", SETOSA, x_api_key=token).status)


def test_keys_are_rotated_while_the_server_runs(
    call: Call, keys: KeyFile, path: Path, notes: Notes
) -> None:
    fresh = new_token()
    put(path, web=WEB, web2=fresh)
    assert (status(call, BATCH), status(call, fresh)) == (200, 401)
    keys.check()
    assert [status(call, token) for token in (WEB, BATCH, fresh)] == [200, 401, 200]
    put(path, web2=fresh)
    keys.check()
    assert [status(call, token) for token in (WEB, BATCH, fresh)] == [401, 401, 200]
    put(path)
    keys.check()
    keys.check()
    assert [status(call, token) for token in (WEB, BATCH, fresh)] == [401, 401, 401]
    assert notes == [
        f"API keys that are accepted: {names}"
        for names in ("web, batch", "web, web2", "web2", "none")
    ]


def test_a_file_behind_a_link_is_followed(tmp_path: Path, notes: Notes) -> None:
    """As the kubelet changes a Secret: a link to a folder is replaced."""
    for number, token in enumerate((WEB, BATCH)):
        (tmp_path / str(number)).mkdir()
        put(tmp_path / str(number) / "api-keys.json", key=token)
    (tmp_path / "data").symlink_to("0")
    (tmp_path / "api-keys.json").symlink_to("data/api-keys.json")
    keys = KeyFile(tmp_path / "api-keys.json", notes)
    (tmp_path / "next").symlink_to("1")
    (tmp_path / "next").replace(tmp_path / "data")
    keys.check()
    assert keys.known({"x-api-key": BATCH})
    assert not keys.known({"x-api-key": WEB})


def test_a_file_that_could_not_be_read_is_read_again(
    keys: KeyFile, path: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(path, batch=BATCH)

    def read(_: Path) -> ApiKeys:
        raise ConfigError("Too many open files") from OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(api_keys, "read", read)
        keys.check()
        keys.check()
    assert keys.known({"x-api-key": WEB})
    assert len(notes) == 2, "the same is not said twice"
    keys.check()
    assert not keys.known({"x-api-key": WEB}), "a key that was removed"


@pytest.mark.parametrize("damage", ["gone", "half", "no keys", "no text", "twice"])
def test_former_keys_stay_while_the_file_is_damaged(
    call: Call, keys: KeyFile, path: Path, notes: Notes, damage: str
) -> None:
    whole = path.read_bytes()
    match damage:
        case "gone":
            path.unlink()
        case "half":
            path.write_bytes(whole[: len(whole) // 2])
        case "no keys":
            path.write_bytes(b"[" * 100_000)
        case "no text":
            path.write_bytes(whole.replace(b'"batch"', b'"\xff"'))
        case _:
            path.write_bytes(whole.replace(b'"batch"', b'"web"'))
    with pytest.raises(ConfigError):
        KeyFile(path, Notes())
    keys.check()
    keys.check()
    assert [status(call, token) for token in (WEB, BATCH, "wrong")] == [200, 200, 401]
    assert len(notes) == 2
    assert notes[1].startswith("the API keys stay as they were: ")
    assert str(path) in notes[1]
    put(path, batch=BATCH)
    keys.check()
    assert [status(call, token) for token in (WEB, BATCH)] == [401, 200]


def test_bodies_of_strangers_are_known_before_they_are_read(service: Service) -> None:
    assert not service.admits("/predict", {})
    assert not service.admits("/predict", {"x-api-key": "wrong"})
    assert service.admits("/predict", {"x-api-key": WEB})
    assert service.admits("/v2/health/ready", {})
    assert not service.knows({}), "a probe needs no body"
    assert metric(service, "mlship_unauthorized", 'reason="missing"') == 0


def test_without_keys_everybody_is_answered(folder: Path) -> None:
    service = service_of(folder, Memory())
    service.warm_up(folder)
    assert service.admits("/predict", {})
    assert caller(service)("POST", "/predict", SETOSA).status == 200


def test_grpc_calls_have_keys_in_their_metadata(call: Call) -> None:
    assert call("POST", ROUTE, b"", content_type=MEDIA).status == 401
    answer = call("POST", ROUTE, b"", content_type=MEDIA, authorization=f"Bearer {WEB}")
    assert answer.status == 404, "the empty message names no model"


def test_metrics_move_to_a_page_of_their_own(service: Service, call: Call) -> None:
    service.move_metrics()
    assert call("GET", "/metrics", x_api_key=WEB).status == 404
    document = json.loads(call("GET", "/openapi.json", x_api_key=WEB).body)
    assert "/metrics" not in document["paths"]
    page = MetricsPage(service.metrics)

    def ask(method: str, path: str) -> Response:
        responses: list[Response] = []
        page.begin(Request(method=method, path=path, headers={}), responses.append)
        return responses[0]

    assert b'mlship_api_key_requests_total{key="web"}' in ask("GET", "/metrics").body
    assert ask("HEAD", "/metrics").status == 200
    assert ask("GET", "/predict").status == 404
    assert ask("POST", "/metrics").status == 405
