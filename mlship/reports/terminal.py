"""A report in a terminal: tables that are readable without colour and in a narrow window."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlship.domain import checks, digests
from mlship.domain.evidence import Verdict
from mlship.domain.facts import Evaluated, Tested, Trained, Verified
from mlship.domain.suites import SuiteRun
from mlship.domain.watch import Watched
from mlship.reports import (
    comparison,
    container,
    formatting,
    outcomes,
    override,
    requests,
    training,
)
from mlship.reports.formatting import SENTENCES, interval, number, short, signed
from mlship.reports.report import Approval, GateLine, Image, MetricLine, Moment, Report

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

COLOURS: dict[Verdict, str] = {"passed": "green", "failed": "red", "undecided": "yellow"}


def show(report: Report, console: "Console") -> None:
    """Print the report. Text from users is printed without markup and control characters."""
    from rich.text import Text

    console.print(Text.assemble(marked(report.verdict), " ", (short(report.title), "bold")))
    console.print(Text(short(report.summary)))
    if report.override:
        console.print(Text(short(override.sentence(report.override), 1_000), style="red"))
    told = training.sentence(report.release, report.trained, report.tested, report.differing)
    if told:
        console.print(Text(short(told, 1_500)))
    _metrics(report.metrics, report.tested, console)
    _slices(report.tested, console)
    _data(report.tested, console)
    _gates(report.gates, console)
    _evaluated(report.evaluated, console)
    _watched(report.watched, console)
    _contained(report.image, console)
    _verified(report.verified, console)
    _suites(report.suites, console)
    _approvals(report.approvals, console)
    _identity(report, console)
    _timeline(report.timeline, console)


def marked(verdict: Verdict) -> "Text":
    """Return a verdict as a symbol and a word, in colour if the terminal has colours."""
    from rich.text import Text

    return Text(f"{formatting.SYMBOLS[verdict]} {verdict}", style=COLOURS[verdict])


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence["str | Text"]]) -> "Table":
    """Return a table without a frame; cells are text, never rich's markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    result = Table(
        title=Text(short(title)) if title else None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_header=any(columns),
    )
    for column in columns:
        result.add_column(Text(short(column, 40)), overflow="fold")
    for row in rows:
        result.add_row(
            *(Text(short(cell, SENTENCES)) if isinstance(cell, str) else cell for cell in row)
        )
    return result


def _metrics(metrics: Sequence[MetricLine], tested: Tested | None, console: "Console") -> None:
    if tested is None or not metrics:
        return
    title = f"On {tested.samples} held-out rows"
    columns = ["metric", "release"]
    rows = [[line.name, number(line.release)] for line in metrics]
    if tested.champion:
        title += f", compared with champion {tested.champion_release or ''}"
        columns += ["champion", "difference", f"{formatting.percent(tested.confidence)} interval"]
        for row, line in zip(rows, metrics, strict=True):
            row += [number(line.champion), signed(line.difference), interval(line.low, line.high)]
    _print(console, title, columns, rows)
    for check in checks.warnings(tested.checks):
        _line(console, checks.line(check))
    if tested.champion_error:
        _line(console, f"the champion could not be scored: {tested.champion_error}")


def _slices(tested: Tested | None, console: "Console") -> None:
    if tested is None or tested.slices is None:
        return
    worst = comparison.of_slices(tested.slices, comparison.worst(tested.slices))
    if worst.rows:
        _print(console, "Worse slices", worst.header, worst.rows)
    else:
        console.print()
    _line(console, comparison.slices_line(tested.slices))


def _data(tested: Tested | None, console: "Console") -> None:
    if tested is None or tested.shifts is None:
        return
    rows = [[line] for line in comparison.data_lines(tested.shifts)]
    _print(console, "Training data compared with the champion", [""], rows)


def _gates(gates: Sequence[GateLine], console: "Console") -> None:
    rows = [
        [gate.name if first else "", marked(gate.verdict) if first else "", reason]
        for gate in gates
        for first, reason in zip(
            [True, *[False] * len(gate.reasons)], gate.reasons or ("",), strict=False
        )
    ]
    if rows:
        _print(console, "Gates", ["gate", "verdict", "reasons"], rows)


