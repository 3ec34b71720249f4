"""MLflow's REST API through the door: which requests are repeated, and what errors say."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlship.adapters.http.clients import Reach, open_client
from mlship.adapters.http.door import Door, Terms
from mlship.adapters.http.retries import Patience
from mlship.adapters.mlflow import faults
from mlship.adapters.mlflow.rest import Server, connected
from mlship.adapters.stores import mlflow_fast
from mlship.errors import (
    ConfigError,
    ConflictError,
    MlshipError,
    NotFoundError,
    UnavailableError,
)
from tests.fakes.timing import patient

URI = "http://mlflow.example"
RUN = {"info": {"run_id": "3f9a", "artifact_uri": "", "status": "RUNNING"}, "data": {}}


class Tracking:
    """Answers in turn, and keeps the paths that it was asked for."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.waits: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path.removeprefix("/api/2.0/mlflow/"))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    @property
    def server(self) -> Server:
        client = open_client(Reach(transport=httpx.MockTransport(self)), base_url=URI)
        timing, patience = patient(self.waits), Patience(attempts=3)
        terms = Terms(name="MLflow", patience=patience, timing=timing)
        return Server(URI, Door(client, terms), patience, timing)


def ok(**values: Any) -> httpx.Response:
    return httpx.Response(200, json=values)


def refusal(status: int, code: str, message: str = "") -> httpx.Response:
    return httpx.Response(status, json={"error_code": code, "message": message})


def test_a_creation_is_repeated_only_after_a_look() -> None:
    tracking = Tracking(httpx.Response(502), ok(run=RUN))
    assert tracking.server.create("runs/create", {}, lambda _: None) == {"run": RUN}
    assert tracking.asked == ["runs/create", "runs/create"]
    tracking = Tracking(httpx.Response(502))
    assert tracking.server.create("runs/create", {}, lambda _: "found") == "found"
    assert tracking.asked == ["runs/create"]
    tracking = Tracking(httpx.Response(502))
    with pytest.raises(UnavailableError, match=r"answered 502 \(3 attempts in \d+ s\)"):
        tracking.server.create("runs/create", {}, lambda _: None)


def test_a_post_that_is_not_said_to_be_repeatable_is_sent_once() -> None:
    tracking = Tracking(httpx.Response(503), ok())
    with pytest.raises(UnavailableError, match="answered 503"):
        tracking.server.post("runs/create", {})
    tracking = Tracking(httpx.Response(503), ok())
    assert tracking.server.post("runs/search", {}, repeat="always") == {}


@pytest.mark.parametrize(
    ("response", "kind", "says"),
    [
        (refusal(404, "RESOURCE_DOES_NOT_EXIST"), NotFoundError, "no such object: runs/get 3f9a"),
        (refusal(400, "RESOURCE_ALREADY_EXISTS"), ConflictError, "already has this object"),
        (refusal(400, "INVALID_PARAMETER_VALUE", "too long"), ConfigError, "too long"),
        (refusal(500, "INTERNAL_ERROR", "disk full"), UnavailableError, "500.*: disk full"),
        (httpx.Response(404, text="<html>"), UnavailableError, "runs/get answered 404"),
        (httpx.Response(401), UnavailableError, "refused the credentials"),
        (httpx.Response(403), UnavailableError, "does not permit runs/get with these credentials"),
        (
            httpx.Response(301, headers={"Location": "https://ada:pw@mlflow.example/"}),
            UnavailableError,
            "redirects to https://mlflow.example/",
        ),
    ],
)
def test_an_error_names_what_was_asked_for(
    response: httpx.Response, kind: type[MlshipError], says: str
) -> None:
    with pytest.raises(kind, match=says) as caught:
        Tracking(response).server.get("runs/get", {"run_id": "3f9a"})
    assert caught.value.hint
    assert "pw@" not in caught.value.message


def test_a_row_that_another_process_wrote_first_is_told_from_a_name_that_is_taken() -> None:
    words = "(sqlite3.IntegrityError) UNIQUE constraint failed: experiments.name"
    assert faults.was_second(refusal(400, "BAD_REQUEST", words))
    assert not faults.was_second(refusal(400, "RESOURCE_ALREADY_EXISTS", words))
    assert not faults.was_second(refusal(400, "BAD_REQUEST", "no such run"))
    assert not faults.was_second(ok(message=words))


@pytest.mark.parametrize("name", ["MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
def test_a_setting_that_is_no_number_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=name), connected(URI, {name: "soon"}):
        pass


@pytest.mark.parametrize("text", ["0", "00", "-1", "1.5", "1e3", "²", "9" * 30])
def test_a_time_limit_is_a_positive_number(text: str) -> None:
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    with pytest.raises(ConfigError, match=f"{name} is not a pos"), connected(URI, {name: text}):
        pass


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("http://[::1", "it is not a URL"),
        ("http://", "it is not a URL"),
        ("http://ada:s3cret@a:x", "it is not a URL"),
        (f"http://ada:s3cret@{'a' * 64}.example", "must have 1 to 63 characters"),
        (f"http://xn--{'a' * 70}", "it is not a URL"),
        ("http://ada:s3cret@a:65536", "port 65536"),
        ("http://a\udcff", "it is not a URL"),
    ],
)
def test_an_address_that_no_connection_can_be_opened_to_is_refused(uri: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught, connected(uri, {}):
        pass
    assert "MLFLOW_TRACKING_URI" in caught.value.hint
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLFLOW_TRACKING_TOKEN", "s3cretключ"),
        ("MLFLOW_TRACKING_TOKEN", "s3cret\n"),
        ("MLFLOW_TRACKING_TOKEN", "s3cret\udcff"),
        ("MLFLOW_TRACKING_USERNAME", "s3cret\udcff"),
        ("MLFLOW_TRACKING_PASSWORD", "s3cret\udcff"),
    ],
)
def test_credentials_that_cannot_be_sent_are_named_and_not_shown(variable: str, value: str) -> None:
    environ = {variable: value}
    if "TOKEN" not in variable:
        environ = {"MLFLOW_TRACKING_USERNAME": "a", "MLFLOW_TRACKING_PASSWORD": "b"} | environ
    with pytest.raises(ConfigError, match=variable) as caught, connected(URI, environ):
        pass
    assert "s3cret" not in f"{caught.value.message} {caught.value.hint}"


