"""Counts of one process's predictions, as the statistics extension of V2 has them."""

from datetime import datetime
from threading import Lock
from typing import Any

NANOSECONDS = 1e9


class _Duration:
    """A number of requests, and the time that they took in all."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def document(self) -> dict[str, int]:
        return {"count": self.count, "ns": round(self.seconds * NANOSECONDS)}


class Statistics:
    """Counts requests that predict."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._rows = 0
        self._last: datetime | None = None
        self._success = _Duration()
        self._fail = _Duration()
        self._compute = _Duration()

    def succeeded(self, rows: int, seconds: float, computed: float, time: datetime) -> None:
        """Count a request that was answered with predictions.

        Args:
            rows: their number.
            seconds: the time until its response.
            computed: the time of the model in it, with the check of the rows.
            time: when it was answered.
        """
        with self._lock:
            self._rows += rows
            self._last = time
            self._success.add(seconds)
            self._compute.add(computed)

    def failed(self, seconds: float) -> None:
        """Count a request that got an error."""
        with self._lock:
            self._fail.add(seconds)

    def document(self, name: str, version: str) -> dict[str, Any]:
        """Return the statistics of the model."""
        with self._lock:
            nothing, last = _Duration(), self._last
            return {
                "name": name,
                "version": version,
                "last_inference": 0 if last is None else round(last.timestamp() * 1e3),
                "inference_count": self._rows,
                "execution_count": self._success.count,
                "inference_stats": {
                    "success": self._success.document(),
                    "fail": self._fail.document(),
                    "queue": nothing.document(),
                    "compute_input": nothing.document(),
                    "compute_infer": self._compute.document(),
                    "compute_output": nothing.document(),
                    "cache_hit": nothing.document(),
                    "cache_miss": nothing.document(),
                },
                "batch_stats": [],
            }