def _evaluated(evaluated: Evaluated | None, console: "Console") -> None:
    if evaluated is None:
        return
    rows = outcomes.rows(evaluated, f"champion {evaluated.champion}", "this release")
    if rows:
        _print(console, "On outcomes", outcomes.header(evaluated), rows)
    if sentence := outcomes.sentence(evaluated):
        _line(console, f"{sentence} ({evaluated.method})")


def _watched(watched: Watched | None, console: "Console") -> None:
    if watched is None:
        return
    champion, sides = (
        f"champion {watched.champion}",
        (watched.champion_side, watched.challenger_side),
    )
    rows = requests.rows(champion, sides[0], "this release", sides[1])
    _print(console, "On requests in production", requests.HEADER, rows)


def _contained(image: Image | None, console: "Console") -> None:
    if image is None:
        return
    title = container.title(image.digest, image.tested)
    attached = container.attached(image.attached)
    if image.tested is None:
        console.print()
        _line(console, title)
    else:
        cells = container.cells(image.tested)
        _print(console, f"Container test: {title}", list(cells), [list(cells.values())])
    if attached:
        _line(console, attached)
    for line in image.tested.differences if image.tested else ():
        _line(console, line)


def _verified(verified: Verified | None, console: "Console") -> None:
    if verified is None:
        return
    counts = (verified.requests, verified.errors, verified.mismatches)
    row = [*map(str, counts), number(verified.p50_ms), number(verified.p99_ms)]
    columns = ["requests", "errors", "mismatches", "p50 ms", "p99 ms"]
    _print(console, "Workload on staging", columns, [row])
    for line in verified.differences:
        _line(console, line)


def _suites(suites: Sequence[SuiteRun], console: "Console") -> None:
    if not suites:
        return
    rows = [
        [
            run.suite,
            str(run.passed),
            str(run.failed),
            str(run.skipped),
            formatting.seconds(run.seconds),
        ]
        for run in suites
    ]
    _print(console, "Tests", ["suite", "passed", "failed", "skipped", "time"], rows)
    for run in suites:
        for failure in run.failures:
            _line(console, f"{formatting.SYMBOLS['failed']} {run.suite}: {failure}")


def _approvals(approvals: Sequence[Approval], console: "Console") -> None:
    rows = [
        [approval.approver, formatting.moment(approval.time), approval.comment]
        for approval in approvals
    ]
    if rows:
        _print(console, "Approvals", ["by", "UTC", "comment"], rows)


def _identity(report: Report, console: "Console") -> None:
    release, trained = report.release, report.trained or Trained()
    rows = [["release", report.id], ["commit", release.commit + " (dirty)" * release.dirty]]
    if trained.uncommitted:
        rows.append(["uncommitted changes", trained.uncommitted])
    if trained.commit:
        rows += [["subject", trained.commit.subject], ["author", trained.commit.author]]
    rows += [[name, digests.short(digest)] for name, digest in release.parts.items()]
    rows += [["note", note] for note in trained.notes]
    rows += [["file", file.path] for file in trained.attachments.files]
    rows += [["not a file", line] for line in trained.attachments.missing]
    _print(console, "Provenance", ["", ""], rows)


def _timeline(timeline: Sequence[Moment], console: "Console") -> None:
    rows: list[list[str | Text]] = [
        [
            formatting.moment(moment.time),
            moment.step,
            marked(moment.verdict),
            formatting.seconds(moment.seconds),
            moment.actor,
        ]
        for moment in timeline
    ]
    if rows:
        _print(console, "Timeline", ["UTC", "step", "verdict", "time", "by"], rows)


def _print(
    console: "Console",
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence["str | Text"]],
) -> None:
    console.print()
    console.print(table(title, columns, rows))


def _line(console: "Console", text: str) -> None:
    from rich.text import Text

    console.print(Text("  " + short(text, SENTENCES)))
