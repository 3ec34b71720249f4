"""A report as Markdown: for a pull request, a step's summary, a file.

The verdict comes first, then the numbers; details are folded. All text from users is escaped: a
commit's subject cannot format, link, notify or run anything.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

from mlship.domain import checks, digests
from mlship.domain.attachments import FILES_MOST
from mlship.domain.facts import Evaluated, Tested, Trained, Verified
from mlship.domain.override import Overridden
from mlship.domain.suites import SuiteRun
from mlship.domain.watch import Watched
from mlship.reports import (
    attachments,
    comparison,
    container,
    formatting,
    matrix,
    outcomes,
    override,
    requests,
    training,
)
from mlship.reports.formatting import SENTENCES, escaped, folded, interval, number, signed, table
from mlship.reports.report import Approval, GateLine, Image, MetricLine, Moment, Report

NO_PICTURES: Final[Mapping[str, str]] = MappingProxyType({})


class Part(NamedTuple):
    """A part of a report. A detail is folded, and omitted first if there is too little space."""

    name: str
    text: str
    is_detail: bool = False


def render(report: Report, *, pictures: Mapping[str, str] = NO_PICTURES) -> str:
    """Return the report as GitHub-flavoured Markdown.

    Args:
        report: the report to show.
        pictures: URLs or paths of pictures that a reader can open, by their path in the report's
            folder, such as `plots/confusion.png`; the others are omitted.
    """
    return "\n\n".join(part.text for part in parts(report, pictures=pictures)) + "\n"


def parts(
    report: Report, *, pictures: Mapping[str, str] = NO_PICTURES, run: str = ""
) -> list[Part]:
    """Return the parts of the report that are not empty, the verdict first.

    Args:
        report: the report to show.
        pictures: as for `render`.
        run: the page of the CI run that made the report; it has the plots among its artifacts.
    """
    heading = f"## {formatting.EMOJI[report.verdict]} {escaped(report.title)}: {report.verdict}"
    all_parts = [
        Part("the verdict", f"{heading}\n\n{escaped(report.summary)}"),
        Part("the override", _overridden(report.override)),
        Part("production", escaped(report.production)),
        Part("links", _links(report, run)),
        Part("the training", _training(report)),
        Part("metrics", _metrics(report.metrics, report.tested)),
        Part("metrics of parts", _metrics_of_parts(report.metrics, report.tested), is_detail=True),
        Part("plots", _plots(report.tested, pictures), is_detail=True),
        Part("the confusion matrix", _confusion(report.tested, pictures, run)),
        Part("worse slices", comparison.slices(report.tested)),
        Part("data changes", comparison.data(report.tested)),
        Part("gates", _gates(report.gates)),
        Part("outcomes", _evaluated(report.evaluated)),
        Part("requests", _watched(report.watched)),
        Part("the container", _contained(report.image)),
        Part("the workload on staging", _verified(report.verified)),
        Part("tests", _suites(report.suites)),
        *_attached(report.trained, pictures, run),
        Part("approvals", _approvals(report.approvals)),
        Part("all slices", comparison.all_slices(report.tested), is_detail=True),
        Part("all columns", comparison.all_columns(report.tested), is_detail=True),
        Part("the provenance", _identity(report), is_detail=True),
        Part("the timeline", _timeline(report.timeline), is_detail=True),
    ]
    return [part for part in all_parts if part.text]


def _overridden(overridden: Overridden | None) -> str:
    """Return an override as an alert, which GitHub shows in red."""
    if overridden is None:
        return ""
    return f"> [!CAUTION]\n> {escaped(override.sentence(overridden), 1_000)}"


def _links(report: Report, run: str) -> str:
    """Return links to the run and the targets, without loopback URLs of other machines."""
    links = [f"[run]({run})"] if run else []
    for target, endpoint in (("staging", report.staging), ("production", report.endpoint)):
        host = urlsplit(endpoint).hostname or ""
        if endpoint.startswith(("http://", "https://")) and not _is_loopback(host):
            url = quote(endpoint.rstrip("/"), safe="/:.~-_[]@?=&%")
            links.append(f"[{target}](<{url}/docs>)")
    return " · ".join(links)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost")


def _metrics(metrics: Sequence[MetricLine], tested: Tested | None) -> str:
    if tested is None or not metrics:
        return ""
    about = f"On {tested.samples} held-out rows"
    if tested.champion_release:
        about += f", compared with champion {escaped(tested.champion_release)} on the same rows"
    if tested.champion_error:
        about += f". The champion could not be scored: {escaped(tested.champion_error)}"
    if tested.champion and tested.method:
        about += f" ({escaped(tested.method)})"
    whole = [line for line in metrics if not _is_part(line)]
    warnings = "".join(
        f"⚠️ {escaped(check.text, SENTENCES)}\n\n" for check in checks.warnings(tested.checks)
    )
    return f"{warnings}{about}:\n\n{_metrics_table(whole or metrics, tested)}"


def _metrics_of_parts(metrics: Sequence[MetricLine], tested: Tested | None) -> str:
    """Return the metrics of single targets, or of single quantiles, folded."""
    parts = [line for line in metrics if _is_part(line)]
    if tested is None or not parts or len(parts) == len(metrics):
        return ""
    return folded(f"Metrics of each part ({len(parts)})", _metrics_table(parts, tested))


def _is_part(line: MetricLine) -> bool:
    return line.name.endswith("]")


def _metrics_table(metrics: Sequence[MetricLine], tested: Tested) -> str:
    header = ["metric", "release"]
    cells: list[Callable[[MetricLine], str]] = [
        lambda line: escaped(line.name, 60),
        lambda line: number(line.release),
    ]
    if tested.champion:
        within = f"{formatting.percent(tested.confidence)} interval"
        header += ["champion", "difference", escaped(within)]
        cells += [
            lambda line: number(line.champion),
            lambda line: signed(line.difference),
            lambda line: interval(line.low, line.high),
        ]
    return table(header, [[cell(line) for cell in cells] for line in metrics])


def _gates(gates: Sequence[GateLine]) -> str:
    lines = []
    for gate in gates:
        lines.append(f"- {formatting.EMOJI[gate.verdict]} **{escaped(gate.name)}** {gate.verdict}")
        lines += [f"  - {escaped(reason, SENTENCES)}" for reason in gate.reasons]
    return "### Gates\n\n" + "\n".join(lines) if lines else ""


def _evaluated(evaluated: Evaluated | None) -> str:
    if evaluated is None:
        return ""
    champion = f"champion {escaped(evaluated.champion)}"
    rows = outcomes.rows(evaluated, champion, "this release")
    if not rows:
        return ""
    text = table([escaped(cell) for cell in outcomes.header(evaluated)], rows)
    sentence = outcomes.sentence(evaluated)
    more = f"\n\n{sentence} ({escaped(evaluated.method)})." if sentence else ""
    return f"### On outcomes\n\n{text}{more}"


def _watched(watched: Watched | None) -> str:
    if watched is None:
        return ""
    champion = f"champion {escaped(watched.champion)}"
    sides = watched.champion_side, watched.challenger_side
    rows = requests.rows(champion, sides[0], "this release", sides[1])
    return f"### On requests in production\n\n{table(requests.HEADER, rows)}"


def _contained(image: Image | None) -> str:
    if image is None:
        return ""
    title = escaped(container.title(image.digest, image.tested))
    text = f"### Container test\n\nThe {title}"
    names = escaped(container.attached(image.attached))
    attached = f"\n\n{names}." if names else ""
    if image.tested is None:
        return f"{text}.{attached}"
    cells = container.cells(image.tested)
    text += f":\n\n{table(list(cells), [[escaped(cell, 40) for cell in cells.values()]])}"
    return text + attached + _differed(image.tested.differences)


def _verified(verified: Verified | None) -> str:
    if verified is None:
        return ""
    header = ["requests", "errors", "mismatches", "p50 ms", "p99 ms"]
    row = [
        str(verified.requests),
        str(verified.errors),
        str(verified.mismatches),
        number(verified.p50_ms),
        number(verified.p99_ms),
    ]
    text = f"### Workload on staging\n\n{table(header, [row])}"
    return text + _differed(verified.differences)


def _differed(differences: Sequence[str]) -> str:
    if not differences:
        return ""
    lines = "\n".join(f"- {escaped(line, 300)}" for line in differences)
    return "\n\n" + folded(f"Differences ({len(differences)})", lines)


def _suites(suites: Sequence[SuiteRun]) -> str:
    if not suites:
        return ""
    rows = [
        [
            escaped(run.suite, 40),
            str(run.passed),
            str(run.failed),
            str(run.skipped),
            formatting.seconds(run.seconds),
        ]
        for run in suites
    ]
    text = f"### Tests\n\n{table(['suite', 'passed', 'failed', 'skipped', 'time'], rows)}"
    failures = [line for run in suites for line in _failures(run)]
    return text + ("\n\n" + "\n".join(failures) if failures else "")


def _failures(run: SuiteRun) -> list[str]:
    return [
        f"- {formatting.EMOJI['failed']} {escaped(run.suite, 40)}: {escaped(failure, 300)}"
        for failure in run.failures
    ]


def _approvals(approvals: Sequence[Approval]) -> str:
    lines = [
        f"- {escaped(approval.approver, 110)}, {formatting.moment(approval.time)} UTC"
        + (f": {escaped(approval.comment)}" if approval.comment else "")
        for approval in approvals
    ]
    return "### Approvals\n\n" + "\n".join(lines) if lines else ""


def _training(report: Report) -> str:
    return escaped(
        training.sentence(report.release, report.trained, report.tested, report.differing), 1_500
    )


def _confusion(tested: Tested | None, pictures: Mapping[str, str], run: str) -> str:
    if tested is None:
        return ""
    drawn = matrix.picture(tested.labels, tested.confusion)
    if not drawn:
        return ""
    unseen = [name for name in tested.plots if attachments.PLOTS + name not in pictures]
    more = f"\n\n[The plots]({run}#artifacts) are among the run's artifacts." if run else ""
    return folded("Confusion matrix", drawn + (more if unseen else ""))


def _plots(tested: Tested | None, pictures: Mapping[str, str]) -> str:
    """Return mlship's own pictures, such as the confusion matrix."""
    names = tested.plots if tested else ()
    urls = {name: pictures.get(attachments.PLOTS + name) for name in names}
    return "\n\n".join(attachments.picture(name, url) for name, url in urls.items() if url)


