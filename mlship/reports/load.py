"""A load test as lines of text and as Markdown."""

from mlship.domain.load_report import LoadReport
from mlship.reports.formatting import escaped, moment, number, table

PICTURE = "latency.png"
_SHOWN_SECONDS = 60


def sentences(report: LoadReport) -> list[str]:
    """Return what a load test says, a line each."""
    result, total = report.result, report.result.total
    latencies = ", ".join(f"{name} {number(value)}" for name, value in _latencies(report))
    ended = f"{result.answered} of {total.requests} succeeded"
    lines = [
        f"{number(result.rate)} requests/s for {number(result.seconds)} s: {ended}",
        f"latency in ms, from the time when a request was due: {latencies}",
        f"the generator itself was late by {number(result.late_ms)} ms (p99)",
    ]
    lines += [f"{count} failed: {kind}" for kind, count in result.errors.items()]
    bound = report.limits.p99_ms
    if report.capacity is not None:
        replicas = _count(report.subject.replicas, "replica")
        lines.append(
            f"capacity: {number(report.capacity)} requests/s of {replicas} with a p99 of at most "
            f"{number(bound)} ms and no failure, found in {len(report.trials)} runs"
        )
    elif report.verdict is not None:
        word = report.verdict
        lines.append(f"the bound was {word}: p99 at most {number(bound)} ms, and no failure")
    return [*lines, *_replicas(report)]


def markdown(report: LoadReport) -> str:
    """Return a load test as a page; the picture is in a file beside it."""
    subject, limits = report.subject, report.limits
    about = [
        ("target", subject.name or "none"),
        ("endpoint", subject.endpoint),
        ("release", subject.release or "unknown"),
        ("replicas", str(subject.replicas)),
        ("requests", f"{len(subject.bodies)}, of {subject.source}"),
        ("users", str(limits.users)),
        ("processes of the generator", str(limits.processes)),
        ("time limit of a request", f"{number(limits.timeout)} s"),
        ("started", moment(report.started)),
    ]
    parts = [
        "# Load test",
        "\n".join(f"- {escaped(line)}" for line in sentences(report)),
        f"![latencies and requests by second]({PICTURE})",
        table(("latency", "ms"), [(name, number(value)) for name, value in _latencies(report)]),
        table(("", ""), [(name, escaped(value)) for name, value in about]),
        _trials(report),
        _series(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _latencies(report: LoadReport) -> list[tuple[str, float]]:
    total = report.result.total
    names = {"p100": "maximum"}
    values = [(names.get(name, name), value) for name, value in total.latency_ms.items()]
    return [("mean", total.mean_ms), *values]


def _replicas(report: LoadReport) -> list[str]:
    replicas = report.replicas
    if replicas is None:
        return []
    needed = _count(replicas.needed, "replica")
    each = f"each user sends {number(replicas.user_rate)} requests/s"
    share = f"{replicas.headroom:.0%} of its capacity of {number(replicas.capacity)} requests/s"
    return [
        f"{replicas.users:,} users need {needed}, if {each} and a replica uses {share}",
        f"autoscale by requests in flight: {replicas.in_flight} for each replica",
    ]


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _trials(report: LoadReport) -> str:
    if not report.trials:
        return ""
    rows = [
        (
            number(trial.rate),
            number(trial.p99_ms),
            str(trial.errors),
            trial.holding,
        )
        for trial in report.trials
    ]
    header = ("requests/s", "p99 ms", "failed", "bound")
    return "## Search\n\n" + table(header, rows)


def _series(report: LoadReport) -> str:
    """Return a row for each second; a page has only the first ones, the JSON file has all."""
    rows = [
        (
            str(each.second),
            str(each.requests),
            str(each.errors),
            *(number(each.latency_ms[name]) for name in ("p50", "p99", "p100")),
        )
        for each in report.result.series[:_SHOWN_SECONDS]
    ]
    left = len(report.result.series) - len(rows)
    header = ("second", "requests", "failed", "p50 ms", "p99 ms", "maximum ms")
    parts = [
        "## By second",
        "Requests count in the second in which they were due.",
        table(header, rows),
        *([f"{left} more seconds are in report.json."] if left > 0 else []),
    ]
    return "\n\n".join(parts)
