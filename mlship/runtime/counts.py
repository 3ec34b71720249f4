"""Counts that one thread, the event loop's, adds to for each request.

Counters of prometheus_client lock, and look up by label, for each: that takes as long as decoding
and checking a row.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, repeat
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mlship.domain.bundle import ANOMALY, CLUSTER, Bundle, Value
from mlship.domain.columns import FEW, Columns

SECONDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
"""The buckets of times: from a quick answer to the deadline of requests."""
ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)
CLASSES: Final = 50
"""At most so many classes of an output have a count of their own."""
OTHER: Final = "other"


class Buckets:
    """A histogram.

    Args:
        bounds: the upper bounds of its buckets, ascending; a further one has the rest.
    """

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def show(self, family: HistogramMetricFamily, *labels: str) -> None:
        """Add the histogram to a metric."""
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        buckets = list(zip(names, accumulate(self._counts), strict=True))
        family.add_metric(labels, buckets, self._sum)


class Requests(Collector):
    """Requests by route and status, their latencies, and how long they waited for a worker."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._latencies: defaultdict[str, Buckets] = defaultdict(Buckets)
        self._waits = Buckets()
        self._batches = Buckets(ROWS)

    def add(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._counts[route, status] += 1
        self._latencies[route].add(seconds)

    def waited(self, seconds: float) -> None:
        """Count the wait of one request that was computed."""
        self._waits.add(seconds)

    def sent(self, rows: int) -> None:
        """Count rows that were sent to a worker together."""
        self._batches.add(rows)

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
        for route, buckets in self._latencies.items():
            buckets.show(latencies, route)
        yield latencies
        waits = HistogramMetricFamily(
            "mlship_queue_seconds", "Time that computed requests waited for a worker."
        )
        self._waits.show(waits)
        yield waits
        batches = HistogramMetricFamily(
            "mlship_batch_rows", "Rows that were sent to a worker together."
        )
        self._batches.show(batches)
        yield batches


class Predictions(Collector):
    """Predictions, and predictions by class of outputs that have classes: not numbers, not texts.

    Args:
        bundle: the manifest of what is served.
        labels: names and values that all counts have.
    """

    def __init__(self, bundle: Bundle, labels: dict[str, str]) -> None:
        self._labels = labels
        self._names = {name: _names_of(known) for name, known in _classes(bundle).items()}
        self._rows = {False: 0, True: 0}
        self._counts: defaultdict[tuple[str, str, bool], int] = defaultdict(int)

    def add(self, outputs: Columns, *, shadow: bool) -> None:
        """Count the rows of one request."""
        self._rows[shadow] += outputs.size
        counts = self._counts
        known = outputs.names
        for name, names in self._names.items():
            is_known = name in known
            values = outputs.values[known.index(name)] if is_known else (None,) * outputs.size
            for value, number in _numbers_of(values):
                counts[name, names.get(value, OTHER), shadow] += number

    def collect(self) -> Iterator[Metric]:
        """Return the metrics for the registry."""
        predictions = CounterMetricFamily(
            "mlship_predictions", "Predicted and logged rows.", labels=(*self._labels, "shadow")
        )
        for is_shadow, rows in self._rows.items():
            predictions.add_metric((*self._labels.values(), str(is_shadow).lower()), rows)
        yield predictions
        family = CounterMetricFamily(
            "mlship_predicted_classes",
            f"Predicted rows by class; at most {CLASSES} classes of an output, all else is other.",
            labels=(*self._labels, "output", "class", "shadow"),
        )
        for (name, label, shadow), count in self._counts.items():
            values = (*self._labels.values(), name, label, str(shadow).lower())
            family.add_metric(values, count)
        yield family


def _numbers_of(values: Sequence[Value]) -> Iterable[tuple[Value, int]]:
    """Return how often there is each value; of few values, each is one."""
    return Counter(values).items() if len(values) >= FEW else zip(values, repeat(1), strict=False)


def _classes(bundle: Bundle) -> Mapping[str, Sequence[Value]]:
    """Return the classes of each output that has some."""
    if bundle.task == "clustering":
        return {CLUSTER: range(-1, CLASSES - 1)}
    if bundle.task == "anomaly":
        return {ANOMALY: (-1, 1)}
    heads = {head.name: head.classes for head in bundle.model.heads if head.classes}
    return heads or ({bundle.target: bundle.model.classes} if bundle.model.classes else {})


def _names_of(classes: Sequence[Value]) -> dict[Value, str]:
    """Return the label of each class that has a count; booleans as JSON has them."""
    return {
        label: str(label).lower() if isinstance(label, bool) else str(label)
        for label in classes[:CLASSES]
    }
