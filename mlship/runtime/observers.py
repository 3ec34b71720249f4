"""What hears of each response: the access log, and traces where a collector is configured."""

import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mlship.runtime import messages, refusals
from mlship.runtime.access_log import AccessLog, Line, LineWriter, to_descriptor, trace_of
from mlship.runtime.exchange import Answered
from mlship.runtime.metrics import Metrics
from mlship.runtime.options import Identity
from mlship.runtime.tracing import Tracing

CLOSE_SECONDS = 1.0
OTHER = "other"
"""The route of requests that no route answers."""


class Observers(Collector):
    """Passes each response on.

    Args:
        identity: of what is served.
        metrics: counts what no route has answered.
        access_log: gets a line for each request; `None` for none.
        tracing: makes spans of requests for predictions; `None` for none.
        key_of: returns the name of a request's API key by its headers.
    """

    def __init__(
        self,
        identity: Identity,
        metrics: Metrics,
        access_log: AccessLog | None,
        tracing: Tracing | None = None,
        key_of: Callable[[Mapping[str, str]], str] = lambda _: "",
    ) -> None:
        self._identity = identity
        self._metrics = metrics
        self._access_log = access_log
        self._tracing = tracing
        self._key_of = key_of
        metrics.add(self)

    @property
    def are_any(self) -> bool:
        """Whether anything is to be passed on."""
        return self._access_log is not None or self._tracing is not None

    def answered(self, answered: Answered) -> None:
        """Hear of a response."""
        request, exchange = answered.request, answered.exchange
        trace = ""
        if self._tracing is not None and request.method == "POST" and answered.route != OTHER:
            trace = self._tracing.answered(answered)
        if self._access_log is None:
            return
        computed = exchange is not None and exchange.rows
        self._access_log.add(
            Line(
                time=datetime.now(UTC),
                method=request.method,
                path=request.path,
                status=int(answered.response.status),
                ms=round(answered.seconds * 1e3, 3),
                queue_ms=round(exchange.waited * 1e3, 3) if exchange and computed else None,
                rows=len(exchange.rows) if exchange else 0,
                id=exchange.request_id if exchange else "",
                key=self._key_of(request.headers),
                release=self._identity.name,
                slot=self._identity.slot,
                trace=trace or trace_of(request.headers.get("traceparent", "")),
                reason=refusals.reason_of(answered.response),
            )
        )

    def refused(self, url: bytes, status: int) -> None:
        """Hear of a connection that is closed because of what arrived on it."""
        reason = refusals.of_status(status)
        self._metrics.refused(reason)
        if self._access_log is not None:
            self._access_log.add(
                Line(
                    time=datetime.now(UTC),
                    path=messages.path_of(url) if url else "",
                    status=status,
                    release=self._identity.name,
                    slot=self._identity.slot,
                    reason=reason,
                )
            )

    def close(self) -> None:
        """Write and send what is left, for a short time."""
        if self._access_log is not None:
            self._access_log.close(CLOSE_SECONDS)
        if self._tracing is not None:
            self._tracing.close(CLOSE_SECONDS)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics for the registry."""
        if self._access_log is not None:
            text = "Lines of the access log that nobody read in time."
            yield CounterMetricFamily(
                "mlship_access_log_dropped", text, value=self._access_log.dropped
            )


def open_access_log(later: Callable[[float, Callable[[], None]], object]) -> AccessLog:
    """Return the access log on stdout."""
    return AccessLog(LineWriter(to_descriptor(sys.stdout.fileno())), later)
