"""Metrics for Prometheus: requests, latencies, predictions, and the model that is served."""

from collections.abc import Callable
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from mlship.runtime.groups import Backlog

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """The metrics of one process, in a separate registry."""

    def __init__(self, *, name: str, release: str, slot: str, format: str) -> None:  # noqa: A002 (the label's name)
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "mlship_requests",
            "Requests by route and HTTP status.",
            ("route", "status"),
            registry=self._registry,
        )
        self._latency = Histogram(
            "mlship_request_seconds",
            "Time from a request's arrival to its response, including the write to the log.",
            ("route",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._predictions = Counter(
            "mlship_predictions",
            "Predicted and logged rows.",
            ("slot", "release", "shadow"),
            registry=self._registry,
        )
        labels = ("name", "release", "slot", "format")
        info = Gauge("mlship_model_info", "The served model.", labels, registry=self._registry)
        info.labels(name, release, slot, format).set(1)
        self._of_slot = {
            shadow: self._predictions.labels(slot, release, str(shadow).lower())
            for shadow in (False, True)
        }

    def watch(self, backlog: Callable[[], Backlog], clock: Callable[[], datetime]) -> None:
        """Show predictions that wait in the spool for the database."""

        def age() -> float:
            since = backlog().since
            return 0.0 if since is None else max(0.0, (clock() - since).total_seconds())

        rows = Gauge(
            "mlship_spooled_rows",
            "Predicted rows in the spool that are not in the database yet.",
            registry=self._registry,
        )
        rows.set_function(lambda: backlog().rows)
        oldest = Gauge(
            "mlship_spooled_oldest_seconds",
            "Age of the oldest of these rows, 0 if there is none.",
            registry=self._registry,
        )
        oldest.set_function(age)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def predicted(self, rows: int, *, shadow: bool) -> None:
        """Count the rows of one request."""
        self._of_slot[shadow].inc(rows)

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self._registry)
