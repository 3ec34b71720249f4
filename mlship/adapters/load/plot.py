"""A picture of a load test: latencies and requests by second."""

from pathlib import Path

from mlship.domain.load import LoadResult

_COLOURS = {"p50": "#2166ac", "p99": "#b2182b", "p100": "#9aa5b1"}
_NAMES = {"p50": "p50", "p99": "p99", "p100": "maximum"}


def draw(result: LoadResult, title: str, path: Path) -> None:
    """Draw latencies and requests by the second in which they were due, into a PNG file.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    seconds = [each.second for each in result.series]
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for name, colour in reversed(_COLOURS.items()):
        values = [each.latency_ms[name] for each in result.series]
        above.plot(seconds, values, color=colour, label=_NAMES[name], marker=".", markersize=3)
    if result.total.latency_ms["p100"] > 0:
        above.set_yscale("log")
        above.yaxis.set_major_formatter("{x:g}")
    above.set_ylabel("latency (ms), from the time due")
    above.set_title(title)
    above.legend(loc="upper right", frameon=False)
    succeeded = [each.requests - each.errors for each in result.series]
    failed = [each.errors for each in result.series]
    below.bar(seconds, succeeded, width=1.0, color=_COLOURS["p50"], label="succeeded")
    below.bar(seconds, failed, bottom=succeeded, width=1.0, color=_COLOURS["p99"], label="failed")
    below.set_ylabel("requests/s")
    below.set_xlabel("second of the run")
    below.set_ylim(bottom=0)
    if any(failed):
        below.legend(loc="upper right", frameon=False)
    for axes in (above, below):
        axes.grid(visible=True, color="#e4e7eb")
        axes.set_axisbelow(True)
    figure.savefig(path, dpi=100)
