"""Spans of requests, as OpenTelemetry's SDK keeps them in memory."""

import builtins
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from mlship.domain.environment import of_serving, of_supervisor, of_traces
from mlship.runtime.exchange import Answered, Exchange
from mlship.runtime.http import Request, Response
from mlship.runtime.jobs import Job, Table
from mlship.runtime.observers import Observers
from mlship.runtime.options import Identity
from mlship.runtime.tracing import Tracing, is_wanted, open_tracing
from tests.harness.bundles import SETOSA, iris_bundle
from tests.harness.served import FRESH, RELEASE, Call, Memory, caller, service_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
IDENTITY = Identity(release=RELEASE, name="iris@abababababab", slot="rabababababab")
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
SECOND = 1_000_000_000


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> Tracing:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider, IDENTITY)


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "iris"
    iris_bundle(folder)
    return folder


@pytest.fixture
def call(folder: Path, memory: Memory, tracing: Tracing) -> Call:
    service = service_of(folder, memory)
    service.warm_up(folder)
    service.observe(Observers(IDENTITY, service.metrics, None, tracing).answered)
    return caller(service)


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def length_of(span: ReadableSpan) -> int:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.end_time - span.start_time


def named(spans: Sequence[ReadableSpan], name: str) -> ReadableSpan:
    (span,) = (span for span in spans if span.name == name)
    return span


def test_a_request_is_a_span_without_values(call: Call, exporter: InMemorySpanExporter) -> None:
    call("POST", "/predict", [SETOSA, SETOSA])
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.kind) == ("POST /predict", SpanKind.SERVER)
    assert span.parent is None
    assert attributes_of(span) == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "mlship.release": "iris@abababababab",
        "mlship.slot": "rabababababab",
        "mlship.request_id": FRESH,
        "mlship.rows": 2,
        "mlship.shadow": False,
    }


def test_a_trace_of_the_client_is_continued(call: Call, exporter: InMemorySpanExporter) -> None:
    call("POST", "/predict", SETOSA, traceparent=f"00-{TRACE}-{SPAN}-01", tracestate="a=1")
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    assert format(span.context.trace_id, "032x") == TRACE
    assert span.parent is not None
    assert format(span.parent.span_id, "016x") == SPAN
    assert span.context.trace_state.get("a") == "1"


@pytest.mark.parametrize("traceparent", [f"00-{TRACE}-{SPAN}-00", "00-zz-00-01", ""])
def test_the_clients_decision_not_to_sample_is_kept_and_garbage_is_not(
    call: Call, exporter: InMemorySpanExporter, traceparent: str
) -> None:
    response = call("POST", "/predict", SETOSA, traceparent=traceparent)
    assert response.status == 200
    spans = exporter.get_finished_spans()
    assert len(spans) == (0 if traceparent.startswith(f"00-{TRACE}") else 1)


def test_failures_have_their_reason(
    call: Call, memory: Memory, exporter: InMemorySpanExporter
) -> None:
    call("POST", "/predict", b"{")
    memory.is_full = True
    call("POST", "/predict", SETOSA)
    invalid, failed = exporter.get_finished_spans()
    assert attributes_of(invalid)["error.type"] == "invalid"
    assert invalid.status.status_code == StatusCode.UNSET, "the client is to blame"
    assert attributes_of(failed)["error.type"] == "log"
    assert failed.status.status_code == StatusCode.ERROR


def test_probes_and_unknown_paths_are_no_spans(call: Call, exporter: InMemorySpanExporter) -> None:
    call("GET", "/v2/health/ready")
    call("GET", "/metrics")
    call("POST", "/nothing")
    assert exporter.get_finished_spans() == ()


def computed(queued: float, sent: float, ended: float) -> Exchange:
    """Return an exchange that was queued, sent to a worker and computed at these times."""
    request = Request(method="POST", path="/predict", headers={})
    exchange = Exchange(request, FRESH, None, "/predict", 99.0, lambda _: None)  # type: ignore[arg-type]  # nothing is encoded
    exchange.job = Job(Table(), 0.0, lambda _: None, FRESH, queued=queued, sent=sent)
    exchange.seconds = ended - exchange.started if ended else 0.0
    return exchange


def answered(exchange: Exchange) -> Answered:
    response = Response(status=200, headers={}, body=b"")
    return Answered(exchange.request, response, "/predict", 99.0, 5.0, exchange)


def test_the_wait_and_the_model_are_spans_within(
    tracing: Tracing, exporter: InMemorySpanExporter
) -> None:
    trace = tracing.answered(answered(computed(100.0, 101.0, 103.0)))
    spans = exporter.get_finished_spans()
    request, queue, model = (named(spans, name) for name in ("POST /predict", "queue", "model"))
    assert [length_of(span) for span in (request, queue, model)] == [5 * SECOND, SECOND, 2 * SECOND]
    assert request.context is not None
    for span in (queue, model):
        assert span.parent == request.context
        assert span.context is not None
        assert format(span.context.trace_id, "032x") == trace
    assert queue.start_time is not None
    assert request.start_time is not None
    assert queue.start_time - request.start_time == SECOND
    assert model.start_time == queue.end_time


def test_what_was_late_in_the_queue_has_no_span_of_the_model(
    tracing: Tracing, exporter: InMemorySpanExporter
) -> None:
    tracing.answered(answered(computed(100.0, 0.0, 0.0)))
    assert {span.name for span in exporter.get_finished_spans()} == {"POST /predict", "queue"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_SERVICE_NAME": "iris"}, False),
    ],
)
def test_a_collector_is_what_the_variables_say(variables: dict[str, str], expected: bool) -> None:
    assert is_wanted(variables) is expected


def test_without_a_collector_nothing_is_said() -> None:
    notes: list[str] = []
    assert open_tracing({}, "iris", IDENTITY, notes.append) is None
    assert notes == []


def test_a_missing_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("opentelemetry.exporter"):
            raise ModuleNotFoundError(name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    notes: list[str] = []
    assert open_tracing(ENDPOINT, "iris", IDENTITY, notes.append) is None
    (note,) = notes
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is set, but opentelemetry.exporter" in note
    assert "install mlship-cd[otel]; for an image, add opentelemetry-sdk and" in note


def test_another_protocol_is_said_to_be_none_of_ours() -> None:
    notes: list[str] = []
    variables = {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert open_tracing(variables, "iris", IDENTITY, notes.append) is None
    assert notes == [
        "traces are not sent by grpc: set OTEL_EXPORTER_OTLP_PROTOCOL to http/protobuf"
    ]


def test_only_a_replica_gets_the_variables_of_traces() -> None:
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret"}
    environment = {**ENDPOINT, **headers, "OTEL_OTHER": "x", "PATH": "/bin"}
    assert of_traces(environment) == {**ENDPOINT, **headers}
    assert not of_serving(environment).keys() & {**ENDPOINT, **headers}.keys()
    assert of_supervisor(environment).items() >= {**ENDPOINT, **headers}.items()
