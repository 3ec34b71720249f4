"""How fast the rows of a batch are scored."""

from collections.abc import Callable, Collection
from typing import Final

from mlship.steps.pipeline import Pipeline

_NOTE_SECONDS: Final = 5.0


class Pace:
    """Tells how fast rows are scored, and when the end is expected."""

    def __init__(self, pipeline: Pipeline, parts: int, timer: Callable[[], float]) -> None:
        self._progress, self._clock = pipeline.progress, pipeline.clock
        self._parts = parts
        self._timer = timer
        self._began = self._told = timer()
        self._own = self._rows = 0

    def tell(self, done: Collection[str], rows: int) -> None:
        """Note the pace now and then."""
        self._own += 1
        self._rows += rows
        now = self._timer()
        # The first part waits until the model is loaded, which says nothing of the pace.
        if now - self._told < _NOTE_SECONDS or self._own == 1:
            return
        self._told = now
        seconds = max(now - self._began, 1e-6)
        left = seconds / self._own * (self._parts - len(done))
        self._progress.note(
            f"{len(done)} of {self._parts} parts, {self._rows / seconds:,.0f} rows/s, "
            f"about {_duration(left)} left"
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"
