"""Metrics for Prometheus: requests, latencies, predictions, workers, and the served model."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mlship.runtime.groups import Backlog

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_PLACES = len(_BUCKETS) + 1
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)
_REASONS = ("busy", "restarting", "deadline", "gone")


class Requests(Collector):
    """Requests by route and status, and their latencies.

    A request is added by one thread, the event loop's. Counters of the library lock and look up by
    label for each, which takes as long as decoding and checking a row.
    """

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._latencies: defaultdict[str, list[int]] = defaultdict(lambda: [0] * _PLACES)
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def add(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._counts[route, status] += 1
        self._latencies[route][bisect_left(_BUCKETS, seconds)] += 1
        self._seconds[route] += seconds

    def collect(self) -> Iterator[Metric]:
        """Return the metrics for the registry."""
        counts = CounterMetricFamily(
            "mlship_requests", "Requests by route and HTTP status.", labels=("route", "status")
        )
        for (route, status), count in self._counts.items():
            counts.add_metric((route, str(int(status))), count)
        yield counts
        latencies = HistogramMetricFamily(
            "mlship_request_seconds",
            "Time from a request's arrival to its response, including the write to the log.",
            labels=("route",),
        )
        for route, numbers in self._latencies.items():
            names = [*map(str, _BUCKETS), "+Inf"]
            buckets = list(zip(names, accumulate(numbers), strict=True))
            latencies.add_metric((route,), buckets, self._seconds[route])
        yield latencies


class Metrics:
    """The metrics of one process, in a separate registry."""

    def __init__(self, *, name: str, release: str, slot: str, format: str) -> None:  # noqa: A002 (the label's name)
        self._registry = CollectorRegistry()
        self._requests = Requests()
        self._registry.register(self._requests)
        predictions = self._counter(
            "mlship_predictions", "Predicted and logged rows.", "slot", "release", "shadow"
        )
        labels = ("name", "release", "slot", "format")
        info = Gauge("mlship_model_info", "The served model.", labels, registry=self._registry)
        info.labels(name, release, slot, format).set(1)
        self._of_slot = {
            shadow: predictions.labels(slot, release, str(shadow).lower())
            for shadow in (False, True)
        }
        refused = self._counter(
            "mlship_refused",
            "Requests that were not computed in time: refused when they came because the model was "
            "busy or its worker was started again, not answered before their deadline, or dropped "
            "because the client had gone.",
            "reason",
        )
        self._of_reason = {reason: refused.labels(reason) for reason in _REASONS}
        self._restarts = self._counter(
            "mlship_worker_restarts", "Workers that were started again after they had ended."
        )
        self._hung = self._counter(
            "mlship_workers_hung", "Workers that were ended because they did not answer."
        )
        self._rows = Histogram(
            "mlship_batch_rows",
            "Rows that were sent to a worker together.",
            buckets=_ROWS,
            registry=self._registry,
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def add(self, collector: Collector) -> None:
        """Show what another part of the server counts."""
        self._registry.register(collector)

    def watch(self, backlog: Callable[[], Backlog], clock: Callable[[], datetime]) -> None:
        """Show predictions that wait in the spool for the database."""

        def age() -> float:
            since = backlog().since
            return 0.0 if since is None else max(0.0, (clock() - since).total_seconds())

        self._gauge(
            "mlship_spooled_rows",
            "Predicted rows in the spool that are not in the database yet.",
            lambda: backlog().rows,
        )
        self._gauge(
            "mlship_spooled_oldest_seconds",
            "Age of the oldest of these rows, 0 if there is none.",
            age,
        )

    def watch_pool(self, queued: Callable[[], int], in_flight: Callable[[], int]) -> None:
        """Show the queue."""
        self._gauge("mlship_queued_rows", "Rows that wait for a worker.", queued)
        self._gauge("mlship_in_flight", "Requests that are being computed by a worker.", in_flight)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(name, text, registry=self._registry).set_function(value)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.add(route, status, seconds)

    def predicted(self, rows: int, *, shadow: bool) -> None:
        """Count the rows of one request."""
        self._of_slot[shadow].inc(rows)

    def sent(self, rows: int) -> None:
        """Count rows that were sent to a worker together."""
        self._rows.observe(rows)

    def refused(self, reason: str) -> None:
        """Count a request that was not computed in time."""
        self._of_reason[reason].inc()

    def restarted(self, *, hung: bool) -> None:
        """Count a worker that is started again."""
        self._restarts.inc()
        if hung:
            self._hung.inc()

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self._registry)
