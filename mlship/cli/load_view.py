"""A load test while it runs, on stderr: a chart on a terminal, a line a second in a log."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Self

from mlship.cli.progress import Lines
from mlship.domain.load import LoadResult, Measured

if TYPE_CHECKING:
    from rich.live import Live

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_ROWS: Final = 8
_MARGIN: Final = 12
_NAMES: Final = {"p50": "p50", "p99": "p99", "p100": "max"}


class LoadLines:
    """Prints a line for each second of a run."""

    def __init__(self) -> None:
        self._printed = 0
        self._lines = Lines()

    def __enter__(self) -> Self:
        """Start showing runs."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: every line has been printed."""

    def started(self, rate: float) -> None:
        """Print that a run at a rate starts."""
        self._printed = 0
        self._lines.note(f"sending {rate:.4g} requests/s")

    def watch(self, result: LoadResult) -> None:
        """Print the seconds before the last one, whose requests may not be due yet."""
        for measured in result.series[self._printed : -1]:
            self._lines.note(f"second {measured.second}: {told(measured)}")
        self._printed = max(self._printed, len(result.series) - 1)


class LoadView:
    """A live chart of the latencies, for a terminal."""

    def __init__(self) -> None:
        self._result: LoadResult | None = None
        self._rate = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Start the live view."""
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        self._live = Live(
            get_renderable=lambda: self._drawn(console.width), console=console, refresh_per_second=4
        )
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state on the screen."""
        if self._live:
            self._live.__exit__(None, None, None)

    def started(self, rate: float) -> None:
        """Show that a run at a rate starts."""
        self._rate, self._result = rate, None

    def watch(self, result: LoadResult) -> None:
        """Show the result so far."""
        self._result = result

    def _drawn(self, width: int) -> Any:
        from rich.text import Text

        if self._result is None:
            return Text(f"sending {self._rate:.4g} requests/s")
        result = self._result
        second = len(result.series)
        lines = [
            f"{self._rate:.4g} requests/s, second {second} of {result.seconds:g}",
            told(result.total),
            *chart(result.series, width),
            f"the generator itself is late by {result.late_ms:g} ms (p99)",
            *(f"{count} failed: {kind}" for kind, count in result.errors.items()),
        ]
        return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")


def told(measured: Measured) -> str:
    """Return one line about a second or a run."""
    latencies = ", ".join(
        f"{name} {measured.latency_ms[key]:.4g} ms" for key, name in _NAMES.items()
    )
    return f"{measured.requests} requests, {measured.errors} failed, {latencies}"


def chart(series: Sequence[Measured], width: int) -> list[str]:
    """Return the p99 of the last seconds as columns, on a scale of powers of ten."""
    values = [each.latency_ms["p99"] for each in series][-max(1, width - _MARGIN) :]
    positive = [value for value in values if value > 0]
    if not positive:
        return []
    low = math.floor(math.log10(min(positive)))
    high = max(low + 1, math.ceil(math.log10(max(positive))))
    rows = []
    for row in reversed(range(_ROWS)):
        cells = "".join(_cell(value, row, low, high) for value in values)
        exponent = low + (high - low) * (row + 1) / _ROWS
        rows.append(f"{10**exponent:>8.3g} ms {cells}")
    return [f"{'p99':>8}", *rows]


def _cell(value: float, row: int, low: int, high: int) -> str:
    """Return how much of a row a column fills; a value is at least a thin line."""
    if value <= 0:
        return " "
    share = (math.log10(value) - low) / (high - low)
    eighths = max(1, round(share * _ROWS * 8)) - row * 8
    return _BLOCKS[min(8, max(0, eighths))]
