"""Spans of OpenTelemetry, sent by OTLP over HTTP where a collector is configured.

The settings are OpenTelemetry's own variables. Its packages are an extra, and loaded only then. A
thread of the SDK sends spans; those for which there is no room are dropped.
"""

import time
from collections.abc import Callable, Mapping
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from mlship.runtime import refusals
from mlship.runtime.exchange import Answered
from mlship.runtime.options import Identity

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"
_HINT: Final = (
    "install mlship-cd[otel]; for an image, add opentelemetry-sdk and "
    "opentelemetry-exporter-otlp-proto-http to requirements.txt"
)


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Return whether OpenTelemetry's variables name a collector for traces."""
    return (
        any(environment.get(name) for name in _ENDPOINTS)
        and environment.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"
        and environment.get("OTEL_TRACES_EXPORTER", "otlp").strip() in ("", "otlp")
    )


class Tracing:
    """Makes the spans of requests for predictions, when they were answered.

    Args:
        provider: makes and sends them.
        identity: of what is served.
    """

    def __init__(self, provider: "TracerProvider", identity: Identity) -> None:
        from opentelemetry import trace
        from opentelemetry.context import Context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("mlship.runtime")
        self._extract = TraceContextTextMapPropagator().extract
        self._root = Context()
        self._in_span = trace.set_span_in_context
        self._server = trace.SpanKind.SERVER
        self._failed = trace.Status(trace.StatusCode.ERROR)
        self._release = {"mlship.release": identity.name, "mlship.slot": identity.slot}

    def answered(self, answered: Answered) -> str:
        """Make the spans of a request; return its trace id, also if it is not sampled."""
        request, response, route, started, seconds, _ = answered
        ended = started + seconds
        context = self._root
        if "traceparent" in request.headers:
            context = self._extract(request.headers, context)
        # Times of spans are those of the clock, which may be set while a request is computed.
        offset = time.time_ns() - _nanoseconds(ended)
        span = self._tracer.start_span(
            f"{request.method} {route}",
            context,
            kind=self._server,
            attributes=self._attributes(answered),
            start_time=offset + _nanoseconds(started),
        )
        if span.is_recording():
            if response.status >= 500:
                span.set_status(self._failed)
            self._add_parts(answered, self._in_span(span, context), offset)
            span.end(offset + _nanoseconds(ended))
        return format(span.get_span_context().trace_id, "032x")

    def _attributes(self, answered: Answered) -> dict[str, Any]:
        exchange = answered.exchange
        attributes: dict[str, Any] = {
            "http.request.method": answered.request.method,
            "http.route": answered.route,
            "http.response.status_code": int(answered.response.status),
            **self._release,
        }
        if exchange is not None:
            attributes["mlship.request_id"] = exchange.request_id
            attributes["mlship.rows"] = len(exchange.rows)
            attributes["mlship.shadow"] = exchange.is_shadow
        if reason := refusals.reason_of(answered.response):
            attributes["error.type"] = reason
        return attributes

    def _add_parts(self, answered: Answered, inside: Any, offset: int) -> None:
        """Make the spans within that of a request: the wait for a worker, and the model."""
        if answered.exchange is None:
            return
        queued, sent, computed = answered.exchange.moments(answered.started + answered.seconds)
        for name, start, end in (("queue", queued, sent), ("model", sent, computed)):
            if start < end:
                span = self._tracer.start_span(
                    name, inside, start_time=offset + _nanoseconds(start)
                )
                span.end(offset + _nanoseconds(end))

    def close(self, seconds: float) -> None:
        """Send what is left, at most for so long."""
        ending = Thread(target=self._provider.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(seconds)


def open_tracing(
    environment: Mapping[str, str], name: str, identity: Identity, note: Callable[[str], None]
) -> Tracing | None:
    """Return what makes spans; `None` without a collector, or if they cannot be sent.

    Why they cannot be is noted: that is no reason not to serve.

    Args:
        environment: OpenTelemetry's variables.
        name: of the service, unless a variable has one.
        identity: of what is served.
        note: shows a line to the operator.
    """
    if not is_wanted(environment):
        return None
    protocol = next(filter(None, map(environment.get, _PROTOCOLS)), _PROTOCOL)
    if protocol != _PROTOCOL:
        note(f"traces are not sent by {protocol[:40]}: set {_PROTOCOLS[1]} to {_PROTOCOL}")
        return None
    try:
        provider = _provider(name, identity)
    except ImportError as error:
        endpoint = next(filter(environment.get, _ENDPOINTS))
        note(f"traces are not sent: {endpoint} is set, but {error.name} is missing; {_HINT}")
        return None
    except ValueError as error:
        note(f"traces are not sent: a variable OTEL_... is not valid: {error}")
        return None
    return Tracing(provider, identity)


def _provider(name: str, identity: Identity) -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    own = {SERVICE_NAME: name, "service.version": identity.release}
    # Later ones win: the variables have the last word, but for the name that they lack.
    known = Resource.create()
    if str(known.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = known.merge(Resource(own))
    else:
        resource = Resource(own).merge(known)
    # At the end of the process it would wait for 30 s; `Tracing.close` waits for less.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