def _attached(trained: Trained | None, pictures: Mapping[str, str], run: str) -> Iterator[Part]:
    """Yield the files of `report.include`; the first has the heading of all."""
    if trained is None:
        return
    heading = "### Files of the project\n\n"
    for file in trained.attachments.files[:FILES_MOST]:
        text = attachments.shown(file, pictures)
        if text:
            yield Part(escaped(file.path, 120), heading + text, is_detail=True)
            heading = ""
    text = attachments.said(trained.attachments, pictures, run)
    if text:
        yield Part("files that are not shown", heading + text, is_detail=True)


def _identity(report: Report) -> str:
    release, trained = report.release, report.trained or Trained()
    rows = [["release", _code(report.id)], ["commit", _code(release.commit)]]
    if trained.commit:
        rows += [
            ["subject", escaped(trained.commit.subject)],
            ["branch", escaped(trained.commit.branch or formatting.MISSING, 80)],
            ["author", escaped(trained.commit.author, 80)],
        ]
    if release.dirty:
        rows.append(["uncommitted changes", escaped(trained.uncommitted or "yes", 300)])
    if trained.format:
        rows.append(["model", escaped(trained.format, 40)])
    rows += [["notes", escaped(note, SENTENCES)] for note in trained.notes]
    rows += [[name, _code(digests.short(digest))] for name, digest in release.parts.items()]
    return folded("Provenance", table(["", ""], rows))


def _timeline(timeline: Sequence[Moment]) -> str:
    if not timeline:
        return ""
    rows = [
        [
            formatting.moment(moment.time),
            escaped(moment.step, 60),
            f"{formatting.EMOJI[moment.verdict]} {moment.verdict}",
            formatting.seconds(moment.seconds),
            escaped(moment.actor, 60),
        ]
        for moment in timeline
    ]
    return folded("Timeline", table(["UTC", "step", "verdict", "time", "by"], rows))


def _code(text: str) -> str:
    """Return a digest or a commit as code; other text escaped."""
    return f"`{text}`" if text.replace(":", "").isalnum() else escaped(text, 80)
