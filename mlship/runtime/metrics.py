"""Metrics for Prometheus: requests, latencies, predictions, workers, and the served model."""

from collections.abc import Callable
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.registry import Collector

from mlship.domain.bundle import Bundle
from mlship.domain.columns import Columns
from mlship.runtime import refusals
from mlship.runtime.counts import Predictions, Requests
from mlship.runtime.groups import Backlog

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The metrics of one process, in a separate registry.

    Args:
        bundle: the manifest of what is served.
        release: the name of the release.
        slot: its slot.

    Attributes:
        answered: counts one request by route, status and seconds.
    """

    def __init__(self, bundle: Bundle, *, release: str, slot: str) -> None:
        self._registry = CollectorRegistry()
        self._requests = Requests()
        self.answered = self._requests.add
        self._predictions = Predictions(bundle, {"slot": slot, "release": release})
        self._registry.register(self._requests)
        self._registry.register(self._predictions)
        labels = ("name", "release", "slot", "format")
        info = Gauge("mlship_model_info", "The served model.", labels, registry=self._registry)
        info.labels(bundle.name, release, slot, bundle.model.format).set(1)
        refused = self._counter(
            "mlship_refused",
            "Requests for predictions that got none, by reason: such as busy or restarting when "
            "they came, deadline, invalid, log if it could not be written, or gone clients.",
            "reason",
        )
        self._of_reason = {reason: refused.labels(reason) for reason in refusals.REASONS}
        self._cached = self._counter(
            "mlship_cached_rows", "Rows whose outputs were in memory, and were not computed."
        )
        self._restarts = self._counter(
            "mlship_worker_restarts", "Workers that were started again after they had ended."
        )
        self._hung = self._counter(
            "mlship_workers_hung", "Workers that were ended because they did not answer."
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

    def watch_requests(self, number: Callable[[], int]) -> None:
        """Show the requests that are not answered yet."""
        text = "Requests that have arrived and are not answered yet, whatever they wait for."
        self._gauge("mlship_open_requests", text, number)

    def watch_pool(self, queued: Callable[[], int], in_flight: Callable[[], int]) -> None:
        """Show the queue."""
        self._gauge("mlship_queued_rows", "Rows that wait for a worker.", queued)
        self._gauge("mlship_in_flight", "Requests that are being computed by a worker.", in_flight)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(name, text, registry=self._registry).set_function(value)

    def predicted(self, outputs: Columns, *, shadow: bool, waited: float) -> None:
        """Count the rows of one request, which waited for a worker for so many seconds."""
        self._predictions.add(outputs, shadow=shadow)
        self._requests.waited(waited)

    def sent(self, rows: int) -> None:
        """Count rows that were sent to a worker together."""
        self._requests.sent(rows)

    def cached(self, rows: int) -> None:
        """Count rows that were answered from memory."""
        self._cached.inc(rows)

    def refused(self, reason: str) -> None:
        """Count a request that got no prediction."""
        self._of_reason[reason].inc()

    def restarted(self, *, hung: bool) -> None:
        """Count a worker that is started again."""
        self._restarts.inc()
        if hung:
            self._hung.inc()

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self._registry)
