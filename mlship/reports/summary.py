"""The result of a step in one line: numbers, or a link."""

from functools import singledispatch

from mlship.domain import checks, gates, shapes
from mlship.domain.batch_record import Batched
from mlship.domain.evidence import Record
from mlship.domain.facts import (
    Contained,
    Containerized,
    Crowned,
    Deployed,
    Facts,
    Judged,
    Number,
    PushedImage,
    Staged,
    Tested,
    Trained,
    Verified,
    Waiting,
)
from mlship.domain.removal import Erased, Pruned, PrunedImages
from mlship.domain.ticks import Ticked
from mlship.domain.watch import Watched
from mlship.reports import formatting


def summary(record: Record) -> str:
    """Return the result of a step in one line; the reasons if it did not pass."""
    facts, evidence = shapes.read(record), record.evidence
    if evidence.verdict != "passed" and isinstance(facts, Judged):
        return checks.joined(checks.failed(facts.checks))
    if isinstance(facts, Trained):
        warnings = map(checks.line, gates.on_exposure(facts.exposed))
        return "; ".join([f"{evidence.release} ({facts.format})", *warnings])
    return _line(facts)


@singledispatch
def _line(_facts: Facts) -> str:
    return ""


@_line.register
def _(facts: Tested) -> str:
    metrics = ", ".join(f"{name} {_number(value)}" for name, value in facts.metrics.items())
    return "; ".join([metrics, *map(checks.line, checks.warnings(facts.checks))])


@_line.register
def _(facts: Containerized) -> str:
    return f"{facts.digest[:19]}, {facts.size / 1e6:.0f} MB"


@_line.register
def _(facts: PushedImage) -> str:
    return f"{facts.reference}, {facts.sent / 1e6:.1f} MB sent"


@_line.register
def _(facts: Contained) -> str:
    ready = f"ready after {facts.ready_seconds} s, {facts.requests} requests"
    return f"{ready}, {formatting.megabytes(facts.size)} MB"


@_line.register
def _(facts: Staged) -> str:
    return f"{facts.endpoint}/docs"


@_line.register
def _(facts: Verified) -> str:
    return f"{facts.requests} requests, p99 {facts.p99_ms} ms"


@_line.register
def _(facts: Deployed) -> str:
    share = "shadow" if facts.shadow else f"{facts.weight} %"
    lost = "" if facts.predictions_last else "; its predictions are lost when its pods stop"
    where = f", cluster {facts.cluster}" if facts.cluster else ""
    same = "; the same model as the champion" if facts.same_model else ""
    return f"{facts.role}, {share}{where}, {facts.endpoint}/docs{lost}{same}"


@_line.register
def _(facts: Waiting) -> str:
    turn = "its turn" if facts.policy == "queue" else "its place"
    return f"waits for {turn}: {facts.behind} is challenger"


@_line.register
def _(facts: Batched) -> str:
    rejected = f", {facts.rejected:,} rejected" if facts.rejected else ""
    side = f" as {facts.side} ({facts.share} %)" if facts.side else ""
    side = f" in the shadow of {facts.shadowed}" if facts.is_shadow else side
    place = facts.table or facts.output
    rows, parts = (
        f"{count:,} {noun}{'' if count == 1 else 's'}"
        for count, noun in ((facts.rows, "row"), (facts.parts, "part"))
    )
    return f"{rows} in {parts}{rejected}, in {place}{side}"


@_line.register
def _(facts: Watched) -> str:
    return facts.reason


@_line.register
def _(facts: Ticked) -> str:
    planned = f"{facts.planned:%Y-%m-%d %H:%M} UTC" if facts.planned else ""
    ended = [
        each.command + (f" ended with exit code {each.exit_code}" if each.exit_code else "")
        for each in facts.commands
    ]
    what = ", ".join(ended) if facts.outcome == "ran" else "nobody fired it"
    missed = f"; {facts.missed} before it were missed" if facts.missed else ""
    return f"schedule {facts.schedule}, {planned}: {what}{missed}"


@_line.register
def _(facts: Erased) -> str:
    return f"{sum(facts.predictions.values())} predictions, {facts.outcomes} outcomes"


@_line.register
def _(facts: Pruned) -> str:
    text = f"{sum(facts.predictions.values())} predictions, {facts.outcomes} outcomes"
    return f"{text}, before {facts.before:%Y-%m-%d}" if facts.before else text


@_line.register
def _(facts: PrunedImages) -> str:
    return f"{len(facts.removed)} removed from {facts.repository}"


@_line.register
def _(facts: Crowned) -> str:
    return f"{facts.old} -> {facts.new}"


def _number(value: Number) -> str:
    return f"{value:.3f}" if isinstance(value, float | int) else str(value)