def test_a_name_and_a_password_may_be_of_any_language() -> None:
    names = {"MLFLOW_TRACKING_USERNAME": "Åse", "MLFLOW_TRACKING_PASSWORD": "ключ"}
    with connected(URI, names):
        pass


@pytest.mark.parametrize(
    "name", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH"]
)
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read_are_named(
    tmp_path: Path, name: str, content: str | None
) -> None:
    path = tmp_path / "authority.pem"
    if content is not None:
        path.write_text(content)
    with (
        connected("https://127.0.0.1:9", {name: str(path)}) as server,
        pytest.raises(ConfigError, match=f"{name}: cannot use {path}: "),
    ):
        server.get("runs/get", {"run_id": "3f9a"})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b'"a"',
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"run": "\xff"}',
    ],
    ids=lambda body: repr(body[:60]),
)
@pytest.mark.parametrize("path", ["runs/get", "runs/update", "runs/search"])
def test_what_is_no_object_is_told_as_another_server(path: str, body: bytes) -> None:
    says = f"{path} returned an unexpected answer; is it MLflow"
    with pytest.raises(UnavailableError, match=says):
        Tracking(httpx.Response(200, content=body)).server.get(path, {})
    with pytest.raises(UnavailableError, match="answered 501"):
        Tracking(httpx.Response(501, content=body)).server.get(path, {})


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("logged-models", {"model": {"info": {"model_id": 1}}}),
        ("logged-models/m-3f9a", {"model": {"info": {"artifact_uri": "x"}}}),
        ("logged-models/search", {"models": [{"info": {}}]}),
        ("experiments/create", {}),
        ("experiments/get-by-name", {"experiment": None}),
        ("model-versions/create", {"model_version": {}}),
        ("model-versions/search", {"model_versions": [{"version": "one"}]}),
        ("registered-models/get", {"registered_model": {"aliases": [{"alias": "a"}]}}),
        ("runs/create", {"run": {}}),
        ("runs/get", {"run": {"info": [], "data": {}}}),
        ("runs/search", {"runs": None}),
        ("runs/search", {"runs": [RUN | {"data": {"metrics": [{"key": "a", "value": "b"}]}}]}),
    ],
)
def test_an_answer_of_another_shape_is_told_as_another_server(
    path: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(UnavailableError, match=f"{path} returned an unexpected answer"):
        Tracking(ok(**wrong)).server.get(path, {})


def test_numbers_are_read_as_protobuf_writes_them() -> None:
    version = {"version": "7", "creation_timestamp": "1772366400000", "name": "iris"}
    found = {"model_versions": [version | {"creation_timestamp": 1}, version]}
    assert Tracking(ok(**found)).server.get("model-versions/search", {}) == found
    metrics = [{"key": "a", "value": value} for value in (1, 0.5, "NaN", "-Infinity")]
    found = {"runs": [RUN | {"data": {"metrics": metrics}}]}
    assert Tracking(ok(**found)).server.get("runs/search", {}) == found


def paging(page: Callable[[int], dict[str, Any]]) -> Server:
    """Return a server whose answers to a search or a list are pages by their number."""
    count = itertools.count()
    tracking = Tracking()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("registered-models/get"):
            return ok(registered_model={})
        return ok(**page(next(count)))

    client = open_client(Reach(transport=httpx.MockTransport(answer)), base_url=URI)
    terms = Terms(name="MLflow", timing=patient(tracking.waits))
    return Server(URI, Door(client, terms), terms.patience, terms.timing)


def listed(server: Server) -> object:
    return mlflow_fast.of_server(server, URI, "iris")


def read_all(server: Server) -> object:
    return list(server.pages("POST", "runs/search", {}))


@pytest.mark.parametrize("work", [listed, read_all])
def test_a_list_without_an_end_is_given_up(work: Callable[[Server], object]) -> None:
    with pytest.raises(UnavailableError, match=r"search returned the same page twice"):
        work(paging(lambda _: {"next_page_token": "again"}))
    with pytest.raises(UnavailableError, match=r"search returned more than 1000 pages"):
        work(paging(lambda number: {"next_page_token": f"page-{number}"}))


def test_a_list_of_several_pages_is_read_to_its_end() -> None:
    pages: list[dict[str, Any]] = [
        {"runs": [RUN], "next_page_token": "2"},
        {"next_page_token": "3"},
        {"runs": [RUN]},
    ]
    assert len(list(paging(lambda number: pages[number]).pages("POST", "runs/search", {}))) == 3
