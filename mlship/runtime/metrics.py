"""Metrics for Prometheus: requests, latencies, predictions, and the model that is served."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

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
