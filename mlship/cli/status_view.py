"""What `mlship status` shows of the targets, as text."""

from typing import TYPE_CHECKING, Any, Final

from mlship.cli import output
from mlship.domain import digests
from mlship.reports import override

_FEW: Final = 5

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlship.domain.deployment import Restarts
    from mlship.steps.ignored import Doubted, Void
    from mlship.steps.status import LastBatch, Status


def show_status(result: "Status", *, everything: bool) -> None:
    """Print what is known of the targets, and with `everything` all releases and champions."""
    if result.seen:
        output.table("", *running(result))
    elif not result.silent:
        output.line("nothing is running; to deploy the current commit, run `mlship run`")
    if result.override:
        output.alarm(override.sentence(result.override))
    for target, endpoint in result.endpoints.items():
        if endpoint:
            output.line(f"{target}: {endpoint}/docs")
    if everything:
        _history(result.reigns, result.releases)
    _clusters(result)
    _restarts(result)
    _remarks(result, everything=everything)


def running(result: "Status") -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the columns and rows of what runs, without columns in which nothing is."""
    columns = (
        *("target", "cluster", "release", "role", "traffic", "answers", "ready", "restarts"),
        "aliases",
    )
    rows = [
        (
            row.target,
            row.cluster,
            row.release,
            row.role,
            "shadow" if row.shadow else f"{row.weight} %",
            "" if row.answers is None else str(row.answers),
            f"{row.ready} of {row.wanted}" if row.observed else "unknown",
            _restarted(row.restarts),
            ", ".join(row.aliases),
        )
        for row in result.seen
    ]
    optional = ("cluster", "answers", "restarts")
    kept = [
        place
        for place, name in enumerate(columns)
        if name not in optional or any(row[place] for row in rows)
    ]
    return (
        tuple(columns[place] for place in kept),
        [tuple(row[place] for place in kept) for row in rows],
    )


def _restarted(restarts: "Restarts | None") -> str:
    """Return how often workers and pods were started again; empty if never."""
    if restarts is None:
        return ""
    parts = []
    if restarts.workers:
        hung = f" ({restarts.hung} hung)" if restarts.hung else ""
        parts.append(f"workers: {restarts.workers}{hung}")
    if restarts.replicas:
        parts.append(f"pods: {restarts.replicas}")
    return ", ".join(parts)


def _restarts(result: "Status") -> None:
    """Show why something was started again, and what is not known of it."""
    for row in result.seen:
        for reason in row.restarts.reasons if row.restarts else ():
            output.line(f"{row.target}: {row.release}: {reason}, and was started again")
    unknown = {
        (row.target, row.restarts.unknown)
        for row in result.seen
        if row.restarts and row.restarts.unknown
    }
    for target, text in sorted(unknown):
        output.line(f"{target}: not known: {text}")


def _clusters(result: "Status") -> None:
    for target, count in result.unanswered.items():
        if count:
            output.line(f"{target}: no release answered {count} requests")
    for target, clusters in result.clusters.items():
        for cluster in clusters:
            what = ", with the load balancer" if cluster.is_parent else ""
            what += "" if cluster.slots or cluster.fault else ", runs no release"
            output.line(f"{target}: cluster {cluster.name} is {cluster.place}{what}")


def described(record: "Void | Doubted") -> str:
    """Return what a record that does not count says, for people."""
    time = f"{record.time:%Y-%m-%d %H:%M:%S} UTC"
    return f"{record.step} of {record.release}, by {record.by} at {time}"


def _void(result: "Status", *, everything: bool) -> None:
    """Show records that do not count; the last few, if not all are asked for."""
    if not result.void:
        return
    output.line(
        f"{len(result.void)} records do not count: they were written by a command that had been "
        "stopped, after another one had taken over its lock. Nothing needs to be done"
    )
    lines = [
        f"{described(void)}, holder {void.holder} of the lock (record {digests.short(void.record)})"
        for void in result.void
    ]
    _last(lines, "mlship status --all", everything=everything)


def _untrusted(result: "Status", *, everything: bool) -> None:
    """Show records that are not trusted; the last few, if not all are asked for."""
    if not result.untrusted:
        return
    output.line(
        f"{len(result.untrusted)} records do not count, as nobody signed them who may say so. If "
        "you did not expect them, find out who can write to the ledger"
    )
    lines = [
        f"{described(each)} (record {digests.short(each.record)}): {each.reason}"
        for each in result.untrusted
    ]
    _last(lines, "mlship ledger verify", everything=everything)


def _last(lines: "Sequence[str]", command: str, *, everything: bool) -> None:
    shown = lines if everything else lines[-_FEW:]
    for line in shown:
        output.line(f"  {line}")
    if len(shown) < len(lines):
        output.line(f"  and {len(lines) - len(shown)} before; see `{command}`")


def _remarks(result: "Status", *, everything: bool) -> None:
    if result.approved:
        output.line(f"approvals of the challenger: {', '.join(result.approved)}")
    if result.waiting:
        output.line(f"waiting for the challenger's place: {', '.join(result.waiting)}")
    for other in result.others:
        output.line(f"the ledger also has records of another project, not used here: {other}")
    for text in (*_elsewhere(result), *result.undelivered):
        output.line(text)
    _void(result, everything=everything)
    _untrusted(result, everything=everything)
    for drift in result.drift:
        output.line(f"drift: {drift}")


def _elsewhere(result: "Status") -> list[str]:
    """Return what is to be said of batches, streams and schedules."""
    batches = [_batch(result.batch)] if result.batch else []
    streams = [result.stream.sentence] if result.stream else []
    return [
        *batches,
        *streams,
        *(schedule.alarm for schedule in result.schedules if schedule.alarm),
    ]


def _batch(last: "LastBatch") -> str:
    rejected = f", {last.rejected:,} rejected" if last.rejected else ""
    return (
        f"last batch: {last.verdict}, {last.rows:,} rows{rejected} by {last.release} at "
        f"{last.time:%Y-%m-%d %H:%M:%S} UTC, in {last.output}"
    )


def _history(reigns: Any, releases: Any) -> None:
    output.table(
        "champions",
        ("release", "since", "until", "by"),
        [
            (
                reign["release"],
                f"{reign['since']:%Y-%m-%d %H:%M:%S}",
                f"{reign['until']:%Y-%m-%d %H:%M:%S}" if reign["until"] else "now",
                reign["by"],
            )
            for reign in reigns
        ],
    )
    output.table(
        "releases",
        ("release", "commit", "role"),
        [(release["release"], release["commit"][:12], release["role"]) for release in releases],
    )
